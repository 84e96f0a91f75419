package engine

import (
	"fmt"
	"time"

	"flowrun.dev/flow/workflow"
)

// Run is the fold of a run's events over its plan. Its exported fields are for
// reading; nothing but Apply changes them. Not safe for concurrent use: the loop's
// goroutine owns it.
type Run struct {
	ID     string
	Status RunStatus // "" before the first event
	// Class and Cause are those of the last RunFinished.
	Class   Class
	Cause   string
	Attempt int // 1, +1 with each resume
	// Start is the first event: the frozen definition, inputs and options. After a
	// resume with accepted changes its Text and Files are the accepted ones.
	Start     RunStarted
	StartedAt time.Time // of the first event
	// ActiveSince is the start of this attempt; the run's timeout counts from it.
	ActiveSince time.Time
	FinishedAt  time.Time // zero while running
	Seq         int64     // of the newest event
	Nodes       []NodeState
	// CancelCause is sigint, sigterm, user or timeout; "" while nobody asked.
	CancelCause string
	CancelAt    time.Time
	// Hard: asked again, or the grace time is over: nothing starts any more,
	// `finally` included.
	Hard bool
	// Base is the checkpoint of the imported source, "" when there is none.
	Base string
	// Line are the checkpoints of the run's one line, oldest first.
	Line []CheckpointAt
	// Sandbox is the id of the living sandbox, as far as the events know.
	Sandbox string

	plan    *workflow.Plan
	graph   []node
	frames  []frame        // of the graph; 0 is the run itself
	byID    map[string]int // of the nodes that scopes opened
	gone    map[string]NodeState
	at      time.Time      // of the event that is folded
	next    *workflow.Plan // given by Redefine, adopted by RunResumed
	conds   conditions
	finally int // index of the first finally node

	running  nodeSet // steps and finally nodes with a process
	ready    nodeSet // pending, needs ended well (or a status condition): may start
	doomed   nodeSet // pending, will not run
	retrying nodeSet
	fresh    nodeSet // failed since the last decision: a retry may still be scheduled
	// attention: open scopes that have something to decide: to expand, to go on
	// to the next item or round, to end.
	attention nodeSet
	asked     nodeSet // were asked to stop and have not ended
	timed     nodeSet // open scopes with a timeout
	since     []int   // ended since the newest checkpoint, in order of ending

	open        int    // step nodes that have not ended
	finallyNext int    // the first finally node that has not ended
	failed      tally  // of steps
	failedFin   tally  // of on_failure and finally
	limits      tally  // of what is inside scopes: only budget and rate_limit, which stop the run
	stopped     string // why fail_fast stopped the run, "" while it did not
	trail       []trailEntry
}

// NodeState is what the events say of one step; Nodes has the plan's indexes.
type NodeState struct {
	Status   StepStatus
	Attempts int // over all resumes
	Tries    int // since the last reset; what max_attempts counts
	// Last is the newest attempt's outcome without its excerpts, command and
	// denials (they are in the execution record; 10,000 steps stay small); nil
	// before the first attempt ended.
	Last *Outcome
	// Turn is where the step's conversation can go on, nil when it cannot.
	Turn *TurnAt
	// Condition is the result of `if`.
	Condition Truth
	// Reason says why a step was not run, or why its condition failed.
	Reason  string
	RetryAt time.Time // of a retrying step
	// FirstStart of this round of tries; max_elapsed counts from it.
	FirstStart time.Time
	// Stop: it was asked to end as this status (StopRequested), with the reason.
	Stop       StepStatus
	StopReason string
	// Settled: a round of a repeat that was judged; how it ended no longer counts.
	Settled bool
	// Upstream is the index of a step that it needs, transitively, and that did
	// not end well; -1 for none. Known once all needs have ended.
	Upstream int

	needs     int   // needs that have not ended
	firstSeq  int64 // of the first start whose traces are in the workspace
	endSeq    int64 // of the event with which it ended
	excluded  bool  // Options.Until leaves it out
	statusIf  bool  // its `if` decides on failures itself
	condition bool  // it has an `if`
}

