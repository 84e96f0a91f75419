package checkpoint

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// round imports src, lets work change the copy, and returns what Apply needs.
func round(t *testing.T, src string, o ImportOptions, work func(ws string)) (m, base *Manifest, st Store) {
	t.Helper()
	ws := filepath.Join(tempRoot(t), "ws")
	_, err := Import(context.Background(), src, ws, o)
	must(t, err)
	st = &MemStore{}
	tr := NewTracker(ws, Options{})
	base = snap(t, tr, st).Manifest
	work(ws)
	return snap(t, tr, st).Manifest, base, st
}

func content(t *testing.T, root, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b)
}

// clean: nothing of a staging directory is left.
func clean(t *testing.T, root string) {
	t.Helper()
	names, err := os.ReadDir(root)
	must(t, err)
	for _, n := range names {
		if strings.HasPrefix(n.Name(), ".flow-tmp-") {
			t.Errorf("%s was left behind", n.Name())
		}
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	src := tempRoot(t)
	for _, p := range []string{"same", "changed", "deleted", "mode", "mine", "both", "d/1", "d/2", "becomes-dir", "dir-becomes/x", "kept/x"} {
		write(t, src, p, "base of "+p)
	}
	write(t, src, "kept/.env", "mine")
	write(t, src, ".env", "mine")
	m, base, st := round(t, src, ImportOptions{}, func(ws string) {
		write(t, ws, "changed", "changed by the run")
		write(t, ws, "both", "the same on both sides")
		write(t, ws, "new/deep/file", "new")
		write(t, ws, ".env", "of the run")
		must(t, os.Remove(filepath.Join(ws, "deleted")))
		must(t, os.RemoveAll(filepath.Join(ws, "d")))
		must(t, os.RemoveAll(filepath.Join(ws, "kept")))
		must(t, unix.Chmod(filepath.Join(ws, "mode"), 0o4755))
		must(t, os.Remove(filepath.Join(ws, "becomes-dir")))
		write(t, ws, "becomes-dir/x", "x")
		must(t, os.RemoveAll(filepath.Join(ws, "dir-becomes")))
		write(t, ws, "dir-becomes", "a file now")
		must(t, os.Symlink("new/deep", filepath.Join(ws, "link")))
		must(t, unix.Mkfifo(filepath.Join(ws, "pipe"), 0o644))
	})
	write(t, src, "mine", "changed by the user")
	write(t, src, "both", "the same on both sides")

	untouched := fresh(t, src)
	dry, err := Apply(context.Background(), m, base, st, src, ApplyOptions{DryRun: true})
	must(t, err)
	sameTree(t, fresh(t, src), untouched)
	rep, err := Apply(context.Background(), m, base, st, src, ApplyOptions{})
	must(t, err)
	clean(t, src)
	if !slices.Equal(dry.Written, rep.Written) {
		t.Errorf("the dry run said %v, written was %v", dry.Written, rep.Written)
	}
	for path, want := range map[string]string{
		"same": "base of same", "changed": "changed by the run", "mine": "changed by the user",
		"both": "the same on both sides", "new/deep/file": "new", "link/file": "new", ".env": "mine", "kept/.env": "mine",
		"becomes-dir/x": "x", "dir-becomes": "a file now", "mode": "base of mode",
	} {
		if got := content(t, src, path); got != want {
			t.Errorf("%s holds %q, want %q", path, got, want)
		}
	}
	for _, p := range []string{"deleted", "d", "kept/x", "pipe"} {
		if _, err := os.Lstat(filepath.Join(src, p)); err == nil {
			t.Errorf("%s is there", p)
		}
	}
	if fi, _ := os.Lstat(filepath.Join(src, "mode")); fi.Mode() != 0o755 {
		t.Errorf("the mode is %v: setuid must not come back, 755 must", fi.Mode())
	}
	if !slices.Equal(rep.Kept, []string{"kept"}) || !slices.Equal(rep.Already, []string{"both"}) {
		t.Errorf("kept %v, already %v", rep.Kept, rep.Already)
	}
	again, err := Apply(context.Background(), m, base, st, src, ApplyOptions{})
	must(t, err)
	if len(again.Written) != 0 {
		t.Errorf("a second apply wrote %v", again.Written)
	}
}

func TestApplyWithAConflictChangesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		run, user func(root string)
		path      string
	}{
		"both changed": {
			func(r string) { write(t, r, "f", "run") }, func(r string) { write(t, r, "f", "user") }, "f"},
		"changed and deleted": {
			func(r string) { write(t, r, "f", "run") }, func(r string) { must(t, os.Remove(filepath.Join(r, "f"))) }, "f"},
		"deleted and changed": {
			func(r string) { must(t, os.Remove(filepath.Join(r, "f"))) }, func(r string) { write(t, r, "f", "user") }, "f"},
		"both made": {
			func(r string) { write(t, r, "n", "run") }, func(r string) { write(t, r, "n", "user") }, "n"},
		"the directory became a link": {
			func(r string) { write(t, r, "d/x", "run") }, func(r string) {
				must(t, os.RemoveAll(filepath.Join(r, "d")))
				must(t, os.Symlink("/tmp", filepath.Join(r, "d")))
			}, "d/x"},
		"a fifo in its place": {
			func(r string) { write(t, r, "f", "run") }, func(r string) {
				must(t, os.Remove(filepath.Join(r, "f")))
				must(t, unix.Mkfifo(filepath.Join(r, "f"), 0o644))
			}, "f"},
	} {
		src := tempRoot(t)
		write(t, src, "f", "base")
		write(t, src, "other", "base")
		write(t, src, "d/x", "base")
		m, base, st := round(t, src, ImportOptions{}, func(ws string) {
			write(t, ws, "other", "changed by the run")
			write(t, ws, "aaa", "new")
			c.run(ws)
		})
		c.user(src)
		before := fresh(t, src)
		_, err := Apply(context.Background(), m, base, st, src, ApplyOptions{})
		var ce *ConflictError
		if !errors.As(err, &ce) || len(ce.Conflicts) != 1 || ce.Conflicts[0].Path != c.path {
			t.Errorf("%s: %v", name, err)
		}
		sameTree(t, fresh(t, src), before)
	}
}

