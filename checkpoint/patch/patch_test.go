package patch_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/checkpoint/patch"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// trees is one tree that is edited, with a snapshot of each state.
type trees struct {
	t    *testing.T
	root string
	tr   *checkpoint.Tracker
	st   *checkpoint.MemStore
}

func newTrees(t *testing.T) *trees {
	root := t.TempDir()
	return &trees{t: t, root: root, tr: checkpoint.NewTracker(root, checkpoint.Options{}), st: &checkpoint.MemStore{}}
}

func (x *trees) snap() *checkpoint.Manifest {
	x.t.Helper()
	s, err := x.tr.Snapshot(context.Background(), x.st)
	must(x.t, err)
	if s.Batch != nil {
		must(x.t, s.Batch.Seal())
	}
	return s.Manifest
}

func (x *trees) write(name, text string, mode os.FileMode) {
	x.t.Helper()
	p := filepath.Join(x.root, name)
	must(x.t, os.MkdirAll(filepath.Dir(p), 0o755))
	os.Remove(p)
	must(x.t, os.WriteFile(p, []byte(text), mode))
	must(x.t, os.Chmod(p, mode))
}

func (x *trees) patch(a, b *checkpoint.Manifest) string {
	x.t.Helper()
	files, _ := patch.Files(a, b)
	var out bytes.Buffer
	must(x.t, patch.Write(context.Background(), &out, x.st, files))
	return out.String()
}

// apply restores a, lets git apply the text, and returns the tree as git sees it.
func (x *trees) apply(from *checkpoint.Manifest, text string, args ...string) string {
	x.t.Helper()
	dir := x.t.TempDir()
	must(x.t, checkpoint.NewTracker(dir, checkpoint.Options{}).Restore(context.Background(), x.st, from))
	if text != "" {
		cmd := exec.Command("git", append([]string{"apply"}, args...)...)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(text)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
		if out, err := cmd.CombinedOutput(); err != nil {
			x.t.Fatalf("git apply: %v\n%s\n%s", err, out, clip(text))
		}
	}
	s, err := checkpoint.NewTracker(dir, checkpoint.Options{}).Snapshot(context.Background(), &checkpoint.MemStore{})
	must(x.t, err)
	return asGit(s.Manifest)
}

func clip(s string) string { return s[:min(len(s), 4000)] }

// asGit lists what git knows of a tree.
func asGit(m *checkpoint.Manifest) string {
	var b strings.Builder
	for _, e := range m.Entries {
		switch e.Kind {
		case checkpoint.KindFile:
			fmt.Fprintf(&b, "%q %v %s\n", e.Path, e.Mode&0o100 != 0, e.Hash)
		case checkpoint.KindSymlink:
			fmt.Fprintf(&b, "%q -> %q\n", e.Path, e.Target)
		}
	}
	return b.String()
}

func needGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed: the patch is checked by git itself")
	}
}

// TestGitApplies walks random edit sequences: each patch, and its reverse, must
// lead git to exactly the other tree.
func TestGitApplies(t *testing.T) {
	t.Parallel()
	needGit(t)
	rounds := 12
	if os.Getenv("FLOW_LONG") != "" {
		rounds = 300
	}
	for seed := range rounds {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		x := newTrees(t)
		for range 12 {
			edit(x, r)
		}
		a := x.snap()
		for range 1 + r.IntN(10) {
			edit(x, r)
		}
		b := x.snap()
		text := x.patch(a, b)
		if got, want := x.apply(a, text), asGit(b); got != want {
			t.Fatalf("seed %d: git made\n%swanted\n%spatch\n%s", seed, got, want, clip(text))
		}
		if got, want := x.apply(b, text, "-R"), asGit(a); got != want {
			t.Fatalf("seed %d: git -R made\n%swanted\n%s", seed, got, want)
		}
	}
}

var names = []string{"a", "b.txt", "dir/one", "dir/two", "dir/deep/three", "with space", "tab\tin", "quote\"d", "n\nl", "caf\u00e9", "latin\xe9", "-dash", "back\\slash", "x"}

