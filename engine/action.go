package engine

import "time"

// Action is one thing that Decide wants. Node is an index into the plan's Nodes.
// Each action but StopStep and Wake becomes an event; StartStep, StopStep, Wake
// and the evaluation of a condition have an effect besides.
type Action interface{ about() int }

// EvaluateCondition asks for the value of a step's `if`; the answer is a
// ConditionEvaluated.
type EvaluateCondition struct{ Node int }

// StartStep starts the attempt (counted over all resumes).
type StartStep struct{ Node, Attempt int }

// SkipStep: its own `if` was false, or (with a Reason) all that its join could have
// counted was skipped.
type SkipStep struct {
	Node   int
	Reason string
}

// NotRun: it will not run in this attempt of the run, for the reason given.
// Cancelled: because a join had enough without it.
type NotRun struct {
	Node      int
	Reason    string
	Cancelled bool
}

// ScheduleRetry: the coming attempt starts at At.
type ScheduleRetry struct {
	Node, Attempt int
	At            time.Time
	Reason        string
}

// StopStep ends a running step. It is repeated until the step has ended; the
// first cause stands.
type StopStep struct {
	Node  int
	Cause StopError
}

// CancelRun becomes a CancelRequested: the run's timeout is reached, or the grace
// time after a signal is over.
type CancelRun struct{ Cause string }

// Wake: nothing more to do before At, unless something happens.
type Wake struct{ At time.Time }

// FinishRun ends the run.
type FinishRun struct {
	Status RunStatus
	Class  Class
	Cause  string
}

// RequestApproval asks a person; it becomes an ApprovalRequested.
type RequestApproval struct{ Node int }

// CloseApproval ends one that was answered, timed out, or is to stop; it becomes a
// StepFinished.
type CloseApproval struct{ Node int }

// Await: only people can go on with the run. It ends as waiting with that RunFinished,
// or the process waits for them.
type Await struct {
	Class Class // of what failed elsewhere
	Cause string
}

// ExpandScope asks for the items of a foreach; the answer is a ForeachExpanded.
type ExpandScope struct{ Node int }

// StartBatch lets the next batch of a foreach start.
type StartBatch struct{ Node, N int }

// StartRound opens round N of a repeat.
type StartRound struct{ Node, N int }

// EvaluateUntil asks for a repeat's `until` after round N; the answer is an
// UntilEvaluated.
type EvaluateUntil struct{ Node, N int }

// CloseScope ends a scope whose nodes have all ended; it becomes a StepFinished.
type CloseScope struct{ Node int }

// RequestStop becomes a StopRequested. Node is -1 for the whole run.
type RequestStop struct {
	Node   int
	Rest   bool
	Status StepStatus
	Reason string
	// Join is the step that needs Node no more, "" for none.
	Join string
}

func (a RequestApproval) about() int   { return a.Node }
func (a CloseApproval) about() int     { return a.Node }
func (Await) about() int               { return -1 }
func (a ExpandScope) about() int       { return a.Node }
func (a StartBatch) about() int        { return a.Node }
func (a StartRound) about() int        { return a.Node }
func (a EvaluateUntil) about() int     { return a.Node }
func (a CloseScope) about() int        { return a.Node }
func (a RequestStop) about() int       { return a.Node }
func (a EvaluateCondition) about() int { return a.Node }
func (a StartStep) about() int         { return a.Node }
func (a SkipStep) about() int          { return a.Node }
func (a NotRun) about() int            { return a.Node }
func (a ScheduleRetry) about() int     { return a.Node }
func (a StopStep) about() int          { return a.Node }
func (CancelRun) about() int           { return -1 }
func (Wake) about() int                { return -1 }
func (FinishRun) about() int           { return -1 }
