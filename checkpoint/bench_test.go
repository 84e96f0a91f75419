package checkpoint

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// bigTree makes n files of about 2 KiB, 15 to a directory, as the measured facts did.
func bigTree(b *testing.B, n int) string {
	b.Helper()
	root := b.TempDir()
	body := make([]byte, 2048)
	for i := range n {
		dir := filepath.Join(root, fmt.Sprintf("d%02d", i/15%30), fmt.Sprintf("e%03d", i/15))
		if i%15 == 0 {
			must(b, os.MkdirAll(dir, 0o755))
		}
		copy(body, fmt.Sprintf("file %d", i))
		must(b, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d.go", i)), body, 0o644))
	}
	return root
}

// settle makes a snapshot of which no file is racy: the clock must be past the
// guard, which is waited for by asking and not by sleeping.
func settle(b *testing.B, root string, st Store) *Tracker {
	b.Helper()
	tr := NewTracker(root, Options{})
	for start := time.Now(); time.Since(start) < 3*racyGuard; {
		snap(b, tr, st)
	}
	snap(b, tr, st)
	return tr
}

func benchUnchanged(b *testing.B, n int) {
	root := bigTree(b, n)
	st := &MemStore{}
	tr := settle(b, root, st)
	b.ReportAllocs()
	for b.Loop() {
		s, err := tr.Snapshot(context.Background(), st)
		if err != nil || len(s.Changes) != 0 {
			b.Fatal(err, s.Changes)
		}
	}
}

func BenchmarkSnapshotUnchanged10(b *testing.B)  { benchUnchanged(b, 10) }
func BenchmarkSnapshotUnchanged10k(b *testing.B) { benchUnchanged(b, 10_000) }

// edit changes ten files spread over the tree.
func edit(b *testing.B, root string, n, round int) {
	b.Helper()
	for j := range 10 {
		i := j * (n / 10)
		p := filepath.Join(root, fmt.Sprintf("d%02d", i/15%30), fmt.Sprintf("e%03d", i/15), fmt.Sprintf("f%d.go", i))
		must(b, os.WriteFile(p, fmt.Appendf(nil, "round %d of %d", round, j), 0o644))
	}
}

func BenchmarkSnapshot10of10k(b *testing.B) {
	root := bigTree(b, 10_000)
	st := &MemStore{}
	tr := settle(b, root, st)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		edit(b, root, 10_000, i)
		b.StartTimer()
		s, err := tr.Snapshot(context.Background(), st)
		must(b, err)
		must(b, s.Batch.Seal())
		if len(s.Changes) != 10 {
			b.Fatal(len(s.Changes))
		}
	}
}

func BenchmarkRestore10of10k(b *testing.B) {
	root := bigTree(b, 10_000)
	st := &MemStore{}
	tr := settle(b, root, st)
	want := tr.Manifest()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		edit(b, root, 10_000, i)
		b.StartTimer()
		must(b, tr.Restore(context.Background(), st, want))
	}
}

func BenchmarkSnapshotFirst10k(b *testing.B) {
	root := bigTree(b, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		st := &MemStore{}
		s, err := NewTracker(root, Options{}).Snapshot(context.Background(), st)
		must(b, err)
		must(b, s.Batch.Seal())
	}
}

func BenchmarkManifestID10k(b *testing.B) {
	tr := settle(b, bigTree(b, 10_000), &MemStore{})
	m := tr.Manifest()
	for b.Loop() {
		m.id.Store(nil)
		m.ID()
	}
}

func BenchmarkApplyDeltas1000x10(b *testing.B) {
	base := &Manifest{Entries: []Entry{{Path: "f", Kind: KindFile}}}
	var ds [][]byte
	for i, m := 0, base; i < 1000; i++ {
		next := &Manifest{Entries: []Entry{{Path: "f", Kind: KindFile, Size: int64(i + 1)}}}
		ds, m = append(ds, EncodeDelta(m, next)), next
	}
	for b.Loop() {
		_, err := ApplyDeltas(base, ds...)
		must(b, err)
	}
}

func BenchmarkImport10k(b *testing.B) {
	src := bigTree(b, 10_000)
	for i := 0; b.Loop(); i++ {
		_, err := Import(context.Background(), src, filepath.Join(b.TempDir(), fmt.Sprint(i)), ImportOptions{})
		must(b, err)
	}
}

// BenchmarkSourceManifest10k is the start of a run on a known source: a stat walk.
func BenchmarkSourceManifest10k(b *testing.B) {
	src := bigTree(b, 10_000)
	cache := filepath.Join(b.TempDir(), "cache")
	for b.Loop() {
		_, err := SourceManifest(context.Background(), src, ImportOptions{}, cache)
		must(b, err)
	}
}
