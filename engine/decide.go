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
//     Await comes with nothing but a Wake, when no step has a process, none can start
//     or will be tried again, and an approval has no answer.
//  7. While a run is running and no step has a process, there is an action:
//     nothing gets stuck.
//  8. A scope (foreach, repeat, group) goes on only while nothing asks it to
//     stop, and ends only when all that it opened has ended.
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
	due  bool      // wake is for something that goes on then by itself
}

func (d *decider) add(a Action) { d.out = append(d.out, a) }

// wakeAt keeps the earliest time.
func (d *decider) wakeAt(t time.Time) {
	if d.wake.IsZero() || t.Before(d.wake) {
		d.wake = t
	}
}

// goesOnAt is a time at which more can be done, not one that is a limit.
func (d *decider) goesOnAt(t time.Time) {
	d.due = true
	d.wakeAt(t)
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
	if d.requested(); len(d.out) > 0 {
		return
	}
	switch {
	case d.r.open > 0 && d.r.stopping():
		d.stop()
	case d.r.open > 0:
		d.steps()
	case d.r.finallyNext < len(d.plan.Nodes):
		d.finally()
	default:
		d.add(d.r.finish())
		return
	}
	d.stopAsked()
	d.await()
	if !d.wake.IsZero() {
		d.add(Wake{At: d.wake})
	}
}

// stopping: no step starts any more. An infrastructure failure does not stop the
// run: unrelated branches go on, as after every failure.
func (r *Run) stopping() bool { return r.CancelCause != "" || r.stopped != "" || r.limited() > 0 }

// limited counts the failures that concern the whole run: limits that are spent.
func (r *Run) limited() int {
	return r.failed[rankBudget] + r.failed[rankRateLimit] + r.limits[rankBudget] + r.limits[rankRateLimit]
}

// cancelled: the run's end was wanted.
func cancelled(cause string) bool { return cause == "user" || cause == CauseSuperseded }

func signalled(cause string) bool { return cause == "sigint" || cause == "sigterm" }

// retries are asked for directly after a failure (rule 3). A step is not tried
// again while the run stops, unless what would stop it is itself tried again.
func (d *decider) retries() {
	r := d.r
	if r.fresh.len == 0 || r.Hard || r.CancelCause != "" && r.open > 0 {
		return
	}
	limits := r.limited()
	for i := range r.fresh.all() {
		a, ok := retryOf(d.r.graph[i].step, r, i, d.now)
		if !ok {
			continue
		}
		d.add(a)
		if k, _ := r.counts(i); !r.graph[i].late && (k == rankBudget || k == rankRateLimit) {
			limits--
		}
	}
	// The last step of a run that was just cancelled may be among them: open is
	// then 0 already, but its failure follows from the cancellation.
	if limits > 0 || r.CancelCause != "" {
		d.out = slices.DeleteFunc(d.out, func(a Action) bool { return !r.graph[a.about()].late })
	}
}

// deadlines: the run's timeout over the active time of this attempt, and the
// grace time after a signal.
func (d *decider) deadlines() {
	r := d.r
	switch {
	case r.CancelCause == "" && r.open > 0 && d.plan.Workflow.Timeout > 0:
		d.until(r.ActiveSince.Add(d.plan.Workflow.Timeout))
	case signalled(r.CancelCause) && !r.Hard && (r.running.len > 0 || r.finallyNext < len(d.plan.Nodes)):
		d.until(r.CancelAt.Add(r.Start.Options.Grace))
	}
}

// requested: scopes beyond their time limit, items after one that failed fast,
// and the run's own fail_fast.
func (d *decider) requested() {
	r := d.r
	if d.plan.Workflow.FailFast && r.stopped == "" && r.CancelCause == "" && r.open > 0 {
		if k, bad := r.failed.worst(); bad {
			d.add(RequestStop{Node: -1, Rest: true, Status: StepCancelled, Reason: "stopped by fail_fast: " + r.firstOf(k, 0, r.finally)})
			return
		}
	}
	for i := range r.timed.all() {
		if at := r.graph[i].scope.since.Add(r.graph[i].step.Timeout); d.now.Before(at) {
			d.wakeAt(at)
		} else if r.Nodes[i].Stop == "" {
			d.add(RequestStop{Node: i, Status: StepTimedOut, Reason: fmt.Sprintf("timed out after %s", r.graph[i].step.Timeout)})
		}
	}
	if !r.stopping() {
		d.cancelRest()
	}
	for i := range r.attention.all() {
		g := &r.graph[i]
		if g.scope != nil && g.scope.again && !r.stopping() && r.Nodes[i].Stop == "" {
			d.add(ExpandScope{Node: i}) // before anything inside it starts
			continue
		}
		if r.CancelCause != "" || g.role != workflow.RoleForeach || g.scope == nil || !g.step.Foreach.FailFast || g.scope.bad == 0 || g.scope.rest || g.scope.ended == len(g.scope.frames) || r.Nodes[i].Stop != "" {
			continue
		}
		_, why := r.firstBad(g.scope.frames)
		d.add(RequestStop{Node: i, Rest: true, Status: StepCancelled, Reason: "stopped by fail_fast: " + why})
	}
	slices.SortFunc(d.out, func(a, b Action) int { return a.about() - b.about() })
	d.out = slices.CompactFunc(d.out, func(a, b Action) bool { return a.about() == b.about() })
	if len(d.out) == 0 {
		d.unstarted()
	}
}

// insideOpen: what the node is inside of is open. What is inside of a scope that did
// not start (again) ends with it.
func (r *Run) insideOpen(i int) bool {
	f := r.graph[i].frame
	return f == 0 || r.Nodes[r.frames[f].parent].Status == StepRunning
}

