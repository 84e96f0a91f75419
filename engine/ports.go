package engine

import (
	"context"
	"errors"
	"time"

	"flowrun.dev/flow/workflow"
)

// ErrNotOwner is in the chain of a Journal's error when the caller does not own
// the run (any more): it must stop at once and act on nothing.
var ErrNotOwner = errors.New("this process does not own the run")

// Journal keeps the events of one run that the caller owns. Called from the
// loop's goroutine only.
type Journal interface {
	// Append makes the events durable in one transaction, with the projections
	// (steps, records, checkpoints) that follow from them. An error means that
	// nothing of it was stored; ErrNotOwner that somebody else owns the run now.
	Append(ctx context.Context, events []Event) error
	// Inbox takes what other processes asked of this run since the last call.
	Inbox(ctx context.Context) ([]Body, error)
}

// Runner does what the engine decided. One Runner serves one run.
type Runner interface {
	// Run executes one attempt of a step, in a goroutine of its own, and returns
	// when nothing of it is left running. It never panics and never returns
	// before its output is durable. A cancelled ctx ends the step; context.Cause
	// (a *StopError) says whether it was cancelled, interrupted or timed out.
	// Facts that happen on the way (a sandbox was created) go to emit, which may
	// be called from any goroutine until Run returns. A fact that has to be stored
	// before the step goes on is a Durable.
	Run(ctx context.Context, a Attempt, emit func(Body)) Outcome
	// Checkpoint stores the workspace. Called when no step runs, with the
	// outcomes since the last one; it fills in their changed files. It returns
	// the id that the next Append names, "" when there is no sandbox (nothing can
	// have changed).
	Checkpoint(ctx context.Context, steps []string) (id string, changed []FileChange, count int, err error)
	// Forked says whether the attempt of a step that just ended worked on a fork of
	// the workspace. Checkpoint of it alone is then its merge, and may be asked for
	// while other steps run: the step's end is covered without theirs. A
	// *ConflictError means that nothing was merged, and fails the step.
	Forked(step string) bool
	// Files is the workspace for conditions: the sandbox's, or the source tree
	// while there is none.
	Files() workflow.Files
	// Output returns the last 64 KiB of a finished step's stream, for expressions.
	Output(ctx context.Context, step string, attempt int, log string, stderr bool) (string, error)
	// Compute evaluates the outputs of a group or of the run; an error when one
	// cannot be computed, or holds a secret.
	Compute(outputs []workflow.Output, vars workflow.Vars) (map[string]any, error)
	// Close ends the sandbox. Idempotent, on its own bounded time.
	Close(ctx context.Context) []Body
}

// Discarder is a Runner that can take back what an attempt changed. It is asked instead
// of Checkpoint, after an attempt that is tried again with retry.workspace: restore.
type Discarder interface {
	// Discard makes the next attempt start with the tree that this one started with.
	Discard(ctx context.Context, step string)
}

// Attempt is one attempt to run.
type Attempt struct {
	RunID   string
	Step    *workflow.Step
	Attempt int
	Vars    workflow.Vars
	// Exports of the steps that come before it, later ones first to win.
	Exports Exports
	// Timeout of the attempt, 0 for none (from the step, the run or defaults).
	Timeout time.Duration
	// Alone: no other step can run at the same time.
	Alone bool
	// Options of the run.
	Options Options
	// Continue is the turn at which a stopped conversation goes on, nil for none. Its
	// files are those of the restored checkpoint, or have to be restored first.
	Continue *TurnAt
	// Session is the end of the conversation of SessionStep, with which a new one goes
	// on (session: continue), nil for none.
	SessionStep string
	Session     *TurnAt
}

// StopError is the cause with which a step's context is cancelled.
type StopError struct {
	Status StepStatus // cancelled, interrupted, timed_out
	Reason string
}

func (e *StopError) Error() string { return e.Reason }

// ConflictError: what a step changed could not be brought together with what a
// step that ran beside it changed.
type ConflictError struct{ Text string }

func (e *ConflictError) Error() string { return e.Text }

// Observer sees every event after it is durable, in order, from the loop's
// goroutine; it must not block (reporters buffer).
type Observer interface{ Observe(Event) }

// Clock is time.
type Clock interface {
	Now() time.Time
	// After delivers once d has passed; stop releases it.
	After(d time.Duration) (c <-chan time.Time, stop func())
}
