package engine

import (
	"fmt"
	"slices"
	"time"

	"flowrun.dev/flow/workflow"
)

// defaultMaxParallel where a plan built by hand gives none (practice 8).
const defaultMaxParallel = 5

// Decide says what to do next. It is pure and total: the same arguments give the
// same actions, and nothing is changed. Fold what became of the actions and ask
// again; when only StartStep's effects, StopStep and Wake are left, wait.
//
// Rules, asserted after each call:
//
//  1. A run that is not running gets no action.
//  2. A step is named by at most one action.
//  3. Retries are scheduled before anything else follows from a failure: they
//     come alone.
//  4. A step starts once it is pending with all needs ended and its condition
//     not false, or when its retry is due; never while the run is stopping.
//  5. Steps with a process never exceed max_parallel; finally nodes run one at a
//     time, in order, after all steps have ended.
//  6. CancelRun and FinishRun come alone; FinishRun only when all nodes have ended.
//  7. While a run is running and no step has a process, there is an action:
//     nothing gets stuck.
//
// A broken rule is a defect of this package, so Decide panics; the loop uses the
// form with an error and ends the run instead.
func Decide(plan *workflow.Plan, run *Run, now time.Time) []Action {
	actions, err := decide(plan, run, now, nil)
	if err != nil {
		panic(err)
	}
	return actions
}

func decide(plan *workflow.Plan, run *Run, now time.Time, into []Action) ([]Action, error) {
	d := decider{plan: plan, r: run, now: now, out: into[:0]}
	d.decide()
	return d.out, checkRules(plan, run, now, d.out)
}

type decider struct {
	plan *workflow.Plan
	r    *Run
	now  time.Time
	out  []Action
	wake time.Time // zero: no need
}

func (d *decider) add(a Action) { d.out = append(d.out, a) }

// wakeAt keeps the earliest time.
func (d *decider) wakeAt(t time.Time) {
	if d.wake.IsZero() || t.Before(d.wake) {
		d.wake = t
	}
}

func (d *decider) decide() {
	if d.r.Status != RunRunning {
		return
	}
	if d.retries(); len(d.out) > 0 {
		return
	}
	if d.deadlines(); len(d.out) > 0 {
		return
	}
	switch {
	case d.r.open > 0 && d.r.stopping():
		d.stop()
	case d.r.open > 0:
		d.steps()
	case d.r.finallyNext < len(d.r.Nodes):
		d.finally()
	default:
		d.add(d.r.finish())
		return
	}
	if !d.wake.IsZero() {
		d.add(Wake{At: d.wake})
	}
}

// stopping: no step starts any more. An infrastructure failure does not stop the
// run: unrelated branches go on, as after every failure.
func (r *Run) stopping() bool {
	return r.CancelCause != "" || r.failed[rankBudget] > 0 || r.failed[rankRateLimit] > 0
}

func signalled(cause string) bool { return cause == "sigint" || cause == "sigterm" }

// retries are asked for directly after a failure (rule 3). A step is not tried
// again while the run stops, unless what would stop it is itself tried again.
func (d *decider) retries() {
	r := d.r
	if r.fresh.len == 0 || r.Hard || r.CancelCause != "" && r.open > 0 {
		return
	}
	limits := r.failed[rankBudget] + r.failed[rankRateLimit]
	for i := range r.fresh.all() {
		a, ok := retryOf(d.plan.Nodes[i].Step, r, i, d.now)
		if !ok {
			continue
		}
		d.add(a)
		if k, _ := r.counts(i); i < r.finally && (k == rankBudget || k == rankRateLimit) {
			limits--
		}
	}
	// The last step of a run that was just cancelled may be among them: open is
	// then 0 already, but its failure follows from the cancellation.
	if limits > 0 || r.CancelCause != "" {
		d.out = slices.DeleteFunc(d.out, func(a Action) bool { return a.about() < r.finally })
	}
}

// deadlines: the run's timeout over the active time of this attempt, and the
// grace time after a signal.
func (d *decider) deadlines() {
	r := d.r
	switch {
	case r.CancelCause == "" && r.open > 0 && d.plan.Workflow.Timeout > 0:
		d.until(r.ActiveSince.Add(d.plan.Workflow.Timeout))
	case signalled(r.CancelCause) && !r.Hard && (r.running.len > 0 || r.finallyNext < len(r.Nodes)):
		d.until(r.CancelAt.Add(r.Start.Options.Grace))
	}
}

func (d *decider) until(t time.Time) {
	if d.now.Before(t) {
		d.wakeAt(t)
	} else {
		d.add(CancelRun{Cause: "timeout"})
	}
}