func TestApplyLeavesOutWhatIsDangerous(t *testing.T) {
	t.Parallel()
	src := tempRoot(t)
	write(t, src, ".git/config", "[core]\n")
	write(t, src, "readme", "x")
	m, base, st := round(t, src, ImportOptions{}, func(ws string) {
		for _, p := range []string{
			".git/hooks/pre-commit", "sub/.git/config", "a/.GIT/config", ".flow/x", "b/.flow/y",
			".envrc", ".github/workflows/ci.yml", ".gitlab-ci.yml", ".husky/x", "pkg/.vscode/tasks.json", ".idea/x", ".claude/settings.json", ".mcp.json",
			"fine",
		} {
			write(t, ws, p, "x")
		}
		for name, target := range map[string]string{
			"abs": "/etc/passwd", "up": "../outside", "twice": "fine/../../outside", "in": "sub", "via": "in/../../x",
			"deep/link": "../fine", "deep/out": "../../x", "loop": "loop",
		} {
			must(t, os.MkdirAll(filepath.Join(ws, "deep"), 0o755))
			must(t, os.Symlink(target, filepath.Join(ws, name)))
		}
	})
	rep, err := Apply(context.Background(), m, base, st, src, ApplyOptions{AllowExecutable: []string{".github/workflows/*.yml"}})
	must(t, err)
	clean(t, src)
	want := []string{".github", ".github/workflows/ci.yml", "a", "b", "deep", "deep/link", "fine", "in", "pkg", "sub"}
	for _, p := range want {
		if p == ".github/workflows/ci.yml" {
			continue // its directory is not allowed by the pattern
		}
		if !slices.Contains(rep.Written, p) {
			t.Errorf("%s was not written", p)
		}
	}
	for _, p := range rep.Written {
		if !slices.Contains(want, p) {
			t.Errorf("%s was written", p)
		}
	}
	all, err := Apply(context.Background(), m, base, st, src, ApplyOptions{AllowExecutable: []string{".github/workflows/"}})
	must(t, err)
	if got := content(t, src, ".github/workflows/ci.yml"); got != "x" {
		t.Errorf("an allowed workflow holds %q, %+v", got, all)
	}
}

func TestApplyThatFailsInTheMiddleIsUndone(t *testing.T) {
	t.Parallel()
	src := tempRoot(t)
	write(t, src, "a", "base")
	write(t, src, "gone", "base")
	write(t, src, "d/x", "base")
	m, base, st := round(t, src, ImportOptions{}, func(ws string) {
		write(t, ws, "a", "run")
		write(t, ws, "new/b", "run")
		must(t, os.Remove(filepath.Join(ws, "gone")))
		// Not empty in the user's tree: replacing it fails after others were done.
		must(t, os.RemoveAll(filepath.Join(ws, "d")))
		write(t, ws, "d", "a file")
	})
	write(t, src, "d/users-own", "must stay")
	before := fresh(t, src)
	_, err := Apply(context.Background(), m, base, st, src, ApplyOptions{})
	if err == nil {
		t.Fatal("a directory with the user's files was replaced")
	}
	clean(t, src)
	after := fresh(t, src)
	for _, c := range Listed(Diff(before, after)) {
		t.Errorf("after a failed apply: %s %s", c.Op, c.Path)
	}
}

func TestApplyFromABrokenStoreChangesNothing(t *testing.T) {
	t.Parallel()
	src := tempRoot(t)
	write(t, src, "a", "base")
	m, base, st := round(t, src, ImportOptions{}, func(ws string) {
		write(t, ws, "a", "run")
		write(t, ws, "b", "run 2")
	})
	b := &breaking{MemStore: st.(*MemStore)}
	b.left.Store(1)
	before := fresh(t, src)
	if _, err := Apply(context.Background(), m, base, b, src, ApplyOptions{}); !errors.Is(err, errBroken) {
		t.Errorf("apply from a broken store: %v", err)
	}
	clean(t, src)
	for _, c := range Listed(Diff(before, fresh(t, src))) {
		t.Errorf("after a failed apply: %s %s", c.Op, c.Path)
	}
}
