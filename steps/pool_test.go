package steps

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
)

// TestPool: ten steps over three sandboxes make exactly three, none finds what another
// one left, and all are closed.
func TestPool(t *testing.T) {
	t.Parallel()
	text := "name: t\nmax_parallel: 10\nsandbox: {reuse: pool, pool: {size: 3}}\ndefaults: {shell: sh}\nsteps:\n"
	for i := range 10 {
		text += fmt.Sprintf("  - {id: s%d, needs: [], run: 'ls ~ $TMPDIR; echo x > ~/h; echo x > $TMPDIR/t; mkdir n%d; echo x > junk; rm junk'}\n", i, i)
	}
	text += "  - {id: last, run: 'ls -d n* | wc -l; ls ~ $TMPDIR | grep -c -e ^h$ -e ^t$ || true'}\n"
	r, c := counting(t, text)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			out := r.step(fmt.Sprintf("s%d", i), false)
			if out.Status != engine.StepSucceeded || strings.Contains(out.Stdout.Head, "\nh\n") || strings.Contains(out.Stdout.Head, "\nt\n") {
				t.Errorf("s%d: %s %s: %q", i, out.Status, out.Error, out.Stdout.Head)
			}
		})
	}
	wg.Wait()
	r.want(r.step("last", true), "10\n0\n")
	if c.made != 3 || c.living != 3 {
		t.Errorf("%d were made, %d live", c.made, c.living)
	}
	if r.host.Close(context.Background()); c.living != 0 {
		t.Errorf("%d live on", c.living)
	}
}

// TestReuseStep: each step gets a new one.
func TestReuseStep(t *testing.T) {
	t.Parallel()
	const text = `name: t
sandbox: {reuse: step}
defaults: {shell: sh}
steps:
  - {id: one, run: 'echo one > f; echo x > ~/h; echo x > $TMPDIR/t'}
  - {id: two, run: 'cat f; ls $TMPDIR; test ! -e ~/h; echo two > f'}
  - {id: three, run: cat f}
`
	r, c := counting(t, text)
	r.want(r.step("one", true), "")
	r.want(r.step("two", true), "one\n")
	r.want(r.step("three", true), "two\n")
	r.host.Close(context.Background())
	if c.made != 3 || c.most > 2 || c.living != 0 {
		t.Errorf("%d were made, %d at once, %d live on", c.made, c.most, c.living)
	}
}

// faulty breaks what it is told to: the next calls of one kind, after some that work.
type faulty struct {
	*fakeSandbox
	f *faults
}

type faults struct {
	mu                       sync.Mutex
	scrub, restore, snapshot int // how many of the next fail
}

var errFault = &sandbox.Error{Op: "a fault", Class: sandbox.ClassInfrastructure, Err: errors.New("it broke")}

func (f *faults) of(n *int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if *n > 0 {
		*n--
		return errFault
	}
	return nil
}

func (s *faulty) Scrub(context.Context) error { return s.f.of(&s.f.scrub) }

func (s *faulty) Restore(ctx context.Context, st checkpoint.Store, m *checkpoint.Manifest) error {
	if err := s.f.of(&s.f.restore); err != nil {
		return err
	}
	return s.fakeSandbox.Restore(ctx, st, m)
}

func (s *faulty) Snapshot(ctx context.Context, st checkpoint.Store) (checkpoint.Snapshot, error) {
	if err := s.f.of(&s.f.snapshot); err != nil {
		return checkpoint.Snapshot{}, err
	}
	return s.fakeSandbox.Snapshot(ctx, st)
}

type faultyDriver struct {
	fakeDriver
	f faults
}

func (d *faultyDriver) Create(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	sb, err := d.fakeDriver.Create(ctx, s)
	if err != nil {
		return nil, err
	}
	return &faulty{sb.(*fakeSandbox), &d.f}, nil
}

func faultyRig(t *testing.T, text string) (*rig, *faultyDriver) {
	d := &faultyDriver{fakeDriver: fakeDriver{name: "fake"}}
	return newRig(t, text, func(cfg *Config) { cfg.Driver, cfg.Capabilities.Forks = d, true }), d
}

