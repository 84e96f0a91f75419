package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// holds reports whether a store has the content.
func holds(t *testing.T, st *MemStore, content string) bool {
	t.Helper()
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, b := range st.m {
		if strings.Contains(string(b), content) {
			return true
		}
	}
	return false
}

// Abuse test 9: a directory is swapped for a symlink while it is walked.
func TestASwappedDirectoryIsNotFollowed(t *testing.T) {
	t.Parallel()
	const canary = "TOP-SECRET-CANARY"
	outside := t.TempDir()
	write(t, outside, "dir/secret", canary)
	root, links := tempRoot(t), tempRoot(t)
	const dirs = 150 // many, so that much time lies between lstat and open
	for i := range dirs {
		name := fmt.Sprintf("d%03d", i)
		write(t, root, name+"/secret", "harmless")
		must(t, os.Symlink(filepath.Join(outside, "dir"), filepath.Join(links, name)))
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		r := rand.New(rand.NewPCG(3, 4))
		for !stop.Load() {
			name := fmt.Sprintf("d%03d", r.IntN(dirs))
			_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, name), unix.AT_FDCWD, filepath.Join(links, name), unix.RENAME_EXCHANGE)
		}
	})
	st := &MemStore{}
	good, failed := 0, 0
	for i := 0; i < 150 || failed == 0 && i < 3000; i++ {
		s, err := NewTracker(root, Options{}).Snapshot(context.Background(), st)
		switch {
		case err == nil:
			good++
			if s.Batch != nil {
				must(t, s.Batch.Seal())
			}
		case errors.Is(err, errChanged):
			failed++
		default:
			t.Errorf("an unexpected error: %v", err)
		}
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d snapshots, %d refused because the tree changed", good, failed)
	if failed == 0 {
		t.Error("the attacker never met a snapshot: this test shows nothing")
	}
	if holds(t, st, canary) {
		t.Fatal("a file outside the tree was stored")
	}
}

// Restore races with such an attacker: it may fail, it must not write or delete
// outside.
func TestRestoreDoesNotReachThroughASwappedDirectory(t *testing.T) {
	t.Parallel()
	outside := tempRoot(t)
	root, aside := tempRoot(t), filepath.Join(t.TempDir(), "aside")
	for i := range 40 {
		write(t, root, fmt.Sprintf("a/f%d", i), "inside")
		write(t, outside, fmt.Sprintf("f%d", i), "outside")
	}
	st := &MemStore{}
	want := snap(t, NewTracker(root, Options{}), st).Manifest
	before := fresh(t, outside)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		dir := filepath.Join(root, "a")
		for !stop.Load() {
			_ = unix.Rename(dir, aside)
			_ = unix.Symlink(outside, dir)
			_ = unix.Unlink(dir)
			if unix.Rename(aside, dir) != nil {
				_ = os.RemoveAll(aside)
			}
		}
	})
	met := 0
	for i := 0; i < 300 || met == 0 && i < 3000; i++ {
		m := want
		if i%2 == 0 {
			m = &Manifest{}
		}
		if NewTracker(root, Options{}).Restore(context.Background(), st, m) != nil {
			met++
		}
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d restores met the attacker", met)
	if met == 0 {
		t.Error("the attacker never met a restore: this test shows nothing")
	}
	sameTree(t, fresh(t, outside), before)
}

