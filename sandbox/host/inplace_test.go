package host

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/sandbox"
)

// TestInPlace: commands and Files see the tree; checkpoints, restores and the end of the
// sandbox leave it alone.
func TestInPlace(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tree, dir := t.TempDir(), t.TempDir()
	file := filepath.Join(tree, "f")
	if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := New(Options{Path: os.Getenv("PATH")})
	if _, err := d.Create(ctx, sandbox.Spec{ID: "p0", Dir: t.TempDir(), InPlace: file}); err == nil {
		t.Error("a file is no workspace")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(tree, link); err != nil {
		t.Fatal(err)
	}
	sb, err := d.Create(ctx, sandbox.Spec{ID: "p1", Dir: dir, InPlace: link})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := sb.Files().ReadFile("f"); err != nil || string(b) != "mine" {
		t.Errorf("files: %q, %v", b, err)
	}
	st := &checkpoint.MemStore{}
	before, err := sb.Snapshot(ctx, st)
	if err != nil {
		t.Fatal(err)
	}
	if before.Batch != nil {
		if err := before.Batch.Seal(); err != nil {
			t.Fatal(err)
		}
	}
	res, err := sb.Exec(ctx, sandbox.Cmd{Argv: []string{"sh", "-c", "echo more > g; echo home > ~/h"}, Env: sb.BaseEnv()})
	if err != nil || res.ExitCode != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	after, err := sb.Snapshot(ctx, st)
	if err != nil {
		t.Fatal(err)
	}
	if after.Batch != nil {
		after.Batch.Abort()
	}
	for _, c := range after.Changes {
		if c.Path != "h" {
			t.Errorf("change of %s", c.Path)
		}
	}
	if err := sb.Restore(ctx, st, before.Manifest); err != nil {
		t.Fatal(err)
	}
	if err := sb.(sandbox.Scrubber).Scrub(ctx); err != nil {
		t.Fatal(err)
	}
	if err := sb.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"f": "mine", "g": "more\n"} {
		if b, err := os.ReadFile(filepath.Join(tree, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}
