package checkpoint

import (
	"context"
	"slices"
	"time"
)

// scan is one comparison of the tree with what the Tracker knows: a walk, the
// hashes of what changed, hardlink groups. Nothing of the Tracker changes before
// commit, so that a scan that failed leaves the next one its base.
type scan struct {
	t     *Tracker
	keys  *keys
	walk  walk
	pends []*pend
	lost  []lost
	links []linked
	// foreign are the paths of inodes that have names outside the tree.
	foreign map[string]bool
}

type scanOptions struct {
	lenient bool               // record what cannot be read as unknown instead of failing
	devices bool               // record devices as kind 0 instead of failing
	keep    bool               // keep small contents in memory for storing
	written map[string]written // hashes that are known because this process wrote them
	foreign bool               // find foreign hardlinks
}

// written is a file that Restore wrote.
type written struct {
	st   stat
	hash Hash
}

// scan walks and hashes. The caller ends it with close, also after an error when
// s is not nil.
func (t *Tracker) scan(ctx context.Context, k *keys, o scanOptions) (*scan, error) {
	s, err := t.look(ctx, k, o)
	if err != nil {
		return nil, err
	}
	if len(s.pends) > 0 && !t.noHash {
		if err := s.hash(ctx, o); err != nil {
			return nil, err
		}
	}
	s.group(o.foreign)
	return s, nil
}

// look is the walk of a scan: what is there, and what has to be read.
func (t *Tracker) look(ctx context.Context, k *keys, o scanOptions) (*scan, error) {
	t.gen++
	s := &scan{t: t, keys: k}
	s.walk = walk{t: t, ctx: ctx, root: k.root, keys: k, gen: t.gen, start: time.Now().UnixNano(), devices: o.lenient || o.devices || t.marks != ""}
	err := s.walk.run()
	for _, w := range s.walk.done {
		s.pends = append(s.pends, w.pends...)
		s.lost = append(s.lost, w.lost...)
		s.links = append(s.links, w.links...)
	}
	s.walk.release()
	if err != nil {
		return nil, err
	}
	return s, nil
}

type inode struct{ dev, ino uint64 }

// group finds the names of one inode, where something about such names changed:
// a changed group shows as a changed ctime of every member.
func (s *scan) group(foreign bool) {
	touched := foreign
	for _, p := range s.pends {
		if p.st.kind() != KindDir && (p.st.nlink > 1 || p.n.st.nlink > 1) {
			touched = true
			break
		}
	}
	if !touched || len(s.links) == 0 {
		return
	}
	type names struct {
		first string
		n     uint32
	}
	groups := map[inode]names{}
	for _, l := range s.links {
		st, e := l.now()
		g := groups[inode{st.dev, st.ino}]
		if g.n == 0 || e.Path < g.first {
			g.first = e.Path
		}
		g.n++
		groups[inode{st.dev, st.ino}] = g
	}
	for _, l := range s.links {
		st, e := l.now()
		g := groups[inode{st.dev, st.ino}]
		if foreign && g.n < st.nlink {
			if s.foreign == nil {
				s.foreign = map[string]bool{}
			}
			s.foreign[e.Path] = true
		}
		to := g.first
		if to == e.Path || e.Kind == KindSocket || e.Kind == 0 {
			to = ""
		}
		if to == e.HardlinkTo {
			continue
		}
		if l.p == nil {
			l.p = &pend{n: l.n, e: l.n.e, st: l.n.st, racy: l.n.racy}
			s.pends = append(s.pends, l.p)
		}
		l.p.e.HardlinkTo = to
	}
}

func (l *linked) now() (*stat, *Entry) {
	if l.p != nil {
		return &l.p.st, &l.p.e
	}
	return &l.n.st, &l.n.e
}

// commit makes what the scan found the Tracker's knowledge and returns the new
// manifest with the changes since the last. Without a change it is the same
// manifest, so that its ID is not computed again.
func (s *scan) commit() (*Manifest, []Change) {
	t := s.t
	var gone []string
	for _, l := range s.lost {
		gone = l.n.paths(gone)
		if l.parent.children[l.name] == l.n {
			delete(l.parent.children, l.name)
		}
	}
	var dirty []Entry
	for _, p := range s.pends {
		if p.fresh || !p.n.e.Equal(&p.e) {
			dirty = append(dirty, p.e)
		}
		p.n.e, p.n.st, p.n.racy = p.e, p.st, p.racy
		if !p.fresh {
			continue
		}
		if p.parent.children == nil {
			p.parent.children = map[string]*node{}
		}
		p.parent.children[p.name] = p.n
	}
	if len(dirty) == 0 && len(gone) == 0 {
		return t.last, nil
	}
	slices.SortFunc(dirty, byPath)
	slices.Sort(gone)
	next, changes := merge(t.last.Entries, dirty, gone)
	if len(changes) == 0 {
		return t.last, nil
	}
	t.last = &Manifest{Entries: next}
	return t.last, changes
}

// paths appends the path of a node and of all below it.
func (n *node) paths(to []string) []string {
	to = append(to, n.e.Path)
	for _, c := range n.children {
		to = c.paths(to)
	}
	return to
}
