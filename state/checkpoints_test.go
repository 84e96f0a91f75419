package state

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
)

func dirEntry(path string, mtime int64) checkpoint.Entry {
	return checkpoint.Entry{Path: path, Kind: checkpoint.KindDir, Mode: 0o755, MtimeNS: mtime}
}

func treeOf(n int) *checkpoint.Manifest {
	m := &checkpoint.Manifest{}
	for i := range n {
		m.Entries = append(m.Entries, dirEntry(fmt.Sprintf("dir_%06d", i), int64(i)))
	}
	return m
}

// touched is m with some entries changed, and the snapshot that leads there.
func touched(m *checkpoint.Manifest, mtime int64, which ...int) checkpoint.Snapshot {
	next := &checkpoint.Manifest{Entries: slices.Clone(m.Entries)}
	for _, i := range which {
		next.Entries[i].MtimeNS = mtime
		next.Entries[i].Mode = 0o700
	}
	return checkpoint.Snapshot{Manifest: next, Changes: checkpoint.Diff(m, next)}
}

// TestCheckpointLine stores a line of checkpoints and reads each back from
// another process's view: full, delta and same rows, over a resume.
func TestCheckpointLine(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	other, err := OpenReadOnly(s.Dir(), Options{})
	must(t, err)
	defer other.Close()
	type saved struct {
		id      string
		m       *checkpoint.Manifest
		changes int
	}
	var line []saved
	stage := func(snap checkpoint.Snapshot, parent string) string {
		t.Helper()
		id, err := s.StageCheckpoint(t.Context(), o.RunID(), snap, parent)
		must(t, err)
		if m, err := s.Manifest(t.Context(), id); err != nil || m.ID() != snap.Manifest.ID() {
			t.Fatalf("a staged checkpoint reads as %v, %v", m, err)
		}
		if _, err := other.Manifest(t.Context(), id); err == nil {
			t.Fatal("another process sees it before the Append")
		}
		put(t, o, engine.WorkspaceImported{Checkpoint: id})
		line = append(line, saved{id, snap.Manifest, len(snap.Changes)})
		return id
	}
	m := treeOf(200)
	id := stage(checkpoint.Snapshot{Manifest: m, Changes: checkpoint.Diff(nil, m)}, "")
	for i := range 120 {
		var snap checkpoint.Snapshot
		if i%3 == 0 {
			snap = checkpoint.Snapshot{Manifest: m} // unchanged
		} else {
			snap = touched(m, int64(1000+i), i, i+1)
		}
		id = stage(snap, id)
		m = snap.Manifest
		if i == 60 { // a resume: nothing is in memory
			run := o.RunID()
			must(t, o.Close())
			o, err = s.Acquire(t.Context(), run)
			must(t, err)
			defer o.Close()
		}
	}
	// A snapshot that begins at an older one.
	old := line[10]
	id = stage(touched(old.m, 5, 3), old.id)
	if got, err := other.Changes(t.Context(), id); err != nil || len(got) != 1 {
		t.Errorf("its changes are %v, %v", got, err)
	}
	for i, want := range line {
		got, err := other.Manifest(t.Context(), want.id)
		must(t, err)
		if got.ID() != want.m.ID() {
			t.Errorf("checkpoint %d came back as another tree", i)
		}
		changes, err := other.Changes(t.Context(), want.id)
		must(t, err)
		if len(changes) != want.changes {
			t.Errorf("checkpoint %d has %d changes, want %d", i, len(changes), want.changes)
		}
	}
	forms := map[string]int{}
	must(t, s.each(t.Context(), "SELECT form, count(*) FROM checkpoints GROUP BY form", nil, scanCount(forms)))
	if forms[formFull] < 2 || forms[formDelta] < 40 || forms[formSame] < 30 {
		t.Errorf("rows by form: %v", forms)
	}
	must(t, s.CheckIntegrity(t.Context()))
	r, err := s.Run(t.Context(), o.RunID())
	must(t, err)
	if r.Checkpoint != id || o.Checkpoint() != id {
		t.Errorf("the newest is %s, want %s", r.Checkpoint, id)
	}
}

// TestCheckpointWrongParent: changes that cannot lead from the parent make a
// whole manifest, not a delta that cannot be read.
func TestCheckpointWrongParent(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	a := treeOf(100)
	id, err := s.StageCheckpoint(t.Context(), o.RunID(), checkpoint.Snapshot{Manifest: a}, "")
	must(t, err)
	b := treeOf(50)
	next, err := s.StageCheckpoint(t.Context(), o.RunID(), checkpoint.Snapshot{Manifest: b}, id)
	must(t, err)
	put(t, o, engine.WorkspaceImported{Checkpoint: next}) // the first was never named
	m, err := s.manifestFrom(t.Context(), next, s.checkpointRow)
	must(t, err)
	if m.ID() != b.ID() {
		t.Error("it came back as another tree")
	}
	if _, err := s.StageCheckpoint(t.Context(), o.RunID(), checkpoint.Snapshot{Manifest: a}, "nobody.1.x"); err == nil {
		t.Error("an unknown parent was taken")
	}
	for _, bad := range []string{"", "x", "a.b", "a.b.c", "a.0.c", "a.1.", "../x.1.c", o.RunID() + ".1.other", o.RunID() + ".99999999999.x"} {
		if _, err := s.Manifest(t.Context(), bad); err == nil {
			t.Errorf("id %q was found", bad)
		}
	}
}

