package checkpoint

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tempRoot is a directory that can be removed again whatever a test did to it.
func tempRoot(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	must(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if d != nil && d.IsDir() {
				_ = os.Chmod(p, 0o700)
				if err != nil {
					return nil
				}
			}
			return nil
		})
	})
	return dir
}

func write(t testing.TB, root, path, content string) {
	t.Helper()
	p := filepath.Join(root, path)
	must(t, os.MkdirAll(filepath.Dir(p), 0o755))
	must(t, os.WriteFile(p, []byte(content), 0o644))
}

// snap takes a snapshot and seals it.
func snap(t testing.TB, tr *Tracker, st Store) Snapshot {
	t.Helper()
	s, err := tr.Snapshot(context.Background(), st)
	must(t, err)
	if s.Batch != nil {
		must(t, s.Batch.Seal())
	}
	must(t, s.Manifest.Validate())
	return s
}

// fresh reads a tree without any knowledge.
func fresh(t testing.TB, root string) *Manifest {
	t.Helper()
	return snap(t, NewTracker(root, Options{}), &MemStore{}).Manifest
}

func sameTree(t testing.TB, got, want *Manifest) {
	t.Helper()
	for _, c := range Diff(want, got) {
		t.Errorf("%s %q: got %+v, want %+v", c.Op, c.Path, got.Lookup(c.Path), want.Lookup(c.Path))
	}
}

// mutator changes a tree at random, keeping to what an ordinary user may do.
type mutator struct {
	t    testing.TB
	root string
	r    *rand.Rand
	n    int
}

func (m *mutator) dirs() (out []string) {
	must(m.t, filepath.WalkDir(m.root, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			out = append(out, p)
		}
		if err != nil {
			return filepath.SkipDir
		}
		return nil
	}))
	return out
}

func (m *mutator) files() (out []string) {
	_ = filepath.WalkDir(m.root, func(p string, d os.DirEntry, err error) error {
		if err == nil && p != m.root {
			out = append(out, p)
		}
		return nil
	})
	return out
}

func pick[T any](r *rand.Rand, s []T) T { return s[r.IntN(len(s))] }

func (m *mutator) step() {
	m.n++
	dirs := m.dirs()
	dir := pick(m.r, dirs)
	name := filepath.Join(dir, fmt.Sprintf("%c%d%s", 'a'+rune(m.r.IntN(6)), m.n, pick(m.r, []string{"", "-x", ".y", "\xff\xfe", " z\n"})))
	var old string
	if fs := m.files(); len(fs) > 0 {
		old = pick(m.r, fs)
	}
	switch m.r.IntN(14) {
	case 0, 1, 2:
		_ = os.WriteFile(name, []byte(strings.Repeat("x", m.r.IntN(9000))), 0o644)
	case 3:
		_ = os.Mkdir(name, 0o755)
	case 4:
		_ = os.Symlink(pick(m.r, []string{"/etc/shadow", "nowhere", "../..", "."}), name)
	case 5:
		_ = unix.Mkfifo(name, 0o600)
	case 6:
		if st, err := os.Lstat(old); old != "" && err == nil && !st.IsDir() {
			_ = os.Link(old, name)
		}
	case 7:
		if old != "" {
			_ = os.RemoveAll(old)
		}
	case 8:
		if st, err := os.Lstat(old); err == nil && st.Mode()&os.ModeSymlink == 0 {
			_ = unix.Chmod(old, pick(m.r, []uint32{0, 0o400, 0o755, 0o4755, 0o2711, 0o1777, 0o644}))
		}
	case 9:
		if old != "" {
			_ = os.Rename(old, name)
		}
	case 10:
		if st, err := os.Lstat(old); err == nil && st.Mode().IsRegular() {
			_ = unix.Setxattr(old, "user.k", []byte{byte(m.n), 0}, 0)
		}
	case 11:
		if st, err := os.Lstat(old); err == nil && st.Mode().IsRegular() {
			if f, err := os.OpenFile(old, os.O_WRONLY|os.O_APPEND, 0); err == nil {
				_, _ = f.WriteString("more")
				_ = f.Close()
			}
		}
	case 12:
		if st, err := os.Lstat(old); err == nil && st.Mode()&os.ModeSymlink == 0 {
			_ = os.Chtimes(old, time.Time{}, time.Unix(int64(m.n), 123456789))
		}
	case 13:
		// Same size, same mtime: only the ctime tells.
		if st, err := os.Lstat(old); err == nil && st.Mode().IsRegular() && st.Size() > 0 {
			if f, err := os.OpenFile(old, os.O_WRONLY, 0); err == nil {
				_, _ = f.WriteAt([]byte{byte(m.n)}, 0)
				_ = f.Close()
				_ = os.Chtimes(old, time.Time{}, st.ModTime())
			}
		}
	}
}

