package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flowrun.dev/flow/workflow"
)

// asked plays a workflow up to its question and returns the sim, and the run's end.
func asked(t *testing.T, steps string) *sim {
	t.Helper()
	w, err := workflow.Parse("t.yaml", []byte("name: t\nsteps:\n"+steps), workflow.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := newSim(workflow.BuildPlan(w), compiled{})
	if err := s.apply(RunStarted{RunID: "r"}); err != nil {
		t.Fatal(err)
	}
	if err := s.settle(); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAnswers: what becomes of a question by what was said, when it was said, and when
// the run went on.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const file = "  - {id: ok, approve: {message: Go on, choices: [ship, hold], timeout: 1h}}\n"
	for _, c := range []struct {
		name, choice string
		said, resume time.Duration // after the question; said 0: nobody answers
		status       StepStatus
		class        Class
		run          RunStatus
		words        string
	}{
		{"in time", "ship", time.Minute, 2 * time.Minute, StepSucceeded, ClassNone, RunSucceeded, ""},
		{"in time, and the run goes on a day later", "hold", time.Minute, 24 * time.Hour, StepSucceeded, ClassNone, RunSucceeded, ""},
		{"a moment before the end", "ship", time.Hour - 1, 2 * time.Hour, StepSucceeded, ClassNone, RunSucceeded, ""},
		{"at the end", "ship", time.Hour, 2 * time.Hour, StepTimedOut, ClassTimeout, RunFailed, "nobody answered within 1h0m0s"},
		{"no", "reject", time.Minute, 24 * time.Hour, StepFailed, ClassRejected, RunFailed, "rejected by ada: why"},
		{"no such choice", "later", time.Minute, 2 * time.Minute, StepWaiting, ClassNone, RunWaiting, ""},
		{"nobody, a resume in time", "", 0, time.Minute, StepWaiting, ClassNone, RunWaiting, ""},
		{"nobody, a resume too late", "", 0, time.Hour, StepTimedOut, ClassTimeout, RunFailed, "nobody answered within 1h0m0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := asked(t, file)
			if s.run.Status != RunWaiting || !strings.Contains(s.run.Cause, "step ok waits for a person") {
				t.Fatalf("the run is %s: %s", s.run.Status, s.run.Cause)
			}
			n, _, err := s.resume(s.run.plan, s.events, ResumeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			n.now = epoch.Add(c.resume)
			q := n.run.Nodes[0].Approval
			b := ApprovalAnswered{Step: "ok", Request: q.Request, Choice: c.choice, By: "ada", Note: "why", At: epoch.Add(c.said)}
			if c.said > 0 && n.run.Expects(b) {
				if err := n.apply(b); err != nil {
					t.Fatal(err)
				}
				if n.run.Expects(b) {
					t.Error("a second answer fits")
				}
			}
			if err := n.settle(); err != nil {
				t.Fatal(err)
			}
			node := &n.run.Nodes[0]
			if node.Status != c.status || n.run.Status != c.run {
				t.Errorf("step %s, run %s, want %s, %s", node.Status, n.run.Status, c.status, c.run)
			}
			if c.status == StepWaiting {
				return
			}
			if node.Last.Class != c.class || node.Last.Error != c.words {
				t.Errorf("class %q, error %q", node.Last.Class, node.Last.Error)
			}
			want := map[string]any{"choice": c.choice, "by": "ada", "note": "why", "at": epoch.Add(c.said).UTC().Format(time.RFC3339)}
			if c.status == StepTimedOut {
				want = nil
			}
			if fmt.Sprint(node.Last.Outputs) != fmt.Sprint(want) {
				t.Errorf("outputs %v, want %v", node.Last.Outputs, want)
			}
		})
	}
}

// TestAwait: a run waits only when nothing else can be done, and says what failed.
func TestAwait(t *testing.T) {
	t.Parallel()
	s := asked(t, `  - {id: ok, needs: [], approve: Go on}
  - {id: a, needs: [], run: x, retry: {max_attempts: 2, initial: 5s}}
  - {id: b, needs: [ok], run: x}
`)
	failed := Outcome{Status: StepFailed, Class: ClassExitCode, ExitCode: 1, Error: "exit code 1"}
	if s.run.Status != RunRunning {
		t.Fatalf("the run is %s beside a step that runs", s.run.Status)
	}
	if err := s.finish(1, failed); err != nil {
		t.Fatal(err)
	}
	if err := s.settle(); err != nil {
		t.Fatal(err)
	}
	if s.run.Status != RunRunning {
		t.Fatalf("the run is %s before a second attempt", s.run.Status)
	}
	s.now = s.now.Add(10 * time.Second)
	for range 2 {
		if err := s.settle(); err != nil {
			t.Fatal(err)
		}
		if len(s.live) > 0 {
			if err := s.finish(1, failed); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.run.Status != RunWaiting || s.run.Class != ClassExitCode || !strings.Contains(s.run.Cause, "step a: exit code 1") {
		t.Fatalf("the run is %s (%s): %s", s.run.Status, s.run.Class, s.run.Cause)
	}
	n, b, err := s.resume(s.run.plan, s.events, ResumeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Reset) > 0 {
		t.Errorf("what had ended runs again: %v", b.Reset)
	}
	q := n.run.Nodes[0].Approval
	if err := n.apply(ApprovalAnswered{Step: "ok", Request: q.Request, Choice: "approve", By: "ada", At: n.now}); err != nil {
		t.Fatal(err)
	}
	if err := n.settle(); err != nil {
		t.Fatal(err)
	}
	if err := n.finish(2, Outcome{Status: StepSucceeded}); err != nil {
		t.Fatal(err)
	}
	if err := n.settle(); err != nil {
		t.Fatal(err)
	}
	if n.run.Status != RunFailed {
		t.Errorf("the run is %s", n.run.Status)
	}
}