// stop ends what runs when the run was cancelled, lets it finish when the run
// only ran into a limit, and then settles all steps that are left.
func (d *decider) stop() {
	r := d.r
	if r.running.len > 0 {
		if r.CancelCause != "" {
			d.stopRunning()
		}
		return
	}
	why := d.stopReason()
	for i := range r.finally {
		switch n := &r.Nodes[i]; {
		case n.Status == StepPending && n.Upstream >= 0 && r.doomed.has(i):
			d.add(NotRun{Node: i, Reason: d.notRunReason(i)})
		case n.Status == StepPending:
			d.add(NotRun{Node: i, Reason: why})
		case n.Status == StepRetrying:
			d.add(NotRun{Node: i, Reason: fmt.Sprintf("attempt %d did not start: %s", n.Attempts+1, why)})
		}
	}
}

func (d *decider) stopReason() string {
	if d.r.CancelCause != "" {
		return causeInWords(d.r.CancelCause)
	}
	status, _ := d.r.verdict()
	k := rankRateLimit
	if status == RunOutOfBudget || d.r.failed[rankBudget] > 0 {
		k = rankBudget
	}
	return "the run stopped: " + d.r.firstOf(k, 0, d.r.finally)
}

func (d *decider) stopRunning() {
	cause := StopError{Status: StepInterrupted, Reason: causeInWords(d.r.CancelCause)}
	switch d.r.CancelCause {
	case "user":
		cause.Status = StepCancelled
	case "timeout":
		cause.Status = StepTimedOut
	}
	for i := range d.r.running.all() {
		d.add(StopStep{Node: i, Cause: cause})
	}
}

// steps: what cannot run is settled, then due retries and ready steps take the
// free slots in file order.
func (d *decider) steps() {
	r := d.r
	for i := range r.doomed.all() {
		d.add(NotRun{Node: i, Reason: d.notRunReason(i)})
	}
	slots := d.plan.Workflow.MaxParallel
	if slots <= 0 {
		slots = defaultMaxParallel
	}
	slots -= r.running.len
	for i := range r.retrying.all() {
		n := &r.Nodes[i]
		switch {
		case d.now.Before(n.RetryAt):
			d.wakeAt(n.RetryAt)
		case slots > 0:
			slots--
			d.add(StartStep{Node: i, Attempt: n.Attempts + 1})
		}
	}
	if slots <= 0 {
		return
	}
	for i := range r.ready.all() {
		if d.next(i) {
			if slots--; slots == 0 {
				return
			}
		}
	}
}

// next is the next thing to do with a node whose turn it is; it says whether that
// takes a slot.
func (d *decider) next(i int) bool {
	n := &d.r.Nodes[i]
	switch {
	case n.condition && n.Condition == TruthUnknown:
		d.add(EvaluateCondition{Node: i})
	case n.condition && n.Condition == TruthFalse:
		d.add(SkipStep{Node: i})
		return false
	default:
		d.add(StartStep{Node: i, Attempt: n.Attempts + 1})
	}
	return true
}

func (d *decider) notRunReason(i int) string {
	n := &d.r.Nodes[i]
	if n.Upstream < 0 || n.excluded {
		return fmt.Sprintf("the run was asked to end after step %s", d.r.Start.Options.Until)
	}
	step, status := d.plan.Nodes[n.Upstream].Step.ID, d.r.Nodes[n.Upstream].Status
	if status == StepTimedOut {
		return fmt.Sprintf("step %s timed out", step)
	}
	if status == StepIsNotRun {
		return fmt.Sprintf("step %s was not run", step)
	}
	return fmt.Sprintf("step %s %s", step, verb(status))
}

func verb(s StepStatus) string {
	switch s {
	case StepFailed:
		return "failed"
	default:
		return "was " + string(s)
	}
}

// finally: one node at a time, in order, whatever became of the one before.
func (d *decider) finally() {
	r, i := d.r, d.r.finallyNext
	n := &r.Nodes[i]
	switch {
	case n.Status == StepRunning:
		if r.Hard {
			d.stopRunning()
		}
	case !r.finallyRuns():
		for ; i < len(r.Nodes); i++ {
			if !r.ended(i) {
				d.add(NotRun{Node: i, Reason: d.noFinallyReason()})
			}
		}
	case n.Status == StepRetrying && d.now.Before(n.RetryAt):
		d.wakeAt(n.RetryAt)
	case n.Status == StepRetrying:
		d.add(StartStep{Node: i, Attempt: n.Attempts + 1})
	default:
		d.next(i)
	}
}

func (d *decider) noFinallyReason() string {
	if d.r.CancelCause != "" {
		return causeInWords(d.r.CancelCause) + "; the time for `finally` is over"
	}
	return "`finally` waits until the run goes on: " + d.stopReason()
}
