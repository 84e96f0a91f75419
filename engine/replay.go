package engine

import (
	"fmt"

	"flowrun.dev/flow/workflow"
)

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
