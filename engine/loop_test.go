package engine

import (
	"context"
	"slices"
	"testing"

	"flowrun.dev/flow/workflow"
)

func chain(ids ...string) []*workflow.Step {
	var steps []*workflow.Step
	for i, id := range ids {
		s := &workflow.Step{ID: id, HasNeeds: true}
		if i > 0 {
			s.Needs = []string{ids[i-1]}
		}
		steps = append(steps, s)
	}
	return steps
}

func types(events []Event) []string {
	var out []string
	for _, e := range events {
		out = append(out, e.Body.Type())
	}
	return out
}

func TestLoopRunsAChain(t *testing.T) {
	t.Parallel()
	plan := planOf(&workflow.Workflow{Steps: chain("a", "b"), MaxParallel: 2})
	j, f := &fakeJournal{}, &fakeRunner{}
	l := &Loop{Run: NewRun(plan), Journal: j, Runner: f, Clock: newFakeClock(), Opening: RunStarted{RunID: "r1"}}
	status, err := l.Drive(context.Background())
	if err != nil || status != RunSucceeded {
		t.Fatalf("Drive = %s, %v", status, err)
	}
	want := []string{"run_started", "step_started", "step_finished", "step_started", "step_finished", "run_finished"}
	if got := types(j.all()); !slices.Equal(got, want) {
		t.Errorf("events = %q, want %q", got, want)
	}
	if j.appends != 3 {
		t.Errorf("%d appends, want 3: k is done and k+1 starts are one", j.appends)
	}
	if f.closed != 1 {
		t.Errorf("sandbox closed %d times, want once", f.closed)
	}
}