// Abuse test 10: what may be planted in a workspace before a Restore.
func TestRestoreReplacesWhatWasPlanted(t *testing.T) {
	t.Parallel()
	plant := map[string]func(t *testing.T, root, outside string){
		"symlink to a file": func(t *testing.T, root, outside string) {
			must(t, os.Remove(filepath.Join(root, "d/f")))
			must(t, os.Symlink(filepath.Join(outside, "victim"), filepath.Join(root, "d/f")))
		},
		"symlink to a directory": func(t *testing.T, root, outside string) {
			must(t, os.RemoveAll(filepath.Join(root, "d")))
			must(t, os.Symlink(outside, filepath.Join(root, "d")))
		},
		"symlink to /etc/shadow": func(t *testing.T, root, _ string) {
			must(t, os.Remove(filepath.Join(root, "d/f")))
			must(t, os.Symlink("/etc/shadow", filepath.Join(root, "d/f")))
		},
		"hardlink": func(t *testing.T, root, outside string) {
			must(t, os.Remove(filepath.Join(root, "d/f")))
			must(t, os.Link(filepath.Join(outside, "victim"), filepath.Join(root, "d/f")))
		},
		"hardlink of equal content": func(t *testing.T, root, outside string) {
			var st unix.Stat_t
			must(t, unix.Stat(filepath.Join(root, "d/f"), &st))
			must(t, os.WriteFile(filepath.Join(outside, "victim"), []byte("content"), 0o644))
			must(t, unix.UtimesNano(filepath.Join(outside, "victim"), []unix.Timespec{st.Mtim, st.Mtim}))
			must(t, os.Remove(filepath.Join(root, "d/f")))
			must(t, os.Link(filepath.Join(outside, "victim"), filepath.Join(root, "d/f")))
		},
		"fifo": func(t *testing.T, root, _ string) {
			must(t, os.Remove(filepath.Join(root, "d/f")))
			must(t, unix.Mkfifo(filepath.Join(root, "d/f"), 0o666))
			must(t, unix.Mkfifo(filepath.Join(root, "d/another"), 0o666))
		},
		"socket": func(t *testing.T, root, _ string) {
			must(t, os.Remove(filepath.Join(root, "d/f")))
			must(t, unix.Mknod(filepath.Join(root, "d/f"), unix.S_IFSOCK|0o666, 0))
		},
		"setuid": func(t *testing.T, root, _ string) { must(t, unix.Chmod(filepath.Join(root, "d/f"), 0o6777)) },
		"a directory in the place of a file": func(t *testing.T, root, _ string) {
			must(t, os.Remove(filepath.Join(root, "d/f")))
			write(t, root, "d/f/deep/x", "x")
			must(t, os.Chmod(filepath.Join(root, "d/f/deep"), 0))
		},
		"a file in the place of a directory": func(t *testing.T, root, _ string) {
			must(t, os.RemoveAll(filepath.Join(root, "d")))
			write(t, root, "d", "x")
		},
	}
	for name, plant := range plant {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root, outside := tempRoot(t), t.TempDir()
			write(t, outside, "victim", "victim")
			write(t, root, "d/f", "content")
			st := &MemStore{}
			tr := NewTracker(root, Options{})
			s := snap(t, tr, st)
			plant(t, root, outside)
			must(t, unix.Stat(outside, &unix.Stat_t{}))
			before := fresh(t, outside)
			var ino unix.Stat_t
			_ = unix.Lstat(filepath.Join(root, "d/f"), &ino)
			must(t, tr.Restore(context.Background(), st, s.Manifest))
			sameTree(t, fresh(t, root), s.Manifest)
			sameTree(t, fresh(t, outside), before)
			var now unix.Stat_t
			must(t, unix.Lstat(filepath.Join(root, "d/f"), &now))
			if now.Nlink != 1 || now.Ino == ino.Ino && (name == "setuid" || name == "hardlink of equal content") {
				t.Errorf("the planted inode is still there (%d links)", now.Nlink)
			}
		})
	}
}

// breaking is a store that fails after n reads.
type breaking struct {
	*MemStore
	left atomic.Int64
}

var errBroken = errors.New("the store broke")

func (b *breaking) Open(ctx context.Context, h Hash) (io.ReadCloser, error) {
	if b.left.Add(-1) < 0 {
		return nil, errBroken
	}
	return b.MemStore.Open(ctx, h)
}

func TestARestoreCutInTheMiddleIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	for n := range 12 {
		root := tempRoot(t)
		m := &mutator{t: t, root: root, r: rand.New(rand.NewPCG(uint64(n), 9))}
		for range 80 {
			m.step()
		}
		st := &breaking{MemStore: &MemStore{}}
		tr := NewTracker(root, Options{Workers: 1})
		want := snap(t, tr, st.MemStore).Manifest
		for range 120 {
			m.step()
		}
		st.left.Store(int64(n))
		err := tr.Restore(context.Background(), st, want)
		if err != nil && !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		st.left.Store(1 << 30)
		// The process may have died: another tracker, or the same.
		if n%2 == 0 {
			tr = NewTracker(root, Options{})
		}
		must(t, tr.Restore(context.Background(), st, want))
		sameTree(t, fresh(t, root), want)
	}
}

// After a Restore that failed, contents that it found must still reach the store.
func TestContentsSeenByAFailedRestoreAreStored(t *testing.T) {
	t.Parallel()
	root := tempRoot(t)
	write(t, root, "a", "one")
	st := &breaking{MemStore: &MemStore{}}
	tr := NewTracker(root, Options{})
	want := snap(t, tr, st.MemStore).Manifest
	write(t, root, "a", "two, never stored")
	if err := tr.Restore(context.Background(), st, want); !errors.Is(err, errBroken) {
		t.Fatalf("restore from a broken store: %v", err)
	}
	snap(t, tr, st.MemStore)
	if !holds(t, st.MemStore, "two, never stored") {
		t.Error("a content in the manifest is not in the store")
	}
}

// wrong gives other bytes than were stored.
type wrong struct{ *MemStore }

func (w wrong) Open(ctx context.Context, h Hash) (io.ReadCloser, error) {
	rc, err := w.MemStore.Open(ctx, h)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(rc)
	if len(b) > 0 {
		b[0] ^= 1
	}
	return io.NopCloser(bytes.NewReader(b)), err
}

