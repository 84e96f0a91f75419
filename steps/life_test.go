package steps

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
)

const oneStep = "name: t\nsteps:\n  - {id: s, shell: sh, run: \"true\"}\n  - {id: u, shell: sh, needs: [], run: \"true\"}\n"

func failure(class sandbox.Class) error {
	return &sandbox.Error{Op: "create sandbox", Class: class, Err: errors.New("it did not start"), Hint: "look here"}
}

// TestCreation: tried three times, 2 and 4 seconds apart, for errors of the
// infrastructure only, and checked by a real echo.
func TestCreation(t *testing.T) {
	t.Parallel()
	infra, invalid := failure(sandbox.ClassInfrastructure), failure(sandbox.ClassInvalid)
	for _, c := range []struct {
		name     string
		fails    []error
		echoes   []string
		attempts int
		waited   time.Duration
		class    engine.Class // "" succeeds
	}{
		{name: "at once", attempts: 1},
		{name: "the third time", fails: []error{infra, infra}, attempts: 3, waited: 6 * time.Second},
		{name: "never", fails: []error{infra, infra, infra, nil}, attempts: 3, waited: 6 * time.Second, class: engine.ClassInfrastructure},
		{name: "it cannot", fails: []error{invalid}, attempts: 1, class: engine.ClassInvalid},
		{name: "it cannot, the second time", fails: []error{infra, invalid}, attempts: 2, waited: 2 * time.Second, class: engine.ClassInvalid},
		{name: "ill, then well", echoes: []string{"", "ok"}, attempts: 2, waited: 2 * time.Second},
		{name: "always ill", echoes: []string{"no", "no", "no"}, attempts: 3, waited: 6 * time.Second, class: engine.ClassInfrastructure},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &fakeDriver{name: "fake", fails: c.fails, echoes: c.echoes}
				r := newRig(t, oneStep, func(cfg *Config) { cfg.Driver = d })
				began := time.Now()
				sb, err := r.host.ownSandbox(t.Context(), 0, r.emit)
				if got := time.Since(began); got != c.waited {
					t.Errorf("waited %s, want %s", got, c.waited)
				}
				if d.attempts != c.attempts {
					t.Errorf("%d attempts, want %d", d.attempts, c.attempts)
				}
				for i, made := range d.made {
					living := err == nil && i == len(d.made)-1
					if made.closed == living {
						t.Errorf("sandbox %d of %d: closed is %v", i+1, len(d.made), made.closed)
					}
				}
				if c.class == "" {
					if err != nil || sb == nil {
						t.Errorf("no sandbox: %v", err)
					}
					return
				}
				out := r.host.placeFailed(t.Context(), engine.Outcome{}, err)
				if out.Status != engine.StepFailed || out.Class != c.class {
					t.Errorf("%s (%s): %s", out.Status, out.Class, out.Error)
				}
				if len(d.made) == 0 && !strings.Contains(out.Error, "look here") {
					t.Errorf("the hint is missing: %s", out.Error)
				}
			})
		})
	}
}

// TestLazyAndOnce: nothing is made before a step needs it, steps that begin at the
// same time share one, and Close leaves nothing.
func TestLazyAndOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, oneStep, nil)
	dir := filepath.Join(r.host.cfg.Dir, "sandboxes")
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("something was made before a step ran: %v", err)
	}
	if events := r.host.Close(context.Background()); len(events) != 0 {
		t.Errorf("closing nothing says %v", events)
	}
	var wg sync.WaitGroup
	for _, id := range []string{"s", "u"} {
		wg.Go(func() {
			if out := r.run(id); out.Status != engine.StepSucceeded {
				t.Errorf("%s: %s %s", id, out.Status, out.Error)
			}
		})
	}
	wg.Wait()
	made := 0
	for _, e := range r.events {
		if _, ok := e.(engine.SandboxCreated); ok {
			made++
		}
	}
	if made != 1 {
		t.Errorf("%d sandboxes were made", made)
	}
	if events := r.host.Close(context.Background()); len(events) != 1 {
		t.Errorf("closing says %v", events)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
}

