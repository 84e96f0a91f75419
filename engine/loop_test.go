package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flowrun.dev/flow/workflow"
)

func chain(ids ...string) []*workflow.Step {
	var steps []*workflow.Step
	for i, id := range ids {
		s := &workflow.Step{ID: id, HasNeeds: true}
		if i > 0 {
			s.Needs = []string{ids[i-1]}
		}
		steps = append(steps, s)
	}
	return steps
}

func types(events []Event) []string {
	var out []string
	for _, e := range events {
		out = append(out, e.Body.Type())
	}
	return out
}

func TestLoopRunsAChain(t *testing.T) {
	t.Parallel()
	plan := planOf(&workflow.Workflow{Steps: chain("a", "b"), MaxParallel: 2})
	j, f := &fakeJournal{}, &fakeRunner{}
	l := &Loop{Run: NewRun(plan), Journal: j, Runner: f, Clock: newFakeClock(), Opening: RunStarted{RunID: "r1"}}
	status, err := l.Drive(context.Background())
	if err != nil || status != RunSucceeded {
		t.Fatalf("Drive = %s, %v", status, err)
	}
	want := []string{"run_started", "step_started", "step_finished", "step_started", "step_finished", "run_finished"}
	if got := types(j.all()); !slices.Equal(got, want) {
		t.Errorf("events = %q, want %q", got, want)
	}
	if j.appends != 3 {
		t.Errorf("%d appends, want 3: k is done and k+1 starts are one", j.appends)
	}
	if f.closed != 1 {
		t.Errorf("sandbox closed %d times, want once", f.closed)
	}
}

// blockingRunner starts steps that end when told to, or when stopped.
func blockingRunner(started chan<- string, end map[string]chan Outcome) *fakeRunner {
	return &fakeRunner{step: func(ctx context.Context, a Attempt, _ func(Body)) Outcome {
		started <- a.Step.ID
		select {
		case o := <-end[a.Step.ID]:
			return o
		case <-ctx.Done():
			return stopped(ctx)
		}
	}}
}

type driven struct {
	status RunStatus
	err    error
}

func drive(l *Loop, ctx context.Context) <-chan driven {
	c := make(chan driven, 1)
	go func() {
		status, err := l.Drive(ctx)
		c <- driven{status, err}
	}()
	return c
}

// wait for a value, or fail: tests do not hang.
func wait[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("waited 20s for %s", what)
		panic("unreachable")
	}
}

func find[B Body](events []Event) (out []B) {
	for _, e := range events {
		if b, ok := e.Body.(B); ok {
			out = append(out, b)
		}
	}
	return out
}

