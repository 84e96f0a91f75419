package checkpoint

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// overlay is a mount that nobody but this process sees, and that ends with it.
type overlayMount struct{ lower, home, upper, view string }

// mountOverlay makes one as root does, with directories that can be renamed.
func mountOverlay(t testing.TB, prepare func(lower, upper string)) overlayMount {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts an overlay here; package sandbox/local tests it as a user")
	}
	o := overlayMount{lower: tempRoot(t), home: tempRoot(t)}
	layer := tempRoot(t)
	o.upper = filepath.Join(layer, "upper")
	for _, d := range []string{o.upper, filepath.Join(layer, "work"), filepath.Join(o.home, "ws")} {
		must(t, os.Mkdir(d, 0o755))
	}
	prepare(o.lower, o.upper)
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("no overlay here: %v", err)
	}
	defer unix.Close(fs)
	for _, kv := range [][2]string{{"lowerdir", o.lower}, {"upperdir", o.upper}, {"workdir", filepath.Join(layer, "work")},
		{"redirect_dir", "on"}, {"index", "off"}, {"metacopy", "off"}} {
		must(t, unix.FsconfigSetString(fs, kv[0], kv[1]))
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Skipf("no overlay here: %v", err)
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(m) })
	o.view = fmt.Sprintf("/proc/self/fd/%d", m)
	return o
}

func (o overlayMount) layer() *Layer {
	return NewLayer(o.home, LayerOptions{At: "ws", Upper: o.upper, View: func() string { return o.view }, Prefix: "trusted.overlay."})
}

// whole is the home as full walks of it and of the merged tree see it.
func (o overlayMount) whole(t testing.TB) *Manifest {
	t.Helper()
	home := snap(t, NewTracker(o.home, Options{Exclude: func(p string, _ bool) bool { return p == "ws" }}), &MemStore{}).Manifest
	m := home.WithSubtree("ws", fresh(t, o.view))
	l := o.layer()
	top, err := l.root()
	must(t, err)
	next, _ := merge(m.Entries, []Entry{top}, nil)
	return &Manifest{Entries: next}
}

type snapshotter interface {
	Snapshot(context.Context, Store) (Snapshot, error)
}

func snapOf(t testing.TB, tr snapshotter, st Store) Snapshot {
	t.Helper()
	s, err := tr.Snapshot(context.Background(), st)
	must(t, err)
	if s.Batch != nil {
		must(t, s.Batch.Seal())
	}
	must(t, s.Manifest.Validate())
	return s
}

// TestLayerSeesWhatAFullWalkSees: over random sources and edits, the walk of the upper
// tree gives the manifest of a full walk of the merged one, the changes lead from one
// to the next, every snapshot comes back, and the source stays as it was.
func TestLayerSeesWhatAFullWalkSees(t *testing.T) {
	t.Parallel()
	rounds := uint64(8)
	if os.Getenv("FLOW_LONG") != "" {
		rounds = 1500
	}
	for seed := range rounds {
		st := &MemStore{}
		var low *Manifest
		var src *Source
		o := mountOverlay(t, func(lower, upper string) {
			m := &mutator{t: t, root: lower, r: rand.New(rand.NewPCG(seed, 7))}
			for range 60 {
				m.step()
			}
			write(t, lower, "a/.env", "SECRET=1")
			write(t, lower, ".flow/state", "x")
			write(t, lower, "repo/.git/config", "[remote]\n\turl = https://u:p@example.org/\n")
			var err error
			src, err = NewSource(lower, ImportOptions{Exclude: []string{"b*-x"}})
			must(t, err)
			look, err := src.Look(context.Background())
			must(t, err)
			must(t, look.FillUpper(context.Background(), upper, nil))
			var batch Batch
			low, batch, err = look.Manifest(context.Background(), nil, st)
			must(t, err)
			if batch != nil {
				must(t, batch.Seal())
			}
			want, err := SourceManifest(context.Background(), lower, ImportOptions{Exclude: []string{"b*-x"}}, "")
			must(t, err)
			sameTree(t, low, want)
		})
		before := fresh(t, o.lower)
		l := o.layer()
		l.SetLower(low)
		s := snapOf(t, l, st)
		sameTree(t, s.Manifest, o.whole(t))
		copied := filepath.Join(tempRoot(t), "copy")
		_, err := Import(context.Background(), o.lower, copied, ImportOptions{Exclude: []string{"b*-x"}})
		must(t, err)
		sameTree(t, s.Manifest.Subtree("ws"), fresh(t, copied))

		m := &mutator{t: t, root: o.view + "/.", r: rand.New(rand.NewPCG(seed, 9)), n: 1000}
		snaps := []Snapshot{s}
		for range 5 {
			for range 15 {
				m.step()
			}
			if m.r.IntN(2) == 0 {
				name := filepath.Join(o.home, fmt.Sprintf("h%d", m.n))
				must(t, os.WriteFile(name, []byte("home"), 0o600))
			}
			prev := s.Manifest
			s = snapOf(t, l, st)
			sameTree(t, s.Manifest, o.whole(t))
			if got, want := len(s.Changes), len(Diff(prev, s.Manifest)); got != want {
				t.Fatalf("seed %d: %d changes, Diff says %d", seed, got, want)
			}
			next, err := ApplyDelta(prev, s.EncodeDelta(prev))
			must(t, err)
			if next.ID() != s.Manifest.ID() {
				t.Fatalf("seed %d: the delta leads elsewhere", seed)
			}
			snaps = append(snaps, s)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		for _, i := range []int{0, 5, 2, 4, 1, 0} {
			if err := l.Restore(context.Background(), st, snaps[i].Manifest); err != nil {
				t.Fatalf("seed %d, snapshot %d: %v", seed, i, err)
			}
			sameTree(t, o.whole(t), snaps[i].Manifest)
			if s := snapOf(t, l, st); len(s.Changes) != 0 {
				t.Fatalf("seed %d: changes right after a restore: %v", seed, s.Changes)
			}
			if t.Failed() {
				t.Fatalf("seed %d, snapshot %d", seed, i)
			}
		}
		sameTree(t, fresh(t, o.lower), before)
		for _, secret := range []string{"SECRET=1", "u:p@"} {
			if holdsPart(st, secret) {
				t.Errorf("seed %d: the store holds %q", seed, secret)
			}
		}
	}
}

func holdsPart(st *MemStore, part string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, b := range st.m {
		if strings.Contains(string(b), part) {
			return true
		}
	}
	return false
}
