package engine

import (
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
	// CancelCause is sigint, sigterm, user, superseded or timeout; "" while nobody asked.
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
	asking    nodeSet // approvals that have begun and not ended
	asked     nodeSet // were asked to stop and have not ended
	timed     nodeSet // open scopes with a timeout
	met       nodeSet // joins that have enough, and wait for the rest to be cancelled
	since     []int   // ended since the newest checkpoint, in order of ending

	open        int    // step nodes that have not ended
	finallyNext int    // the first finally node that has not ended
	failed      tally  // of steps
	failedFin   tally  // of on_failure and finally
	limits      tally  // of what is inside scopes: only budget and rate_limit, which stop the run
	exporters   int    // outcomes with Exports so far; never counted down
	lost        int    // background steps that died
	stopped     string // why fail_fast stopped the run, "" while it did not
	trail       []trailEntry
}

// NodeState is what the events say of one step; Nodes has the plan's indexes.
type NodeState struct {
	Status StepStatus
	// Died says how the process of a background step ended that others still wait for;
	// "" while it lives, and where nobody does.
	Died     string
	Attempts int // over all resumes
	Tries    int // since the last reset; what max_attempts counts
	// Last is the newest attempt's outcome without its excerpts, command and
	// denials (they are in the execution record; 10,000 steps stay small); nil
	// before the first attempt ended.
	Last *Outcome
	// Turn is where the step's conversation can go on, nil when it cannot.
	Turn *TurnAt
	// Said is the last turn of the step's conversation, for a step that goes on with it.
	Said *TurnAt
	// Approval is what a person is asked, and what they said; nil before the question.
	Approval *Approval
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
	// StopJoin is the join that has enough without it, "" when another reason stopped it.
	StopJoin string
	// Settled: a round of a repeat that was judged; how it ended no longer counts.
	Settled bool
	// Upstream is the index of a step that it needs, transitively, and that did
	// not end well; -1 for none. Known once all needs have ended.
	Upstream int

	needs     int   // needs that have not ended
	unmet     bool  // its join can no longer have enough
	fault     rank  // what an unmet join that was not run counts as, +1; 0 for nothing
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
