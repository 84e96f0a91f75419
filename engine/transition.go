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
	case UntilEvaluated:
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
			ok = r.skip(i, e.Seq)
		case StepNotRun:
			ok = r.notRun(i, e.Seq, b.Reason)
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
		case IterationStarted:
			ok = r.iterate(i, b)
		case UntilEvaluated:
			ok = r.judged(i, b)
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
		if ok = r.Status == RunRunning; ok {
			r.Sandbox = b.ID
		}
	case SandboxClosed:
		// Also after the run's end: closing follows the last append.
		if ok = r.Status != ""; ok && r.Sandbox == b.ID {
			r.Sandbox = ""
		}
	case Egress:
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

// resume: any state but not started → running. A run that is still "running"
// here has lost its owner; only a new owner appends this event.
func (r *Run) resume(e Event, b RunResumed) bool {
	if r.Status == "" || b.Attempt != r.Attempt+1 || (b.Text != nil) != (r.next != nil) {
		return false
	}
	if r.next != nil {
		r.Start.Text, r.Start.Files = b.Text, b.Files
		r.construct(r.next, r.pastOf(nil))
		r.next = nil
	}
	if !r.forget(b.Reset) {
		return false
	}
	resets := newNodeSet(len(r.Nodes))
	for _, s := range b.Reset {
		i, ok := r.find(s.Step)
		if !ok {
			return false
		}
		resets.add(i)
	}
	kept := int64(0) // the newest end of a step that stays done
	for i := range r.Nodes {
		n := &r.Nodes[i]
		switch {
		case resets.has(i):
		case n.Status == StepRunning || n.Status == StepRetrying:
			return false // in flight when the owner died: has to be reset
		case r.worked(i):
			kept = max(kept, n.endSeq)
		}
	}
	restored, ok := r.cutLine(b.Checkpoint, kept)
	if !ok {
		return false // a step would count as done without its files
	}
	for i := range resets.all() {
		turn := r.Nodes[i].Turn
		r.reset(i, restored)
		r.Nodes[i].Turn = turn
	}
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if !r.ended(i) { // who asked it to stop asked in another attempt
			n.Stop, n.StopReason = "", ""
		}
		// A conversation goes on only with the files of its turn.
		if n.Turn != nil && (b.Checkpoint == "" || n.Turn.Checkpoint != b.Checkpoint) {
			n.Turn = nil
		}
	}
	if b.Merged != "" {
		r.Line = append(r.Line, CheckpointAt{ID: b.Merged, Seq: e.Seq})
		for i := range r.Nodes {
			r.Nodes[i].Turn = nil // its files are no longer those of the workspace
		}
	}
	if b.Source != "" {
		r.Base = b.Source
	}
	r.Status, r.Class, r.Cause, r.Attempt = RunRunning, ClassNone, "", b.Attempt
	r.ActiveSince, r.FinishedAt = e.At, time.Time{}
	r.CancelCause, r.CancelAt, r.Hard, r.stopped = "", time.Time{}, false, ""
	r.Sandbox, r.since = "", nil
	r.rebuild()
	return true
}

// worked: the step ended and may have left something in the workspace.
func (r *Run) worked(i int) bool {
	n, g := &r.Nodes[i], &r.graph[i]
	return g.role == workflow.RoleStep && !g.late && n.Tries > 0 && n.endSeq > 0
}

// forget makes the graph anew without what a resume drops: the instances of
// scopes that start over, and the rounds after one that runs again.
func (r *Run) forget(resets []StepReset) bool {
	out, again := map[int]bool{}, map[string]bool{}
	cut := map[string]int{} // repeat → rounds that stay
	for _, s := range resets {
		i, ok := r.find(s.Step)
		if !ok {
			return false
		}
		g := &r.graph[i]
		if s.Forget && g.scope != nil {
			for _, f := range g.scope.frames {
				out[f] = true
			}
			cut[g.id] = 0
		}
		if s.Again {
			again[g.id] = true
		}
		if f := r.frames[g.frame]; g.frame > 0 && r.graph[f.parent].role == workflow.RoleRepeat {
			for k, other := range r.graph[f.parent].scope.frames {
				if other == g.frame {
					if had, ok := cut[r.graph[f.parent].id]; !ok || k+1 < had {
						cut[r.graph[f.parent].id] = k + 1
					}
				} else if other > g.frame {
					out[other] = true
				}
			}
		}
	}
	if len(out) == 0 && len(cut) == 0 && len(again) == 0 {
		return true
	}
	p := r.pastOf(func(i int) bool { return r.within(i, out) })
	for id, rounds := range cut {
		x := p.expansions[id]
		switch {
		case x == nil:
		case rounds == 0:
			delete(p.expansions, id)
		default:
			x.rounds, x.until = rounds, TruthUnknown
		}
	}
	for id := range again {
		if x := p.expansions[id]; x != nil {
			x.again = true
		}
	}
	r.construct(r.plan, p)
	return true
}

