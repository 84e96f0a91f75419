package engine

import (
	"strings"
	"testing"

	"flowrun.dev/flow/workflow"
)

// backgroundPlan: web lives in the background; a and b come after it, beside does not.
func backgroundPlan(t *testing.T) *sim {
	t.Helper()
	w, err := workflow.Parse("t.yaml", []byte(`name: t
steps:
  - {id: web, background: true, run: serve}
  - {id: beside, needs: [], run: "true"}
  - {id: a, needs: [web], run: "true"}
  - {id: b, needs: [a], run: "true"}
`), workflow.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := newSim(workflow.BuildPlan(w), compiled{})
	for _, do := range []func() error{
		func() error { return s.apply(RunStarted{RunID: "r"}) },
		s.settle,
		func() error { return s.finish(0, Outcome{Status: StepSucceeded}) },
		s.settle,
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestBackgroundDies: what waits for the step is not run, what runs goes on, the run
// fails with the reason, and a resume starts the process again and nothing that is done.
func TestBackgroundDies(t *testing.T) {
	t.Parallel()
	s := backgroundPlan(t)
	died := BackgroundEnded{Step: "web", Attempt: 1, Early: true, ExitCode: 3, Error: "exit code 3", Log: "l"}
	for _, do := range []func() error{
		func() error { return s.apply(died) },
		s.settle,
		func() error { return s.finish(1, Outcome{Status: StepSucceeded}) },
		func() error { return s.finish(2, Outcome{Status: StepSucceeded}) },
		s.settle,
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	if b := s.run.Nodes[3]; b.Status != StepIsNotRun || !strings.Contains(b.Reason, "its process ended early: exit code 3") {
		t.Errorf("b is %s: %s", b.Status, b.Reason)
	}
	if s.run.Nodes[1].Status != StepSucceeded || s.run.Status != RunFailed || s.run.Class != ClassExitCode || !strings.Contains(s.run.Cause, "step web: its process ended early") {
		t.Errorf("beside %s, run %s (%s): %s", s.run.Nodes[1].Status, s.run.Status, s.run.Class, s.run.Cause)
	}
	n, resumed, err := s.resume(s.run.plan, s.events, ResumeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var reset []string
	for _, r := range resumed.Reset {
		reset = append(reset, r.Step)
	}
	if strings.Join(reset, " ") != "web b" {
		t.Errorf("runs again: %v", resumed.Reset)
	}
	if err := n.settle(); err != nil {
		t.Fatal(err)
	}
	if n.run.Nodes[0].Status != StepRunning || n.run.Nodes[2].Status != StepSucceeded {
		t.Errorf("web %s, a %s", n.run.Nodes[0].Status, n.run.Nodes[2].Status)
	}
}

// TestBackgroundEnds: no end is a failure that is with exit code 0, comes when nobody
// waits any more, comes with the run's own end, or is one of an attempt before.
func TestBackgroundEnds(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]BackgroundEnded{
		"exit code 0":       {Step: "web", Attempt: 1, Early: true},
		"with the run":      {Step: "web", Attempt: 1, ExitCode: 143},
		"an attempt before": {Step: "web", Attempt: 0, Early: true, Error: "exit code 3"},
	} {
		s := backgroundPlan(t)
		for _, do := range []func() error{
			func() error { return s.apply(b) },
			func() error { return s.finish(1, Outcome{Status: StepSucceeded}) },
			func() error { return s.finish(2, Outcome{Status: StepSucceeded}) },
			s.settle,
			func() error { return s.finish(3, Outcome{Status: StepSucceeded}) },
			s.settle,
			// After the run's end it only names the output.
			func() error { return s.apply(BackgroundEnded{Step: "web", Attempt: 1, Log: "l", ExitCode: 143}) },
		} {
			if err := do(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if s.run.Status != RunSucceeded || s.run.Nodes[0].Last.Log != "l" {
			t.Errorf("%s: the run is %s: %s", name, s.run.Status, s.run.Cause)
		}
	}
	s := backgroundPlan(t)
	if err := s.apply(BackgroundEnded{Step: "nobody", Attempt: 1}); err == nil {
		t.Error("the end of a step that there is not was taken")
	}
	if err := s.apply(BackgroundEnded{Step: "web", Attempt: 2}); err == nil {
		t.Error("the end of an attempt that did not start was taken")
	}
}