func TestLoopInterrupts(t *testing.T) {
	t.Parallel()
	plan := func() *workflow.Plan {
		return planOf(&workflow.Workflow{Steps: chain("a", "b"), Finally: []*workflow.Step{{ID: "f"}}, MaxParallel: 2})
	}
	type rig struct {
		l       *Loop
		j       *fakeJournal
		started chan string
		clock   *fakeClock
		cancel  context.CancelFunc
		end     map[string]chan Outcome
	}
	cases := []struct {
		name   string
		do     func(t *testing.T, r *rig)
		status RunStatus
		steps  map[string]StepStatus
	}{
		{"first signal lets finally run", func(t *testing.T, r *rig) {
			r.l.Interrupt("sigint")
			wait(t, r.started, "finally")
			r.end["f"] <- Outcome{Status: StepSucceeded}
		}, RunInterrupted, map[string]StepStatus{"a": StepInterrupted, "b": StepIsNotRun, "f": StepSucceeded}},
		{"second signal ends finally", func(t *testing.T, r *rig) {
			r.l.Interrupt("sigint")
			wait(t, r.started, "finally")
			r.l.Interrupt("sigint")
		}, RunInterrupted, map[string]StepStatus{"a": StepInterrupted, "f": StepInterrupted}},
		{"two signals at once", func(_ *testing.T, r *rig) {
			r.l.Interrupt("sigterm")
			r.l.Interrupt("sigterm")
		}, RunInterrupted, nil},
		{"grace time ends finally", func(t *testing.T, r *rig) {
			r.l.Interrupt("sigterm")
			wait(t, r.started, "finally")
			for range 12 { // the loop may arm its timer a little later
				r.clock.advance(time.Second)
			}
		}, RunInterrupted, map[string]StepStatus{"f": StepInterrupted}},
		{"the caller's context ends", func(_ *testing.T, r *rig) { r.cancel() },
			RunInterrupted, map[string]StepStatus{"a": StepInterrupted, "f": StepIsNotRun}},
		{"flow cancel through the inbox", func(t *testing.T, r *rig) {
			r.j.mu.Lock()
			r.j.asked = []Body{CancelRequested{Cause: "user"}}
			r.j.mu.Unlock()
			r.clock.advance(time.Second)
			wait(t, r.started, "finally")
			r.end["f"] <- Outcome{Status: StepSucceeded}
		}, RunCancelled, map[string]StepStatus{"a": StepCancelled, "f": StepSucceeded}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := &rig{started: make(chan string, 9), clock: newFakeClock(), j: &fakeJournal{},
				end: map[string]chan Outcome{"a": make(chan Outcome), "f": make(chan Outcome)}}
			f := blockingRunner(r.started, r.end)
			r.l = &Loop{Run: NewRun(plan()), Journal: r.j, Runner: f, Clock: r.clock,
				Opening: RunStarted{RunID: "r", Options: Options{Grace: 10 * time.Second}}}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			r.cancel = cancel
			done := drive(r.l, ctx)
			wait(t, r.started, "step a")
			c.do(t, r)
			got := wait(t, done, "the run's end")
			if got.err != nil || got.status != c.status {
				t.Fatalf("Drive = %s, %v, want %s", got.status, got.err, c.status)
			}
			for id, want := range c.steps {
				if n, _ := r.l.Run.Node(id); n.Status != want {
					t.Errorf("step %s is %s, want %s", id, n.Status, want)
				}
			}
			if f.closed != 1 {
				t.Errorf("sandbox closed %d times", f.closed)
			}
		})
	}
}

// TestLoopJournalFails lets every single append fail in turn: everything stops,
// nothing is written afterwards, and what was written resumes to the end.
func TestLoopJournalFails(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{errors.New("disk full"), ErrNotOwner} {
		for failAt := 1; ; failAt++ {
			w := &workflow.Workflow{Steps: chain("a", "b", "c"), Finally: []*workflow.Step{{ID: "f"}}, MaxParallel: 3}
			w.Steps = append(w.Steps, &workflow.Step{ID: "d", HasNeeds: true})
			plan := planOf(w)
			j := &fakeJournal{failAt: failAt, err: cause}
			f := &fakeRunner{onClose: []Body{SandboxClosed{ID: "s"}}}
			l := &Loop{Run: NewRun(plan), Journal: j, Runner: f, Clock: newFakeClock(), Opening: RunStarted{RunID: "r"}}
			status, err := l.Drive(context.Background())
			if err == nil {
				if status != RunSucceeded || failAt < 4 {
					t.Fatalf("append %d fails unnoticed: %s", failAt, status)
				}
				break
			}
			var e *Error
			if !errors.Is(err, cause) || !errors.As(err, &e) || e.Class != ClassInfrastructure {
				t.Fatalf("append %d: %v (%T)", failAt, err, err)
			}
			if j.appends != failAt || f.running != 0 || f.closed != 1 {
				t.Fatalf("append %d: %d appends, %d running, closed %d times", failAt, j.appends, f.running, f.closed)
			}
			for _, s := range f.started {
				if id, _, _ := strings.Cut(s, "/"); !slices.ContainsFunc(find[StepStarted](j.all()), func(b StepStarted) bool { return b.Step == id }) {
					t.Fatalf("append %d: step %s started without a durable start", failAt, id)
				}
			}
			if failAt == 1 {
				continue // nothing to resume
			}
			resumeAndFinish(t, plan, j.all())
		}
	}
}