// Truth of a condition.
type Truth uint8

const (
	TruthUnknown Truth = iota
	TruthFalse
	TruthTrue
)

// CheckpointAt is one checkpoint of the line: taken when Step ended, with event Seq.
// Step is "" for what a resume made of one by merging changes of the source.
type CheckpointAt struct {
	ID   string
	Step string
	Seq  int64
	// Turn: taken at the end of a turn of the step's conversation, not at its end.
	Turn bool
}

// Phase of a run.
type Phase string

const (
	PhaseSteps   Phase = "steps"
	PhaseFinally Phase = "finally"
	PhaseDone    Phase = "done"
)

// NewRun returns the state before the first event.
func NewRun(plan *workflow.Plan) *Run { return newRun(plan, compiled{}) }

func newRun(plan *workflow.Plan, conds conditions) *Run {
	r := &Run{conds: conds}
	r.adopt(plan)
	return r
}

// Plan is the plan that the run follows.
func (r *Run) Plan() *workflow.Plan { return r.plan }

// Node finds a step's state by its id.
func (r *Run) Node(step string) (*NodeState, bool) {
	i, ok := r.find(step)
	if !ok {
		return nil, false
	}
	return &r.Nodes[i], true
}

// Phase of the run: steps, then finally, then done.
func (r *Run) Phase() Phase {
	switch {
	case r.Status != RunRunning:
		return PhaseDone
	case r.open > 0:
		return PhaseSteps
	default:
		return PhaseFinally
	}
}

// Running is the number of steps with a process.
func (r *Run) Running() int { return r.running.len }

// Covered says whether a checkpoint of the line holds what the step did.
func (r *Run) Covered(node int) bool {
	n := &r.Nodes[node]
	return n.endSeq > 0 && len(r.Line) > 0 && n.endSeq <= r.Line[len(r.Line)-1].Seq && r.endedWell(node)
}

// NewestCheckpoint is the newest of the line, the source's while there is none.
func (r *Run) NewestCheckpoint() string {
	if len(r.Line) > 0 {
		return r.Line[len(r.Line)-1].ID
	}
	return r.Base
}

// Redefine announces the plan of accepted changes. The next event has to be the
// RunResumed that carries their text; the run follows the new plan from there.
func (r *Run) Redefine(plan *workflow.Plan) { r.next = plan }

// adopt makes plan the run's plan; states are carried over by id.
func (r *Run) adopt(plan *workflow.Plan) {
	r.construct(plan, r.pastOf(nil))
	r.rebuild()
}

// rebuild computes what is derived from the nodes' states. Cost: the whole graph,
// so only at the start and at a resume.
func (r *Run) rebuild() {
	for _, set := range []*nodeSet{&r.ready, &r.doomed, &r.retrying, &r.fresh, &r.running, &r.attention, &r.asked, &r.timed} {
		set.clear()
	}
	r.open, r.failed, r.failedFin, r.limits = 0, tally{}, tally{}, tally{}
	r.exclude()
	for f := range r.frames {
		r.frames[f].open, r.frames[f].failed = r.frames[f].n, tally{}
	}
	for i := len(r.graph) - 1; i >= 0; i-- { // inner frames first
		n := &r.Nodes[i]
		n.needs = 0
		if i >= len(r.plan.Nodes) || !r.graph[i].late {
			for _, need := range r.graph[i].needs {
				if !r.ended(need) {
					n.needs++
				}
			}
		}
		r.recount(i)
	}
	for f := range r.frames {
		for i := r.frames[f].first; r.frames[f].admitted && i < r.frames[f].first+r.frames[f].n; i++ {
			if f > 0 || i < r.finally {
				r.classify(i)
			}
		}
	}
	for i := range r.graph {
		r.look(i)
	}
	r.finallyNext = r.finally
	r.skipEndedFinally()
}

