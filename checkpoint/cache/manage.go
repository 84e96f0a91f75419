package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"flowrun.dev/flow/checkpoint"
)

// hashState is a SHA-256 that needs no set-up.
type hashState struct{ h hash.Hash }

func (s *hashState) write(p []byte) {
	if s.h == nil {
		s.h = sha256.New()
	}
	s.h.Write(p)
}

func (s *hashState) value() (out checkpoint.Hash) {
	s.write(nil)
	s.h.Sum(out[:0])
	return out
}

// latestPath is where the newest parts of a step are, one file for each scope.
func (d *Dir) latestPath(workflow, step, scope string) string {
	sum := sha256.Sum256([]byte(workflow + "\x00" + step + "\x00" + scope))
	return filepath.Join(d.path, "latest", hex.EncodeToString(sum[:12])+".json")
}

// PartScope is the part that says whose results may be taken.
const PartScope = "scope"

func (d *Dir) storeLatest(e *Entry) error {
	b, err := json.Marshal(e.Parts)
	if err != nil {
		return err
	}
	return appear(d.latestPath(e.Workflow, e.Step, e.Parts[PartScope]), b)
}

// Used makes an entry that was taken the one that a later miss is compared with.
func (d *Dir) Used(e *Entry) {
	if !d.readOnly {
		_ = d.storeLatest(e) // a reason is a help, no result
	}
}

// Why says in words why the parts have no result, by comparing them with the
// those of the result that was stored or taken last: "go.sum changed".
func (d *Dir) Why(workflow, step string, now Parts) string {
	b, err := os.ReadFile(d.latestPath(workflow, step, now[PartScope]))
	if err != nil {
		return "no result of this step is stored yet"
	}
	var was Parts
	if err := json.Unmarshal(b, &was); err != nil {
		return "no result of this step is stored yet"
	}
	if was.Key() == now.Key() {
		return "its result was removed from the cache"
	}
	return strings.Join(differences(was, now), ", ")
}

const namedDifferences = 5

func differences(was, now Parts) []string {
	var out []string
	for name, v := range now {
		old, ok := was[name]
		switch {
		case !ok:
			out = append(out, name+" is new")
		case old != v:
			out = append(out, name+" changed")
		}
	}
	for name := range was {
		if _, ok := now[name]; !ok {
			out = append(out, name+" is gone")
		}
	}
	sort.Strings(out)
	for i, s := range out {
		out[i] = strings.TrimPrefix(s, "file ")
	}
	if len(out) > namedDifferences {
		out = append(out[:namedDifferences], fmt.Sprintf("and %d more", len(out)-namedDifferences))
	}
	return out
}

// List reads all entries, newest first. What cannot be read is left out.
func (d *Dir) List() ([]*Entry, error) {
	names, err := os.ReadDir(filepath.Join(d.path, "entries"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the cache: %w", err)
	}
	var out []*Entry
	for _, n := range names {
		if !strings.HasSuffix(n.Name(), ".json") {
			continue
		}
		if e, err := d.read(filepath.Join(d.path, "entries", n.Name())); err == nil {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b *Entry) int { return b.At.Compare(a.At) })
	return out, nil
}

// unusedFor is how long a content without an entry stays: the process that wrote
// it may be about to write the entry.
const unusedFor = time.Hour

// Remove removes the entries that f names, then the contents that no entry needs
// any more. It returns the number of entries, and the bytes on disk that went.
func (d *Dir) Remove(now time.Time, f func(*Entry) bool) (n int, freed int64, err error) {
	all, err := d.List()
	if err != nil {
		return 0, 0, err
	}
	used := map[string]bool{}
	for _, e := range all {
		if !f(e) {
			for i := range e.Changes {
				used[e.Changes[i].Hash] = true
			}
			continue
		}
		freed += sizeOf(d.entryPath(e.Key))
		if err := os.Remove(d.entryPath(e.Key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return n, freed, fmt.Errorf("remove from the cache: %w", err)
		}
		n++
		for i := range e.Changes {
			if c := &e.Changes[i]; isHash(c.Hash) {
				// Old enough to go with its entry, unless another needs it.
				_ = os.Chtimes(d.blobPath(c.Hash), time.Time{}, now.Add(-2*unusedFor))
			}
		}
	}
	blobs, err := d.sweep(now, used)
	return n, freed + blobs, err
}

func (d *Dir) sweep(now time.Time, used map[string]bool) (freed int64, err error) {
	root := filepath.Join(d.path, "blobs")
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		if name, ok := strings.CutSuffix(e.Name(), ".zst"); ok && used[name] {
			return nil
		}
		info, err := e.Info()
		if err != nil || now.Sub(info.ModTime()) < unusedFor {
			return nil // gone by itself, or young
		}
		freed += info.Size()
		return os.Remove(path)
	})
	if err != nil {
		return freed, fmt.Errorf("remove unused contents of the cache: %w", err)
	}
	return freed, nil
}

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
