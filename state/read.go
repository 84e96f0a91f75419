package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"flowrun.dev/flow/engine"
)

// causeWaited is why an attempt was cut short that held a step which waited for a person.
const causeWaited = "it waited for a person; the run went on later"

// causeDied is why a run is interrupted whose process left no word of its end.
const causeDied = "the process that ran it ended without a word (kill -9, crash or power loss)"

// RunInfo is a run's row as readers see it.
type RunInfo struct {
	ID          string
	Workflow    string // name
	Path        string // of its file, relative to the project's root
	FlowVersion string
	// Status is derived: a run that says running and has no owner is interrupted.
	Status   engine.RunStatus
	Class    engine.Class
	Cause    string // in words
	Created  time.Time
	Updated  time.Time // of its last event
	Finished time.Time // zero while it is running, and when its process just ended
	Attempt  int       // 1, and 1 more with each resume
	LastSeq  int64
	// Checkpoint is the newest one that an event named, "" for none.
	Checkpoint string
	// Steps counts those that an event spoke of, by status.
	Steps map[engine.StepStatus]int
	// Planned is how many steps the definition has, begun or not.
	Planned int
	// ForkedFrom is the run that it began as a copy of, "" for none, ForkPoint where
	// in words. That run may have been removed since.
	ForkedFrom, ForkPoint string
	// Pinned runs are never removed by gc.
	Pinned bool
	// Holder is who owns it now, nil when nobody does.
	Holder *Holder
}

// Filter of Runs. The zero value asks for all.
type Filter struct {
	Workflow string             // by name, "" for all
	Status   []engine.RunStatus // as derived; nil for all
	Limit    int                // newest first; 0 for all
}

const selectRun = "SELECT key, id, workflow, path, flow_version, status, class, cause, created_at, updated_at, coalesce(finished_at, 0), attempt, last_seq, coalesce(checkpoint, ''), forked_from, pinned, (SELECT count(*) FROM json_each(kinds)) FROM runs "

func scanRun(rows *sql.Rows) (key int64, r RunInfo, err error) {
	var created, updated, finished int64
	var fork string
	err = rows.Scan(&key, &r.ID, &r.Workflow, &r.Path, &r.FlowVersion, &r.Status, &r.Class, &r.Cause, &created, &updated, &finished, &r.Attempt, &r.LastSeq, &r.Checkpoint, &fork, &r.Pinned, &r.Planned)
	r.ForkedFrom, r.ForkPoint, _ = strings.Cut(fork, "/")
	r.Created, r.Updated, r.Finished = fromNano(created), fromNano(updated), fromNano(finished)
	return key, r, err
}

