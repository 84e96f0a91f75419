package state

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"flowrun.dev/flow/engine"
)

// Owner is the right to add to one run. Its methods are called from one goroutine
// (the engine's loop); StageCheckpoint and OpenLog of the Store from any.
type Owner struct {
	s    *Store
	lock *os.File
	run  string

	// What the run's row holds, as this owner stored it last. Nobody else writes
	// it while the fence is ours.
	row runRow

	kinds   map[string]string // step → kind, for the records
	records map[string]int64  // step → key of the record of its running attempt

	inboxVersion int64 // PRAGMA data_version at the last look
	inboxSeen    int64 // the last id that Inbox gave
	inboxDue     bool  // ids up to inboxSeen are not marked as taken yet
}

// runRow is the part of a run's row that an Append may change.
type runRow struct {
	key, fence, seq int64
	status          engine.RunStatus
	class           engine.Class
	cause           string
	finished        time.Time // zero while running
	attempt         int
	checkpoint      string
}

// RunExtra is what the row of a new run holds beside its first event.
type RunExtra struct {
	// At is the time of the first event, now when zero.
	At time.Time
	// Kinds says each step's kind (run, agent …) for the execution records. The
	// steps that are not in it get "".
	Kinds map[string]string
}

// CreateRun takes the lock of a new run, then stores its row and its first event
// in one transaction, with the contents staged so far and the checkpoint that
// started.SourceManifest names. started.RunID must be set (NewRunID).
func (s *Store) CreateRun(ctx context.Context, started engine.RunStarted, extra RunExtra) (*Owner, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("create run: %w", err)
	}
	if err := validRunID(started.RunID); err != nil {
		return nil, fmt.Errorf("create run: %w", err)
	}
	if extra.At.IsZero() {
		extra.At = s.opts.Now()
	}
	kinds, err := json.Marshal(orEmpty(extra.Kinds))
	if err != nil {
		return nil, fmt.Errorf("create run: %w", err)
	}
	lock, err := s.lock(started.RunID)
	if err != nil {
		return nil, err
	}
	o := &Owner{s: s, lock: lock, run: started.RunID, kinds: extra.Kinds, records: map[string]int64{}}
	first := engine.Event{Seq: 1, At: extra.At, Body: started}
	err = o.commit([]engine.Event{first}, func(w *writer) (err error) {
		at := extra.At.UnixNano()
		o.row = runRow{fence: 1, seq: 1, status: engine.RunRunning, attempt: 1}
		o.row.key, err = w.insert(`INSERT INTO runs (id, workflow, path, flow_version, kinds, status, created_at, updated_at, fence, last_seq)
			VALUES (?, ?, ?, ?, ?, 'running', ?, ?, 1, 1)`,
			started.RunID, started.Workflow, started.Path, started.FlowVersion, string(kinds), at, at)
		return err
	})
	if err != nil {
		return nil, errors.Join(wrap("create run "+started.RunID, err), o.Close())
	}
	s.lmu.Lock()
	defer s.lmu.Unlock()
	if s.trees[started.RunID] == nil { // it has no checkpoint yet: nobody needs to ask
		s.trees[started.RunID] = &tree{}
	}
	return o, nil
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// Acquire makes the caller the owner of an existing run: *BusyError when another
// process is, ErrNotFound when there is no such run.
func (s *Store) Acquire(ctx context.Context, run string) (*Owner, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("acquire run: %w", err)
	}
	if err := validRunID(run); err != nil {
		return nil, fmt.Errorf("acquire run: %w", err)
	}
	lock, err := s.lock(run)
	if err != nil {
		return nil, err
	}
	o := &Owner{s: s, lock: lock, run: run, records: map[string]int64{}}
	if err := s.tx(o.takeOver); err != nil {
		return nil, errors.Join(wrap("acquire run "+run, err), o.Close())
	}
	return o, nil
}

// takeOver raises the fencing token: from here on, nothing of an owner before
// can be stored.
func (o *Owner) takeOver(w *writer) error {
	n, err := w.exec("UPDATE runs SET fence = fence + 1 WHERE id = ?", o.run)
	if err != nil {
		return err
	}
	if n != 1 {
		return ErrNotFound
	}
	row, err := w.row("SELECT key, fence, last_seq, status, class, cause, finished_at, attempt, checkpoint, kinds FROM runs WHERE id = ?", o.run)
	if err != nil {
		return err
	}
	var r scan
	o.row = runRow{
		key: r.int(row[0]), fence: r.int(row[1]), seq: r.int(row[2]),
		status: engine.RunStatus(r.text(row[3])), class: engine.Class(r.text(row[4])), cause: r.text(row[5]),
		finished: r.time(row[6]), attempt: int(r.int(row[7])), checkpoint: r.text(row[8]),
	}
	kinds := r.text(row[9])
	if r.err != nil {
		return r.err
	}
	return json.Unmarshal([]byte(kinds), &o.kinds)
}

// RunID is the run that is owned.
func (o *Owner) RunID() string { return o.run }

// LastSeq is the number of the last event stored.
func (o *Owner) LastSeq() int64 { return o.row.seq }

// Checkpoint is the newest checkpoint that an event named, "" for none.
func (o *Owner) Checkpoint() string { return o.row.checkpoint }

// SetKinds replaces the kinds of the steps, when a resume accepts a changed
// definition. Stored with the next Append of a RunResumed.
func (o *Owner) SetKinds(kinds map[string]string) { o.kinds = kinds }

// Close gives the run up. What was staged for it and never named is dropped.
// Harmless when called again.
func (o *Owner) Close() error {
	if o.lock == nil {
		return nil
	}
	o.s.dropStaged(o.run)
	// Empty ones only: otherwise every later start would look at them.
	_ = os.Remove(o.s.logsDir(o.run))
	_ = os.Remove(o.s.RunDir(o.run))
	err := o.lock.Close() // the kernel's lock ends with its last descriptor
	o.lock = nil
	return wrap("release run "+o.run, err)
}

// scan converts what the driver gives; the first mistake sticks.
type scan struct{ err error }

func (r *scan) int(v driver.Value) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case nil:
		return 0
	}
	r.fail(v, "a number")
	return 0
}

func (r *scan) text(v driver.Value) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case nil:
		return ""
	}
	r.fail(v, "text")
	return ""
}

func (r *scan) time(v driver.Value) time.Time {
	if v == nil {
		return time.Time{}
	}
	return fromNano(r.int(v))
}

func (r *scan) fail(v driver.Value, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: a column holds %T instead of %s", ErrCorrupt, v, want)
	}
}

func fromNano(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// toNano is NULL for the zero time.
func toNano(t time.Time) driver.Value {
	if t.IsZero() {
		return nil
	}
	return t.UnixNano()
}
