package report

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"flowrun.dev/flow/engine"
)

// tally is what a live reporter knows of the run: the fold of the events it saw.
type tally struct {
	run, workflow string
	sandbox       engine.SandboxCreated // announced in the first line
	attempt       int
	order         []string // ids in the plan's order, then as they appeared
	steps         map[string]*stepTally
	counts        map[engine.StepStatus]int
	running       int
	denied        int
	cost          float64
	begin, end    time.Time
	asked         []ApprovalView // questions without an answer
	finished      *engine.RunFinished
	final         *Final
}

type stepTally struct {
	status   engine.StepStatus
	attempt  int
	started  time.Time
	duration time.Duration
	retryAt  time.Time
}

func newTally(cfg Config) *tally {
	t := &tally{run: cfg.RunID, workflow: cfg.Workflow, sandbox: cfg.Sandbox, attempt: cfg.Attempt,
		steps: map[string]*stepTally{}, counts: map[engine.StepStatus]int{}}
	if cfg.Plan != nil {
		for i := range cfg.Plan.Nodes {
			t.step(cfg.Plan.Nodes[i].Step.ID)
		}
	}
	for _, e := range cfg.Past {
		t.observe(e)
	}
	t.begin, t.end, t.finished = time.Time{}, time.Time{}, nil // of this attempt
	t.attempt = cfg.Attempt
	return t
}

func (t *tally) step(id string) *stepTally {
	st := t.steps[id]
	if st == nil {
		st = &stepTally{status: engine.StepPending}
		t.steps[id] = st
		t.order = append(t.order, id)
		t.counts[engine.StepPending]++
	}
	return st
}

func (t *tally) set(id string, status engine.StepStatus) *stepTally {
	st := t.step(id)
	if st.status == engine.StepRunning {
		t.running--
	}
	if status == engine.StepRunning {
		t.running++
	}
	t.counts[st.status]--
	t.counts[status]++
	st.status = status
	return st
}

// observe folds one event.
func (t *tally) observe(ev engine.Event) {
	if t.begin.IsZero() {
		t.begin = ev.At
	}
	t.end = ev.At
	switch b := ev.Body.(type) {
	case engine.RunStarted:
		t.run, t.workflow = b.RunID, b.Workflow
	case engine.RunResumed:
		t.attempt = b.Attempt
		for _, r := range b.Reset {
			t.set(r.Step, engine.StepPending)
			t.answered(r.Step)
		}
	case engine.ApprovalRequested:
		t.set(b.Step, engine.StepWaiting)
		if b.Error == "" {
			t.asked = append(t.asked, AskedView(t.run, b, ev.At))
		}
	case engine.ApprovalAnswered:
		t.answered(b.Step)
	case engine.StepSkipped:
		t.set(b.Step, engine.StepIsSkipped)
	case engine.StepNotRun:
		t.set(b.Step, b.Ended())
	case engine.StepStarted:
		st := t.set(b.Step, engine.StepRunning)
		st.attempt, st.started = b.Attempt, ev.At
	case engine.StepFinished:
		t.answered(b.Step)
		st := t.set(b.Step, b.Outcome.Status)
		st.attempt, st.duration = b.Attempt, b.Outcome.Duration
		if a := b.Outcome.Agent; a != nil {
			t.denied += a.Denied
			t.cost += a.CostUSD
		}
	case engine.RetryScheduled:
		st := t.set(b.Step, engine.StepRetrying)
		st.retryAt = b.At
	case engine.RunFinished:
		t.finished = &b
		for id, st := range t.steps {
			if b.Status == engine.RunWaiting && st.status == engine.StepRunning {
				t.set(id, engine.StepWaiting) // it holds a step that waits
			}
		}
	}
}

// done counts the steps that will not run (again) in this attempt.
func (t *tally) done() int {
	return len(t.order) - t.counts[engine.StepPending] - t.counts[engine.StepRunning] - t.counts[engine.StepRetrying] - t.counts[engine.StepWaiting]
}

// answered takes a step's question away.
func (t *tally) answered(step string) {
	t.asked = slices.DeleteFunc(t.asked, func(a ApprovalView) bool { return a.Step == step })
}

// summary is the last line of a run (invariant 4).
func (t *tally) summary(s Style) string {
	var parts []string
	for _, st := range []engine.StepStatus{engine.StepSucceeded, engine.StepFailed, engine.StepTimedOut,
		engine.StepCancelled, engine.StepInterrupted, engine.StepIsSkipped, engine.StepIsNotRun,
		engine.StepWaiting, engine.StepRunning, engine.StepRetrying, engine.StepPending} {
		if n := t.counts[st]; n > 0 {
			parts = append(parts, strconv.Itoa(n)+" "+s.stepLook(st).word)
		}
	}
	line := count(len(t.order), "step")
	if len(parts) > 0 {
		line += ": " + strings.Join(parts, ", ")
	}
	sep := s.glyphs().sep
	line += sep + duration(t.end.Sub(t.begin))
	if m := money(t.cost); m != "" {
		line += sep + m
	}
	return line + sep + count(t.denied, "denied call")
}

// status of the run as far as it is known: the caller's word, then the event's.
func (t *tally) status() (engine.RunStatus, string) {
	switch {
	case t.final != nil:
		return t.final.Status, t.final.Cause
	case t.finished != nil:
		return t.finished.Status, t.finished.Cause
	}
	return "", ""
}

// known: there is a run to tell of. Without one (it could not begin) a summary
// would say that nothing went wrong.
func (t *tally) known() bool { return !t.begin.IsZero() || t.final != nil }

// carryOn is the exact command that continues the run, "" when none does.
func (t *tally) carryOn() string {
	if t.final != nil {
		return t.final.Continue
	}
	if t.finished == nil {
		return ""
	}
	return ContinueCommand(t.run, t.finished.Status)
}

// ContinueCommand is the command that continues a run in this state; "" when
// there is nothing to continue (design: architecture, Resume).
func ContinueCommand(run string, st engine.RunStatus) string {
	switch st {
	case engine.RunFailed, engine.RunInterrupted, engine.RunWaiting, engine.RunOutOfBudget, engine.RunRateLimited:
		if run != "" {
			return "flow resume " + clean(run)
		}
	}
	return ""
}
