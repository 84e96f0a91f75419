package cache

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"flowrun.dev/flow/checkpoint"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// made is a tree before and after a step, with the store of its contents.
func made(t *testing.T, work func(root string)) (before, after *checkpoint.Manifest, st checkpoint.Store) {
	t.Helper()
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "a"), []byte("base"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "gone"), []byte("base"), 0o644))
	tr, mem := checkpoint.NewTracker(root, checkpoint.Options{}), &checkpoint.MemStore{}
	one, err := tr.Snapshot(context.Background(), mem)
	must(t, err)
	must(t, one.Batch.Seal())
	work(root)
	two, err := tr.Snapshot(context.Background(), mem)
	must(t, err)
	must(t, two.Batch.Seal())
	return one.Manifest, two.Manifest, mem
}

func entry(before, after *checkpoint.Manifest, p Parts) *Entry {
	return &Entry{Workflow: "w", Step: "s", Run: "r", At: time.Unix(1, 0), Parts: p, Result: []byte(`{}`), Changes: ChangesOf(checkpoint.Diff(before, after))}
}

func work(root string) {
	os.WriteFile(filepath.Join(root, "a"), []byte("changed"), 0o755)
	os.Remove(filepath.Join(root, "gone"))
	os.MkdirAll(filepath.Join(root, "d/e"), 0o750)
	os.WriteFile(filepath.Join(root, "d/e/f"), []byte(strings.Repeat("x", 100000)), 0o600)
	os.Link(filepath.Join(root, "d/e/f"), filepath.Join(root, "d/second"))
	os.Symlink("d/e", filepath.Join(root, "link"))
	os.WriteFile(filepath.Join(root, "latin\xe9"), nil, 0o644)
}

func TestAResultComesBack(t *testing.T) {
	t.Parallel()
	before, after, st := made(t, work)
	d, err := Open(t.TempDir(), false)
	must(t, err)
	p := Parts{"definition": "1", PartScope: ""}
	if e, err := d.Lookup(p.Key()); e != nil || err != nil {
		t.Fatalf("an empty cache gave %v, %v", e, err)
	}
	must(t, d.Store(context.Background(), entry(before, after, p), st))
	e, err := d.Lookup(p.Key())
	must(t, err)
	got, err := e.Onto(before)
	must(t, err)
	for _, c := range checkpoint.Listed(checkpoint.Diff(after, got)) {
		t.Errorf("the tree differs: %s %s", c.Op, c.Path)
	}
	// Every content can be read, and is the right one.
	root := t.TempDir()
	must(t, checkpoint.NewTracker(root, checkpoint.Options{}).Restore(context.Background(), readOnlyStore{d, st}, got))
}

// readOnlyStore reads the cache's contents first.
type readOnlyStore struct {
	d *Dir
	checkpoint.Store
}

