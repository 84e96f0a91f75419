package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Limits of a manifest. They bound what hostile input can make a reader allocate,
// and what a hostile step can make a snapshot allocate: a chain of nested
// directories costs the square of its depth in path bytes.
const (
	maxPath   = 16 << 10 // bytes of one path; deeper trees are refused by name
	maxTarget = 4096     // bytes of a symlink's target (PATH_MAX of Linux)
	maxName   = 255      // bytes of one component (NAME_MAX of Linux)
)

// ErrInvalidManifest is in the chain of every error about a manifest that no
// snapshot could have made: damaged or hostile input.
var ErrInvalidManifest = errors.New("invalid manifest")

// Lookup finds the entry of a path, nil when there is none.
func (m *Manifest) Lookup(path string) *Entry {
	i, ok := search(m.Entries, path)
	if !ok {
		return nil
	}
	return &m.Entries[i]
}

func search(es []Entry, path string) (int, bool) {
	return slices.BinarySearchFunc(es, path, func(e Entry, p string) int { return strings.Compare(e.Path, p) })
}

// Equal reports whether two entries are the same in everything that a manifest
// records.
func (e *Entry) Equal(o *Entry) bool {
	return e.equalButTime(o) && e.MtimeNS == o.MtimeNS
}

func (e *Entry) equalButTime(o *Entry) bool {
	return e.Path == o.Path && e.Kind == o.Kind && e.Mode == o.Mode && e.Size == o.Size &&
		e.Hash == o.Hash && e.Target == o.Target && e.HardlinkTo == o.HardlinkTo &&
		maps.Equal(e.Xattrs, o.Xattrs)
}

// change names the difference of two states of one path; ok is false for none.
func change(a, b *Entry) (c Change, ok bool) {
	if !a.equalButTime(b) {
		return Change{Path: b.Path, Op: OpModified, Entry: b}, true
	}
	if a.MtimeNS == b.MtimeNS {
		return Change{}, false
	}
	return Change{Path: b.Path, Op: OpModified, Entry: b, DirTimeOnly: b.Kind == KindDir}, true
}

// Diff lists what leads from a to b, sorted by path: one linear pass. Nil stands
// for the empty tree.
func Diff(a, b *Manifest) []Change {
	if a == b {
		return nil
	}
	var as, bs []Entry
	if a != nil {
		as = a.Entries
	}
	if b != nil {
		bs = b.Entries
	}
	var out []Change
	for len(as) > 0 || len(bs) > 0 {
		switch order(as, bs) {
		case -1:
			out = append(out, Change{Path: as[0].Path, Op: OpDeleted})
			as = as[1:]
		case 1:
			out = append(out, Change{Path: bs[0].Path, Op: OpAdded, Entry: &bs[0]})
			bs = bs[1:]
		default:
			if c, ok := change(&as[0], &bs[0]); ok {
				out = append(out, c)
			}
			as, bs = as[1:], bs[1:]
		}
	}
	return out
}

// order says which of two sorted lists has the smaller head; an empty one is
// larger than all.
func order(as, bs []Entry) int {
	switch {
	case len(as) == 0:
		return 1
	case len(bs) == 0:
		return -1
	}
	return strings.Compare(as[0].Path, bs[0].Path)
}

// Listed is the part of changes that people see: without directories of which
// nothing but the mtime differs.
func Listed(cs []Change) []Change {
	return slices.DeleteFunc(slices.Clone(cs), func(c Change) bool { return c.DirTimeOnly })
}

// Subtree is the manifest of the directory prefix: the entries below it with the
// prefix taken off. Of a hardlink group that reaches out of it, the first path
// inside becomes the first of the group. A prefix that is no directory of m gives
// an empty manifest; "" gives m.
func (m *Manifest) Subtree(prefix string) *Manifest {
	prefix = strings.Trim(prefix, "/")
	if prefix == "" {
		return m
	}
	prefix += "/"
	lo, _ := search(m.Entries, prefix)
	hi := lo
	for hi < len(m.Entries) && strings.HasPrefix(m.Entries[hi].Path, prefix) {
		hi++
	}
	out := &Manifest{Entries: slices.Clone(m.Entries[lo:hi])}
	first := map[string]string{} // first path outside the subtree → first inside
	for i := range out.Entries {
		e := &out.Entries[i]
		e.Path = e.Path[len(prefix):]
		if e.HardlinkTo == "" {
			continue
		}
		if in, ok := strings.CutPrefix(e.HardlinkTo, prefix); ok {
			e.HardlinkTo = in
			continue
		}
		head := e.HardlinkTo
		e.HardlinkTo = first[head]
		if e.HardlinkTo == "" {
			first[head] = e.Path
		}
	}
	return out
}