const onePool = "name: t\nsandbox: {reuse: pool, pool: {size: 1}}\nsteps:\n  - {id: s, shell: sh, run: \"true\"}\n  - {id: u, shell: sh, run: \"true\"}\n"

func (d *fakeDriver) living() (n int) {
	for _, sb := range d.made {
		if !ended(sb) {
			n++
		}
	}
	return n
}

// TestBrokenMember: one that cannot be reset or filled, or that is lost, is replaced,
// in the same attempt and within the pool's size.
func TestBrokenMember(t *testing.T) {
	t.Parallel()
	for name, breakIt := range map[string]func(*faultyDriver){
		"reset":   func(d *faultyDriver) { d.f.scrub = 1 },
		"restore": func(d *faultyDriver) { d.f.restore = 1 },
		"lost":    func(d *faultyDriver) { _ = d.made[0].Close(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, d := faultyRig(t, onePool)
			r.step("s", true)
			breakIt(d)
			if out := r.step("u", true); out.Status != engine.StepSucceeded {
				t.Errorf("%s %s: %s", out.Status, out.Class, out.Error)
			}
			if len(d.made) != 2 || d.living() != 1 {
				t.Errorf("%d were made, %d live", len(d.made), d.living())
			}
			r.host.Close(context.Background())
			if d.living() != 0 {
				t.Errorf("%d live on", d.living())
			}
		})
	}
}

// TestBrokenCheckpoint: what is broken in a new one too is the attempt's failure, and
// leaves no sandbox behind.
func TestBrokenCheckpoint(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"pool": onePool, "fresh": strings.Replace(onePool, "reuse: pool, pool: {size: 1}", "reuse: step", 1)} {
		r, d := faultyRig(t, text)
		r.step("s", true)
		d.f.restore = 2
		out := r.host.Run(context.Background(), r.attempt("u"), r.emit)
		if out.Status != engine.StepFailed || out.Class != engine.ClassInfrastructure {
			t.Errorf("%s: %s %s: %s", name, out.Status, out.Class, out.Error)
		}
		d.f.restore = 0
		if out := r.step("u", true); out.Status != engine.StepSucceeded {
			t.Errorf("%s, again: %s: %s", name, out.Status, out.Error)
		}
		// A merge that cannot read the sandbox is an error of the run, not a silent loss.
		r.host.Run(context.Background(), r.attempt("u"), r.emit)
		d.f.snapshot = 1
		if _, _, _, err := r.host.Checkpoint(context.Background(), []string{"u"}); err == nil {
			t.Errorf("%s: a broken snapshot is no error", name)
		}
		r.host.Close(context.Background())
		if d.living() != 0 {
			t.Errorf("%s: %d live on", name, d.living())
		}
	}
}

// TestWarm: all are made before the first step, each is told of; one that cannot be
// made fails the attempt, the next attempt makes the rest, and all are closed.
func TestWarm(t *testing.T) {
	t.Parallel()
	text := strings.Replace(onePool, "size: 1", "size: 4, warm: true", 1)
	for _, fails := range [][]error{nil, {nil, failure(sandbox.ClassInvalid), nil, nil}} {
		r, d := faultyRig(t, text)
		d.fails = fails
		out := r.host.Run(context.Background(), r.attempt("s"), r.emit)
		if fails != nil {
			if out.Status != engine.StepFailed || out.Class != engine.ClassInvalid || !strings.Contains(out.Error, "warm the pool (3 of 4 are ready)") {
				t.Errorf("%s %s: %s", out.Status, out.Class, out.Error)
			}
			out = r.host.Run(context.Background(), r.attempt("s"), r.emit)
		}
		if out.Status != engine.StepSucceeded || len(d.made) != 4 {
			t.Errorf("%s %s; %d were made", out.Status, out.Error, len(d.made))
		}
		var ready []int
		for _, e := range r.events {
			if b, ok := e.(engine.Durable); ok {
				ready = append(ready, b.Body.(engine.SandboxCreated).Ready)
			}
		}
		if fmt.Sprint(ready) != "[1 2 3 4]" {
			t.Errorf("ready: %v", ready)
		}
		r.host.Close(context.Background())
		if d.living() != 0 {
			t.Errorf("%d live on", d.living())
		}
	}
}