// unstarted settles what was asked to stop and has not started.
func (d *decider) unstarted() {
	r := d.r
	notRun := func(i int, reason string, cancelled bool) {
		if n := &r.Nodes[i]; r.insideOpen(i) && (n.Status == StepPending || n.Status == StepRetrying) {
			d.add(NotRun{Node: i, Reason: reason, Cancelled: cancelled})
		}
	}
	for i := range r.asked.all() {
		// What a join needs no more ends after what it waits for: whoever comes after a
		// step comes after all that is before it.
		if n := &r.Nodes[i]; n.StopJoin == "" || n.needs == 0 || r.graph[i].tmpl.Opens() {
			notRun(i, n.StopReason, n.StopJoin != "")
		}
	}
}

// stopAsked ends the processes of what was asked to stop.
func (d *decider) stopAsked() {
	r := d.r
	if r.CancelCause != "" && (r.open > 0 || r.Hard) {
		return // stop() and stopLate() end all of them
	}
	for i := range r.asked.all() {
		if n := &r.Nodes[i]; r.running.has(i) {
			d.add(StopStep{Node: i, Cause: StopError{Status: n.Stop, Reason: n.StopReason}})
		}
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
	for i := range r.attention.all() {
		d.scope(i, nil)
	}
	d.approvals(true)
	if r.running.len > 0 {
		if r.CancelCause != "" {
			d.stopRunning()
		}
		return
	}
	why := d.stopReason()
	for i := range r.graph {
		n := &r.Nodes[i]
		switch {
		case r.graph[i].late, !r.insideOpen(i):
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
	r := d.r
	switch {
	case r.CancelCause != "":
		return causeInWords(r.CancelCause)
	case r.limited() == 0:
		return r.stopped
	}
	k := rankRateLimit
	if r.failed[rankBudget]+r.limits[rankBudget] > 0 {
		k = rankBudget
	}
	return "the run stopped: " + r.firstOf(k, 0, len(r.graph))
}

func (d *decider) stopRunning() {
	cause := StopError{Status: StepInterrupted, Reason: causeInWords(d.r.CancelCause)}
	switch d.r.CancelCause {
	case "user", CauseSuperseded:
		cause.Status = StepCancelled
	case "timeout":
		cause.Status = StepTimedOut
	}
	for i := range d.r.running.all() {
		d.add(StopStep{Node: i, Cause: cause})
	}
}

// steps: what cannot run is settled, scopes go on, then due retries and ready
// steps take the free slots in file order.
func (d *decider) steps() {
	r := d.r
	for i := range r.doomed.all() {
		if r.nothingToJoin(i) {
			d.add(SkipStep{Node: i, Reason: r.unmetReason(i)})
		} else {
			d.add(NotRun{Node: i, Reason: d.notRunReason(i)})
		}
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
			d.goesOnAt(n.RetryAt)
		case slots > 0:
			slots--
			d.add(StartStep{Node: i, Attempt: n.Attempts + 1})
		}
	}
	for i := range r.ready.all() {
		if slots <= 0 {
			break
		}
		if d.next(i) {
			slots--
		}
	}
	for i := range r.attention.all() {
		d.scope(i, &slots)
	}
	d.approvals(false)
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
	return d.r.graph[i].role == workflow.RoleStep
}

func (d *decider) notRunReason(i int) string {
	n := &d.r.Nodes[i]
	if n.unmet && !n.excluded {
		return d.r.unmetReason(i)
	}
	if n.Upstream < 0 || n.excluded {
		return fmt.Sprintf("the run was asked to end after step %s", d.r.Start.Options.Until)
	}
	step, status := d.r.graph[n.Upstream].id, d.r.Nodes[n.Upstream].Status
	if up := &d.r.Nodes[n.Upstream]; up.Died != "" {
		return fmt.Sprintf("step %s: %s", step, diedWords(up))
	}
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
	case n.Status == StepRunning && d.r.graph[i].role == workflow.RoleStep:
		if r.Hard {
			d.stopRunning()
		}
	case n.Status == StepRunning && r.Hard:
		d.stopLate()
	case n.Status == StepRunning:
		d.steps() // nothing but what is inside this one is open
	case !r.finallyRuns():
		for ; i < len(d.plan.Nodes); i++ {
			if !r.ended(i) {
				d.add(NotRun{Node: i, Reason: d.noFinallyReason()})
			}
		}
	case d.plan.Nodes[i].OnFailure && !r.hasFailed():
		d.add(NotRun{Node: i, Reason: "the run did not fail"})
	case n.Status == StepRetrying && d.now.Before(n.RetryAt):
		d.wakeAt(n.RetryAt)
	case n.Status == StepRetrying:
		d.add(StartStep{Node: i, Attempt: n.Attempts + 1})
	default:
		d.next(i)
	}
}

// hasFailed: on_failure runs.
func (r *Run) hasFailed() bool {
	status, _ := r.verdict()
	return status == RunFailed
}

// stopLate ends what is open inside a finally step.
func (d *decider) stopLate() {
	r := d.r
	for i := range r.attention.all() {
		d.scope(i, nil)
	}
	if r.running.len > 0 {
		d.stopRunning()
		return
	}
	for i := len(d.plan.Nodes); i < len(r.graph); i++ {
		if n := &r.Nodes[i]; r.graph[i].late && r.insideOpen(i) && (n.Status == StepPending || n.Status == StepRetrying) {
			d.add(NotRun{Node: i, Reason: d.noFinallyReason()})
		}
	}
}

func (d *decider) noFinallyReason() string {
	if d.r.CancelCause != "" {
		return causeInWords(d.r.CancelCause) + "; the time for `finally` is over"
	}
	return "`finally` waits until the run goes on: " + d.stopReason()
}
