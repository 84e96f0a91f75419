package engine

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"flowrun.dev/flow/workflow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// fakeIf is a condition described without the language: a value, and whether it
// asks about failures itself.
type fakeIf struct {
	eval   func(workflow.Vars) (bool, error)
	status bool
	files  bool
}

func (f fakeIf) EvalBool(v workflow.Vars) (bool, error) { return f.eval(v) }
func (f fakeIf) UsesStatus() bool                       { return f.status }
func (f fakeIf) UsesFiles() bool                        { return f.files }
func (f fakeIf) Refs() []workflow.Ref                   { return nil }

type fakeIfs map[string]fakeIf

func (m fakeIfs) of(s *workflow.Step) condition {
	if c, ok := m[s.ID]; ok {
		return c
	}
	return nil
}

// namedIf are the conditions that test scripts use.
func namedIf(name string) fakeIf {
	switch name {
	case "true":
		return fakeIf{eval: func(workflow.Vars) (bool, error) { return true, nil }}
	case "false":
		return fakeIf{eval: func(workflow.Vars) (bool, error) { return false, nil }}
	case "error":
		return fakeIf{eval: func(workflow.Vars) (bool, error) { return false, fmt.Errorf("no such key") }}
	case "always":
		return fakeIf{status: true, eval: func(workflow.Vars) (bool, error) { return true, nil }}
	case "success":
		return fakeIf{status: true, eval: func(v workflow.Vars) (bool, error) { return v.Success, nil }}
	case "failure":
		return fakeIf{status: true, eval: func(v workflow.Vars) (bool, error) { return v.Failure, nil }}
	case "cancelled":
		return fakeIf{status: true, eval: func(v workflow.Vars) (bool, error) { return v.Cancelled, nil }}
	}
	panic("unknown condition " + name)
}

// planOf links steps by their Needs (by id); finally steps come after.
func planOf(w *workflow.Workflow) *workflow.Plan {
	p := &workflow.Plan{Workflow: w, ByID: map[string]int{}}
	for _, s := range w.Steps {
		p.ByID[s.ID] = len(p.Nodes)
		p.Nodes = append(p.Nodes, workflow.Node{Step: s})
	}
	for _, s := range w.Finally {
		p.ByID[s.ID] = len(p.Nodes)
		p.Nodes = append(p.Nodes, workflow.Node{Step: s, Finally: true})
	}
	for i := range w.Steps {
		for _, need := range p.Nodes[i].Step.Needs {
			j := p.ByID[need]
			p.Nodes[i].Needs = append(p.Nodes[i].Needs, j)
			p.Nodes[j].Dependents = append(p.Nodes[j].Dependents, i)
		}
	}
	return p
}

// fakeClock moves only when told to, or (auto) to the next timer when the loop
// has nothing else to wait for.
type fakeClock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[*fakeTimer]bool
	armed  chan struct{} // buffered 1: a timer was armed
}

type fakeTimer struct {
	at time.Time
	c  chan time.Time
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: epoch, timers: map[*fakeTimer]bool{}, armed: make(chan struct{}, 1)}
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) After(d time.Duration) (<-chan time.Time, func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &fakeTimer{at: c.now.Add(d), c: make(chan time.Time, 1)}
	if d <= 0 {
		t.c <- c.now
		return t.c, func() {}
	}
	c.timers[t] = true
	select {
	case c.armed <- struct{}{}:
	default:
	}
	return t.c, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.timers, t)
	}
}

// advance moves the clock and fires what is due.
func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for t := range c.timers {
		if !t.at.After(c.now) {
			t.c <- c.now
			delete(c.timers, t)
		}
	}
}

// fakeJournal keeps events in memory; it fails at the failAt-th append (from 1).
type fakeJournal struct {
	mu      sync.Mutex
	events  []Event
	appends int
	failAt  int
	err     error
	asked   []Body
}

func (j *fakeJournal) Append(_ context.Context, events []Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.appends++
	if j.failAt > 0 && j.appends >= j.failAt {
		return j.err
	}
	j.events = append(j.events, events...)
	return nil
}

func (j *fakeJournal) Inbox(context.Context) ([]Body, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := j.asked
	j.asked = nil
	return b, nil
}

func (j *fakeJournal) all() []Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]Event(nil), j.events...)
}

// fakeRunner plays outcomes. step decides how an attempt ends; nil succeeds.
type fakeRunner struct {
	forked      map[string]bool
	mu          sync.Mutex
	step        func(ctx context.Context, a Attempt, emit func(Body)) Outcome
	started     []string
	running     int
	mostRunning int
	checkpoints int
	covered     [][]string
	failCover   error
	closed      int
	onClose     []Body
	output      func(step string, stderr bool) (string, error)
}

func (f *fakeRunner) Run(ctx context.Context, a Attempt, emit func(Body)) Outcome {
	f.mu.Lock()
	f.started = append(f.started, fmt.Sprintf("%s/%d", a.Step.ID, a.Attempt))
	f.running++
	f.mostRunning = max(f.mostRunning, f.running)
	f.mu.Unlock()
	out := Outcome{Status: StepSucceeded}
	if f.step != nil {
		out = f.step(ctx, a, emit)
	}
	f.mu.Lock()
	f.running--
	f.mu.Unlock()
	return out
}

func (f *fakeRunner) Forked(step string) bool { return f.forked[step] }

func (f *fakeRunner) Checkpoint(_ context.Context, steps []string) (string, []FileChange, int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running > 0 {
		panic("checkpoint while a step runs")
	}
	if f.failCover != nil {
		return "", nil, 0, f.failCover
	}
	f.checkpoints++
	f.covered = append(f.covered, steps)
	return fmt.Sprintf("c%d", f.checkpoints), []FileChange{{Path: steps[len(steps)-1], Op: "added"}}, 1, nil
}

func (f *fakeRunner) Files() workflow.Files { return nil }

func (f *fakeRunner) Output(_ context.Context, step string, _ int, _ string, stderr bool) (string, error) {
	if f.output == nil {
		return "", nil
	}
	return f.output(step, stderr)
}

func (f *fakeRunner) Compute(outputs []workflow.Output, vars workflow.Vars) (map[string]any, error) {
	out := map[string]any{}
	for _, o := range outputs {
		v, err := o.Expr.Eval(vars)
		if err != nil {
			return nil, err
		}
		out[o.Name] = v
	}
	return out, nil
}

func (f *fakeRunner) Close(context.Context) []Body {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
	return f.onClose
}

// stopped is what a runner returns once its context was cancelled.
func stopped(ctx context.Context) Outcome {
	<-ctx.Done()
	stop := context.Cause(ctx).(*StopError)
	class := ClassCancelled
	if stop.Status == StepTimedOut {
		class = ClassTimeout
	}
	return Outcome{Status: stop.Status, Class: class, Error: stop.Reason}
}
