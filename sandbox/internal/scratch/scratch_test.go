package scratch

import (
	"os"
	"path/filepath"
	"testing"
)

// TestEmpty: folders that nobody may enter go, and what links point at stays.
func TestEmpty(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir, outside := filepath.Join(base, "tmp"), filepath.Join(base, "outside")
	for _, d := range []string{filepath.Join(dir, "a/b/c"), filepath.Join(dir, ".hidden"), outside} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	kept := filepath.Join(outside, "kept")
	for _, f := range []string{kept, filepath.Join(dir, "a/b/c/f"), filepath.Join(dir, "f")} {
		if err := os.WriteFile(f, []byte("x"), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"a/b/c", "a/b", "a", "."} {
		if err := os.Chmod(filepath.Join(dir, d), 0); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // again, when it is empty
		if os.Geteuid() != 0 {
			_ = os.Chmod(dir, 0o500) // OpenRoot needs to enter it
		}
		if err := Empty(dir); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("what a link points at: %v", err)
	}
	if Empty(kept) == nil || Empty(filepath.Join(base, "none")) == nil {
		t.Error("no error for what is no folder")
	}
}
