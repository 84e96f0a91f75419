package checkpoint

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// three makes base, ours and theirs from edits of one tree.
func three(t *testing.T, base, ours, theirs func(root string)) (b, o, th *Manifest) {
	t.Helper()
	one := func(edits ...func(string)) *Manifest {
		root := tempRoot(t)
		for _, e := range edits {
			e(root)
		}
		return fresh(t, root)
	}
	return one(base), one(base, ours), one(base, theirs)
}

func TestMerge(t *testing.T) {
	t.Parallel()
	base := func(r string) {
		write(t, r, "a", "base")
		write(t, r, "b", "base")
		write(t, r, "d/x", "base")
		write(t, r, "gone", "base")
	}
	rm := func(r, p string) { must(t, os.RemoveAll(filepath.Join(r, p))) }
	for name, c := range map[string]struct {
		ours, theirs func(string)
		want         string // "path: reason" lines of conflicts, or the tree
	}{
		"different files": {
			func(r string) { write(t, r, "a", "ours"); write(t, r, "new", "ours") },
			func(r string) { write(t, r, "b", "theirs"); rm(r, "gone"); write(t, r, "e/f", "theirs") },
			"a=ours b=theirs d/x=base e/f=theirs new=ours"},
		"the same change": {
			func(r string) { write(t, r, "a", "same") }, func(r string) { write(t, r, "a", "same") },
			"a=same b=base d/x=base gone=base"},
		"both changed": {
			func(r string) { write(t, r, "a", "ours") }, func(r string) { write(t, r, "a", "theirs"); write(t, r, "b", "x") },
			"! a: both changed it, differently"},
		"changed and deleted": {
			func(r string) { rm(r, "a") }, func(r string) { write(t, r, "a", "theirs") },
			"! a: it was deleted, and changed by the other"},
		"deleted and changed": {
			func(r string) { write(t, r, "a", "ours") }, func(r string) { rm(r, "a") },
			"! a: it was changed, and deleted by the other"},
		"both made": {
			func(r string) { write(t, r, "n", "ours") }, func(r string) { write(t, r, "n", "theirs") },
			"! n: both made it, with different contents"},
		"put into a directory that went": {
			func(r string) { rm(r, "d") }, func(r string) { write(t, r, "d/y", "theirs") },
			"! d/y: it was made in a directory that the other removed"},
		"removed a directory that got a file": {
			func(r string) { write(t, r, "d/y", "ours") }, func(r string) { rm(r, "d") },
			"! d/y: its directory was removed by the other"},
		"a file in the place of a directory": {
			func(r string) { write(t, r, "d/y", "ours") }, func(r string) { rm(r, "d"); write(t, r, "d", "file") },
			"! d/y: its directory was removed by the other"},
		"both removed": {
			func(r string) { rm(r, "d") }, func(r string) { rm(r, "d") },
			"a=base b=base gone=base"},
	} {
		b, o, th := three(t, base, c.ours, c.theirs)
		m, conflicts, err := Merge(b, o, th, nil)
		must(t, err)
		var got []string
		for _, x := range conflicts {
			got = append(got, "! "+x.Path+": "+x.Reason)
		}
		if m != nil {
			for _, e := range m.Entries {
				if e.Kind == KindFile {
					for _, word := range []string{"base", "ours", "theirs", "same", "x", "file"} {
						if hashOf(word) == e.Hash {
							got = append(got, e.Path+"="+word)
						}
					}
				}
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s\nwanted %s", name, s, c.want)
		}
	}
}

func hashOf(s string) Hash { return sha256.Sum256([]byte(s)) }

// TestMergeChoices: a conflict goes to the side that is chosen.
func TestMergeChoices(t *testing.T) {
	t.Parallel()
	b, o, th := three(t, func(r string) { write(t, r, "a", "base") }, func(r string) { write(t, r, "a", "ours") }, func(r string) { write(t, r, "a", "theirs") })
	for side, want := range map[Side]string{Ours: "ours", Theirs: "theirs"} {
		m, conflicts, err := Merge(b, o, th, func(string) Side { return side })
		must(t, err)
		if len(conflicts) > 0 || m.Lookup("a").Hash != hashOf(want) {
			t.Errorf("side %d: %v, %v", side, conflicts, m)
		}
	}
}

// TestMergeOfDisjointEdits: two random edits of different halves of a tree merge to
// what both in a row would have made, and any merge is a valid tree.
func TestMergeOfDisjointEdits(t *testing.T) {
	t.Parallel()
	for seed := range 40 {
		r := rand.New(rand.NewPCG(uint64(seed), 3))
		edit := func(prefix string, seed uint64) func(string) {
			return func(root string) {
				r := rand.New(rand.NewPCG(seed, 1))
				for range 8 {
					p := fmt.Sprintf("%s%d/%d", prefix, r.IntN(3), r.IntN(4))
					switch r.IntN(4) {
					case 0:
						os.RemoveAll(filepath.Join(root, filepath.Dir(p)))
					case 1:
						os.RemoveAll(filepath.Join(root, p))
					case 2:
						os.RemoveAll(filepath.Join(root, p))
						os.MkdirAll(filepath.Join(root, filepath.Dir(p)), 0o755)
						os.Symlink(fmt.Sprint(r.IntN(5)), filepath.Join(root, p))
					default:
						os.RemoveAll(filepath.Join(root, p))
						write(t, root, p, fmt.Sprint(r.IntN(100)))
					}
				}
			}
		}
		base := func(root string) { edit("o", 100+uint64(seed))(root); edit("t", 200+uint64(seed))(root) }
		ours, theirs := edit("o", r.Uint64()), edit("t", r.Uint64())
		b, o, th := three(t, base, ours, theirs)
		both, _, _ := three(t, func(root string) { base(root); ours(root); theirs(root) }, func(string) {}, func(string) {})
		m, conflicts, err := Merge(b, o, th, nil)
		must(t, err)
		if len(conflicts) > 0 {
			t.Fatalf("seed %d: %v", seed, conflicts)
		}
		for _, c := range Diff(m, both) {
			if was := m.Lookup(c.Path); was == nil || c.Entry == nil || !was.equalButTime(c.Entry) {
				t.Errorf("seed %d: %s %s", seed, c.Op, c.Path)
			}
		}
	}
}
