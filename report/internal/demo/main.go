// Command demo plays a made-up run through a reporter, to look at one with the
// eyes: go run ./report/internal/demo -kind tui -steps 6
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/workflow"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run() error {
	steps := flag.Int("steps", 6, "number of steps")
	wide := flag.Int("wide", 2, "steps at the same time")
	pace := flag.Duration("pace", 150*time.Millisecond, "time between two lines of output")
	lines := flag.Int("lines", 8, "lines of output per step")
	t := report.LookTerminal(os.Stdout, os.Getenv)
	kind := flag.String("kind", string(report.DefaultKind(t)), "tui, plain or json")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	signal.Ignore(syscall.SIGPIPE)
	r, err := report.New(report.Kind(*kind), report.Config{Out: os.Stdout, Style: t.Style(), Terminal: t, Plan: plan(*steps)})
	if err != nil {
		return err
	}
	p := player{r: r, ctx: ctx}
	p.play(*steps, *wide, *lines, *pace)
	return errors.Join(r.Close(), ctx.Err())
}

type player struct {
	r   report.Reporter
	ctx context.Context
	seq int64
}

func (p *player) event(b engine.Body) {
	p.seq++
	p.r.Observe(engine.Event{Seq: p.seq, At: time.Now().UTC(), Body: b})
}

func (p *player) play(steps, wide, lines int, pace time.Duration) {
	p.event(engine.RunStarted{RunID: "r7k2m9", Workflow: "demo"})
	p.event(engine.SandboxCreated{ID: "s", Driver: "local", Tier: "ns-root"})
	status := engine.RunSucceeded
	for i := 0; i < steps && p.ctx.Err() == nil; i += wide {
		last := min(i+wide, steps)
		for k := i; k < last; k++ {
			p.event(engine.StepStarted{Step: id(k), Attempt: 1})
		}
		start := time.Now()
		for n := 0; n < lines && p.ctx.Err() == nil; n++ {
			for k := i; k < last; k++ {
				p.r.Output(id(k), n%3 == 2, fmt.Appendf(nil, "line %d: \x1b[2Jcompiling 日本語 package number %d of the module, quite a long line\n", n, n*k))
			}
			select {
			case <-p.ctx.Done():
			case <-time.After(pace):
			}
		}
		for k := i; k < last; k++ {
			o := engine.Outcome{Status: engine.StepSucceeded, Duration: time.Since(start), ChangedCount: k}
			if k%4 == 3 {
				o.Status, o.Class, o.ExitCode, o.Error = engine.StepFailed, engine.ClassExitCode, 2, "run script: exit code 2; this is a rather long message that has to be folded"
				status = engine.RunFailed
			}
			p.event(engine.StepFinished{Step: id(k), Attempt: 1, Outcome: o})
		}
	}
	if p.ctx.Err() != nil {
		p.event(engine.CancelRequested{Cause: "sigint"})
		status = engine.RunInterrupted
	}
	p.event(engine.RunFinished{Status: status})
}

func id(k int) string { return fmt.Sprintf("step-%d-with-a-name", k) }

func plan(steps int) *workflow.Plan {
	p := &workflow.Plan{Workflow: &workflow.Workflow{Name: "demo"}}
	for k := range steps {
		p.Nodes = append(p.Nodes, workflow.Node{Step: &workflow.Step{ID: id(k)}})
	}
	return p
}