// cutLine drops the checkpoints after the restored one; they are no longer part
// of the run's line. Steps that change nothing give checkpoints with one and the
// same id, so the restored one is the first of that id that holds all that is
// kept. It returns its position, 0 for the source.
func (r *Run) cutLine(id string, kept int64) (seq int64, ok bool) {
	for k, c := range r.Line {
		if c.ID == id && c.Seq >= kept {
			r.Line = r.Line[:k+1]
			return c.Seq, true
		}
	}
	if kept > 0 || id != "" && id != r.Base {
		return 0, false
	}
	if id == "" {
		r.Base = r.Start.SourceManifest
	}
	r.Line = r.Line[:0]
	return 0, true
}

// reset: any state → pending. Attempts go on counting over all resumes.
func (r *Run) reset(i int, restored int64) {
	n := &r.Nodes[i]
	first := n.firstSeq
	if first > restored {
		first = 0 // its traces are gone with the old workspace
	}
	*n = NodeState{
		Status: StepPending, Attempts: n.Attempts, Last: n.Last, Upstream: -1,
		firstSeq: first, statusIf: n.statusIf, condition: n.condition,
	}
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

// skip: pending, condition false → skipped.
func (r *Run) skip(i int, seq int64) bool {
	n := &r.Nodes[i]
	if !r.mayStart(i) || n.Condition != TruthFalse {
		return false
	}
	r.fresh.clear()
	n.Status = StepIsSkipped
	r.ready.remove(i)
	r.end(i, seq)
	return true
}

// notRun: pending or retrying → not run.
func (r *Run) notRun(i int, seq int64, reason string) bool {
	n := &r.Nodes[i]
	if n.Status != StepPending && n.Status != StepRetrying {
		return false
	}
	r.fresh.clear()
	r.ready.remove(i)
	r.doomed.remove(i)
	r.retrying.remove(i)
	n.Status, n.Reason, n.RetryAt = StepIsNotRun, reason, time.Time{}
	if n.Upstream < 0 {
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
	n.Status = StepRunning
	n.Attempts++
	n.Tries++
	if r.graph[i].role == workflow.RoleStep {
		r.running.add(i)
	} else {
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
	if n.Status != StepRunning || b.Attempt != n.Attempts {
		return false
	}
	switch b.Outcome.Status {
	case StepSucceeded, StepFailed, StepTimedOut, StepCancelled, StepInterrupted:
	default:
		return false
	}
	leaf := r.graph[i].role == workflow.RoleStep
	if !leaf && !r.attention.has(i) {
		return false // something inside has not ended
	}
	n.Status, n.Last = b.Outcome.Status, slim(b.Outcome)
	if !continues(b.Outcome) {
		n.Turn = nil
	}
	r.running.remove(i)
	switch {
	case !leaf:
		r.fresh.clear()
	case (n.Status == StepFailed || n.Status == StepTimedOut) && n.Stop == "":
		r.fresh.add(i)
	}
	if n.Status == StepCancelled || n.Status == StepInterrupted || n.Stop != "" && n.Status != StepSucceeded {
		r.cutShort(i)
	}
	r.end(i, seq)
	if r.graph[i].late || !leaf {
		return true // what finally does is outside what a resume restores
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
	o.Command, o.Stdout, o.Stderr = "", Excerpt{}, Excerpt{}
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
	return true
}

// cancel: the first request stops the steps, a second one everything. A signal
// outranks a person's request, and that the run's own timeout: Ctrl-C during the
// `finally` of a run that timed out is a first request.
func (r *Run) cancel(at time.Time, cause string) bool {
	order := map[string]int{"timeout": 1, "user": 2, "sigint": 3, "sigterm": 3}
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
