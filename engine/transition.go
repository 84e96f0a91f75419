package engine

import (
	"fmt"
	"strings"
	"time"

	"flowrun.dev/flow/workflow"
)

// TransitionError is an event that is impossible in the state that the earlier
// events led to. It names what happened to the step before.
type TransitionError struct {
	Seq     int64
	Event   string // type
	Step    string // "" for an event of the run
	State   string
	History string
}

func (e *TransitionError) Error() string {
	where := "run"
	if e.Step != "" {
		where = "step " + e.Step
	}
	return fmt.Sprintf("apply event %d (%s): impossible for %s, which is %s; its history: %s", e.Seq, e.Event, where, e.State, e.History)
}

// trailEntry remembers an event for the history in an error: 24 bytes an event.
type trailEntry struct {
	seq     int64
	kind    string
	node    int32 // -1 for the run
	attempt int32
}

// Apply folds one event: the only thing that changes a Run. An error is a
// *TransitionError, or says that the sequence has a gap; the Run is then unusable.
// Cost: the needs and dependents of the event's step, except for RunStarted and
// RunResumed (the whole graph).
func (r *Run) Apply(e Event) error {
	if e.Seq != r.Seq+1 {
		return fmt.Errorf("apply event %d: the one before is %d: an event is missing or came twice", e.Seq, r.Seq)
	}
	node, attempt, err := r.place(e)
	if err != nil {
		return err
	}
	r.at = e.At
	if state, ok := r.move(e, node); !ok {
		return r.impossible(e, node, state)
	}
	r.Seq = e.Seq
	r.trail = append(r.trail, trailEntry{seq: e.Seq, kind: e.Body.Type(), node: int32(node), attempt: int32(attempt)})
	return nil
}

// place finds the node that an event is about, -1 for the run.
func (r *Run) place(e Event) (node, attempt int, err error) {
	var step string
	switch b := e.Body.(type) {
	case ConditionEvaluated:
		step = b.Step
	case StepSkipped:
		step = b.Step
	case StepNotRun:
		step = b.Step
	case StepStarted:
		step, attempt = b.Step, b.Attempt
	case ForeachExpanded:
		step = b.Step
	case BatchStarted:
		step = b.Step
	case StepSlow:
		step, attempt = b.Step, b.Attempt
	case IterationStarted:
		step = b.Step
	case WorkflowCalled:
		step = b.Step
	case UntilEvaluated:
		step = b.Step
	case ApprovalRequested:
		step = b.Step
	case ApprovalAnswered:
		step = b.Step
	case StopRequested:
		if b.Step == "" {
			return -1, 0, nil
		}
		step = b.Step
	case StepFinished:
		step, attempt = b.Step, b.Attempt
	case TurnCompleted:
		step, attempt = b.Step, b.Attempt
	case RetryScheduled:
		step, attempt = b.Step, b.Attempt
	default:
		return -1, 0, nil
	}
	i, ok := r.find(step)
	if !ok {
		return -1, 0, fmt.Errorf("apply event %d (%s): the workflow has no step %q", e.Seq, e.Body.Type(), step)
	}
	return i, attempt, nil
}

// move dispatches to the named transitions. It returns the state in words when
// the event is impossible in it.
func (r *Run) move(e Event, i int) (state string, ok bool) {
	if i >= 0 {
		n := &r.Nodes[i]
		if r.Status != RunRunning {
			return "part of a run that is " + stateOf(r.Status), false
		}
		switch b := e.Body.(type) {
		case ConditionEvaluated:
			ok = r.evaluated(i, e.Seq, b)
		case StepSkipped:
			ok = r.skip(i, e.Seq, b.Reason)
		case StepNotRun:
			ok = r.notRun(i, e.Seq, b)
		case StepStarted:
			ok = r.start(i, e, b.Attempt)
		case StepFinished:
			ok = r.finished(i, e.Seq, b)
		case RetryScheduled:
			ok = r.scheduleRetry(i, b)
		case TurnCompleted:
			ok = r.turn(i, e.Seq, b)
		case ForeachExpanded:
			ok = r.expanded(i, e.Seq, b)
		case BatchStarted:
			ok = r.batch(i, b)
		case StepSlow: // for people; it may come a moment late
			ok = b.Attempt <= n.Attempts
		case WorkflowCalled:
			ok = r.call(i, b)
		case IterationStarted:
			ok = r.iterate(i, b)
		case UntilEvaluated:
			ok = r.judged(i, b)
		case ApprovalRequested:
			ok = r.askPerson(i, e, b)
		case ApprovalAnswered:
			ok = r.answer(i, b)
		case StopRequested:
			ok = r.stopAsked(i, b)
		}
		return fmt.Sprintf("%s after %d attempts", n.Status, n.Attempts), ok
	}
	switch b := e.Body.(type) {
	case RunStarted:
		ok = r.begin(e, b)
	case RunResumed:
		ok = r.resume(e, b)
	case SandboxCreated:
		if ok = r.Status == RunRunning; ok && b.Use == "" {
			r.Sandbox = b.ID
		}
	case SandboxClosed:
		// Also after the run's end: closing follows the last append.
		if ok = r.Status != ""; ok && r.Sandbox == b.ID {
			r.Sandbox = ""
		}
	case BackgroundEnded:
		ok = r.backgroundEnded(b)
	case Egress, SourceChanged:
		ok = r.Status != "" // decides nothing: for records and people
	case WorkspaceImported:
		ok = r.imported(b)
	case CancelRequested:
		ok = r.cancel(e.At, b.Cause)
	case StopRequested:
		ok = r.stopAsked(-1, b)
	case RunFinished:
		ok = r.finishRun(e, b)
	}
	return stateOf(r.Status), ok
}

