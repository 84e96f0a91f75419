package state

import (
	"context"
	"errors"
	"fmt"

	"flowrun.dev/flow/engine"
)

// Point is what the checkpoints say of one step that ended: the tree before its
// first try of this round, and after its last one.
type Point struct {
	Step    string
	Attempt int // the last one
	Status  engine.StepStatus
	// Before and After are checkpoints. Before is "" where the step began on the
	// empty tree; After is "" when no checkpoint was taken at its end, because
	// other steps were at work on the same tree, or the run was stopped.
	Before, After string
	// Seq is the event with which it ended.
	Seq int64
}

// Timeline is a run's line of checkpoints as its events tell it. Steps that a
// resume runs again are not in it until they have ended again.
type Timeline struct {
	Run string
	// Base holds the imported source, "" when no sandbox was ever made.
	Base string
	// Newest is where a resume would continue at the latest: the last checkpoint
	// that is a part of the run still.
	Newest string
	Points []Point // in the order of ending

	asked  map[string]bool  // approvals: they leave the tree as it is
	starts map[string]start // by step: where this round's first try began
}

// start is the event with which a step began, and the newest checkpoint then.
type start struct {
	seq        int64
	checkpoint string
}

// Timeline reads a run's line of checkpoints.
func (s *Store) Timeline(ctx context.Context, run string) (*Timeline, error) {
	events, err := s.Events(ctx, run, 0)
	if err != nil {
		return nil, err
	}
	t := &Timeline{Run: run, starts: map[string]start{}, asked: map[string]bool{}}
	for i := range events {
		t.add(&events[i])
	}
	return t, nil
}

func (t *Timeline) add(e *engine.Event) {
	switch b := e.Body.(type) {
	case engine.WorkspaceImported:
		t.Base, t.Newest = b.Checkpoint, b.Checkpoint
	case engine.RunResumed:
		for _, r := range b.Reset {
			t.drop(r.Step)
			delete(t.starts, r.Step)
		}
		if b.Source != "" {
			t.Base = b.Source
		}
		if t.Newest = b.Checkpoint; t.Newest == "" {
			t.Newest = t.Base
		}
		if b.Merged != "" {
			t.Newest = b.Merged
		}
	case engine.StepStarted:
		if t.starts[b.Step].seq == 0 {
			t.starts[b.Step] = start{e.Seq, t.Newest}
		}
	case engine.ApprovalRequested:
		t.asked[b.Step] = true
	case engine.StepFinished:
		if t.asked[b.Step] {
			b.Checkpoint = t.Newest
		}
		p := Point{Step: b.Step, Attempt: b.Attempt, Status: b.Outcome.Status, Before: t.Newest, After: b.Checkpoint, Seq: e.Seq}
		if old := t.drop(b.Step); old != nil {
			p.Before = old.Before
		}
		if b.Checkpoint != "" {
			t.Newest = b.Checkpoint
		}
		t.Points = append(t.Points, p)
	}
}

func (t *Timeline) drop(step string) *Point {
	for i := range t.Points {
		if p := t.Points[i]; p.Step == step {
			t.Points = append(t.Points[:i], t.Points[i+1:]...)
			return &p
		}
	}
	return nil
}

// StepError says why a run has no checkpoint at a step.
type StepError struct {
	Run, Step, Reason string
	// Have are the steps that have one, in the order of ending.
	Have []string
}

func (e *StepError) Error() string {
	return fmt.Sprintf("run %s, step %s: %s", e.Run, e.Step, e.Reason)
}

// At finds the step's point, which has a checkpoint after it; *StepError otherwise.
func (t *Timeline) At(step string) (Point, error) {
	e := &StepError{Run: t.Run, Step: step, Reason: "it has not ended in this run"}
	for _, p := range t.Points {
		switch {
		case p.After != "":
			e.Have = append(e.Have, p.Step)
			if p.Step == step {
				return p, nil
			}
		case p.Step == step:
			e.Reason = "no checkpoint was taken at its end: other steps were at work on the same files, or the run was stopped"
		}
	}
	return Point{}, e
}

// Start is the event with which the step's first try of this round began;
// *StepError when it has not started.
func (t *Timeline) Start(step string) (int64, error) {
	if s := t.starts[step]; s.seq > 0 {
		return s.seq, nil
	}
	_, err := t.At(step)
	e := &StepError{Run: t.Run, Step: step, Reason: "it has not started in this run"}
	if se := (*StepError)(nil); errors.As(err, &se) {
		e.Have = se.Have
	}
	return 0, e
}

// Before is the newest checkpoint when the step's first try of this round began;
// *StepError when it has not started. A first step's is the imported source.
func (t *Timeline) Before(step string) (string, error) {
	if _, err := t.Start(step); err != nil {
		return "", err
	}
	if id := t.starts[step].checkpoint; id != "" {
		return id, nil
	}
	return t.Base, nil
}