func TestRandomTreesComeBack(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		root := tempRoot(t)
		m := &mutator{t: t, root: root, r: rand.New(rand.NewPCG(seed, 1))}
		st := &MemStore{}
		tr := NewTracker(root, Options{})
		var snaps []Snapshot
		prev := &Manifest{}
		for range 4 {
			for range 25 {
				m.step()
			}
			s := snap(t, tr, st)
			sameTree(t, s.Manifest, fresh(t, root))
			if got, want := len(s.Changes), len(Diff(prev, s.Manifest)); got != want {
				t.Fatalf("seed %d: %d changes, Diff says %d", seed, got, want)
			}
			next, err := ApplyDelta(prev, s.EncodeDelta(prev))
			must(t, err)
			if next.ID() != s.Manifest.ID() {
				t.Fatalf("seed %d: the delta leads elsewhere", seed)
			}
			snaps, prev = append(snaps, s), s.Manifest
		}
		for _, i := range []int{0, 3, 1, 2, 0} {
			if err := tr.Restore(context.Background(), st, snaps[i].Manifest); err != nil {
				t.Fatalf("seed %d, snapshot %d: %v", seed, i, err)
			}
			sameTree(t, fresh(t, root), snaps[i].Manifest)
			if s := snap(t, tr, st); len(s.Changes) != 0 || s.Manifest != snaps[i].Manifest {
				t.Fatalf("seed %d: changes right after a restore: %v", seed, s.Changes)
			}
		}
		// Into an empty directory, by a tracker that knows nothing.
		empty := tempRoot(t)
		must(t, NewTracker(empty, Options{}).Restore(context.Background(), st, snaps[2].Manifest))
		sameTree(t, fresh(t, empty), snaps[2].Manifest)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestSnapshotKeepsWhatAStepCanSee(t *testing.T) {
	t.Parallel()
	root := tempRoot(t)
	write(t, root, "f", "content")
	must(t, os.Mkdir(filepath.Join(root, "empty"), 0o755))
	must(t, unix.Chmod(filepath.Join(root, "empty"), 0o1777))
	write(t, root, "repo/.git/HEAD", "ref")
	must(t, os.Symlink("/etc/shadow", filepath.Join(root, "abs")))
	must(t, os.Symlink("gone", filepath.Join(root, "dangling")))
	must(t, os.Link(filepath.Join(root, "f"), filepath.Join(root, "hard")))
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o640))
	write(t, root, "bad\xffname", "x")
	write(t, root, "suid", "x")
	must(t, unix.Chmod(filepath.Join(root, "suid"), 0o4711))
	must(t, os.Chtimes(filepath.Join(root, "suid"), time.Time{}, time.Unix(5, 999999999)))
	must(t, unix.Mknod(filepath.Join(root, "s"), unix.S_IFSOCK|0o600, 0))

	s := snap(t, NewTracker(root, Options{}), &MemStore{})
	want := []struct {
		path string
		ok   func(e *Entry) bool
	}{
		{"empty", func(e *Entry) bool { return e.Kind == KindDir && e.Mode == 0o1777 }},
		{"repo/.git/HEAD", func(e *Entry) bool { return e.Kind == KindFile && e.Size == 3 }},
		{"abs", func(e *Entry) bool { return e.Kind == KindSymlink && e.Target == "/etc/shadow" }},
		{"dangling", func(e *Entry) bool { return e.Target == "gone" }},
		{"f", func(e *Entry) bool { return e.HardlinkTo == "" }},
		{"hard", func(e *Entry) bool { return e.HardlinkTo == "f" && e.Size == 7 }},
		{"fifo", func(e *Entry) bool { return e.Kind == KindFifo }},
		{"bad\xffname", func(e *Entry) bool { return e.Size == 1 }},
		{"suid", func(e *Entry) bool { return e.Mode == 0o4711 && e.MtimeNS == 5999999999 }},
		{"s", func(e *Entry) bool { return e.Kind == KindSocket }},
	}
	for _, w := range want {
		if e := s.Manifest.Lookup(w.path); e == nil || !w.ok(e) {
			t.Errorf("%q is recorded as %+v", w.path, e)
		}
	}
}

