package state

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flowrun.dev/flow/engine"
)

func TestTwoOwners(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	_, err := s.Acquire(t.Context(), o.RunID())
	var busy *BusyError
	if !errors.As(err, &busy) {
		t.Fatalf("the second owner got %v", err)
	}
	if busy.Holder.PID != os.Getpid() || busy.Holder.Command != "flow test" || busy.Holder.Started.IsZero() || busy.Holder.User == "" {
		t.Errorf("the holder is %+v", busy.Holder)
	}
	alive, err := s.IsAlive(o.RunID())
	must(t, err)
	if !alive {
		t.Error("an owned run is not alive")
	}
	must(t, o.Close())
	if alive, err = s.IsAlive(o.RunID()); err != nil || alive {
		t.Errorf("after Close: alive %v, %v", alive, err)
	}
	next, err := s.Acquire(t.Context(), o.RunID())
	must(t, err)
	if next.LastSeq() != 1 {
		t.Errorf("the next owner starts after event %d", next.LastSeq())
	}
	must(t, next.Close())
	must(t, next.Close()) // again
	if _, err := s.Acquire(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an unknown run: %v", err)
	}
	if _, err := s.Acquire(t.Context(), "../../etc"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a path as id: %v", err)
	}
}

// TestFence: with the lock file deleted by hand two owners are possible; the
// token stops the first one, and nothing of its Append is stored.
func TestFence(t *testing.T) {
	t.Parallel()
	s := open(t)
	old := create(t, s)
	must(t, os.Remove(s.lockPath(old.RunID())))
	now, err := s.Acquire(t.Context(), old.RunID())
	must(t, err)
	defer now.Close()
	err = old.Append(t.Context(), events(started("build", 1)))
	wantIs(t, err, engine.ErrNotOwner)
	put(t, now, started("build", 1))
	if err := old.Append(t.Context(), events(started("build", 1))); !errors.Is(err, engine.ErrNotOwner) {
		t.Errorf("again: %v", err)
	}
	evs, err := s.Events(t.Context(), old.RunID(), 0)
	must(t, err)
	if len(evs) != 2 {
		t.Errorf("%d events are stored, want 2", len(evs))
	}
	must(t, old.Close())
	if err := old.Append(t.Context(), events(started("x", 1))); !errors.Is(err, engine.ErrNotOwner) {
		t.Errorf("after Close: %v", err)
	}
}

func TestInterruptedAtOnce(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	put(t, o, started("build", 1))
	r, err := s.Run(t.Context(), o.RunID())
	must(t, err)
	if r.Status != engine.RunRunning || r.Holder == nil || r.Steps[engine.StepRunning] != 1 {
		t.Errorf("while it runs: %+v", r)
	}
	must(t, o.Close())
	r, err = s.Run(t.Context(), o.RunID())
	must(t, err)
	if r.Status != engine.RunInterrupted || r.Cause != causeDied || r.Holder != nil || r.Steps[engine.StepInterrupted] != 1 {
		t.Errorf("after its owner is gone: %+v", r)
	}
	recs, err := s.Records(t.Context(), o.RunID())
	must(t, err)
	if len(recs) != 1 || recs[0].Outcome.Status != engine.StepInterrupted || recs[0].Kind != "run" {
		t.Errorf("records: %+v", recs)
	}
	runs, err := s.Runs(t.Context(), Filter{Status: []engine.RunStatus{engine.RunInterrupted}})
	must(t, err)
	if len(runs) != 1 {
		t.Errorf("%d interrupted runs", len(runs))
	}
	id, err := s.Resolve(t.Context(), "latest-failed")
	must(t, err)
	if id != o.RunID() {
		t.Errorf("latest-failed is %s", id)
	}
}

func TestInbox(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	inbox := func(o *Owner) []engine.Body {
		t.Helper()
		b, err := o.Inbox(t.Context())
		must(t, err)
		return b
	}
	if got := inbox(o); got != nil {
		t.Errorf("an empty inbox holds %v", got)
	}
	ask := engine.CancelRequested{Cause: "user"}
	other, err := Open(s.Dir(), Options{})
	must(t, err)
	must(t, other.PutInbox(t.Context(), o.RunID(), ask))
	if got := inbox(o); !slices.Equal(got, []engine.Body{ask}) {
		t.Errorf("got %v", got)
	}
	if got := inbox(o); got != nil {
		t.Errorf("got it twice: %v", got)
	}
	must(t, s.PutInbox(t.Context(), o.RunID(), ask)) // from this process
	if got := inbox(o); len(got) != 1 {
		t.Errorf("from the same process: %v", got)
	}
	put(t, o, ask)
	must(t, other.PutInbox(t.Context(), o.RunID(), ask))
	must(t, o.Close())
	// The one that nobody took was for the owner before.
	next, err := s.Acquire(t.Context(), o.RunID())
	must(t, err)
	defer next.Close()
	if got := inbox(next); got != nil {
		t.Errorf("the next owner got %v", got)
	}
	if err := other.PutInbox(t.Context(), "nobody", ask); !errors.Is(err, ErrNotFound) {
		t.Errorf("for an unknown run: %v", err)
	}
	must(t, other.Close())
}

// TestLockSurvivesNothing: the lock file's text is for people only.
func TestHolderText(t *testing.T) {
	t.Parallel()
	h := Holder{PID: 7, Host: "box\nx", User: "ann", Started: at(0).Truncate(time.Second), Command: "flow run a\nb"}
	got := decodeHolder(h.encode())
	if got.PID != 7 || got.Host != "box x" || got.Command != "flow run a b" || !got.Started.Equal(h.Started) {
		t.Errorf("came back as %+v", got)
	}
	for _, text := range []string{"", "pid", "pid x\n", "\n\n", "pid 1"} {
		decodeHolder([]byte(text)) // half written: no panic
	}
	if s := (Holder{}).String(); !strings.Contains(s, "another process") {
		t.Error(s)
	}
}

// TestRaceForRun: of many that want a run at once, one gets it.
func TestRaceForRun(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	must(t, o.Close())
	var wg sync.WaitGroup
	var mu sync.Mutex
	var got []*Owner
	for range 8 {
		wg.Go(func() {
			o, err := s.Acquire(t.Context(), o.RunID())
			var busy *BusyError
			if err != nil && !errors.As(err, &busy) {
				t.Error(err)
			}
			if err == nil {
				mu.Lock()
				got = append(got, o)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(got) != 1 {
		t.Fatalf("%d got it", len(got))
	}
	must(t, got[0].Close())
}