func resumeAndFinish(t *testing.T, plan *workflow.Plan, events []Event) {
	t.Helper()
	run, err := Replay(plan, events)
	if err != nil {
		t.Fatal(err)
	}
	if run.Status != RunRunning {
		return // its end was stored, closing was not
	}
	b, err := PlanResume(plan, run, ResumeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l := &Loop{Run: run, Journal: &fakeJournal{}, Runner: &fakeRunner{}, Clock: newFakeClock(), Opening: b}
	if status, err := l.Drive(context.Background()); err != nil || status != RunSucceeded {
		t.Fatalf("resume = %s, %v", status, err)
	}
}

func TestLoopCheckpointFails(t *testing.T) {
	t.Parallel()
	plan := planOf(&workflow.Workflow{Steps: chain("a", "b"), MaxParallel: 1})
	j, f := &fakeJournal{}, &fakeRunner{failCover: errors.New("disk full")}
	l := &Loop{Run: NewRun(plan), Journal: j, Runner: f, Clock: newFakeClock(), Opening: RunStarted{RunID: "r"}}
	_, err := l.Drive(context.Background())
	if err == nil || !strings.Contains(err.Error(), "store checkpoint after step a: disk full") {
		t.Fatalf("Drive = %v", err)
	}
	if want := []string{"run_started", "step_started", "step_finished", "run_finished"}; !slices.Equal(types(j.all()), want) {
		t.Errorf("events = %q, want %q", types(j.all()), want)
	}
	run, err := Replay(plan, j.all())
	if err != nil || run.Class != ClassInfrastructure || run.Covered(0) {
		t.Fatalf("replay: class %s, covered %v, %v", run.Class, run.Covered(0), err)
	}
	b, err := PlanResume(plan, run, ResumeOptions{})
	if err != nil || len(b.Reset) == 0 || b.Reset[0].Step != "a" {
		t.Errorf("a is not run again: %+v, %v", b, err)
	}
}

// TestLoopCheckpointsWhenNoneRuns: steps that overlap share one checkpoint, taken
// when the last of them ends, and it names all of them.
func TestLoopCheckpointsWhenNoneRuns(t *testing.T) {
	t.Parallel()
	w := &workflow.Workflow{MaxParallel: 2, Steps: []*workflow.Step{{ID: "a"}, {ID: "b"}}, Finally: []*workflow.Step{{ID: "f"}}}
	started := make(chan string, 9)
	end := map[string]chan Outcome{"a": make(chan Outcome), "b": make(chan Outcome), "f": make(chan Outcome)}
	f, j := blockingRunner(started, end), &fakeJournal{}
	seen := make(observer, 99)
	l := &Loop{Run: NewRun(planOf(w)), Journal: j, Runner: f, Clock: newFakeClock(), Opening: RunStarted{RunID: "r"}, Observers: []Observer{seen}}
	done := drive(l, context.Background())
	wait(t, started, "a start")
	wait(t, started, "a start")
	end["a"] <- Outcome{Status: StepSucceeded}
	for e := range seen {
		if _, ok := e.Body.(StepFinished); ok {
			break
		}
	}
	end["b"] <- Outcome{Status: StepSucceeded}
	wait(t, started, "finally")
	end["f"] <- Outcome{Status: StepSucceeded}
	wait(t, done, "the end")
	got := find[StepFinished](j.all())
	if got[0].Checkpoint != "" || got[1].Checkpoint != "c1" || got[2].Checkpoint != "" {
		t.Errorf("checkpoints %q %q %q, want only the second", got[0].Checkpoint, got[1].Checkpoint, got[2].Checkpoint)
	}
	if got[1].Outcome.ChangedCount != 1 || len(f.covered) != 1 || !slices.Equal(f.covered[0], []string{"a", "b"}) {
		t.Errorf("covered %v, outcome %+v", f.covered, got[1].Outcome)
	}
}

type observer chan Event

func (o observer) Observe(e Event) { o <- e }

func TestLoopEmitted(t *testing.T) {
	t.Parallel()
	plan := planOf(&workflow.Workflow{Steps: chain("a"), MaxParallel: 1})
	j := &fakeJournal{}
	f := &fakeRunner{onClose: []Body{SandboxClosed{ID: "s"}}, step: func(_ context.Context, _ Attempt, emit func(Body)) Outcome {
		emit(SandboxCreated{ID: "s", Driver: "fake"})
		emit(WorkspaceImported{Checkpoint: "base", Files: 3})
		return Outcome{Status: StepSucceeded}
	}}
	l := &Loop{Run: NewRun(plan), Journal: j, Runner: f, Clock: newFakeClock(), Opening: RunStarted{RunID: "r"}}
	if _, err := l.Drive(context.Background()); err != nil {
		t.Fatal(err)
	}
	want := []string{"run_started", "step_started", "sandbox_created", "workspace_imported", "step_finished", "run_finished", "sandbox_closed"}
	if got := types(j.all()); !slices.Equal(got, want) {
		t.Errorf("events = %q, want %q", got, want)
	}
	if l.Run.Base != "base" || l.Run.Sandbox != "" {
		t.Errorf("base %q, sandbox %q", l.Run.Base, l.Run.Sandbox)
	}
}

// TestLoopRetriesByTheClock: nobody sleeps; the retry's time is an event.
func TestLoopRetriesByTheClock(t *testing.T) {
	t.Parallel()
	steps := chain("a")
	steps[0].Retry = workflow.Retry{Written: true, MaxAttempts: 2, Initial: time.Minute, Max: time.Minute}
	plan := planOf(&workflow.Workflow{Steps: steps, MaxParallel: 1})
	j, clock := &fakeJournal{}, newFakeClock()
	f := &fakeRunner{step: func(_ context.Context, a Attempt, _ func(Body)) Outcome {
		if a.Attempt == 1 {
			return Outcome{Status: StepFailed, Class: ClassExitCode}
		}
		return Outcome{Status: StepSucceeded}
	}}
	seen := make(observer, 99)
	l := &Loop{Run: NewRun(plan), Journal: j, Runner: f, Clock: clock, Opening: RunStarted{RunID: "r"}, Observers: []Observer{seen}}
	done := drive(l, context.Background())
	for e := range seen {
		if b, ok := e.Body.(RetryScheduled); ok {
			if !b.At.Equal(epoch.Add(time.Minute)) {
				t.Errorf("retry at %s", b.At)
			}
			break
		}
	}
	late := time.After(20 * time.Second)
	for { // the loop arms its timer after the observers
		select {
		case <-late:
			t.Fatal("the retry does not start")
		case got := <-done:
			if got.err != nil || got.status != RunSucceeded {
				t.Fatalf("Drive = %+v", got)
			}
			return
		case <-clock.armed:
			clock.advance(30 * time.Second)
		}
	}
}

// TestLoopRandom drives the random plans through the real loop with goroutines.
func TestLoopRandom(t *testing.T) {
	t.Parallel()
	for seed := range 200 {
		rnd := rand.New(rand.NewPCG(uint64(seed), 11))
		plan, conds := randomPlan(rnd)
		plan.Workflow.Timeout = 0
		plan.Workflow.Walk(func(s *workflow.Step) { // no waiting: the clock stands still
			s.Retry = workflow.Retry{Written: true, MaxAttempts: 1}
			if s.Foreach != nil {
				s.Foreach.BatchPause = 0
			}
		})
		var mu sync.Mutex
		f := &fakeRunner{step: func(context.Context, Attempt, func(Body)) Outcome {
			mu.Lock()
			defer mu.Unlock()
			return randomOutcome(rnd, 80)
		}}
		j := &fakeJournal{}
		l := &Loop{Run: newRun(plan, conds), Journal: j, Runner: f, Clock: newFakeClock(), Opening: RunStarted{RunID: "r"}}
		status, err := l.Drive(context.Background())
		if err != nil || status == RunRunning {
			t.Fatalf("seed %d: %s, %v\n%s", seed, status, err, dump(j.all()))
		}
		if err := law(plan, conds, j.all()); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, dump(j.all()))
		}
		if f.mostRunning > plan.Workflow.MaxParallel {
			t.Fatalf("seed %d: %d steps ran at once", seed, f.mostRunning)
		}
	}
}