// merge applies changed entries and deleted paths, both sorted, to a sorted list.
// The returned changes point into the new list. A path in both is taken as
// changed. Untouched stretches are copied whole, so that the cost follows the
// number of changes and not one comparison an entry.
func merge(old, dirty []Entry, gone []string) (next []Entry, changes []Change) {
	if len(gone) == 0 && len(dirty) > 0 {
		if next, changes, ok := replace(old, dirty); ok {
			return next, changes
		}
	}
	next = make([]Entry, 0, len(old)+len(dirty))
	for len(dirty) > 0 || len(gone) > 0 {
		path, isGone := "", false
		if len(dirty) == 0 || len(gone) > 0 && gone[0] < dirty[0].Path {
			path, isGone = gone[0], true
		} else {
			path = dirty[0].Path
		}
		for len(gone) > 0 && gone[0] == path {
			gone = gone[1:]
		}
		i, found := search(old, path)
		next = append(next, old[:i]...)
		old = old[i:]
		var was *Entry
		if found {
			was, old = &old[0], old[1:]
		}
		if isGone {
			if found {
				changes = append(changes, Change{Path: path, Op: OpDeleted})
			}
			continue
		}
		next = append(next, dirty[0])
		dirty = dirty[1:]
		now := &next[len(next)-1]
		if !found {
			changes = append(changes, Change{Path: path, Op: OpAdded, Entry: now})
		} else if c, ok := change(was, now); ok {
			changes = append(changes, c)
		}
	}
	return append(next, old...), changes
}

// replace is merge where every changed entry was there before, as after most steps: one
// copy, whose memory need not be cleared beforehand (11 MB for 100,000 entries).
func replace(old, dirty []Entry) (next []Entry, changes []Change, ok bool) {
	at := make([]int, len(dirty))
	for i := range dirty {
		if at[i], ok = search(old, dirty[i].Path); !ok {
			return nil, nil, false
		}
	}
	next = slices.Clone(old)
	for i, n := range at {
		next[n] = dirty[i]
		if c, ok := change(&old[n], &next[n]); ok {
			changes = append(changes, c)
		}
	}
	return next, changes, true
}

// Validate checks that m is a tree that a snapshot could have made: sorted unique
// relative paths without "." and "..", every parent a directory of the manifest,
// every hardlink after the first of its group and of the same kind, no field that
// its kind does not have. Restore refuses anything else before it touches a file.
func (m *Manifest) Validate() error {
	dirs := map[string]bool{"": true}
	for i := range m.Entries {
		e := &m.Entries[i]
		if i > 0 && m.Entries[i-1].Path >= e.Path {
			return fmt.Errorf("%w: %q is out of order", ErrInvalidManifest, e.Path)
		}
		if err := e.validate(); err != nil {
			return fmt.Errorf("%w: entry %q: %w", ErrInvalidManifest, e.Path, err)
		}
		if !dirs[parent(e.Path)] {
			return fmt.Errorf("%w: %q has no parent directory", ErrInvalidManifest, e.Path)
		}
		if e.Kind == KindDir {
			dirs[e.Path] = true
		}
		if e.HardlinkTo == "" {
			continue
		}
		first := m.Lookup(e.HardlinkTo)
		if first == nil || first.Path >= e.Path || first.HardlinkTo != "" || !sameInode(first, e) {
			return fmt.Errorf("%w: %q is a hardlink to %q, which is no such file before it", ErrInvalidManifest, e.Path, e.HardlinkTo)
		}
	}
	return nil
}

// sameInode: two names of one inode have all but the path in common.
func sameInode(first, e *Entry) bool {
	c := *e
	c.Path, c.HardlinkTo = first.Path, ""
	return c.Equal(first)
}

func (e *Entry) validate() error {
	if err := validPath(e.Path); err != nil {
		return err
	}
	switch {
	case e.Kind < KindFile || e.Kind > KindFifo:
		return fmt.Errorf("unknown kind %d", e.Kind)
	case e.Mode&^0o7777 != 0:
		return fmt.Errorf("mode %#o has more than permission bits", e.Mode)
	case e.Kind != KindFile && (e.Size != 0 || e.Hash != Hash{}):
		return errors.New("a content on something that is no file")
	case e.Size < 0:
		return fmt.Errorf("negative size %d", e.Size)
	case (e.Kind == KindSymlink) != (e.Target != ""):
		return errors.New("a target belongs to a symlink, and every symlink has one")
	case len(e.Target) > maxTarget || strings.IndexByte(e.Target, 0) >= 0:
		return errors.New("a target that no symlink can have")
	case e.HardlinkTo != "" && (e.Kind == KindDir || e.Kind == KindSocket):
		return errors.New("a hardlink of a kind that has none")
	case len(e.Xattrs) > 0 && e.Kind != KindFile && e.Kind != KindDir:
		return errors.New("extended attributes on a kind that has none")
	}
	for k := range e.Xattrs {
		if !strings.HasPrefix(k, "user.") || len(k) > maxName || strings.IndexByte(k, 0) >= 0 {
			return fmt.Errorf("extended attribute %q is not in user.*", k)
		}
	}
	return nil
}

func validPath(p string) error {
	if p == "" || len(p) > maxPath {
		return fmt.Errorf("a path of %d bytes (1 to %d are possible)", len(p), maxPath)
	}
	for c := range strings.SplitSeq(p, "/") {
		if c == "" || c == "." || c == ".." || len(c) > maxName || strings.IndexByte(c, 0) >= 0 {
			return fmt.Errorf("component %q is not a file name", c)
		}
	}
	return nil
}

// parent is the directory of a path, "" for the root.
func parent(p string) string {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return ""
	}
	return p[:i]
}

// split cuts a path into its directory ("" for the root) and its name.
func split(p string) (dir, name string) {
	dir = parent(p)
	if dir == "" {
		return "", p
	}
	return dir, p[len(dir)+1:]
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

func byPath(a, b Entry) int { return cmp.Compare(a.Path, b.Path) }
