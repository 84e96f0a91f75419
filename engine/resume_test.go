package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"flowrun.dev/flow/workflow"
)

func TestNotResumable(t *testing.T) {
	t.Parallel()
	plan := planOf(&workflow.Workflow{Steps: chain("a"), Finally: []*workflow.Step{{ID: "f"}}})
	ended := func(s RunStatus) []Body { return []Body{RunStarted{RunID: "r"}, RunFinished{Status: s}} }
	cases := []struct {
		name   string
		events []Body
		from   string
		want   string // "" can be resumed
	}{
		{"not started", nil, "", "has not started"},
		{"dead runner", []Body{RunStarted{RunID: "r"}}, "", ""},
		{"failed", ended(RunFailed), "", ""},
		{"interrupted", ended(RunInterrupted), "", ""},
		{"out of budget", ended(RunOutOfBudget), "", ""},
		{"rate limited", ended(RunRateLimited), "", ""},
		{"waiting", ended(RunWaiting), "", ""},
		{"succeeded", ended(RunSucceeded), "", "--from STEP"},
		{"succeeded, from", ended(RunSucceeded), "a", ""},
		{"cancelled", ended(RunCancelled), "", "cancelled on purpose"},
		{"cancelled, from", ended(RunCancelled), "a", ""},
		{"unknown step", ended(RunFailed), "x", `no step "x"`},
		{"finally step", ended(RunFailed), "f", "in `finally`"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			run, err := Replay(plan, number(c.events))
			if err != nil {
				t.Fatal(err)
			}
			b, err := PlanResume(plan, run, ResumeOptions{From: c.from})
			var not *NotResumableError
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want == "":
				if err := run.Apply(Event{Seq: run.Seq + 1, At: epoch, Body: b}); err != nil {
					t.Error(err)
				}
			case !errors.As(err, &not) || !strings.Contains(err.Error(), c.want):
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func number(bodies []Body) (events []Event) {
	for i, b := range bodies {
		events = append(events, Event{Seq: int64(i + 1), At: epoch, Body: b})
	}
	return events
}

func done(step, checkpoint string, s StepStatus) []Body {
	return []Body{StepStarted{Step: step, Attempt: 1}, StepFinished{Step: step, Attempt: 1, Outcome: Outcome{Status: s}, Checkpoint: checkpoint}}
}

// TestRedefine resumes with another definition: b changed, c is gone, n is new.
func TestRedefine(t *testing.T) {
	t.Parallel()
	old := &workflow.Workflow{Steps: chain("a", "b", "c", "d")}
	current := &workflow.Workflow{Steps: chain("a", "n", "b", "d")}
	for _, w := range []*workflow.Workflow{old, current} {
		for _, s := range w.Steps {
			s.Hash = s.ID
		}
	}
	current.Steps[2].Hash = "b2"
	drift := Drift(old, current)
	if got := fmt.Sprint(drift); got != "[{n added} {b changed} {c removed}]" {
		t.Errorf("drift %s", got)
	}
	bodies := []Body{RunStarted{RunID: "r", Text: []byte("old")}}
	for _, id := range []string{"a", "b", "c"} {
		bodies = append(bodies, done(id, "after-"+id, StepSucceeded)...)
	}
	bodies = append(bodies, done("d", "after-d", StepFailed)...)
	bodies = append(bodies, RunFinished{Status: RunFailed})
	run, err := Replay(planOf(old), number(bodies))
	if err != nil {
		t.Fatal(err)
	}
	changed := map[string]string{}
	for _, d := range drift {
		changed[d.Step] = "its definition " + d.Change
	}
	plan := planOf(current)
	b, err := PlanResume(plan, run, ResumeOptions{Changed: changed})
	if err != nil {
		t.Fatal(err)
	}
	if b.Checkpoint != "after-a" || fmt.Sprint(b.Reset) != "[{b its definition changed false false} {d it failed false false}]" {
		t.Errorf("resume %q %v", b.Checkpoint, b.Reset)
	}
	next := Event{Seq: run.Seq + 1, At: epoch, Body: b}
	run.Redefine(plan)
	if err := run.Apply(next); err == nil {
		t.Fatal("a resume without the text follows another plan")
	}
	b.Text = []byte("new")
	next.Body = b
	if err := run.Apply(next); err != nil {
		t.Fatal(err)
	}
	if string(run.Start.Text) != "new" {
		t.Errorf("text %q", run.Start.Text)
	}
	j := &fakeJournal{}
	l := &Loop{Run: run, Journal: j, Runner: &fakeRunner{}, Clock: newFakeClock()}
	if status, err := l.Drive(t.Context()); err != nil || status != RunSucceeded {
		t.Fatalf("Drive = %s, %v", status, err)
	}
	var order []string
	for _, s := range find[StepStarted](j.all()) {
		order = append(order, fmt.Sprintf("%s/%d", s.Step, s.Attempt))
	}
	if got := strings.Join(order, " "); got != "n/1 b/2 d/2" {
		t.Errorf("started %s", got)
	}
	all := append(append(number(bodies), next), j.all()...)
	again, err := ReplayAll(all, func(text []byte, _ map[string][]byte) (*workflow.Plan, error) {
		return planOf(map[string]*workflow.Workflow{"old": old, "new": current}[string(text)]), nil
	})
	if err != nil || again.Status != RunSucceeded || len(again.Nodes) != 4 {
		t.Errorf("replay of both definitions: %v", err)
	}
	if _, err := Replay(planOf(old), all); err == nil {
		t.Error("a replay with one plan follows a changed definition")
	}
}

// TestResumeRefusesLostWork: an event that would call a step done without its
// files is impossible.
func TestResumeRefusesLostWork(t *testing.T) {
	t.Parallel()
	plan := planOf(&workflow.Workflow{Steps: chain("a", "b")})
	bodies := append([]Body{RunStarted{RunID: "r"}}, done("a", "after-a", StepSucceeded)...)
	bodies = append(bodies, StepStarted{Step: "b", Attempt: 1})
	resets := func(steps ...string) (out []StepReset) {
		for _, s := range steps {
			out = append(out, StepReset{Step: s})
		}
		return out
	}
	cases := []struct {
		name string
		b    RunResumed
		ok   bool
	}{
		{"right", RunResumed{Attempt: 2, Checkpoint: "after-a", Reset: resets("b")}, true},
		{"all again", RunResumed{Attempt: 2, Reset: resets("a", "b")}, true},
		{"work of a lost", RunResumed{Attempt: 2, Reset: resets("b")}, false},
		{"in flight not reset", RunResumed{Attempt: 2, Checkpoint: "after-a"}, false},
		{"unknown checkpoint", RunResumed{Attempt: 2, Checkpoint: "x", Reset: resets("a", "b")}, false},
		{"wrong attempt", RunResumed{Attempt: 3, Checkpoint: "after-a", Reset: resets("b")}, false},
		{"unknown step", RunResumed{Attempt: 2, Checkpoint: "after-a", Reset: resets("b", "x")}, false},
	}
	for _, c := range cases {
		run, err := Replay(plan, number(bodies))
		if err != nil {
			t.Fatal(err)
		}
		err = run.Apply(Event{Seq: run.Seq + 1, At: epoch, Body: c.b})
		var impossible *TransitionError
		if c.ok && err != nil || !c.ok && !errors.As(err, &impossible) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestApplyRefusesGaps(t *testing.T) {
	t.Parallel()
	run := NewRun(planOf(&workflow.Workflow{Steps: chain("a")}))
	if err := run.Apply(Event{Seq: 2, Body: RunStarted{}}); err == nil || !strings.Contains(err.Error(), "missing or came twice") {
		t.Errorf("a gap: %v", err)
	}
	if err := run.Apply(Event{Seq: 1, Body: RunStarted{}}); err != nil {
		t.Fatal(err)
	}
	if err := run.Apply(Event{Seq: 2, Body: StepStarted{Step: "nope", Attempt: 1}}); err == nil || !strings.Contains(err.Error(), `no step "nope"`) {
		t.Errorf("an unknown step: %v", err)
	}
}
