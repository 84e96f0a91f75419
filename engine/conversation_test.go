package engine

import (
	"context"
	"errors"
	"testing"
	"time"

	"flowrun.dev/flow/workflow"
)

func turnAt(step string, attempt, turn int, checkpoint string) TurnCompleted {
	return TurnCompleted{Step: step, Attempt: attempt, TurnAt: TurnAt{Conversation: 1, Turn: turn, Checkpoint: checkpoint, Data: "d"}}
}

func began(step string, attempt int) Body { return StepStarted{Step: step, Attempt: attempt} }

func finish(step string, attempt int, status StepStatus, class Class, checkpoint string) Body {
	return StepFinished{Step: step, Attempt: attempt, Outcome: Outcome{Status: status, Class: class}, Checkpoint: checkpoint}
}

// TestResumeAtTurn: which checkpoint a resume restores, and whether the conversation
// goes on.
func TestResumeAtTurn(t *testing.T) {
	t.Parallel()
	plan := planOf(&workflow.Workflow{Steps: []*workflow.Step{{ID: "a", HasNeeds: true}, {ID: "b", HasNeeds: true, Needs: []string{"a"}}, {ID: "x", HasNeeds: true}}})
	a := []Body{RunStarted{RunID: "r"}, began("a", 1), finish("a", 1, StepSucceeded, "", "ca"), began("b", 1), turnAt("b", 1, 0, "t0"), turnAt("b", 1, 1, "t1")}
	with := func(more ...Body) []Body { return append(append([]Body(nil), a...), more...) }
	for _, c := range []struct {
		name       string
		events     []Body
		opt        ResumeOptions
		checkpoint string
		goesOn     bool
	}{
		{"killed in turn 2", a, ResumeOptions{}, "t1", true},
		{"interrupted", with(finish("b", 1, StepInterrupted, ClassCancelled, "cb"), RunFinished{Status: RunInterrupted}), ResumeOptions{}, "t1", true},
		{"rate limited", with(finish("b", 1, StepFailed, ClassRateLimit, "cb"), RunFinished{Status: RunRateLimited}), ResumeOptions{}, "t1", true},
		{"budget", with(finish("b", 1, StepFailed, ClassBudget, "cb"), RunFinished{Status: RunOutOfBudget}), ResumeOptions{}, "t1", true},
		{"timed out", with(finish("b", 1, StepTimedOut, ClassTimeout, "cb"), RunFinished{Status: RunFailed}), ResumeOptions{}, "t1", true},
		{"failed by itself", with(finish("b", 1, StepFailed, ClassExitCode, "cb"), RunFinished{Status: RunFailed}), ResumeOptions{}, "ca", false},
		{"asked for again", a, ResumeOptions{From: "b"}, "ca", false},
		{"what it needs runs again", a, ResumeOptions{From: "a"}, "", false},
		{"changed", a, ResumeOptions{Changed: map[string]string{"b": "its definition was changed"}}, "ca", false},
		{"files were not stored", with(turnAt("b", 1, 2, "")), ResumeOptions{}, "ca", false},
		{"another step ended with it", with(began("x", 1), finish("x", 1, StepSucceeded, "", ""), turnAt("b", 1, 2, "t2")), ResumeOptions{}, "t2", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			run, err := Replay(plan, number(c.events))
			if err != nil {
				t.Fatal(err)
			}
			b, err := PlanResume(plan, run, c.opt)
			if err != nil || b.Checkpoint != c.checkpoint {
				t.Fatalf("restores %q, %v, want %q", b.Checkpoint, err, c.checkpoint)
			}
			if err := run.Apply(Event{Seq: run.Seq + 1, At: epoch, Body: b}); err != nil {
				t.Fatal(err)
			}
			n, _ := run.Node("b")
			if (n.Turn != nil) != c.goesOn || n.Turn != nil && n.Turn.Checkpoint != c.checkpoint {
				t.Errorf("goes on at %+v, want %v", n.Turn, c.goesOn)
			}
			// A kill before anything happened: the next resume is the same.
			again, err := PlanResume(plan, run, ResumeOptions{})
			if err != nil || again.Checkpoint != c.checkpoint {
				t.Errorf("the second resume restores %q, %v", again.Checkpoint, err)
			}
		})
	}
}