func stateOf(s RunStatus) string {
	if s == "" {
		return "not started"
	}
	return string(s)
}

// begin: not started → running.
func (r *Run) begin(e Event, b RunStarted) bool {
	if r.Status != "" {
		return false
	}
	r.ID, r.Start, r.Status, r.Attempt = b.RunID, b, RunRunning, 1
	r.Base = b.SourceManifest
	r.StartedAt, r.ActiveSince = e.At, e.At
	r.rebuild() // Options.Until is known now
	return true
}

// imported: the source is in the sandbox. Only before the first checkpoint: a
// sandbox made later is restored from one.
func (r *Run) imported(b WorkspaceImported) bool {
	if r.Status != RunRunning || len(r.Line) > 0 {
		return false
	}
	r.Base = b.Checkpoint
	return true
}

// mayStart: the node's turn has come, as far as the graph goes.
func (r *Run) mayStart(i int) bool {
	if r.graph[i].frame == 0 && i >= r.finally {
		return r.open == 0 && i == r.finallyNext && r.Nodes[i].Status == StepPending
	}
	return r.Nodes[i].Stop == "" && (r.ready.has(i) || r.admissible(i))
}

// evaluated: pending → pending with a known condition, or failed.
func (r *Run) evaluated(i int, seq int64, b ConditionEvaluated) bool {
	n := &r.Nodes[i]
	if !r.mayStart(i) || !n.condition || n.Condition != TruthUnknown {
		return false
	}
	r.fresh.clear()
	r.admit(i)
	if b.Error != "" {
		n.Status, n.Reason = StepFailed, b.Error
		n.Last = &Outcome{Status: StepFailed, Class: ClassInvalid, Error: b.Error}
		r.ready.remove(i)
		r.end(i, seq)
		return true
	}
	n.Condition = TruthFalse
	if b.Value {
		n.Condition = TruthTrue
	}
	return true
}

// skip: pending, condition false or nothing to join → skipped.
func (r *Run) skip(i int, seq int64, reason string) bool {
	n := &r.Nodes[i]
	if !(r.mayStart(i) && n.Condition == TruthFalse) && !r.nothingToJoin(i) {
		return false
	}
	r.fresh.clear()
	n.Status, n.Reason = StepIsSkipped, reason
	r.ready.remove(i)
	r.doomed.remove(i)
	r.end(i, seq)
	return true
}

// notRun: pending or retrying → not run, or cancelled by a join.
func (r *Run) notRun(i int, seq int64, b StepNotRun) bool {
	n := &r.Nodes[i]
	if n.Status != StepPending && n.Status != StepRetrying {
		return false
	}
	r.fresh.clear()
	r.ready.remove(i)
	r.doomed.remove(i)
	r.retrying.remove(i)
	n.Status, n.Reason, n.RetryAt = b.Ended(), b.Reason, time.Time{}
	if n.Upstream < 0 && !b.Cancelled {
		r.cutShort(i)
	}
	r.end(i, seq)
	return true
}

// start: pending (its turn, condition not false) or retrying → running.
func (r *Run) start(i int, e Event, attempt int) bool {
	n := &r.Nodes[i]
	if attempt != n.Attempts+1 {
		return false
	}
	switch n.Status {
	case StepPending:
		if !r.mayStart(i) || n.condition && n.Condition != TruthTrue {
			return false
		}
		r.admit(i)
		r.ready.remove(i)
		n.FirstStart = e.At
	case StepRetrying:
		r.retrying.remove(i)
		n.RetryAt = time.Time{}
	default:
		return false
	}
	r.fresh.clear()
	if n.firstSeq == 0 {
		n.firstSeq = e.Seq
	}
	n.Said = n.Turn // what an earlier attempt said is forgotten, unless this one goes on
	n.Status = StepRunning
	n.Attempts++
	n.Tries++
	switch r.graph[i].role {
	case workflow.RoleStep:
		r.running.add(i)
	case workflow.RoleApprove:
		r.asking.add(i)
		n.Approval = nil
	default:
		r.opened(i, e.At)
	}
	return true
}