// TestWarmStopped: Ctrl-C while it warms closes what there is.
func TestWarmStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		infra := failure(sandbox.ClassInfrastructure)
		r, d := faultyRig(t, strings.Replace(onePool, "size: 1", "size: 3, warm: true", 1))
		d.fails = []error{nil, infra, infra, infra, infra}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(&engine.StopError{Status: engine.StepInterrupted, Reason: "sigint"}) })
		out := r.host.Run(ctx, r.attempt("s"), r.emit)
		if out.Status != engine.StepInterrupted {
			t.Errorf("%s: %s", out.Status, out.Error)
		}
		r.host.Close(context.Background())
		if len(d.made) == 0 || d.living() != 0 {
			t.Errorf("%d of %d live on", d.living(), len(d.made))
		}
	})
}

// hanging runs its commands until they are stopped, where it is told to.
type hanging struct {
	*fakeSandbox
	hang *bool
}

type hangingDriver struct {
	fakeDriver
	hang bool
}

func (d *hangingDriver) Create(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	sb, err := d.fakeDriver.Create(ctx, s)
	if err != nil {
		return nil, err
	}
	return &hanging{sb.(*fakeSandbox), &d.hang}, nil
}

func (s *hanging) Exec(ctx context.Context, c sandbox.Cmd) (sandbox.Result, error) {
	if c.Argv[0] == "/bin/echo" || !*s.hang {
		return s.fakeSandbox.Exec(ctx, c)
	}
	<-ctx.Done()
	return sandbox.Result{Killed: true}, nil
}

// TestLife: a sandbox without enough time left is renewed between steps; a step that
// its end cuts is tried again in a new one, and timed out if it had the whole life.
func TestLife(t *testing.T) {
	t.Parallel()
	d := &hangingDriver{fakeDriver: fakeDriver{name: "fake"}}
	const text = "name: t\nsandbox: {timeout: 1h}\nsteps:\n  - {id: s, shell: sh, run: \"true\"}\n  - {id: u, shell: sh, timeout: 30m, run: \"true\"}\n"
	r := newRig(t, text, func(cfg *Config) { cfg.Driver, cfg.Capabilities.Forks = d, true })
	do := func(id string, left time.Duration, status engine.StepStatus, class engine.Class, made int) {
		t.Helper()
		if own := r.host.own; own != nil && left > 0 {
			own.born = time.Now().Add(left - time.Hour)
		}
		d.hang = class != ""
		out := r.step(id, true)
		if out.Status != status || out.Class != class || len(d.made) != made {
			t.Errorf("%s %s %s: %s; %d were made, want %d", id, out.Status, out.Class, out.Error, len(d.made), made)
		}
		if strings.Contains(out.Error, "sandbox.timeout") != (class != "") {
			t.Errorf("error: %q", out.Error)
		}
	}
	do("s", 0, engine.StepSucceeded, "", 1)
	do("u", 31*time.Minute, engine.StepSucceeded, "", 1) // enough for its 30 minutes
	do("u", 29*time.Minute, engine.StepSucceeded, "", 2) // not enough
	do("s", 29*time.Minute, engine.StepSucceeded, "", 2) // who knows
	do("s", 30*time.Millisecond, engine.StepFailed, engine.ClassInfrastructure, 2)
	do("s", 0, engine.StepSucceeded, "", 3)
	r.host.own.used.Store(false) // as if it were for this step
	do("s", 30*time.Millisecond, engine.StepTimedOut, engine.ClassTimeout, 3)
	r.host.Close(context.Background())
	if d.living() != 0 {
		t.Errorf("%d live on", d.living())
	}
}