// Runs lists runs, newest first.
func (s *Store) Runs(ctx context.Context, f Filter) ([]RunInfo, error) {
	var out []RunInfo
	var keys []int64
	query, args := selectRun, []any(nil)
	if f.Workflow != "" {
		query, args = query+"WHERE workflow = ? ", []any{f.Workflow}
	}
	query += "ORDER BY key DESC"
	if f.Limit > 0 && len(f.Status) == 0 {
		query += fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	err := s.each(ctx, query, args, func(rows *sql.Rows) error {
		key, r, err := scanRun(rows)
		out, keys = append(out, r), append(keys, key)
		return err
	})
	if err != nil {
		return nil, wrap("list runs", err)
	}
	kept := out[:0]
	for i := range out {
		if err := s.derive(ctx, &out[i]); err != nil {
			return nil, wrap("list runs", err)
		}
		if !f.matches(&out[i]) {
			continue
		}
		if err := s.countSteps(ctx, keys[i], &out[i]); err != nil {
			return nil, wrap("list runs", err)
		}
		kept = append(kept, out[i])
		if len(kept) == f.Limit {
			break
		}
	}
	return kept, nil
}

func (f *Filter) matches(r *RunInfo) bool {
	if len(f.Status) == 0 {
		return true
	}
	for _, st := range f.Status {
		if st == r.Status {
			return true
		}
	}
	return false
}

// Run reads one run by its whole id; ErrNotFound when there is none.
func (s *Store) Run(ctx context.Context, id string) (RunInfo, error) {
	r, key, err := s.runRow(ctx, id)
	if err == nil {
		err = s.derive(ctx, &r)
	}
	if err == nil {
		err = s.countSteps(ctx, key, &r)
	}
	return r, wrap("read run "+id, err)
}

func (s *Store) runRow(ctx context.Context, id string) (r RunInfo, key int64, err error) {
	found := false
	err = s.each(ctx, selectRun+"WHERE id = ?", []any{id}, func(rows *sql.Rows) (err error) {
		found = true
		key, r, err = scanRun(rows)
		return err
	})
	if err == nil && !found {
		err = ErrNotFound
	}
	return r, key, err
}

// derive sets what the row cannot know: whether somebody still runs it.
func (s *Store) derive(ctx context.Context, r *RunInfo) error {
	if r.Status != engine.RunRunning {
		return nil
	}
	h, alive, err := s.Holder(r.ID)
	if err != nil {
		return err
	}
	if alive {
		r.Holder = &h
		return nil
	}
	// The owner may have stored the end and gone between the row and the lock.
	again, _, err := s.runRow(ctx, r.ID)
	if err != nil {
		return err
	}
	*r = again
	if r.Status == engine.RunRunning {
		r.Status, r.Cause = engine.RunInterrupted, causeDied
	}
	return nil
}

func (s *Store) countSteps(ctx context.Context, key int64, r *RunInfo) error {
	r.Steps = map[engine.StepStatus]int{}
	return s.each(ctx, "SELECT status, count(*) FROM steps WHERE run = ? GROUP BY status", []any{key}, func(rows *sql.Rows) error {
		var st engine.StepStatus
		var n int
		err := rows.Scan(&st, &n)
		r.Steps[died(r, st)] += n
		return err
	})
}

// died is a step's status as its run's owner left it: what ran when the process
// ended was interrupted.
func died(r *RunInfo, st engine.StepStatus) engine.StepStatus {
	if st == engine.StepRunning && r.Status == engine.RunInterrupted {
		return engine.StepInterrupted
	}
	return st
}

// Resolve finds the run that a word names: a whole id, the beginning of one,
// "latest", or "latest-failed" (the newest that did not succeed and is not
// running). *AmbiguousError lists the candidates; ErrNotFound when there is none.
func (s *Store) Resolve(ctx context.Context, word string) (string, error) {
	switch word {
	case "latest":
		return s.newest(ctx, word, Filter{Limit: 1})
	case "latest-failed":
		return s.newest(ctx, word, Filter{Limit: 1, Status: []engine.RunStatus{
			engine.RunFailed, engine.RunCancelled, engine.RunInterrupted, engine.RunOutOfBudget, engine.RunRateLimited}})
	}
	if err := validRunID(word); err != nil {
		return "", fmt.Errorf("find run: %w", err)
	}
	var ids []string
	err := s.each(ctx, "SELECT id FROM runs WHERE id >= ? AND id < ? ORDER BY id LIMIT 11", []any{word, word + "\x7f"}, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	})
	switch {
	case err != nil:
		return "", wrap("find run "+word, err)
	case len(ids) == 0:
		return "", fmt.Errorf("find run %q: %w", word, ErrNotFound)
	case len(ids) == 1 || ids[0] == word:
		return ids[0], nil
	}
	return "", &AmbiguousError{Prefix: word, Candidates: ids}
}

func (s *Store) newest(ctx context.Context, word string, f Filter) (string, error) {
	runs, err := s.Runs(ctx, f)
	if err != nil {
		return "", err
	}
	if len(runs) == 0 {
		return "", fmt.Errorf("find run %q: %w", word, ErrNotFound)
	}
	return runs[0].ID, nil
}

// Events reads a run's events after a number (0: all), in order.
func (s *Store) Events(ctx context.Context, id string, after int64) ([]engine.Event, error) {
	var rows []eventRow
	known := false
	err := s.each(ctx, `SELECT e.seq, e.at, e.type, e.body FROM runs r LEFT JOIN events e
		ON e.id > (r.key << 32) | ? AND e.id < (r.key + 1) << 32 WHERE r.id = ? ORDER BY e.id`, []any{after, id}, func(r *sql.Rows) error {
		known = true
		var seq, at sql.NullInt64
		var row eventRow
		var typ sql.NullString
		if err := r.Scan(&seq, &at, &typ, &row.body); err != nil || !seq.Valid {
			return err
		}
		if want := after + 1 + int64(len(rows)); seq.Int64 != want {
			return fmt.Errorf("%w: event %d is missing", ErrCorrupt, want)
		}
		row.seq, row.at, row.typ = seq.Int64, at.Int64, typ.String
		rows = append(rows, row)
		return nil
	})
	if err == nil && !known {
		err = ErrNotFound
	}
	var out []engine.Event
	if err == nil {
		out, err = decodeEvents(rows)
	}
	return out, wrap("read events of run "+id, err)
}