func edit(x *trees, r *rand.Rand) {
	name := names[r.IntN(len(names))]
	p := filepath.Join(x.root, name)
	mode := os.FileMode(0o644)
	if r.IntN(3) == 0 {
		mode = 0o755
	}
	if fi, err := os.Lstat(p); err == nil && fi.IsDir() {
		must(x.t, os.RemoveAll(p))
	}
	if name == "x" && r.IntN(2) == 0 { // a file that becomes a directory
		os.RemoveAll(p)
		x.write("x/inside", "in\n", mode)
		return
	}
	switch r.IntN(7) {
	case 0:
		os.Remove(p)
	case 1:
		os.Remove(p)
		must(x.t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(x.t, os.Symlink(fmt.Sprintf("to/%d", r.IntN(5)), p))
	case 2:
		b := make([]byte, r.IntN(3000))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		x.write(name, string(b), mode)
	case 3:
		x.write(name, "", mode)
	default:
		old, _ := os.ReadFile(p)
		list := strings.SplitAfter(string(old), "\n")
		if len(list) < 5 {
			for i := range 30 {
				list = append(list, fmt.Sprintf("line %d\n", i%7))
			}
		}
		for range 1 + r.IntN(6) {
			i := r.IntN(len(list))
			switch r.IntN(3) {
			case 0:
				list = append(list[:i], list[i+1:]...)
			case 1:
				list[i] = fmt.Sprintf("changed %d\n", r.IntN(9))
			default:
				list = append(list[:i], append([]string{"new\n"}, list[i:]...)...)
			}
		}
		if r.IntN(3) == 0 {
			list = append(list, "no end")
		}
		x.write(name, strings.Join(list, ""), mode)
	}
}

// TestSmallestDifference: a known pair has the expected text.
func TestSmallestDifference(t *testing.T) {
	t.Parallel()
	x := newTrees(t)
	x.write("f", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n", 0o644)
	x.write("gone", "x\n", 0o755)
	a := x.snap()
	x.write("f", "1\n2\nthree\n4\n5\n6\n7\n8\n9\n10\n11\n12\n14", 0o644)
	must(t, os.Remove(filepath.Join(x.root, "gone")))
	b := x.snap()
	const want = `diff --git a/f b/f
index 7f8e0b2..2 100644
--- a/f
+++ b/f
@@ -1,6 +1,6 @@
 1
 2
-3
+three
 4
 5
 6
@@ -10,5 +10,4 @@
 10
 11
 12
-13
-14
+14
\ No newline at end of file
diff --git a/gone b/gone
deleted file mode 100755
--- a/gone
+++ /dev/null
@@ -1 +0,0 @@
-x
`
	strip := func(s string) string {
		var out []string
		for _, l := range strings.Split(s, "\n") {
			if !strings.HasPrefix(l, "index ") {
				out = append(out, l)
			}
		}
		return strings.Join(out, "\n")
	}
	if got := strip(x.patch(a, b)); got != strip(want) {
		t.Errorf("the patch is\n%s", got)
	}
	files, _ := patch.Files(a, b)
	stats, err := patch.Stats(context.Background(), x.st, files)
	must(t, err)
	if s := stats[0]; s.Added != 2 || s.Deleted != 3 || s.Op != "modified" || stats[1].Op != "deleted" || stats[1].Deleted != 1 {
		t.Errorf("the counts are %+v", stats)
	}
}

// TestWhatGitCannotSay is named.
func TestWhatGitCannotSay(t *testing.T) {
	t.Parallel()
	x := newTrees(t)
	x.write("f", "x", 0o644)
	a := x.snap()
	must(t, os.Chmod(filepath.Join(x.root, "f"), 0o600))
	must(t, os.Mkdir(filepath.Join(x.root, "empty"), 0o755))
	files, notes := patch.Files(a, x.snap())
	if len(files) != 0 || len(notes) != 2 || notes[0].Path != "empty" || notes[1].Text != "mode: 0644 to 0600" {
		t.Errorf("files %v, notes %v", files, notes)
	}
}

// TestHugeRewriteIsBounded: two large files without a line in common, and two with
// thousands of equal lines, are compared within a bound.
func TestHugeRewriteIsBounded(t *testing.T) {
	t.Parallel()
	needGit(t)
	x := newTrees(t)
	var one, two strings.Builder
	for i := range 60000 {
		fmt.Fprintf(&one, "old %d\n}\n", i)
		fmt.Fprintf(&two, "new %d\n}\n", i*7%60000)
		if i%100 == 0 {
			fmt.Fprintf(&one, "common %d\n", i)
			fmt.Fprintf(&two, "common %d\n", i)
		}
	}
	x.write("f", one.String(), 0o644)
	a := x.snap()
	x.write("f", two.String(), 0o644)
	b := x.snap()
	text := x.patch(a, b)
	if got := x.apply(a, text); got != asGit(b) {
		t.Error("git made another file of it")
	}
	if n := strings.Count(text, "\n common "); n < 500 {
		t.Errorf("of 600 common lines %d were found", n)
	}
}