// TestLost: a sandbox that died is replaced, restored from the newest checkpoint.
func TestLost(t *testing.T) {
	t.Parallel()
	d := &fakeDriver{name: "fake"}
	r := newRig(t, oneStep, func(cfg *Config) { cfg.Driver = d })
	ctx := context.Background()
	if _, err := r.host.ownSandbox(ctx, 0, r.emit); err != nil {
		t.Fatal(err)
	}
	id, _, _, err := r.host.Checkpoint(ctx, []string{"s"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.made[0].Close(ctx); err != nil { // it dies
		t.Fatal(err)
	}
	if _, err := r.host.ownSandbox(ctx, 0, r.emit); err != nil {
		t.Fatal(err)
	}
	if len(d.made) != 2 || d.made[1].id == d.made[0].id {
		t.Fatalf("%d sandboxes were made", len(d.made))
	}
	if want := r.store.trees[id]; d.made[1].restored != want {
		t.Errorf("the new sandbox was filled with %p, want checkpoint %s (%p)", d.made[1].restored, id, want)
	}
	var kinds []string
	for _, e := range r.events {
		kinds = append(kinds, e.Type())
	}
	if got := strings.Join(kinds, " "); got != "sandbox_created workspace_imported sandbox_closed sandbox_created" {
		t.Errorf("events: %s", got)
	}
}

// TestRestoreContinues: the files of the checkpoint that a resume names are there.
func TestRestoreContinues(t *testing.T) {
	t.Parallel()
	const text = "name: t\nsteps:\n  - {id: s, shell: sh, run: \"echo one > f; mkdir d; chmod 750 d\"}\n  - {id: u, shell: sh, run: \"cat f; stat -c %a d\"}\n"
	first := newRig(t, text, nil)
	if out := first.run("s"); out.Status != engine.StepSucceeded {
		t.Fatal(out.Error)
	}
	id, changed, n, err := first.host.Checkpoint(context.Background(), []string{"s"})
	if err != nil || n != 2 {
		t.Fatalf("changed %v (%d), %v", changed, n, err)
	}
	second := newRig(t, text, func(c *Config) { c.Checkpoints, c.Restore = first.store, id })
	if out := second.run("u"); out.Stdout.Head != "one\n750\n" {
		t.Errorf("%s %s: %q", out.Status, out.Error, out.Stdout.Head)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	broken := failure(sandbox.ClassInvalid)
	host := &fakeDriver{name: "host"}
	for _, c := range []struct {
		name, word string
		probe      error
		want, err  string
	}{
		{name: "nothing said", want: "local"},
		{name: "auto", word: "auto", want: "local"},
		{name: "by name", word: "host", want: "host"},
		{name: "auto never steps down", word: "auto", probe: broken, err: "driver local"},
		{name: "by name, though local is broken", word: "host", probe: broken, want: "host"},
		{name: "unknown", word: "docker", err: `unknown sandbox driver "docker"`},
	} {
		drivers := []sandbox.Driver{&fakeDriver{name: "local", probe: c.probe}, host}
		d, _, err := Choose(context.Background(), c.word, drivers)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.name, err, c.err)
			}
		case err != nil || d.Name() != c.want:
			t.Errorf("%s: %v, %v, want %s", c.name, d, err, c.want)
		}
	}
}

// TestFiles: conditions see the same files in workspace.from, in the living
// sandbox, and in the checkpoint that a resume will restore.
func TestFiles(t *testing.T) {
	t.Parallel()
	source := t.TempDir()
	for name, text := range map[string]string{"a.txt": "one", "sub/b.txt": "two", "left/out.txt": "no"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(source, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(source, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const text = "name: t\nworkspace: {from: ., exclude: [left/]}\nsteps:\n  - {id: s, shell: sh, run: \"true\"}\n"
	r := newRig(t, text, func(c *Config) { c.Source = source })
	check := func(where string, h *Host) {
		t.Helper()
		names, err := h.Files().Glob("**/*.txt")
		if err != nil || strings.Join(names, " ") != "a.txt sub/b.txt" {
			t.Errorf("%s: glob %v, %v", where, names, err)
		}
		b, err := h.Files().ReadFile("sub/b.txt")
		if err != nil || string(b) != "two" {
			t.Errorf("%s: read %q, %v", where, b, err)
		}
		for _, never := range []string{"left/out.txt", "nothing", "../a.txt", "sub"} {
			if b, err := h.Files().ReadFile(never); err == nil {
				t.Errorf("%s: read %s: %q", where, never, b)
			}
		}
	}
	check("source", r.host)
	if out := r.run("s"); out.Status != engine.StepSucceeded {
		t.Fatal(out.Error)
	}
	check("sandbox", r.host)
	id, _, _, err := r.host.Checkpoint(context.Background(), []string{"s"})
	if err != nil {
		t.Fatal(err)
	}
	check("checkpoint", newRig(t, text, func(c *Config) { c.Source, c.Checkpoints, c.Restore = source, r.store, id }).host)
}