func TestADamagedContentIsAnErrorThatNamesThePath(t *testing.T) {
	t.Parallel()
	root := tempRoot(t)
	write(t, root, "d/file", "content")
	st := &MemStore{}
	tr := NewTracker(root, Options{})
	want := snap(t, tr, st).Manifest
	must(t, os.Remove(filepath.Join(root, "d/file")))
	err := tr.Restore(context.Background(), wrong{st}, want)
	if err == nil || !strings.Contains(err.Error(), `"d/file"`) {
		t.Fatalf("restore of a damaged content: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(root, "d/file")); err == nil {
		t.Error("the damaged content has the file's name")
	}
}

func TestRestoreRefusesAHostileManifest(t *testing.T) {
	t.Parallel()
	root := tempRoot(t)
	for _, p := range []string{"../x", "/etc/x", "a/../../x", "a//b", ".", "", "a\x00b"} {
		err := NewTracker(root, Options{}).Restore(context.Background(), &MemStore{}, &Manifest{Entries: []Entry{{Path: p, Kind: KindFifo}}})
		if !errors.Is(err, ErrInvalidManifest) {
			t.Errorf("path %q: %v", p, err)
		}
	}
}

func TestSnapshotRefusesADevice(t *testing.T) {
	t.Parallel()
	root := tempRoot(t)
	if err := unix.Mknod(filepath.Join(root, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Skipf("only root makes devices: %v", err)
	}
	tr := NewTracker(root, Options{})
	_, err := tr.Snapshot(context.Background(), &MemStore{})
	if err == nil || !strings.Contains(err.Error(), `"null"`) {
		t.Fatalf("snapshot of a device: %v", err)
	}
	must(t, tr.Restore(context.Background(), &MemStore{}, &Manifest{}))
	if _, err := os.Lstat(filepath.Join(root, "null")); err == nil {
		t.Error("Restore left the device")
	}
}

func TestOwnerOfWhatIsRestored(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	root := tempRoot(t)
	write(t, root, "d/f", "x")
	must(t, os.Symlink("x", filepath.Join(root, "d/l")))
	must(t, unix.Chmod(filepath.Join(root, "d/f"), 0o4755))
	st := &MemStore{}
	want := snap(t, NewTracker(root, Options{}), st).Manifest
	empty := tempRoot(t)
	must(t, NewTracker(empty, Options{Owner: &Owner{12345, 23456}}).Restore(context.Background(), st, want))
	for _, p := range []string{"d", "d/f", "d/l"} {
		var x unix.Stat_t
		must(t, unix.Lstat(filepath.Join(empty, p), &x))
		if x.Uid != 12345 || x.Gid != 23456 {
			t.Errorf("%s belongs to %d:%d", p, x.Uid, x.Gid)
		}
	}
}

func TestADeepTreeBeyondPathMax(t *testing.T) {
	t.Parallel()
	root := tempRoot(t)
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	name := strings.Repeat("n", 200)
	for range 40 { // 8 KB of path
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	f, err := unix.Openat(fd, "leaf", unix.O_CREAT|unix.O_WRONLY, 0o644)
	must(t, err)
	unix.Close(f)
	unix.Close(fd)
	st := &MemStore{}
	tr := NewTracker(root, Options{})
	want := snap(t, tr, st).Manifest
	if len(want.Entries) != 41 {
		t.Fatalf("%d entries, want 41", len(want.Entries))
	}
	must(t, tr.Restore(context.Background(), st, &Manifest{}))
	must(t, tr.Restore(context.Background(), st, want))
	must(t, tr.Restore(context.Background(), st, &Manifest{})) // os.RemoveAll may not reach it
}

func TestExcludedPathsAreNeitherStoredNorTouched(t *testing.T) {
	t.Parallel()
	root := tempRoot(t)
	write(t, root, "keep/x", "1")
	write(t, root, "cache/y", "2")
	tr := NewTracker(root, Options{Exclude: func(p string, dir bool) bool { return p == "cache" && dir }})
	st := &MemStore{}
	s := snap(t, tr, st)
	if s.Manifest.Lookup("cache") != nil || s.Manifest.Lookup("cache/y") != nil {
		t.Error("an excluded directory is recorded")
	}
	must(t, tr.Restore(context.Background(), st, &Manifest{}))
	if _, err := os.Lstat(filepath.Join(root, "cache/y")); err != nil {
		t.Errorf("Restore touched an excluded file: %v", err)
	}
}

func TestACancelledSnapshotLeavesTheBase(t *testing.T) {
	t.Parallel()
	root := tempRoot(t)
	write(t, root, "a", "1")
	tr := NewTracker(root, Options{})
	st := &MemStore{}
	first := snap(t, tr, st)
	write(t, root, "b", "2")
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("Ctrl-C")
	cancel(why)
	if _, err := tr.Snapshot(ctx, st); !errors.Is(err, why) {
		t.Fatalf("a cancelled snapshot: %v", err)
	}
	s := snap(t, tr, st)
	if len(s.Changes) != 1 || s.Changes[0].Path != "b" || s.Changes[0].Op != OpAdded {
		t.Errorf("changes after a cancelled snapshot: %+v of %d entries", s.Changes, len(first.Manifest.Entries))
	}
}
