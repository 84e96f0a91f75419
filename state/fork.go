package state

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"flowrun.dev/flow/engine"
)

// Fork describes a new run that begins with the history of another one.
type Fork struct {
	// From is the other run, Upto the last of its events that the new one has.
	From string
	Upto int64
	// Point in words, for people: "after step build".
	Point string
	// Started is the first event of the new run. RunID must be set (NewRunID).
	Started engine.RunStarted
}

// CreateFork makes a run whose events are those of another one up to a point, with
// copies of the checkpoints' rows and of the logs that they name: the contents are
// shared, and either run may be removed without the other noticing. The caller
// owns it, and goes on as after a resume of an interrupted run.
func (s *Store) CreateFork(ctx context.Context, f Fork) (*Owner, error) {
	name := "fork run " + f.From
	if err := validRunID(f.Started.RunID); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	events, err := s.Events(ctx, f.From, 0)
	if err != nil {
		return nil, err
	}
	if f.Upto < 1 || f.Upto > int64(len(events)) {
		return nil, fmt.Errorf("%s: it has no event %d", name, f.Upto)
	}
	events = events[:f.Upto]
	events[0].Body = f.Started
	for i := range events {
		if events[i].Body, err = renamed(events[i].Body, f.From, f.Started.RunID); err != nil {
			return nil, fmt.Errorf("%s: event %d: %w", name, events[i].Seq, err)
		}
	}
	lock, err := s.lock(f.Started.RunID)
	if err != nil {
		return nil, err
	}
	o := &Owner{s: s, lock: lock, run: f.Started.RunID, records: map[string]int64{}}
	err = s.tx(func(w *writer) error { return o.fork(w, &f, events) })
	if err == nil {
		err = s.copyLogFiles(f.From, f.Started.RunID, events)
	}
	if err != nil {
		return nil, errors.Join(wrap(name, err), o.Close())
	}
	return o, nil
}

