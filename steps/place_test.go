package steps

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/host"
)

// census counts the living sandboxes of a driver.
type census struct {
	sandbox.Driver

	mu                 sync.Mutex
	made, living, most int
}

func newCensus() *census {
	return &census{Driver: host.New(host.Options{Path: os.Getenv("PATH")})}
}

func (c *census) Create(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	sb, err := c.Driver.Create(ctx, s)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made++
	c.living++
	c.most = max(c.most, c.living)
	return &counted{Sandbox: sb, census: c}, nil
}

type counted struct {
	sandbox.Sandbox
	census *census
	once   sync.Once
}

func (s *counted) Scrub(ctx context.Context) error { return s.Sandbox.(sandbox.Scrubber).Scrub(ctx) }

func (s *counted) Close(ctx context.Context) error {
	s.once.Do(func() {
		s.census.mu.Lock()
		s.census.living--
		s.census.mu.Unlock()
	})
	return s.Sandbox.Close(ctx)
}

// counting makes a rig whose sandboxes are counted, with forks as driver host has them.
func counting(t *testing.T, text string) (*rig, *census) {
	t.Helper()
	c := newCensus()
	return newRig(t, text, func(cfg *Config) {
		caps := sandbox.Capabilities{Driver: "host", Tier: sandbox.TierNone, Forks: true}
		cfg.Driver, cfg.Capabilities = c, caps
		cfg.RunID = strings.ToLower(rand.Text()) // Scrub of driver host finds processes by it
		cfg.Named = map[string]Place{}
		for _, s := range cfg.Workflow.Sandboxes {
			cfg.Named[s.Name] = Place{Driver: c, Capabilities: caps}
		}
	}), c
}

// step runs an attempt and covers it, as the engine does.
func (r *rig) step(id string, alone bool) engine.Outcome {
	r.t.Helper()
	a := r.attempt(id)
	a.Alone = alone
	out := r.host.Run(context.Background(), a, r.emit)
	if _, _, _, err := r.host.Checkpoint(context.Background(), []string{id}); err != nil {
		r.t.Fatalf("checkpoint of %s: %v", id, err)
	}
	return out
}

func (r *rig) want(out engine.Outcome, stdout string) {
	r.t.Helper()
	if out.Status != engine.StepSucceeded || out.Stdout.Head != stdout {
		r.t.Errorf("%s %s: %q, want %q\n%s", out.Status, out.Error, out.Stdout.Head, stdout, out.Stderr.Head)
	}
}

// TestFresh: the workspace goes there and comes back, and nothing else.
func TestFresh(t *testing.T) {
	t.Parallel()
	const text = `name: t
defaults: {shell: sh}
steps:
  - {id: one, run: 'echo one > f; echo home > ~/h; echo tmp > $TMPDIR/t'}
  - {id: two, sandbox: fresh, run: 'cat f; ls ~/h $TMPDIR/t 2>&1 | grep -c "No such"; echo two > f; echo mine > ~/h; mkdir d; ln f d/link'}
  - {id: three, run: 'cat f ~/h $TMPDIR/t d/link; test f -ef d/link'}
`
	r, c := counting(t, text)
	r.want(r.step("one", true), "")
	two := r.step("two", true)
	r.want(two, "one\n2\n")
	three := r.step("three", true)
	r.want(three, "two\nhome\ntmp\ntwo\n")
	if two.SandboxID == three.SandboxID {
		t.Errorf("steps two and three ran in %q", two.SandboxID)
	}
	events := r.host.Close(context.Background())
	if c.made != 2 || c.living != 0 {
		t.Errorf("%d were made, %d live", c.made, c.living)
	}
	if _, err := os.Stat(filepath.Join(r.host.cfg.Dir, "sandboxes")); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
	var kinds []string
	for _, e := range append(r.events, events...) {
		kinds = append(kinds, e.Type())
	}
	if got := strings.Join(kinds, " "); got != "sandbox_created workspace_imported sandbox_created sandbox_closed sandbox_closed" {
		t.Errorf("events: %s", got)
	}
}

// TestFreshFirst: the first step of a run is in no need of the run's own sandbox.
func TestFreshFirst(t *testing.T) {
	t.Parallel()
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "f"), []byte("source\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, c := counting(t, "name: t\nworkspace: {from: .}\ndefaults: {shell: sh}\nsteps:\n  - {id: one, sandbox: fresh, run: 'cat f; echo new > g'}\n  - {id: two, sandbox: fresh, run: 'cat f g'}\n")
	r.host.cfg.Source = source
	r.want(r.step("one", true), "source\n")
	r.want(r.step("two", true), "source\nnew\n")
	if c.made != 2 || c.most > 2 {
		t.Errorf("%d were made, %d at once", c.made, c.most)
	}
}

