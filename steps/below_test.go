package steps

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox/local"
)

// overRig is a Host whose source is shown below the workspace.
func overRig(t *testing.T, src string) *rig {
	t.Helper()
	d := local.New(local.Options{Path: os.Getenv("PATH")})
	caps, err := d.Probe(t.Context())
	if err != nil || !caps.Overlay {
		t.Skipf("no overlay here: %v", err)
	}
	return newRig(t, "name: t\ndefaults: {shell: sh, timeout: 1m}\nworkspace: {from: src}\nsteps:\n  - {id: s, run: \"cat f g; echo mine > own\"}\n  - {id: u, run: \"cat f own; ls | tr '\\\\n' ' '\"}\n",
		func(cfg *Config) {
			cfg.Driver, cfg.Capabilities, cfg.Source, cfg.BelowFrom = d, caps, src, 1
		})
}

// alone runs a step as the only one, with its checkpoint.
func (r *rig) alone(id string) engine.Outcome {
	r.t.Helper()
	a := r.attempt(id)
	a.Alone = true
	out := r.host.Run(r.t.Context(), a, r.emit)
	if out.Status == engine.StepSucceeded {
		if _, _, _, err := r.host.Checkpoint(r.t.Context(), []string{id}); err != nil {
			r.t.Fatal(err)
		}
	}
	return out
}

func (r *rig) told() (imported int, changed []engine.SourceChanged) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.events {
		switch b := b.(type) {
		case engine.WorkspaceImported:
			imported++
		case engine.SourceChanged:
			changed = append(changed, b)
		}
	}
	return imported, changed
}

// TestASourceThatIsChangedUnderARun: it is told of, and steps go on with what was
// imported, what they made themselves included.
func TestASourceThatIsChangedUnderARun(t *testing.T) {
	t.Parallel()
	src := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("f", "imported ")
	write("g", "too ")
	r := overRig(t, src)
	if out := r.alone("s"); out.Status != engine.StepSucceeded || out.Stdout.Head != "imported too " {
		t.Fatalf("%s %q: %s", out.Status, out.Stdout.Head, out.Error)
	}
	if n, cs := r.told(); n != 1 || len(cs) != 0 {
		t.Fatalf("imported %d times, changed %v", n, cs)
	}
	write("f", "edited by hand ")
	write("new", "x")
	if err := os.Remove(filepath.Join(src, "g")); err != nil {
		t.Fatal(err)
	}
	r.host.below.mu.Lock()
	r.host.below.next = time.Time{} // it is time
	r.host.below.mu.Unlock()
	if out := r.alone("u"); out.Status != engine.StepSucceeded || strings.TrimSpace(out.Stdout.Head) != "imported mine\nf g own" {
		t.Errorf("%s %q: %s", out.Status, out.Stdout.Head, out.Error)
	}
	_, cs := r.told()
	if len(cs) != 1 || cs[0].Count != 3 || strings.Join(cs[0].Paths, " ") != "f g new" {
		t.Errorf("told of %+v", cs)
	}
	for _, b := range r.host.Close(t.Context()) {
		if c, ok := b.(engine.SourceChanged); ok {
			t.Errorf("told again at the end: %+v", c)
		}
	}
}

// TestASourceThatCannotBeStored: the step that ran meanwhile fails with the reason, and
// the next attempt begins anew.
func TestASourceThatCannotBeStored(t *testing.T) {
	t.Parallel()
	src := t.TempDir()
	for _, name := range []string{"f", "g"} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(name+" "), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := overRig(t, src)
	r.store.fail(errors.New("no space left"))
	if out := r.alone("s"); out.Status != engine.StepFailed || !strings.Contains(out.Error, "no space left") {
		t.Fatalf("%s: %s", out.Status, out.Error)
	}
	r.store.fail(nil)
	if out := r.alone("s"); out.Status != engine.StepSucceeded || out.Stdout.Head != "f g " {
		t.Errorf("%s %q: %s", out.Status, out.Stdout.Head, out.Error)
	}
	if n, _ := r.told(); n != 1 {
		t.Errorf("imported %d times", n)
	}
}