// Start reads a run's first event: with the definition that it froze.
func (s *Store) Start(ctx context.Context, id string) (engine.RunStarted, error) {
	var out engine.RunStarted
	found := ErrNotFound
	err := s.each(ctx, `SELECT e.type, e.body FROM runs r JOIN events e ON e.id = (r.key << 32) | 1 WHERE r.id = ?`, []any{id}, func(r *sql.Rows) error {
		var row eventRow
		if err := r.Scan(&row.typ, &row.body); err != nil {
			return err
		}
		b, wrong := engine.Decode(row.typ, row.body)
		if out, _ = b.(engine.RunStarted); wrong == nil && out.RunID == "" {
			wrong = fmt.Errorf("%w: its first event is %s", ErrCorrupt, row.typ)
		}
		found = nil
		return wrong
	})
	if err == nil {
		err = found
	}
	return out, wrap("read the start of run "+id, err)
}

// eventRow is an event as it is stored.
type eventRow struct {
	seq, at int64
	typ     string
	body    []byte
}

// decodeTogether is from how many events on all processors decode: it takes two
// thirds of reading a long run.
const decodeTogether = 256

func decodeEvents(rows []eventRow) ([]engine.Event, error) {
	out := make([]engine.Event, len(rows))
	part := func(from, to int) error {
		for i, r := range rows[from:to] {
			b, err := engine.Decode(r.typ, r.body)
			if err != nil {
				return fmt.Errorf("event %d: %w", r.seq, err)
			}
			out[from+i] = engine.Event{Seq: r.seq, At: fromNano(r.at), Body: b}
		}
		return nil
	}
	if len(rows) < decodeTogether {
		return out, part(0, len(rows))
	}
	var g errgroup.Group
	size := (len(rows) + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0)
	for from := 0; from < len(rows); from += size {
		g.Go(func() error { return part(from, min(from+size, len(rows))) })
	}
	return out, g.Wait()
}

// StepInfo is where a step is. Steps that no event spoke of yet are not listed.
type StepInfo struct {
	Step    string
	Status  engine.StepStatus
	Attempt int
	Seq     int64 // of the event that moved it last
	Reason  string
}

// Steps reads where the steps of a run are, in the order in which they moved last.
func (s *Store) Steps(ctx context.Context, id string) ([]StepInfo, error) {
	r, key, err := s.runRow(ctx, id)
	if err == nil {
		err = s.derive(ctx, &r)
	}
	var out []StepInfo
	if err == nil {
		err = s.each(ctx, "SELECT step, status, attempt, seq, reason FROM steps WHERE run = ? ORDER BY seq, step", []any{key}, func(rows *sql.Rows) error {
			var st StepInfo
			err := rows.Scan(&st.Step, &st.Status, &st.Attempt, &st.Seq, &st.Reason)
			st.Status = died(&r, st.Status)
			out = append(out, st)
			return err
		})
	}
	return out, wrap("read steps of run "+id, err)
}

// Record is the execution record of one attempt.
type Record struct {
	Step       string
	Attempt    int
	Kind       string
	Checkpoint string
	// Outcome as it was stored. Status is running while the attempt runs; only
	// Started is set beside it then.
	Outcome engine.Outcome
}

// Records reads the execution records of a run, in the order in which they began.
func (s *Store) Records(ctx context.Context, id string) ([]Record, error) {
	r, key, err := s.runRow(ctx, id)
	if err == nil {
		err = s.derive(ctx, &r)
	}
	var out []Record
	if err == nil {
		err = s.each(ctx, `SELECT step, attempt, kind, status, class, started_at, duration, exit_code, error, command, outputs,
			stdout_head, stdout_tail, stdout_bytes, stderr_head, stderr_tail, stderr_bytes,
			log, checkpoint, sandbox, changed_count, changed, leftover, max_rss, agent, usage FROM records WHERE run = ? ORDER BY key`, []any{key},
			func(rows *sql.Rows) error {
				rec, err := scanRecord(rows)
				if err != nil {
					return err
				}
				if was := rec.Outcome.Status; was != died(&r, was) {
					rec.Outcome.Status, rec.Outcome.Error = engine.StepInterrupted, causeDied
				}
				out = append(out, rec)
				return nil
			})
	}
	return out, wrap("read records of run "+id, err)
}