// cutShort: the node did not run, or not to its end, because something outside of
// it stopped it. The scope around it cannot have succeeded then.
func (r *Run) cutShort(i int) {
	if f := r.graph[i].frame; f > 0 {
		r.graph[r.frames[f].parent].scope.cut++
	}
}

// finished: running → succeeded, failed, timed_out, cancelled or interrupted.
func (r *Run) finished(i int, seq int64, b StepFinished) bool {
	n := &r.Nodes[i]
	if n.Status != StepRunning && n.Status != StepWaiting || b.Attempt != n.Attempts {
		return false
	}
	switch b.Outcome.Status {
	case StepSucceeded, StepFailed, StepTimedOut, StepCancelled, StepInterrupted:
	default:
		return false
	}
	leaf := r.graph[i].role == workflow.RoleStep
	if !leaf && !r.attention.has(i) && !r.asking.has(i) {
		return false // something inside has not ended
	}
	n.Status, n.Last = b.Outcome.Status, slim(b.Outcome)
	if b.Outcome.Exports != nil {
		r.exporters++
	}
	if !continues(b.Outcome) {
		n.Turn = nil
	}
	r.running.remove(i)
	r.asking.remove(i)
	switch {
	case !leaf:
		r.fresh.clear()
	case (n.Status == StepFailed || n.Status == StepTimedOut) && n.Stop == "":
		r.fresh.add(i)
	}
	if n.StopJoin == "" && (n.Status == StepCancelled || n.Status == StepInterrupted || n.Stop != "" && n.Status != StepSucceeded) {
		r.cutShort(i)
	}
	r.end(i, seq)
	if r.graph[i].late || !leaf {
		return true // what finally does is outside what a resume restores
	}
	if b.Outcome.Discarded {
		return true // nothing of it is in any tree
	}
	r.since = append(r.since, i)
	if b.Checkpoint != "" {
		r.Line = append(r.Line, CheckpointAt{ID: b.Checkpoint, Step: b.Step, Seq: seq})
		r.since = r.since[:0]
	}
	return true
}

// slim drops what only the execution record keeps.
func slim(o Outcome) *Outcome {
	o.Command, o.Summary, o.Stdout, o.Stderr, o.Artifacts = "", "", Excerpt{}, Excerpt{}, nil
	if o.Agent != nil && len(o.Agent.Denials) > 0 {
		usage := *o.Agent
		usage.Denials = nil
		o.Agent = &usage
	}
	return &o
}

// scheduleRetry: failed or timed out, and nothing followed from it yet → retrying.
func (r *Run) scheduleRetry(i int, b RetryScheduled) bool {
	n := &r.Nodes[i]
	if !r.fresh.has(i) || b.Attempt != n.Attempts+1 {
		return false
	}
	r.unend(i) // while the status still says what was counted
	n.Status, n.RetryAt = StepRetrying, b.At
	r.fresh.remove(i)
	r.retrying.add(i)
	for _, d := range r.graph[i].dependents {
		if r.graph[d].joins() {
			r.classifyJoin(d) // others may be enough
		}
	}
	return true
}

// cancel: the first request stops the steps, a second one everything. A signal
// outranks a person's request, and that the run's own timeout: Ctrl-C during the
// `finally` of a run that timed out is a first request.
func (r *Run) cancel(at time.Time, cause string) bool {
	order := map[string]int{"timeout": 1, "user": 2, CauseSuperseded: 2, "sigint": 3, "sigterm": 3}
	if r.Status != RunRunning || order[cause] == 0 {
		return false
	}
	if order[cause] <= order[r.CancelCause] {
		r.Hard = true
		return true
	}
	r.CancelCause, r.CancelAt = cause, at
	return true
}

// finishRun: running, nothing in flight → an ended run.
func (r *Run) finishRun(e Event, b RunFinished) bool {
	if r.Status != RunRunning || r.running.len > 0 {
		return false
	}
	switch b.Status {
	case RunSucceeded, RunFailed, RunCancelled, RunInterrupted, RunWaiting, RunOutOfBudget, RunRateLimited:
	default:
		return false
	}
	r.Status, r.Class, r.Cause, r.FinishedAt = b.Status, b.Class, b.Cause, e.At
	return true
}

// impossible builds the error with the history of the step (or of the run).
func (r *Run) impossible(e Event, node int, state string) error {
	err := &TransitionError{Seq: e.Seq, Event: e.Body.Type(), State: state}
	if node >= 0 {
		err.Step = r.graph[node].id
	}
	var h []string
	for _, t := range r.trail {
		if int(t.node) == node {
			entry := fmt.Sprintf("%d %s", t.seq, t.kind)
			if t.attempt > 0 {
				entry += fmt.Sprintf(" (attempt %d)", t.attempt)
			}
			h = append(h, entry)
		}
	}
	err.History = strings.Join(h, ", ")
	if err.History == "" {
		err.History = "none"
	}
	return err
}