// fork stores the new run in one transaction.
func (o *Owner) fork(w *writer, f *Fork, events []engine.Event) error {
	row, err := w.row("SELECT key, kinds FROM runs WHERE id = ?", f.From)
	if err != nil {
		return err
	}
	if row == nil {
		return ErrNotFound
	}
	var r scan
	from, kinds := r.int(row[0]), r.text(row[1])
	if r.err != nil {
		return r.err
	}
	if err := json.Unmarshal([]byte(kinds), &o.kinds); err != nil {
		return err
	}
	now := o.s.opts.Now().UnixNano()
	o.row = runRow{fence: 1, status: engine.RunRunning, attempt: 1}
	for i := range events {
		o.row.apply(&events[i])
	}
	st := f.Started
	o.row.key, err = w.insert(`INSERT INTO runs (id, workflow, path, flow_version, kinds, status, class, cause, created_at, updated_at, finished_at, attempt, fence, last_seq, checkpoint, forked_from)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?)`,
		st.RunID, st.Workflow, st.Path, st.FlowVersion, kinds, string(o.row.status), string(o.row.class), o.row.cause, now, now, toNano(o.row.finished),
		int64(o.row.attempt), o.row.seq, nullable(o.row.checkpoint), f.From+"/"+f.Point)
	if err != nil {
		return err
	}
	if err := copyCheckpoints(w, from, o.row.key, f.From, st.RunID, f.Upto); err != nil {
		return err
	}
	c := &change{o: o, w: w, records: o.records}
	for _, e := range events {
		b, err := encodeBody(e.Body)
		if err == nil {
			err = c.storeEvent(e, string(b))
		}
		if err != nil {
			return fmt.Errorf("event %d: %w", e.Seq, err)
		}
		if f, ok := e.Body.(engine.StepFinished); ok && f.Outcome.Log != "" {
			if err := copyLogRow(w, from, o.row.key, f.Outcome.Log); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyCheckpoints copies the rows that the events up to one name, and those that
// they build on: these have smaller numbers.
func copyCheckpoints(w *writer, from, to int64, fromID, toID string, upto int64) error {
	_, err := w.exec(`INSERT INTO checkpoints (key, run, n, id, seq, parent, form, base, chain, entries, size, codec, digest, data)
		SELECT (?2 << 32) | n, ?2, n, ?4 || substr(id, length(?3) + 1), seq,
			CASE WHEN substr(parent, 1, length(?3) + 1) = ?3 || '.' THEN ?4 || substr(parent, length(?3) + 1) ELSE parent END,
			form, CASE WHEN base IS NULL THEN NULL ELSE (?2 << 32) | (base & 4294967295) END, chain, entries, size, codec, digest, data
		FROM checkpoints WHERE run = ?1 AND key > ?1 << 32 AND key < (?1 + 1) << 32
			AND n <= (SELECT coalesce(max(n), 0) FROM checkpoints WHERE key > ?1 << 32 AND key < (?1 + 1) << 32 AND seq <= ?5)`,
		from, to, fromID, toID, upto)
	if err != nil {
		return fmt.Errorf("copy checkpoints: %w", err)
	}
	return nil
}

func copyLogRow(w *writer, from, to int64, ref string) error {
	n, err := parseLogRef(ref)
	if err != nil {
		return err
	}
	_, err = w.exec("INSERT OR IGNORE INTO logs (run, step, attempt, bytes, data) SELECT ?2, step, attempt, bytes, data FROM logs WHERE run = ?1 AND step = ?3 AND attempt = ?4",
		from, to, n.step, int64(n.attempt))
	if err != nil {
		return fmt.Errorf("copy log %s: %w", ref, err)
	}
	return nil
}

// copyLogFiles gives the new run the long logs: further names of the same files,
// which never change once their attempt has ended.
func (s *Store) copyLogFiles(from, to string, events []engine.Event) error {
	for _, e := range events {
		f, ok := e.Body.(engine.StepFinished)
		if !ok || f.Outcome.Log == "" {
			continue
		}
		n, err := parseLogRef(f.Outcome.Log)
		if err != nil {
			return err
		}
		dst := s.logPath(n)
		n.run = from
		src := s.logPath(n)
		if _, err := os.Stat(src); errors.Is(err, fs.ErrNotExist) {
			continue // it is short, and lies in the row
		}
		if err := os.MkdirAll(filepath.Dir(dst), 0o700); err != nil {
			return err
		}
		if err := os.Link(src, dst); err == nil {
			continue
		}
		b, err := os.ReadFile(src) // a file system without links
		if err == nil {
			err = os.WriteFile(dst, b, 0o600)
		}
		if err != nil {
			return fmt.Errorf("copy log %s: %w", f.Outcome.Log, err)
		}
	}
	return nil
}

// renamed is an event as the new run has it: whatever begins like the id of a
// checkpoint or log of the other run begins with the new run's, in whichever kind
// of event it stands.
func renamed(b engine.Body, from, to string) (engine.Body, error) {
	typ, data, err := engine.Encode(b)
	if err != nil {
		return nil, err
	}
	for _, p := range [][2]string{{`"` + from + `.`, `"` + to + `.`}, {`"log/` + from + `/`, `"log/` + to + `/`}} {
		data = bytes.ReplaceAll(data, []byte(p[0]), []byte(p[1]))
	}
	return engine.Decode(typ, data)
}

// Pin keeps a run from being removed by gc, or lets it go again.
func (s *Store) Pin(ctx context.Context, run string, pinned bool) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("pin run %s: %w", run, err)
	}
	word := driver.Value(int64(0))
	if pinned {
		word = int64(1)
	}
	return wrap("pin run "+run, s.tx(func(w *writer) error {
		n, err := w.exec("UPDATE runs SET pinned = ? WHERE id = ?", word, run)
		if err == nil && n != 1 {
			err = ErrNotFound
		}
		return err
	}))
}