// TestNamed: one sandbox serves the steps that name it; the tree goes there and comes
// back, deletions and modes too.
func TestNamed(t *testing.T) {
	t.Parallel()
	const text = `name: t
sandboxes: {other: {}}
defaults: {shell: sh}
steps:
  - {id: one, run: 'echo one > f; echo gone > g; echo home > ~/h; chmod 600 f'}
  - {id: two, sandbox: other, run: 'cat f ~/h; stat -c %a f; rm g; echo more > ~/m; echo tmp > $TMPDIR/t'}
  - {id: three, run: 'test ! -e g; cat ~/m; test ! -e $TMPDIR/t; echo three > f'}
  - {id: four, sandbox: other, run: 'cat f $TMPDIR/t'}
`
	r, c := counting(t, text)
	r.want(r.step("one", true), "")
	two := r.step("two", true)
	r.want(two, "one\nhome\n600\n")
	r.want(r.step("three", true), "more\n")
	four := r.step("four", true)
	r.want(four, "three\ntmp\n")
	if c.made != 2 || two.SandboxID != four.SandboxID {
		t.Errorf("%d were made; two ran in %s, four in %s", c.made, two.SandboxID, four.SandboxID)
	}
	if r.host.Close(context.Background()); c.living != 0 {
		t.Errorf("%d live on", c.living)
	}
}

// TestFinallyElsewhere: what a step of finally changed in the run's own sandbox, which
// no checkpoint holds, is there for the next one in another sandbox, and back.
func TestFinallyElsewhere(t *testing.T) {
	t.Parallel()
	const text = `name: t
defaults: {shell: sh}
steps:
  - {id: one, run: 'echo one > f'}
  - {id: two, run: 'echo two > f'}
  - {id: three, sandbox: fresh, run: 'cat f; echo three > g'}
  - {id: four, run: 'cat f g'}
`
	r, _ := counting(t, text)
	r.want(r.step("one", true), "")
	a := r.attempt("two")
	a.Alone = true
	r.want(r.host.Run(context.Background(), a, r.emit), "") // no checkpoint
	r.want(r.step("three", true), "two\n")
	r.want(r.step("four", true), "two\nthree\n")
}

// TestBoundOfSandboxes: more steps than sandboxes wait for each other, with the run's
// own among them, and nobody waits for ever.
func TestBoundOfSandboxes(t *testing.T) {
	t.Parallel()
	for round, most := range []int{1, 2, 3, 1, 2, 3} {
		reuse := []string{"run", "pool, pool: {size: 2}"}[round/3]
		text := "name: t\nmax_parallel: 8\nsandbox: {reuse: " + reuse + "}\ndefaults: {shell: sh}\nsandboxes: {other: {}}\nsteps:\n  - {id: first, run: 'echo x > f'}\n"
		ids := []string{"a", "b", "c", "d", "e", "g"}
		for i, id := range ids {
			text += "  - {id: " + id + ", needs: [first], run: 'cat f; echo " + id + " > " + id + "'" + []string{"", ", sandbox: fresh", ", sandbox: other"}[i%3] + "}\n"
		}
		text += "  - {id: last, run: 'cat a b c d e g'}\n"
		r, c := counting(t, text)
		r.host.house.most = most
		r.want(r.step("first", true), "")
		var wg sync.WaitGroup
		for _, id := range ids {
			wg.Go(func() { r.want(r.step(id, false), "x\n") })
		}
		wg.Wait()
		r.want(r.step("last", true), "a\nb\nc\nd\ne\ng\n")
		r.host.Close(context.Background())
		if c.most > most || c.living != 0 {
			t.Errorf("%d sandboxes at once, want at most %d; %d live on", c.most, most, c.living)
		}
	}
}

// slowStart makes the creation of one sandbox wait.
type slowStart struct {
	*census
	slow          atomic.Int64 // the creation that waits, from 1
	entered, goOn chan struct{}
}

func (d *slowStart) Create(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	if d.slow.Add(-1) == 0 {
		close(d.entered)
		<-d.goOn
	}
	return d.census.Create(ctx, s)
}

// TestForkPoint: a step begins with the tree as it is then, however long its sandbox
// takes: what another one merges meanwhile is a conflict, not its ground.
func TestForkPoint(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"", ", sandbox: fresh", ", sandbox: other"} {
		text := "name: t\nsandboxes: {other: {}}\ndefaults: {shell: sh}\nsteps:\n  - {id: first, run: 'echo x > f'}\n" +
			"  - {id: quick, needs: [first], run: 'echo quick > f'}\n  - {id: slow, needs: [first], run: 'cat f; echo slow > f'" + where + "}\n  - {id: keep, sandbox: other, run: 'true'}\n"
		r, c := counting(t, text)
		d := &slowStart{census: c, entered: make(chan struct{}), goOn: make(chan struct{})}
		for _, room := range r.host.rooms {
			room.Driver = d
		}
		r.want(r.step("first", true), "")
		d.slow.Store(1)
		ended := make(chan engine.Outcome)
		go func() {
			ended <- r.host.Run(context.Background(), r.attempt("slow"), r.emit)
		}()
		<-d.entered
		r.want(r.step("quick", false), "")
		close(d.goOn)
		r.want(<-ended, "x\n")
		_, _, _, err := r.host.Checkpoint(context.Background(), []string{"slow"})
		if conflict := (*engine.ConflictError)(nil); !errors.As(err, &conflict) {
			t.Errorf("%q: %v, want a conflict", where, err)
		}
	}
}
