package steps

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
)

// warm makes the sandboxes of a pool before its first step runs, all at the same
// time, and tells of each. What could not be made is the caller's error; those that
// could stay in the pool, and the next attempt makes the rest.
func (h *Host) warm(ctx context.Context, r *room, emit func(engine.Body)) error {
	if !r.spec.Pool.Warm {
		return nil
	}
	r.warming.Lock()
	defer r.warming.Unlock()
	if r.warmed {
		return nil
	}
	var mu sync.Mutex
	var errs []error
	var all sync.WaitGroup
	ready := h.countOf(r)
	for h.reserve(r) {
		all.Go(func() {
			m, err := h.made(ctx, r, usePool)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
				return
			}
			ready++
			m.told = true
			b := created(m, usePool)
			b.Ready, b.Size = ready, r.spec.Pool.Size
			// At once, not with the next event: somebody waits for it. The journal answers;
			// nobody listens.
			emit(engine.Durable{Body: b, Done: make(chan error, 1)})
			h.keep(m)
		})
	}
	all.Wait()
	if len(errs) > 0 {
		// One cause is enough, and the first *sandbox.Error in the chain is its class.
		return fmt.Errorf("warm the pool (%d of %d are ready): %w", ready, r.spec.Pool.Size, errs[0])
	}
	r.warmed = true
	return nil
}

func (h *Host) countOf(r *room) int {
	h.house.mu.Lock()
	defer h.house.mu.Unlock()
	return r.n
}

// reserve takes a place for a sandbox of the room, if there is one.
func (h *Host) reserve(r *room) bool {
	s := h.house
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || r.full() || s.n >= s.most {
		return false
	}
	s.add(r, usePool)
	return true
}

// errNoScrub: the driver cannot make a used sandbox as it was.
var errNoScrub = errors.New("the driver cannot reset a sandbox")

// reset makes a used sandbox, but for its home, as it was when it was new.
func reset(ctx context.Context, m *member) error {
	s, ok := m.Sandbox.(sandbox.Scrubber)
	if !ok {
		return errNoScrub
	}
	return s.Scrub(ctx)
}

// left is how long a sandbox may still live, and whether it has an end.
func (m *member) left() (time.Duration, bool) {
	if m.room.spec.Timeout <= 0 {
		return 0, false
	}
	return m.room.spec.Timeout - time.Since(m.born), true
}

// tired: an attempt that may take so long (0: as long as it likes) would outlive the
// sandbox, and another one would give it more time.
func (m *member) tired(need time.Duration) bool {
	left, ends := m.left()
	return ends && (left <= 0 || left < min(need, m.room.spec.Timeout) && m.used.Load())
}

// live bounds an attempt by the life of its sandbox. over turns the outcome of one
// that was cut into what it is: an attempt that had the whole life timed out; another
// one failed for want of it, and is tried again in a new one.
func live(ctx context.Context, m *member) (_ context.Context, over func(engine.Outcome) engine.Outcome, cancel func()) {
	left, ends := m.left()
	used := m.used.Swap(true)
	if !ends {
		return ctx, func(out engine.Outcome) engine.Outcome { return out }, func() {}
	}
	cause := &engine.StopError{Status: engine.StepTimedOut, Reason: fmt.Sprintf("the sandbox has lived as long as it may (sandbox.timeout, %s)", m.room.spec.Timeout)}
	ctx, cancel = context.WithTimeoutCause(ctx, left, cause)
	return ctx, func(out engine.Outcome) engine.Outcome {
		if used && out.Status == engine.StepTimedOut && context.Cause(ctx) == error(cause) {
			out.Status, out.Class = engine.StepFailed, engine.ClassInfrastructure
		}
		return out
	}, cancel
}
