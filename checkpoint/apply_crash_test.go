package checkpoint

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// applyCase is a tree with every kind of change.
func applyCase(t *testing.T) (src, journal string, m, base *Manifest, st Store) {
	t.Helper()
	src = tempRoot(t)
	for _, p := range []string{"changed", "deleted", "d/1", "d/deep/2", "becomes-dir", "dir-becomes/x", "mode/x"} {
		write(t, src, p, "base of "+p)
	}
	must(t, os.Link(filepath.Join(src, "changed"), filepath.Join(src, "second-name")))
	m, base, st = round(t, src, ImportOptions{}, func(ws string) {
		must(t, os.Remove(filepath.Join(ws, "changed")))
		write(t, ws, "changed", "changed by the run")
		write(t, ws, "second-name", "changed too")
		write(t, ws, "new/deep/file", "new")
		must(t, os.Remove(filepath.Join(ws, "deleted")))
		must(t, os.RemoveAll(filepath.Join(ws, "d")))
		must(t, os.Remove(filepath.Join(ws, "becomes-dir")))
		write(t, ws, "becomes-dir/x", "x")
		must(t, os.RemoveAll(filepath.Join(ws, "dir-becomes")))
		write(t, ws, "dir-becomes", "a file now")
		must(t, unix.Chmod(filepath.Join(ws, "mode"), 0o750))
		must(t, os.Symlink("new/deep", filepath.Join(ws, "link")))
	})
	return src, filepath.Join(tempRoot(t), "journal"), m, base, st
}

// crashAt makes an Apply stop dead at its nth durable step; it says which that is.
func crashAt(n int, name *string) func(string) bool {
	return func(at string) bool {
		n--
		*name = at
		return n == 0
	}
}

// TestApplyKilledAnywhere stops an apply at each of its durable steps: the next one
// must find the tree all old or all new, and bring it to the end.
func TestApplyKilledAnywhere(t *testing.T) {
	t.Parallel()
	points := 0
	for n := 1; ; n++ {
		src, journal, m, base, st := applyCase(t)
		before := fresh(t, src)
		var at string
		_, err := Apply(context.Background(), m, base, st, src, ApplyOptions{Journal: journal, crash: crashAt(n, &at)})
		if err == nil {
			break
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("step %d (%s): %v", n, at, err)
		}
		points++
		if _, err := Apply(context.Background(), m, base, st, src, ApplyOptions{Journal: journal, DryRun: true}); err == nil {
			t.Errorf("step %d (%s): a dry run did not see the interrupted apply", n, at)
		}
		// With nothing to bring, an apply only recovers.
		rep, err := Apply(context.Background(), base, base, st, src, ApplyOptions{Journal: journal})
		must(t, err)
		want := map[Recovered]*Manifest{RecoveredNothing: before, RecoveredUndone: before, RecoveredFinished: nil}[rep.Recovered]
		if at == "forget" {
			want = nil // all is done but the removal of the journal
		}
		if want != nil {
			clean(t, src)
			for _, c := range Listed(Diff(want, fresh(t, src))) {
				t.Errorf("killed at step %d (%s), %q: %s %s", n, at, rep.Recovered, c.Op, c.Path)
			}
		}
		_, err = Apply(context.Background(), m, base, st, src, ApplyOptions{Journal: journal})
		must(t, err)
		for path, want := range map[string]string{"changed": "changed by the run", "becomes-dir/x": "x", "dir-becomes": "a file now", "link/file": "new", "second-name": "changed too"} {
			if got := content(t, src, path); got != want {
				t.Errorf("killed at step %d (%s): in the end %s holds %q", n, at, path, got)
			}
		}
		for _, p := range []string{"d", "deleted"} {
			if _, err := os.Lstat(filepath.Join(src, p)); err == nil {
				t.Errorf("killed at step %d (%s): %s is there in the end", n, at, p)
			}
		}
		if names, _ := os.ReadDir(journal); len(names) > 0 {
			t.Errorf("killed at step %d (%s): the journal is left", n, at)
		}
	}
	if points < 20 {
		t.Errorf("only %d durable steps were tried", points)
	}
}

// TestApplyKilledThenEdited: what somebody changed after the kill is never
// overwritten by the undoing; the old state is named.
func TestApplyKilledThenEdited(t *testing.T) {
	t.Parallel()
	src, journal, m, base, st := applyCase(t)
	var at string
	n := 0
	_, err := Apply(context.Background(), m, base, st, src, ApplyOptions{Journal: journal, crash: func(name string) bool {
		at = name
		n++
		return name == "commit"
	}})
	if !errors.Is(err, errCrash) || at != "commit" {
		t.Fatal(err)
	}
	must(t, os.Remove(filepath.Join(src, "changed")))
	write(t, src, "changed", "edited after the kill")
	_, err = Apply(context.Background(), m, base, st, src, ApplyOptions{Journal: journal})
	if err == nil {
		t.Fatal("the apply went on over an edited file")
	}
	if got := content(t, src, "changed"); got != "edited after the kill" {
		t.Errorf("the edited file holds %q", got)
	}
	if got := content(t, src, "deleted"); got != "base of deleted" {
		t.Errorf("the rest was not undone: %q", got)
	}
}

// TestAPlantedJournalIsNotRead: a tree cannot bring its own.
func TestAPlantedJournalIsNotRead(t *testing.T) {
	t.Parallel()
	src, journal, m, base, st := applyCase(t)
	write(t, src, tempPrefix+"X/1", "evil")
	write(t, src, tempPrefix+"X/journal", `{"ops":[{"op":"put","path":"LmVudnJj","old":"1"}]}`)
	rep, err := Apply(context.Background(), m, base, st, src, ApplyOptions{Journal: journal})
	must(t, err)
	if rep.Recovered != RecoveredNothing {
		t.Errorf("it recovered %q", rep.Recovered)
	}
	if _, err := os.Lstat(filepath.Join(src, ".envrc")); err == nil {
		t.Error("the planted journal was carried out")
	}
}

// TestTwoAppliesAtOnce: the second is refused, not mixed in.
func TestTwoAppliesAtOnce(t *testing.T) {
	t.Parallel()
	src, journal, m, base, st := applyCase(t)
	refused := false
	_, err := Apply(context.Background(), m, base, st, src, ApplyOptions{Journal: journal, crash: func(name string) bool {
		if name == "commit" {
			_, err := Apply(context.Background(), m, base, st, src, ApplyOptions{Journal: journal})
			refused = err != nil
		}
		return false
	}})
	must(t, err)
	if !refused {
		t.Error("two applies worked on one tree")
	}
}
