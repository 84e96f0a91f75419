package engine

import (
	"context"
	"fmt"
	"testing"
	"time"

	"flowrun.dev/flow/workflow"
)

// discarding is a fakeRunner that takes changes back.
type discarding struct {
	*fakeRunner
	taken []string
}

func (d *discarding) Discard(_ context.Context, step string) { d.taken = append(d.taken, step) }

// TestDiscard: what an attempt changed that is tried again clean is taken back and in no
// checkpoint; that of the last attempt stays. A resume folds the same.
func TestDiscard(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		restore     bool
		fail        int // attempts that fail, of at most 3
		taken       string
		checkpoints int
		status      RunStatus
	}{
		{true, 0, "[]", 2, RunSucceeded},
		{true, 2, "[b b]", 2, RunSucceeded},
		{true, 3, "[b b]", 2, RunFailed},
		{false, 2, "[]", 4, RunSucceeded},
	} {
		steps := chain("a", "b")
		steps[1].Retry = workflow.Retry{Written: true, MaxAttempts: 3, Backoff: "constant", Initial: time.Millisecond, Restore: c.restore}
		plan := planOf(&workflow.Workflow{Steps: steps, MaxParallel: 2})
		j, d := &fakeJournal{}, &discarding{fakeRunner: &fakeRunner{step: func(_ context.Context, a Attempt, _ func(Body)) Outcome {
			if a.Step.ID == "b" && a.Attempt <= c.fail {
				return Outcome{Status: StepFailed, Class: ClassExitCode, ExitCode: 1}
			}
			return Outcome{Status: StepSucceeded}
		}}}
		l := &Loop{Run: NewRun(plan), Journal: j, Runner: d, Clock: realClock{}, Opening: RunStarted{RunID: "r1"}}
		status, err := l.Drive(context.Background())
		if err != nil || status != c.status || fmt.Sprint(d.taken) != c.taken || d.checkpoints != c.checkpoints {
			t.Errorf("%+v: %s, %v; taken back %v, %d checkpoints of %v", c, status, err, d.taken, d.checkpoints, d.covered)
		}
		again := NewRun(plan)
		for _, e := range j.all() {
			if err := again.Apply(e); err != nil {
				t.Fatal(err)
			}
		}
		if again.Status != c.status || len(again.Line) != c.checkpoints || c.status == RunSucceeded && !again.Covered(1) {
			t.Errorf("%+v: folded %s, line %v", c, again.Status, again.Line)
		}
		for _, steps := range d.covered {
			if len(steps) != 1 {
				t.Errorf("%+v: one checkpoint covers %v", c, steps)
			}
		}
	}
}
