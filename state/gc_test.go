package state

import (
	"crypto/sha256"
	"database/sql/driver"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
)

func sum(b []byte) [32]byte { return sha256.Sum256(b) }

// runWith makes a finished run whose checkpoint holds the contents.
func runWith(t *testing.T, s *Store, contents ...[]byte) string {
	t.Helper()
	o := create(t, s)
	defer o.Close()
	b, err := s.Begin(t.Context())
	must(t, err)
	m := &checkpoint.Manifest{}
	for i, c := range contents {
		h := checkpoint.Hash(sum(c))
		must(t, b.Put(h, c))
		m.Entries = append(m.Entries, checkpoint.Entry{Path: stepName(i), Kind: checkpoint.KindFile, Mode: 0o644, Size: int64(len(c)), Hash: h})
	}
	id, err := s.StageCheckpoint(t.Context(), o.RunID(), checkpoint.Snapshot{Manifest: m, Changes: checkpoint.Diff(nil, m), Batch: b}, "")
	must(t, err)
	put(t, o, engine.WorkspaceImported{Checkpoint: id}, engine.RunFinished{Status: engine.RunSucceeded})
	return o.RunID()
}

// TestCollect: what two runs share stays with the last of them, a pinned run stays,
// a pack that is mostly dead is written anew, and all that stays can be read.
func TestCollect(t *testing.T) {
	t.Parallel()
	s := open(t)
	shared, big, own, small := noise(50_000), noise(400_000), noise(40_000), []byte("small")
	first := runWith(t, s, shared, big, small)
	second := runWith(t, s, shared, own)
	pinned := runWith(t, s, []byte("pinned"))
	must(t, s.Pin(t.Context(), pinned, true))
	got, err := s.Collect(t.Context(), GC{Keep: 2, DryRun: true})
	must(t, err)
	if !slices.Equal(got.Runs, []string{first}) {
		t.Errorf("a dry run names %v", got.Runs)
	}
	got, err = s.Collect(t.Context(), GC{Keep: 2})
	must(t, err)
	if !slices.Equal(got.Runs, []string{first}) || got.Contents != 2 || got.Freed < 300_000 || got.Busy {
		t.Errorf("collected %+v", got)
	}
	for _, c := range [][]byte{shared, own} {
		if b, err := read(t, s, checkpoint.Hash(sum(c))); err != nil || !slices.Equal(b, c) {
			t.Errorf("a content that is needed: %v", err)
		}
	}
	if _, err := read(t, s, checkpoint.Hash(sum(big))); err == nil {
		t.Error("a content that nobody needs is there")
	}
	wrong, err := s.Verify(t.Context())
	must(t, err)
	if len(wrong) > 0 {
		t.Errorf("after it: %v", wrong)
	}
	got, err = s.Collect(t.Context(), GC{Keep: 0})
	must(t, err)
	if !slices.Equal(got.Runs, []string{second}) || !slices.Equal(got.Kept, []string{pinned}) {
		t.Errorf("collected %+v", got)
	}
	if packs, _ := filepath.Glob(filepath.Join(s.packsDir(), "*.pack")); len(packs) != 0 {
		t.Errorf("packs are left: %v", packs)
	}
}

// TestCollectBesideAWriter leaves contents alone: the other process may be about to
// name one that it found here. A run that it owns stays.
func TestCollectBesideAWriter(t *testing.T) {
	t.Parallel()
	s := open(t)
	runWith(t, s, noise(50_000))
	living := create(t, s)
	defer living.Close()
	got, err := s.Collect(t.Context(), GC{Keep: 0})
	must(t, err)
	if len(got.Runs) != 1 || !slices.Equal(got.Kept, []string{living.RunID()}) {
		t.Errorf("collected %+v", got)
	}
}

// TestImportRefuses what is no exported run, or more than one.
func TestImportRefuses(t *testing.T) {
	t.Parallel()
	s := open(t)
	run := runWith(t, s, noise(50_000), []byte("x"))
	dir := t.TempDir()
	file := filepath.Join(dir, "run")
	must(t, s.ExportRun(t.Context(), run, file))
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	for name, spoil := range map[string]string{
		"a view":               "ALTER TABLE steps RENAME TO s2; CREATE VIEW steps AS SELECT * FROM s2",
		"a trigger":            "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END",
		"another schema":       "PRAGMA user_version = 999",
		"an id that is a path": "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON; UPDATE runs SET id = '../../x'",
		"no first event":       "DELETE FROM events WHERE seq = 1",
		"an unknown event":     "UPDATE events SET type = 'rm_rf' WHERE seq = 2",
		"no run":               "DELETE FROM runs",
	} {
		bad := filepath.Join(dir, "bad")
		b, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(bad, b, 0o600))
		w, err := openPortable(bad, "rw")
		must(t, err)
		if _, err := w.conn.Exec(spoil, []driver.Value{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		must(t, w.close())
		to := open(t)
		if id, err := to.ImportRun(t.Context(), bad); err == nil {
			t.Errorf("%s: it was taken as run %s", name, id)
		}
		if runs, err := to.Runs(t.Context(), Filter{}); err != nil || len(runs) != 0 {
			t.Errorf("%s: left %v, %v", name, runs, err)
		}
	}
	to := open(t)
	id, err := to.ImportRun(t.Context(), file)
	must(t, err)
	if id != run {
		t.Errorf("it is run %s", id)
	}
	wrong, err := to.Verify(t.Context())
	must(t, err)
	if len(wrong) > 0 {
		t.Errorf("after the import: %v", wrong)
	}
}