// recount puts a node where its status belongs.
func (r *Run) recount(i int) {
	n, g := &r.Nodes[i], &r.graph[i]
	top := g.frame == 0
	switch {
	case r.ended(i):
		r.count(i, 1)
		r.frames[g.frame].open--
	case n.Status == StepRunning && g.role == workflow.RoleStep:
		r.running.add(i)
	case n.Status == StepRetrying:
		r.retrying.add(i)
	}
	if top && i < r.finally && !r.ended(i) {
		r.open++
	}
	if g.scope != nil {
		r.recountFrames(i)
	}
}

// recountFrames: what the frames of a scope add up to.
func (r *Run) recountFrames(i int) {
	s := r.graph[i].scope
	s.active, s.ended, s.bad, s.next = 0, 0, 0, 0
	role, running := r.graph[i].role, r.Nodes[i].Status == StepRunning
	for k, f := range s.frames {
		fr := &r.frames[f]
		switch role {
		case workflow.RoleForeach:
			first := &r.Nodes[fr.first]
			fr.admitted = running && (first.Status != StepPending || first.Condition != TruthUnknown)
		case workflow.RoleRepeat:
			fr.admitted = running && k == len(s.frames)-1
		default:
			fr.admitted = running
		}
		if fr.admitted && fr.open > 0 {
			s.active++
		}
		if fr.open == 0 {
			s.ended++
			if r.badFrame(f) {
				s.bad++
			}
		}
	}
	if role == workflow.RoleForeach {
		r.advance(s)
		size := max(1, r.graph[i].step.Foreach.BatchSize)
		s.limit = r.batchLimit(i, max(1, (s.next+size-1)/size))
	}
}

// exclude marks the nodes that Options.Until leaves out: all that are neither the
// named step nor needed by it.
func (r *Run) exclude() {
	until, ok := r.plan.ByID[r.Start.Options.Until]
	for i := range r.plan.Nodes {
		r.Nodes[i].excluded = ok && i < r.finally
	}
	if !ok {
		return
	}
	todo := []int{until}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !r.Nodes[i].excluded {
			continue
		}
		r.Nodes[i].excluded = false
		todo = append(todo, r.graph[i].needs...)
	}
}

func (r *Run) skipEndedFinally() {
	for r.finallyNext < len(r.plan.Nodes) && r.ended(r.finallyNext) {
		r.finallyNext++
	}
}

// ended: the node takes no further part in this attempt of the run.
func (r *Run) ended(i int) bool {
	switch r.Nodes[i].Status {
	case StepPending, StepRunning, StepRetrying:
		return false
	}
	return true
}

// endedWell: it counts as done for what follows. A failure with
// continue_on_error does (language: Steps); an interruption never does.
func (r *Run) endedWell(i int) bool {
	switch r.Nodes[i].Status {
	case StepSucceeded, StepIsSkipped:
		return true
	case StepFailed, StepTimedOut:
		return r.graph[i].tolerant()
	}
	return false
}

// blame is the step that a dependent of i has to name, -1 when all is well.
// Success is transitive: a step that ran on in spite of a failure (always()) does
// not hide it from what needs the step.
func (r *Run) blame(i int) int {
	switch n := &r.Nodes[i]; {
	case n.Upstream >= 0:
		return n.Upstream
	case r.endedWell(i):
		return -1
	default:
		return i
	}
}

// classify puts a pending step whose needs have all ended where Decide looks for it.
func (r *Run) classify(i int) {
	n := &r.Nodes[i]
	if n.Status != StepPending || n.needs > 0 {
		return
	}
	n.Upstream = -1
	for _, need := range r.graph[i].needs {
		if b := r.blame(need); b >= 0 {
			n.Upstream = b
			break
		}
	}
	if n.excluded || n.Upstream >= 0 && !n.statusIf {
		r.doomed.add(i)
	} else {
		r.ready.add(i)
	}
}