func scanRecord(rows *sql.Rows) (rec Record, err error) {
	o := &rec.Outcome
	var started int64
	var outputs, changed, agent, usage []byte
	err = rows.Scan(&rec.Step, &rec.Attempt, &rec.Kind, &o.Status, &o.Class, &started, &o.Duration, &o.ExitCode, &o.Error, &o.Command, &outputs,
		&o.Stdout.Head, &o.Stdout.Tail, &o.Stdout.Bytes, &o.Stderr.Head, &o.Stderr.Tail, &o.Stderr.Bytes,
		&o.Log, &rec.Checkpoint, &o.SandboxID, &o.ChangedCount, &changed, &o.Leftover, &o.MaxRSS, &agent, &usage)
	if err != nil {
		return rec, err
	}
	o.Started = fromNano(started)
	for _, f := range []struct {
		b  []byte
		to any
	}{{outputs, &o.Outputs}, {changed, &o.Changed}, {agent, &o.Agent}, {usage, &o.Usage}} {
		if f.b == nil {
			continue
		}
		if err := json.Unmarshal(f.b, f.to); err != nil {
			return rec, fmt.Errorf("%w: record of step %q: %w", ErrCorrupt, rec.Step, err)
		}
	}
	return rec, nil
}

// each runs a query and calls f for every row.
func (s *Store) each(ctx context.Context, query string, args []any, f func(*sql.Rows) error) (err error) {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Watch tells a follower cheaply whether anything was stored since it asked last.
type Watch struct {
	conn *sql.Conn
	last int64
}

// Watch opens a follower's own connection. Close it.
func (s *Store) Watch(ctx context.Context) (*Watch, error) {
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return nil, wrap("watch state", err)
	}
	return &Watch{conn: conn}, nil
}

// Changed reports whether something may have been stored since the last call, of
// any run and by any process; the first call says yes. It reads a counter in
// shared memory (PRAGMA data_version), no table.
func (w *Watch) Changed(ctx context.Context) (bool, error) {
	var v int64
	if err := w.conn.QueryRowContext(ctx, "PRAGMA data_version").Scan(&v); err != nil {
		return false, wrap("watch state", err)
	}
	changed := v != w.last
	w.last = v
	return changed, nil
}

// Close ends the watch.
func (w *Watch) Close() error { return w.conn.Close() }

// CheckIntegrity looks for damage: in the database's structure, in references,
// and in what each run says of itself. ErrCorrupt with what was found.
func (s *Store) CheckIntegrity(ctx context.Context) error {
	var found []string
	add := func(rows *sql.Rows) error {
		var line string
		err := rows.Scan(&line)
		if line != "ok" {
			found = append(found, line)
		}
		return err
	}
	for _, query := range []string{
		"PRAGMA integrity_check(20)",
		`SELECT 'row ' || rowid || ' of ' || "table" || ' refers to nothing' FROM pragma_foreign_key_check LIMIT 20`,
		`SELECT 'run ' || r.id || ' has ' || count(e.id) || ' events, its row says ' || r.last_seq FROM runs r
			LEFT JOIN events e ON e.run = r.key AND e.seq <= r.last_seq GROUP BY r.key HAVING count(e.id) <> r.last_seq LIMIT 20`,
		`SELECT 'run ' || r.id || ' has an event after its last' FROM runs r JOIN events e ON e.id > (r.key << 32) | r.last_seq AND e.id < (r.key + 1) << 32 LIMIT 20`,
		`SELECT 'checkpoint ' || c.id || ' builds on a row that is not there' FROM checkpoints c
			WHERE c.base IS NOT NULL AND NOT EXISTS (SELECT 1 FROM checkpoints b WHERE b.key = c.base) LIMIT 20`,
	} {
		if err := s.each(ctx, query, nil, add); err != nil {
			return wrap("check state", err)
		}
	}
	if len(found) > 0 {
		return corrupt("check state", "%s", strings.Join(found, "; "))
	}
	return nil
}