func TestDamageIsAMiss(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, dir string, e *Entry){
		"the entry is cut": func(t *testing.T, dir string, e *Entry) {
			must(t, os.Truncate(filepath.Join(dir, "entries", e.Key+".json"), 20))
		},
		"the entry of another key": func(t *testing.T, dir string, e *Entry) {
			b, err := os.ReadFile(filepath.Join(dir, "entries", e.Key+".json"))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, "entries", e.Key+".json"), []byte(strings.Replace(string(b), `"definition":"1"`, `"definition":"2"`, 1)), 0o600))
		},
		"a content is gone": func(t *testing.T, dir string, _ *Entry) { must(t, os.RemoveAll(filepath.Join(dir, "blobs"))) },
	} {
		before, after, st := made(t, work)
		dir := t.TempDir()
		d, err := Open(dir, false)
		must(t, err)
		e := entry(before, after, Parts{"definition": "1", PartScope: ""})
		must(t, d.Store(context.Background(), e, st))
		damage(t, dir, e)
		if got, err := d.Lookup(e.Key); got != nil || err == nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestADamagedContentIsFound(t *testing.T) {
	t.Parallel()
	before, after, st := made(t, work)
	dir := t.TempDir()
	d, err := Open(dir, false)
	must(t, err)
	e := entry(before, after, Parts{PartScope: ""})
	must(t, d.Store(context.Background(), e, st))
	f := after.Lookup("a")
	other := d.blobPath(after.Lookup("d/e/f").Hash.String())
	b, err := os.ReadFile(other)
	must(t, err)
	must(t, os.WriteFile(d.blobPath(f.Hash.String()), b, 0o600))
	root := t.TempDir()
	if err := checkpoint.NewTracker(root, checkpoint.Options{}).Restore(context.Background(), cacheOnly{d}, after); err == nil {
		t.Error("a content of another hash was restored")
	}
}

type cacheOnly struct{ *Dir }

func (cacheOnly) Have(context.Context, []checkpoint.Hash) ([]bool, error) { return nil, nil }
func (cacheOnly) Begin(context.Context) (checkpoint.Batch, error)         { return nil, nil }

// TestManyWriters store the same and other results while others read and remove.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	before, after, st := made(t, work)
	dir := t.TempDir()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			d, err := Open(dir, false)
			if err != nil {
				t.Error(err)
				return
			}
			for i := range 20 {
				p := Parts{"definition": fmt.Sprint(i % 5), PartScope: ""}
				if err := d.Store(context.Background(), entry(before, after, p), st); err != nil {
					t.Errorf("writer %d: %v", w, err)
				}
				if w == 0 {
					if _, _, err := d.Remove(time.Now(), func(e *Entry) bool { return e.Parts["definition"] == "4" }); err != nil {
						t.Errorf("remove: %v", err)
					}
				}
				if e, err := d.Lookup(p.Key()); err == nil && e != nil {
					if _, err := e.Onto(before); err != nil {
						t.Errorf("a half-written entry was read: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if strings.Contains(p, ".new-") {
			t.Errorf("%s was left behind", p)
		}
		return err
	})
	must(t, err)
}

func TestScopesAreApart(t *testing.T) {
	t.Parallel()
	before, after, st := made(t, work)
	d, err := Open(t.TempDir(), false)
	must(t, err)
	must(t, d.Store(context.Background(), entry(before, after, Parts{"definition": "1", PartScope: "fork"}), st))
	if e, _ := d.Lookup(Parts{"definition": "1", PartScope: "main"}.Key()); e != nil {
		t.Error("a result of another scope was taken")
	}
	if got := d.Why("w", "s", Parts{"definition": "1", PartScope: "main"}); got != "no result of this step is stored yet" {
		t.Errorf("the reason tells of another scope: %q", got)
	}
}

func TestWhy(t *testing.T) {
	t.Parallel()
	before, after, st := made(t, work)
	d, err := Open(t.TempDir(), false)
	must(t, err)
	was := Parts{"prompt": "1", "file go.sum": "1", "file old": "1", PartScope: ""}
	must(t, d.Store(context.Background(), entry(before, after, was), st))
	if got := d.Why("w", "s", Parts{"prompt": "2", "file go.sum": "2", "file new": "1", PartScope: ""}); got != "go.sum changed, new is new, old is gone, prompt changed" {
		t.Errorf("the reason is %q", got)
	}
}

// TestRemoveFreesWhatNobodyNeeds: contents shared with another entry stay.
func TestRemoveFreesWhatNobodyNeeds(t *testing.T) {
	t.Parallel()
	before, after, st := made(t, work)
	dir := t.TempDir()
	d, err := Open(dir, false)
	must(t, err)
	one, two := entry(before, after, Parts{"n": "1", PartScope: ""}), entry(before, after, Parts{"n": "2", PartScope: ""})
	must(t, d.Store(context.Background(), one, st))
	must(t, d.Store(context.Background(), two, st))
	n, _, err := d.Remove(time.Now(), func(e *Entry) bool { return e.Key == one.Key })
	must(t, err)
	if e, err := d.Lookup(two.Key); n != 1 || e == nil || err != nil {
		t.Errorf("removed %d; the other entry is %v, %v", n, e, err)
	}
	n, freed, err := d.Remove(time.Now(), func(*Entry) bool { return true })
	must(t, err)
	if n != 1 || freed == 0 {
		t.Errorf("removed %d, freed %d", n, freed)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "blobs", "*", "*")); len(left) != 0 {
		t.Errorf("contents are left: %v", left)
	}
}
