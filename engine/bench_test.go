package engine

import (
	"context"
	"fmt"
	"testing"
	"time"

	"flowrun.dev/flow/workflow"
)

func rowPlan(n int) *workflow.Plan {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("s%d", i)
	}
	return planOf(&workflow.Workflow{Steps: chain(ids...), MaxParallel: 5})
}

func widePlan(n int) *workflow.Plan {
	w := &workflow.Workflow{MaxParallel: 8}
	for i := range n {
		w.Steps = append(w.Steps, &workflow.Step{ID: fmt.Sprintf("s%d", i), HasNeeds: true})
	}
	return planOf(w)
}

var shapes = []struct {
	name string
	plan func() *workflow.Plan
}{
	{"row-10", func() *workflow.Plan { return rowPlan(10) }},
	{"row-1000", func() *workflow.Plan { return rowPlan(1000) }},
	{"row-10000", func() *workflow.Plan { return rowPlan(10000) }},
	{"wide-1000", func() *workflow.Plan { return widePlan(1000) }},
}

// BenchmarkStep is what the engine itself costs a step: its events folded and
// decided on. Target: below 20 µs, flat in the number of steps.
func BenchmarkStep(b *testing.B) {
	for _, shape := range shapes {
		b.Run(shape.name, func(b *testing.B) {
			plan := shape.plan()
			b.ReportAllocs()
			steps := 0
			for b.Loop() {
				run := NewRun(plan)
				apply := func(body Body) {
					if err := run.Apply(Event{Seq: run.Seq + 1, At: epoch, Body: body}); err != nil {
						b.Fatal(err)
					}
				}
				apply(RunStarted{RunID: "r"})
				var queue []int
				var actions []Action
				for run.Status == RunRunning {
					actions, _ = decide(plan, run, epoch, actions)
					for _, a := range actions {
						switch a := a.(type) {
						case StartStep:
							apply(StepStarted{Step: plan.Nodes[a.Node].Step.ID, Attempt: a.Attempt})
							queue = append(queue, a.Node)
						case FinishRun:
							apply(RunFinished{Status: a.Status})
						}
					}
					if len(queue) > 0 {
						apply(StepFinished{Step: plan.Nodes[queue[0]].Step.ID, Attempt: 1, Outcome: Outcome{Status: StepSucceeded}, Checkpoint: "c"})
						queue = queue[1:]
						steps++
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(steps), "ns/step")
		})
	}
}

// BenchmarkLoop adds the loop itself: goroutines, batches, a journal in memory.
func BenchmarkLoop(b *testing.B) {
	for _, shape := range shapes {
		b.Run(shape.name, func(b *testing.B) {
			plan := shape.plan()
			b.ReportAllocs()
			for b.Loop() {
				l := &Loop{Run: NewRun(plan), Journal: nowhere{}, Runner: idle{}, Clock: realClock{}, Opening: RunStarted{RunID: "r"}}
				if status, err := l.Drive(context.Background()); err != nil || status != RunSucceeded {
					b.Fatal(status, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(plan.Nodes)), "ns/step")
		})
	}
}

// BenchmarkReplay folds the log of a whole run: what a resume or a report pays.
func BenchmarkReplay(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprintf("row-%d", n), func(b *testing.B) {
			plan, j := rowPlan(n), &fakeJournal{}
			l := &Loop{Run: NewRun(plan), Journal: j, Runner: &fakeRunner{}, Clock: realClock{}, Opening: RunStarted{RunID: "r"}}
			if _, err := l.Drive(context.Background()); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Replay(plan, j.events); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type nowhere struct{}

func (nowhere) Append(context.Context, []Event) error { return nil }
func (nowhere) Inbox(context.Context) ([]Body, error) { return nil, nil }

type idle struct{ Runner }

func (idle) Run(context.Context, Attempt, func(Body)) Outcome { return Outcome{Status: StepSucceeded} }
func (idle) Forked(string) bool                               { return false }

func (idle) Checkpoint(context.Context, []string) (string, []FileChange, int, error) {
	return "c", nil, 0, nil
}
func (idle) Files() workflow.Files        { return nil }
func (idle) Close(context.Context) []Body { return nil }

type realClock struct{}

func (realClock) Now() time.Time { return time.Now() }
func (realClock) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}
