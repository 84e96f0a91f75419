package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/workflow"
)

// groupEvery is how often a run that waits for its group looks.
const groupEvery = 100 * time.Millisecond

// supersededError: a newer run has the group, which a run with cancel_in_progress
// gives way to.
type supersededError struct{ group, run string }

func (e *supersededError) Error() string {
	return fmt.Sprintf("run %s of concurrency group %s is newer: this one gives way", e.run, e.group)
}

// takeGroup waits until the run is the only one of its concurrency group. Nothing is
// recorded before: Ctrl-C while it waits leaves nothing behind. The caller closes what
// it gets, which is nil for a workflow without a group.
func (a *app) takeGroup(ctx context.Context, store *state.Store, w *workflow.Workflow, inputs map[string]any, run string) (*state.Group, error) {
	c := w.Concurrency
	if c == nil {
		return nil, nil
	}
	asked := time.Now()
	group, err := c.Group.EvalString(workflow.Vars{Inputs: inputs, Run: workflow.RunView{ID: run, Workflow: w.Name, Attempt: 1, StartedAt: asked.UTC().Format(time.RFC3339)}})
	if err == nil && group == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, &usageError{msg: fmt.Sprintf("evaluate concurrency.group: %v", err)}
	}
	tick := time.NewTicker(groupEvery)
	defer tick.Stop()
	told := "nobody"
	for {
		g, by, err := store.TryGroup(group, run, asked)
		if err != nil || g != nil {
			return g, err
		}
		if by.Run != "" && by.Run != told {
			done, err := a.groupBusy(ctx, store, c, group, by, asked)
			if err != nil {
				return nil, err
			}
			if done {
				told = by.Run
			}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// groupBusy says who has the group, and asks them to stop where that is wanted; done is
// false for a run that cannot be asked yet.
func (a *app) groupBusy(ctx context.Context, store *state.Store, c *workflow.Concurrency, group string, by state.GroupHolder, asked time.Time) (done bool, err error) {
	name := a.redact(group)
	switch {
	case by.Run == a.env("FLOW_RUN_ID"):
		return false, &usageError{msg: fmt.Sprintf("run %s has the concurrency group %s, and this run would be started by one of its steps: both would wait for ever", by.Run, name),
			hint: "give the two workflows different groups"}
	case c.CancelInProgress && by.Asked.After(asked):
		return false, &supersededError{group: name, run: by.Run}
	case c.CancelInProgress:
		err := store.PutInbox(ctx, by.Run, engine.CancelRequested{Cause: engine.CauseSuperseded})
		if errors.Is(err, state.ErrNotFound) {
			return false, nil // it has the group and is about to be recorded
		}
		if err != nil {
			return false, err
		}
		fmt.Fprintf(a.err, "flow: concurrency group %s: run %s is asked to stop\n", name, by.Run)
	default:
		fmt.Fprintf(a.err, "flow: concurrency group %s: waiting for run %s to end (%s); Ctrl-C stops waiting\n", name, by.Run, by.Holder)
	}
	return true, nil
}
