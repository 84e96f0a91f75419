package state

import (
	"context"
	"errors"
	"fmt"

	"flowrun.dev/flow/engine"
)

// Append implements engine.Journal: one durable transaction with the events, what
// follows from them, and the contents, checkpoints and logs that were staged for
// them. Events are numbered without a gap after LastSeq; a Seq of 0 is filled in
// in place. On an error nothing of it was stored, and the caller may try again.
func (o *Owner) Append(ctx context.Context, events []engine.Event) error {
	if len(events) == 0 {
		return nil
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("append to run %s: %w", o.run, err)
	}
	if o.lock == nil {
		return fmt.Errorf("append to run %s: %w", o.run, engine.ErrNotOwner)
	}
	for i := range events {
		want := o.row.seq + 1 + int64(i)
		if events[i].Seq == 0 {
			events[i].Seq = want
		}
		if events[i].Seq != want {
			return fmt.Errorf("append to run %s: event %d comes where %d is due", o.run, events[i].Seq, want)
		}
	}
	before := o.row
	err := o.commit(events, func(w *writer) error { return o.moveRun(w, before.seq, events) })
	if err != nil {
		o.row = before
		return wrap("append to run "+o.run, err)
	}
	return nil
}

// commit stores events and all that belongs to them; head moves the run's row
// first, so that a lost fence ends the transaction before anything is written.
func (o *Owner) commit(events []engine.Event, head func(w *writer) error) error {
	bodies := make([]string, len(events))
	for i, e := range events {
		b, err := encodeBody(e.Body)
		if err != nil {
			return fmt.Errorf("event %d: %w", e.Seq, err)
		}
		bodies[i] = string(b)
	}
	records := map[string]int64{} // of this transaction; o.records changes when it is stored
	c := &change{o: o, records: records}
	err := o.s.tx(func(w *writer) error {
		c.w = w
		if err := head(w); err != nil {
			return err
		}
		if err := c.storeContents(events); err != nil {
			return err
		}
		for i, e := range events {
			if err := c.storeEvent(e, bodies[i]); err != nil {
				return err
			}
		}
		return c.markInbox()
	})
	if err != nil {
		return err
	}
	c.settle()
	return nil
}

// moveRun writes the run's row as it is after the events, if it still is where
// this owner left it.
func (o *Owner) moveRun(w *writer, from int64, events []engine.Event) error {
	for i := range events {
		o.row.apply(&events[i])
	}
	last := events[len(events)-1]
	r := &o.row
	n, err := w.exec(`UPDATE runs SET last_seq = ?, updated_at = ?, status = ?, class = ?, cause = ?, finished_at = ?, attempt = ?, checkpoint = ?
		WHERE key = ? AND fence = ? AND last_seq = ?`,
		r.seq, last.At.UnixNano(), string(r.status), string(r.class), r.cause, toNano(r.finished), int64(r.attempt), nullable(r.checkpoint),
		r.key, r.fence, from)
	if err != nil {
		return err
	}
	if n == 1 {
		return nil
	}
	row, err := w.row("SELECT fence, last_seq FROM runs WHERE key = ?", r.key)
	if err != nil {
		return err
	}
	if row == nil {
		return fmt.Errorf("%w: the run was removed", engine.ErrNotOwner)
	}
	if row[0] == r.fence {
		return corrupt("move the run's row", "its last event is %v, this owner stored %d", row[1], from)
	}
	return fmt.Errorf("%w: another process has taken the run over", engine.ErrNotOwner)
}

// apply folds one event into the run's row.
func (r *runRow) apply(e *engine.Event) {
	r.seq = e.Seq
	switch b := e.Body.(type) {
	case engine.RunResumed:
		r.status, r.class, r.cause, r.attempt = engine.RunRunning, "", "", b.Attempt
		r.finished = zeroTime
		r.checkpoint = b.Checkpoint // those after it are no part of the run any more
		if b.Merged != "" {
			r.checkpoint = b.Merged
		}
	case engine.RunFinished:
		r.status, r.class, r.cause, r.finished = b.Status, b.Class, b.Cause, e.At
	case engine.WorkspaceImported:
		r.checkpoint = b.Checkpoint
	case engine.StepFinished:
		if b.Checkpoint != "" {
			r.checkpoint = b.Checkpoint
		}
	case engine.TurnCompleted:
		if b.Checkpoint != "" {
			r.checkpoint = b.Checkpoint
		}
	}
}

// change is one transaction on its way.
type change struct {
	o           *Owner
	w           *writer
	records     map[string]int64
	blobs       *stagedBlobs
	checkpoints []*stagedCheckpoint
	logs        []*stagedLog
}

// named lists the checkpoints and logs that an event makes known.
func named(b engine.Body) (checkpoint, log string) {
	switch b := b.(type) {
	case engine.RunStarted:
		return b.SourceManifest, ""
	case engine.RunResumed:
		return b.Checkpoint, ""
	case engine.WorkspaceImported:
		return b.Checkpoint, ""
	case engine.StepFinished:
		return b.Checkpoint, b.Outcome.Log
	case engine.BackgroundEnded:
		return "", b.Log
	case engine.TurnCompleted:
		return b.Checkpoint, "" // its Data is a content, stored with all that are sealed
	}
	return "", ""
}

// storeContents stores what the events name: contents first, for rows refer to them.
func (c *change) storeContents(events []engine.Event) error {
	var err error
	if c.blobs, err = c.o.s.blobs.store(c.w); err != nil {
		return err
	}
	for _, e := range events {
		if b, ok := e.Body.(engine.RunResumed); ok {
			for _, id := range []string{b.Source, b.Merged} {
				if id == "" {
					continue
				}
				if err := c.storeCheckpoint(id, e.Seq); err != nil {
					return err
				}
			}
		}
		checkpoint, log := named(e.Body)
		if checkpoint != "" {
			if err := c.storeCheckpoint(checkpoint, e.Seq); err != nil {
				return err
			}
		}
		if log != "" {
			if err := c.storeLog(log); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *change) storeEvent(e engine.Event, body string) error {
	key := c.o.row.key
	_, err := c.w.exec("INSERT INTO events (id, run, seq, at, type, body) VALUES (?, ?, ?, ?, ?, ?)",
		rowKey(key, e.Seq), key, e.Seq, e.At.UnixNano(), e.Body.Type(), body)
	if err != nil {
		return fmt.Errorf("insert event %d: %w", e.Seq, err)
	}
	return c.project(e)
}

// settle makes memory follow what is stored now.
func (c *change) settle() {
	for step, key := range c.records {
		c.o.records[step] = key
	}
	c.o.s.blobs.settle(c.blobs)
	c.o.s.settle(c.checkpoints, c.logs)
	c.o.inboxDue = false
}

func nullable(s string) any {
	if s == "" {
		return nil
	}
	return s
}

var errUnknownCheckpoint = errors.New("the event names a checkpoint that was neither staged nor stored")
