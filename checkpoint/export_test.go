package checkpoint

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExport(t *testing.T) {
	t.Parallel()
	ws := tempRoot(t)
	for _, p := range []string{"a", "d/b", ".git/config", ".envrc", ".flow/x", "suid", "d/closed/x"} {
		write(t, ws, p, "of "+p)
	}
	must(t, unix.Chmod(filepath.Join(ws, "suid"), 0o4755))
	must(t, os.Link(filepath.Join(ws, ".envrc"), filepath.Join(ws, "z1")))
	must(t, os.Link(filepath.Join(ws, ".envrc"), filepath.Join(ws, "z2")))
	must(t, os.Symlink("../outside", filepath.Join(ws, "out")))
	must(t, os.Symlink("d/b", filepath.Join(ws, "in")))
	must(t, unix.Mkfifo(filepath.Join(ws, "pipe"), 0o644))
	must(t, os.Chmod(filepath.Join(ws, "d/closed"), 0o500))
	st := &MemStore{}
	m := snap(t, NewTracker(ws, Options{}), st).Manifest
	dst := filepath.Join(tempRoot(t), "new")
	// What a killed export left is removed.
	write(t, filepath.Dir(dst), ".flow-part-new/old", "x")
	rep, err := Export(context.Background(), m, st, dst, false)
	must(t, err)
	for _, p := range []string{"a", "d/b", "in", "suid", "z1", "z2", "d/closed/x"} {
		if _, err := os.Lstat(filepath.Join(dst, p)); err != nil {
			t.Errorf("%s did not come: %v", p, err)
		}
	}
	for _, p := range []string{".git", ".envrc", ".flow", "out", "pipe", "old"} {
		if _, err := os.Lstat(filepath.Join(dst, p)); err == nil {
			t.Errorf("%s came", p)
		}
	}
	if fi, _ := os.Stat(filepath.Join(dst, "suid")); fi.Mode()&os.ModeSetuid != 0 {
		t.Error("the setuid bit came")
	}
	var one, two unix.Stat_t
	must(t, unix.Stat(filepath.Join(dst, "z1"), &one))
	must(t, unix.Stat(filepath.Join(dst, "z2"), &two))
	if one.Ino != two.Ino {
		t.Error("two names of one file became two files")
	}
	if rep.Files != 7 || len(rep.LeftOut) == 0 {
		t.Errorf("the report is %+v", rep)
	}
	if _, err := Export(context.Background(), m, st, dst, false); err == nil {
		t.Error("an export went into a directory that is not empty")
	}
}

// TestExportThatFailsLeavesNothing: not even a part.
func TestExportThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	ws := tempRoot(t)
	write(t, ws, "a", "1")
	write(t, ws, "b", strings.Repeat("2", 100))
	st := &MemStore{}
	m := snap(t, NewTracker(ws, Options{}), st).Manifest
	b := &breaking{MemStore: st}
	b.left.Store(1)
	dir := tempRoot(t)
	if _, err := Export(context.Background(), m, b, filepath.Join(dir, "new"), false); err == nil {
		t.Fatal("it said that it succeeded")
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("it left %v", names)
	}
}
