package state

import (
	"context"
	"database/sql/driver"
	"fmt"

	"flowrun.dev/flow/engine"
)

// PutInbox leaves a request (a cancellation, an approval) for whoever owns the
// run, or will: the next owner sees an approval, but not a cancellation that was
// meant for the one before. ErrNotFound when there is no such run.
func (s *Store) PutInbox(ctx context.Context, run string, b engine.Body) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("ask of run %s: %w", run, err)
	}
	body, err := encodeBody(b)
	if err != nil {
		return fmt.Errorf("ask of run %s: %w", run, err)
	}
	err = s.tx(func(w *writer) error {
		n, err := w.exec("INSERT INTO inbox (run, fence, at, type, body) SELECT key, fence, ?, ?, ? FROM runs WHERE id = ?",
			s.opts.Now().UnixNano(), b.Type(), string(body), run)
		if err == nil && n != 1 {
			err = ErrNotFound
		}
		s.puts++
		return err
	})
	return wrap("ask of run "+run, err)
}

// Inbox implements engine.Journal: what other processes asked since the last
// call. It is cheap enough to be polled (a look at a counter in shared memory
// while no other process wrote anything). What it gave is marked as taken by the
// next Append; if this process dies before, the next owner gets it again.
func (o *Owner) Inbox(ctx context.Context) ([]engine.Body, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("read inbox of run %s: %w", o.run, err)
	}
	s := o.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil || o.lock == nil {
		return nil, fmt.Errorf("read inbox of run %s: %w", o.run, engine.ErrNotOwner)
	}
	bodies, err := o.readInbox(s.w)
	return bodies, wrap("read inbox of run "+o.run, err)
}

func (o *Owner) readInbox(w *writer) ([]engine.Body, error) {
	row, err := w.row("PRAGMA data_version")
	if err != nil {
		return nil, err
	}
	var r scan
	// The counter of SQLite does not count what this connection wrote itself.
	version := r.int(row[0]) + o.s.puts<<32
	if version == o.inboxVersion {
		return nil, r.err
	}
	var bodies []engine.Body
	seen := o.inboxSeen
	err = w.each("SELECT id, fence, type, body FROM inbox WHERE run = ? AND taken = 0 AND id > ? ORDER BY id",
		func(row []driver.Value) error {
			seen = r.int(row[0])
			b, err := engine.Decode(r.text(row[2]), []byte(r.text(row[3])))
			if err != nil {
				return err
			}
			if _, cancel := b.(engine.CancelRequested); cancel && r.int(row[1]) < o.row.fence {
				return r.err // it was meant for an owner before
			}
			bodies = append(bodies, b)
			return r.err
		}, o.row.key, o.inboxSeen)
	if err != nil {
		return nil, err
	}
	if seen > o.inboxSeen {
		o.inboxSeen, o.inboxDue = seen, true
	}
	o.inboxVersion = version
	return bodies, nil
}

// markInbox marks what Inbox gave, in the transaction of the events that follow.
func (c *change) markInbox() error {
	if !c.o.inboxDue {
		return nil
	}
	_, err := c.w.exec("UPDATE inbox SET taken = 1 WHERE run = ? AND taken = 0 AND id <= ?", c.o.row.key, c.o.inboxSeen)
	return err
}