func TestUnreadableFilesAreStoredAndLeftAsTheyWere(t *testing.T) {
	t.Parallel()
	root := tempRoot(t)
	write(t, root, "d/e/secret", "s3")
	write(t, root, "d/ro/x", "y")
	must(t, os.Chmod(filepath.Join(root, "d/e/secret"), 0))
	must(t, os.Chmod(filepath.Join(root, "d/ro"), 0o444))
	must(t, os.Chmod(filepath.Join(root, "d/e"), 0o100))
	must(t, os.Chmod(filepath.Join(root, "d"), 0))
	must(t, os.Chmod(root, 0))
	st := &MemStore{}
	tr := NewTracker(root, Options{})
	s := snap(t, tr, st)
	if e := s.Manifest.Lookup("d/e/secret"); e == nil || e.Mode != 0 || e.Size != 2 {
		t.Errorf("the unreadable file is recorded as %+v", e)
	}
	if e := s.Manifest.Lookup("d"); e == nil || e.Mode != 0 {
		t.Errorf("the unreadable directory is recorded as %+v", e)
	}
	if again := snap(t, tr, st); again.Manifest != s.Manifest {
		t.Errorf("a second snapshot found %v", again.Changes)
	}
	if fi, err := os.Lstat(root); err != nil || fi.Mode().Perm() != 0 {
		t.Errorf("the root was left with %v, %v", fi.Mode(), err)
	}
	must(t, os.Chmod(root, 0o700))
	must(t, os.Chmod(filepath.Join(root, "d"), 0o700))
	write(t, root, "d/extra", "z")
	must(t, tr.Restore(context.Background(), st, s.Manifest))
	sameTree(t, fresh(t, root), s.Manifest)
}

func TestADroppedBatchComesAgain(t *testing.T) {
	t.Parallel()
	root := tempRoot(t)
	write(t, root, "a", "one")
	st := &MemStore{}
	tr := NewTracker(root, Options{})
	s, err := tr.Snapshot(context.Background(), st)
	must(t, err)
	s.Batch.Abort()
	s2 := snap(t, tr, st)
	if s2.Batch == nil || len(s2.Changes) != 0 {
		t.Fatalf("the content of a dropped batch was not brought again: %+v", s2)
	}
	if ok, _ := st.Have(context.Background(), []Hash{s.Manifest.Entries[0].Hash}); !ok[0] {
		t.Error("the content is not stored")
	}
	if s3 := snap(t, tr, st); s3.Batch != nil {
		t.Error("a stored content was brought a third time")
	}
}

func TestLargeFilesAreStreamed(t *testing.T) {
	t.Parallel()
	root := tempRoot(t)
	write(t, root, "big", strings.Repeat("0123456789abcdef", 200<<10))
	f, err := os.Create(filepath.Join(root, "sparse"))
	must(t, err)
	must(t, f.Truncate(8<<20))
	_, err = f.WriteAt([]byte("end"), 5<<20)
	must(t, err)
	must(t, f.Close())
	st := &MemStore{}
	s := snap(t, NewTracker(root, Options{}), st)
	empty := tempRoot(t)
	must(t, NewTracker(empty, Options{}).Restore(context.Background(), st, s.Manifest))
	sameTree(t, fresh(t, empty), s.Manifest)
	var x unix.Stat_t
	must(t, unix.Stat(filepath.Join(empty, "sparse"), &x))
	if x.Blocks*512 > 1<<20 {
		t.Errorf("the sparse file was restored with %d bytes on disk", x.Blocks*512)
	}
}