// TestCheckpointNamedLate: a row that builds on one that no event named brings it
// along.
func TestCheckpointNamedLate(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	m := treeOf(100)
	first, err := s.StageCheckpoint(t.Context(), o.RunID(), checkpoint.Snapshot{Manifest: m}, "")
	must(t, err)
	snap := touched(m, 7, 1)
	second, err := s.StageCheckpoint(t.Context(), o.RunID(), snap, first)
	must(t, err)
	third, err := s.StageCheckpoint(t.Context(), o.RunID(), checkpoint.Snapshot{Manifest: snap.Manifest}, second)
	must(t, err)
	put(t, o, engine.WorkspaceImported{Checkpoint: third})
	must(t, o.Close()) // drops what memory holds
	got, err := s.Manifest(t.Context(), third)
	must(t, err)
	if got.ID() != snap.Manifest.ID() {
		t.Error("it came back as another tree")
	}
	must(t, s.CheckIntegrity(t.Context()))
}

func TestCheckpointDamaged(t *testing.T) {
	t.Parallel()
	for _, damage := range []string{
		"UPDATE checkpoints SET data = zeroblob(length(data)) WHERE form = 'delta'",
		"UPDATE checkpoints SET data = substr(data, 1, length(data) - 1) WHERE form = 'full'",
		"UPDATE checkpoints SET digest = zeroblob(32) WHERE form = 'delta'",
		"UPDATE checkpoints SET size = size + 1 WHERE form = 'full'",
		"UPDATE checkpoints SET size = 1 << 60 WHERE form = 'full'",
		"UPDATE checkpoints SET entries = entries + 1",
	} {
		t.Run(damage, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			o := create(t, s)
			m := treeOf(100)
			a, err := s.StageCheckpoint(t.Context(), o.RunID(), checkpoint.Snapshot{Manifest: m}, "")
			must(t, err)
			b, err := s.StageCheckpoint(t.Context(), o.RunID(), touched(m, 7, 1), a)
			must(t, err)
			put(t, o, engine.WorkspaceImported{Checkpoint: a}, engine.WorkspaceImported{Checkpoint: b})
			must(t, o.Close())
			must(t, s.tx(func(w *writer) error { _, err := w.exec(damage); return err }))
			_, err = s.Manifest(t.Context(), b)
			wantIs(t, err, ErrCorrupt)
		})
	}
}

// TestCopiedAway: a state directory works at another path.
func TestCopiedAway(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	big := noise(3 << 20)
	h := store(t, s, big)[0]
	id, err := s.StageCheckpoint(t.Context(), o.RunID(), checkpoint.Snapshot{Manifest: treeOf(10)}, "")
	must(t, err)
	w, err := s.OpenLog(o.RunID(), "build", 1)
	must(t, err)
	must(t, w.Write(Stdout, noise(100_000)))
	ref, err := w.Finish()
	must(t, err)
	put(t, o, started("build", 1))
	f := finished("build", 1, engine.StepSucceeded)
	f.Checkpoint, f.Outcome.Log = id, ref
	put(t, o, f)
	to := filepath.Join(t.TempDir(), "elsewhere")
	copyTree(t, s.Dir(), to)
	c, err := Open(to, Options{})
	must(t, err)
	defer c.Close()
	if _, err := c.Manifest(t.Context(), id); err != nil {
		t.Error(err)
	}
	if _, err := read(t, c, h); err != nil {
		t.Error(err)
	}
	if tail, err := c.Tail(t.Context(), ref, false, 1000); err != nil || len(tail) != 1000 {
		t.Errorf("its log: %d bytes, %v", len(tail), err)
	}
	// The lock is the original's: the copy's run has no owner.
	own, err := c.Acquire(t.Context(), o.RunID())
	must(t, err)
	put(t, own, engine.RunFinished{Status: engine.RunSucceeded})
	must(t, own.Close())
	must(t, c.CheckIntegrity(t.Context()))
}

// BenchmarkCheckpoint: 10 of n entries changed, row included. Flat in n is the
// goal (performance: 5 ms with the walk, the same at 100,000 files).
func BenchmarkCheckpoint(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := open(b)
			o := create(b, s)
			m := treeOf(n)
			parent, err := s.StageCheckpoint(b.Context(), o.RunID(), checkpoint.Snapshot{Manifest: m}, "")
			must(b, err)
			put(b, o, engine.WorkspaceImported{Checkpoint: parent})
			i := 0
			for b.Loop() {
				b.StopTimer()
				snap := touched(m, int64(n+i), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
				b.StartTimer()
				parent, err = s.StageCheckpoint(b.Context(), o.RunID(), snap, parent)
				must(b, err)
				put(b, o, engine.WorkspaceImported{Checkpoint: parent})
				m = snap.Manifest
				i++
			}
		})
	}
}