// TestTurnTwice: a completed turn does not come twice, and not from a step that does
// not run.
func TestTurnTwice(t *testing.T) {
	t.Parallel()
	plan := planOf(&workflow.Workflow{Steps: chain("a")})
	begin := []Body{RunStarted{RunID: "r"}, began("a", 1), turnAt("a", 1, 0, "t0")}
	for _, b := range []Body{turnAt("a", 1, 0, "t1"), turnAt("a", 2, 1, "t1"), TurnCompleted{Step: "a", Attempt: 1}} {
		if _, err := Replay(plan, number(append(append([]Body(nil), begin...), b))); err == nil {
			t.Errorf("%+v is accepted", b)
		}
	}
}

// TestLoopDurable: an emitter that waits goes on when its event is stored, at once;
// the next attempt of a step that was stopped continues at its turn.
func TestLoopDurable(t *testing.T) {
	t.Parallel()
	j := &fakeJournal{}
	var seen []*TurnAt
	f := &fakeRunner{}
	f.step = func(ctx context.Context, a Attempt, emit func(Body)) Outcome {
		seen = append(seen, a.Continue)
		if a.Attempt > 1 {
			return Outcome{Status: StepSucceeded}
		}
		done := make(chan error, 1)
		emit(Durable{Body: turnAt("a", 1, 0, "t0"), Done: done})
		select {
		case err := <-done:
			if n := len(find[TurnCompleted](j.all())); err != nil || n != 1 {
				t.Errorf("%v, %d turns are stored", err, n)
			}
		case <-time.After(20 * time.Second):
			t.Error("nobody answered")
		}
		return Outcome{Status: StepFailed, Class: ClassInfrastructure}
	}
	steps := chain("a")
	steps[0].Retry = workflow.Retry{MaxAttempts: 2, Written: true, Initial: time.Minute, Max: time.Minute}
	clock := newFakeClock()
	l := &Loop{Run: NewRun(planOf(&workflow.Workflow{Steps: steps, MaxParallel: 1})), Journal: j, Runner: f, Clock: clock, Opening: RunStarted{RunID: "r"}}
	done, late := drive(l, t.Context()), time.After(20*time.Second)
	for over := false; !over; {
		select {
		case <-late:
			t.Fatal("the retry does not start")
		case got := <-done:
			if got.err != nil || got.status != RunSucceeded {
				t.Fatalf("Drive = %+v", got)
			}
			over = true
		case <-clock.armed:
			clock.advance(30 * time.Second)
		}
	}
	if len(seen) != 2 || seen[0] != nil || seen[1] == nil || seen[1].Checkpoint != "t0" {
		t.Errorf("attempts began with %+v", seen)
	}
}

// TestLoopDurableFails: where the event cannot be stored, the step's context ends.
func TestLoopDurableFails(t *testing.T) {
	t.Parallel()
	j := &fakeJournal{failAt: 2, err: errors.New("disk full")}
	f := &fakeRunner{step: func(ctx context.Context, a Attempt, emit func(Body)) Outcome {
		done := make(chan error, 1)
		emit(Durable{Body: turnAt("a", 1, 0, "t0"), Done: done})
		select {
		case <-done:
			t.Error("the event counts as stored")
		case <-ctx.Done():
		case <-time.After(20 * time.Second):
			t.Error("nobody answered")
		}
		return Outcome{Status: StepInterrupted}
	}}
	l := &Loop{Run: NewRun(planOf(&workflow.Workflow{Steps: chain("a"), MaxParallel: 1})), Journal: j, Runner: f, Clock: newFakeClock(), Opening: RunStarted{RunID: "r"}}
	if _, err := l.Drive(t.Context()); err == nil {
		t.Error("Drive hides it")
	}
}
