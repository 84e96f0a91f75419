package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"time"

	"flowrun.dev/flow/agent/anthropic"
	"flowrun.dev/flow/agent/replay"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/local"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/steps"
)

// linked makes this program as large as flow: a sandbox starts it twice as init, and
// what it links is initialised there too.
var linked = []any{anthropic.New, replay.New, report.New, state.Open, steps.Choose}

// sandboxes times making a local sandbox and running /bin/true in a living one;
// a bare fork and exec is taken in the same rounds.
func sandboxes(b *runner) ([]row, error) {
	ctx := context.Background()
	d := local.New(local.Options{})
	if _, err := d.Probe(ctx); err != nil {
		return []row{{What: "sandbox", Note: "does not work on this machine: " + err.Error()}}, nil
	}
	var creates, execs, floors []sample
	for range 31 {
		dir, err := b.fresh()
		if err != nil {
			return nil, err
		}
		t := time.Now()
		sb, err := d.Create(ctx, sandbox.Spec{ID: "bench", Dir: dir})
		if err != nil {
			return nil, err
		}
		creates = append(creates, sample{Wall: time.Since(t)})
		err = func() error {
			for range 20 {
				t := time.Now()
				res, err := sb.Exec(ctx, sandbox.Cmd{Argv: []string{"/bin/true"}, Env: sb.BaseEnv()})
				if err != nil || res.ExitCode != 0 {
					return fmt.Errorf("/bin/true: exit %d, %w", res.ExitCode, err)
				}
				execs = append(execs, sample{Wall: time.Since(t)})
				t = time.Now()
				if err := exec.Command("/bin/true").Run(); err != nil {
					return err
				}
				floors = append(floors, sample{Wall: time.Since(t)})
			}
			return nil
		}()
		if err := errors.Join(err, sb.Close(ctx)); err != nil {
			return nil, err
		}
	}
	runtime.KeepAlive(linked)
	c, e, f := middle(creates), middle(execs), middle(floors)
	return []row{
		{What: "/bin/true: fork and exec with os/exec", Got: f},
		{What: "/bin/true in a living local sandbox", Got: e, Times: ratio(e.Wall, f.Wall), Limit: sample{Wall: time.Millisecond}},
		{What: "a local sandbox made", Got: c, Times: ratio(c.Wall, f.Wall), Limit: sample{Wall: 8 * time.Millisecond}},
	}, nil
}
