package checkpoint

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// TestSourceNow: what it says equals what a full import would bring, whatever
// changed, and files that look the same are not read.
func TestSourceNow(t *testing.T) {
	t.Parallel()
	src := tempRoot(t)
	for _, p := range []string{"same", "edited", "gone", "mode", "d/x", ".env", ".git/config"} {
		write(t, src, p, "base of "+p)
	}
	ws := filepath.Join(tempRoot(t), "ws")
	_, err := Import(context.Background(), src, ws, ImportOptions{})
	must(t, err)
	base := fresh(t, ws)
	now, err := SourceNow(context.Background(), src, base, ImportOptions{})
	must(t, err)
	if cs := Drifted(base, base, now); len(cs) != 0 {
		t.Errorf("nothing changed, and it says %v", cs)
	}
	write(t, src, "edited", "by hand")
	write(t, src, "new/file", "by hand")
	write(t, src, ".env", "left out anyway")
	must(t, os.Remove(filepath.Join(src, "gone")))
	must(t, os.Chmod(filepath.Join(src, "mode"), 0o755))
	now, err = SourceNow(context.Background(), src, base, ImportOptions{})
	must(t, err)
	again := filepath.Join(tempRoot(t), "again")
	_, err = Import(context.Background(), src, again, ImportOptions{})
	must(t, err)
	sameTree(t, now, fresh(t, again))
	var got []string
	for _, c := range Drifted(base, base, now) {
		got = append(got, string(c.Op)+" "+c.Path)
	}
	want := []string{"modified edited", "deleted gone", "modified mode", "added new", "added new/file"}
	if len(got) != len(want) {
		t.Fatalf("it found %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("it found %v, wanted %v", got, want)
		}
	}
	// What the run itself made is no drift.
	if cs := Drifted(base, now, now); len(cs) != 0 {
		t.Errorf("the run's own result is called drift: %v", cs)
	}
}