// count adds a node's end to the tallies, or takes it back.
func (r *Run) count(i, by int) {
	g := &r.graph[i]
	k, bad := r.counts(i)
	if !bad {
		return
	}
	switch {
	case g.frame > 0:
		r.frames[g.frame].failed[k] += by
		if !g.late && g.role == workflow.RoleStep && (k == rankBudget || k == rankRateLimit) {
			r.limits[k] += by
		}
	case g.late:
		r.failedFin[k] += by
	default:
		r.failed[k] += by
	}
}

// end settles a node: what needs it may go on, and so may the scope around it.
func (r *Run) end(i int, seq int64) {
	n, g := &r.Nodes[i], &r.graph[i]
	n.endSeq = seq
	if g.scope != nil && (n.Status == StepIsSkipped || n.Status == StepIsNotRun) {
		r.detach(g.scope.frames, "step "+g.id+", which holds it, was not run again")
	}
	r.count(i, 1)
	r.attention.remove(i)
	r.asked.remove(i)
	r.timed.remove(i)
	r.frames[g.frame].open--
	switch {
	case g.frame > 0:
		r.frameMoved(g.frame)
	case i >= r.finally:
		r.skipEndedFinally()
		return
	default:
		r.open--
	}
	for _, d := range g.dependents {
		if g.frame == 0 && d >= r.finally {
			continue // finally nodes wait for all steps
		}
		if dep := &r.Nodes[d]; dep.needs > 0 {
			dep.needs--
			r.classify(d)
		}
	}
}

// unend takes an end back: a retry was scheduled, before anything followed from it.
func (r *Run) unend(i int) {
	g := &r.graph[i]
	wasBad := r.badFrame(g.frame)
	r.count(i, -1)
	r.Nodes[i].endSeq = 0
	if f := &r.frames[g.frame]; g.frame > 0 {
		if f.open++; f.open == 1 {
			s := r.graph[f.parent].scope
			s.ended--
			s.active++
			if wasBad {
				s.bad--
			}
			r.look(f.parent)
		}
	} else {
		f.open++
		if i >= r.finally {
			r.finallyNext = min(r.finallyNext, i)
			return
		}
		r.open++
	}
	for _, d := range g.dependents {
		if g.frame > 0 || d < r.finally {
			r.Nodes[d].needs++
			r.ready.remove(d)
			r.doomed.remove(d)
		}
	}
}

// Replay folds recorded events. The plan is that of the newest definition; with a
// RunResumed that changed the definition in between, use ReplayAll.
func Replay(plan *workflow.Plan, events []Event) (*Run, error) {
	r := NewRun(plan)
	for _, e := range events {
		if err := r.Apply(e); err != nil {
			return nil, fmt.Errorf("replay run %s: %w", r.ID, err)
		}
	}
	return r, nil
}

// ReplayAll folds recorded events of a run whose definition may have changed on a
// resume. compile makes the plan of a frozen definition: it is called for the
// first event, and for each RunResumed that brings another text.
func ReplayAll(events []Event, compile func(text []byte, files map[string][]byte) (*workflow.Plan, error)) (*Run, error) {
	var r *Run
	for _, e := range events {
		switch b := e.Body.(type) {
		case RunStarted:
			plan, err := compile(b.Text, b.Files)
			if err != nil {
				return nil, fmt.Errorf("replay run %s: read its frozen definition: %w", b.RunID, err)
			}
			r = NewRun(plan)
		case RunResumed:
			if r == nil || b.Text == nil {
				break
			}
			plan, err := compile(b.Text, b.Files)
			if err != nil {
				return nil, fmt.Errorf("replay run %s: read the definition of attempt %d: %w", r.ID, b.Attempt, err)
			}
			r.Redefine(plan)
		}
		if r == nil {
			return nil, fmt.Errorf("replay: the first event is %s, not run_started", e.Body.Type())
		}
		if err := r.Apply(e); err != nil {
			return nil, fmt.Errorf("replay run %s: %w", r.ID, err)
		}
	}
	if r == nil {
		return nil, fmt.Errorf("replay: the run has no events")
	}
	return r, nil
}
