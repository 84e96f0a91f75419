package checkpoint

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// How the merged tree follows from the two of an overlay (Documentation/filesystems/
// overlayfs.rst of Linux): a name of the upper tree stands for both; where both have a
// directory its content is merged, unless the upper one is opaque; one that was renamed
// names the lower directory that it was (redirect); a whiteout, a device 0/0, hides.

// Names of the marks, after the prefix.
const (
	markOpaque   = "opaque"
	markRedirect = "redirect"
)

// whiteout: walks record devices as kind 0, and an overlay's upper tree has no others.
func whiteout(e *Entry) bool { return e.Kind == 0 }

func (l *Layer) opaque(e *Entry) bool     { return e.Xattrs[l.o.Prefix+markOpaque] == "y" }
func (l *Layer) redirect(e *Entry) string { return e.Xattrs[l.o.Prefix+markRedirect] }

// plain entries say nothing of the lower tree but what stands at their own path.
func (l *Layer) plain(e *Entry) bool {
	return !whiteout(e) && !(e.Kind == KindDir && (l.opaque(e) || l.redirect(e) != ""))
}

// compose makes l.last and what changed in it.
func (l *Layer) compose() ([]Change, error) {
	top, err := l.root()
	if err != nil {
		return nil, err
	}
	return l.composeWith(top), nil
}

func (l *Layer) composeWith(top Entry) []Change {
	home, upper := l.home.last, l.upper.last
	var old, dirty []Entry
	var gone []string
	if l.last == nil {
		l.lowerBelow(upper, "", "", &old)
		dirty = append(dirty, home.Entries...)
		l.upperBelow(upper, "", &dirty)
	} else {
		old = l.last.Entries
		l.changed(upper, &dirty, &gone)
		for _, c := range Diff(l.homeM, home) {
			if c.Op == OpDeleted {
				gone = append(gone, c.Path)
			} else {
				dirty = append(dirty, *c.Entry)
			}
		}
	}
	if was := l.Lookup(l.o.At); was == nil || !was.Equal(&top) {
		dirty = append(dirty, top)
	}
	first := l.last == nil
	l.homeM, l.uppeM = home, upper
	if len(dirty) == 0 && len(gone) == 0 && !first {
		return nil
	}
	slices.SortFunc(dirty, byPath)
	slices.Sort(gone)
	next, changes := merge(old, dirty, gone)
	switch {
	case first:
		l.last = &Manifest{Entries: next}
		return Diff(nil, l.last)
	case len(changes) > 0:
		l.last = &Manifest{Entries: next}
	}
	return changes
}

// Lookup in what is known; nil when nothing is.
func (l *Layer) Lookup(path string) *Entry {
	if l.last == nil {
		return nil
	}
	return l.last.Lookup(path)
}

// changed finds what follows from the changes of the upper tree since l.uppeM.
func (l *Layer) changed(upper *Manifest, dirty *[]Entry, gone *[]string) {
	roots := map[string]bool{} // paths of which all below is looked at anew
	under := func(p string) bool {
		for ; p != ""; p = parent(p) {
			if roots[p] {
				return true
			}
		}
		return false
	}
	for _, c := range Diff(l.uppeM, upper) { // a directory comes before what is below it
		if under(c.Path) {
			continue
		}
		was, now := l.uppeM.Lookup(c.Path), c.Entry
		if now != nil && l.plain(now) && (was == nil || l.plain(was)) {
			if old := l.last.Lookup(join(l.o.At, c.Path)); old == nil || (old.Kind == KindDir) == (now.Kind == KindDir) {
				*dirty = append(*dirty, l.placed(now))
				continue
			}
		}
		roots[c.Path] = true
		l.renew(upper, c.Path, dirty, gone)
	}
}

// renew looks at a path and all below it anew.
func (l *Layer) renew(upper *Manifest, p string, dirty *[]Entry, gone *[]string) {
	var now []Entry
	lower, has := l.lowerOf(upper, p)
	if e := upper.Lookup(p); e != nil {
		if !whiteout(e) {
			now = append(now, l.placed(e))
		}
	} else if has {
		if e := lookup(l.lower, join(l.o.At, lower)); e != nil {
			moved := *e
			moved.Path = join(l.o.At, p)
			now = append(now, moved)
		}
	}
	l.upperBelow(upper, p, &now)
	if has {
		l.lowerBelow(upper, lower, p, &now)
	}
	slices.SortFunc(now, byPath)
	here := join(l.o.At, p)
	lo, hi := within(l.last.Entries, here)
	if e := l.last.Lookup(here); e != nil && lookup(now, here) == nil {
		*gone = append(*gone, here)
	}
	for i := lo; i < hi; i++ {
		if path := l.last.Entries[i].Path; lookup(now, path) == nil {
			*gone = append(*gone, path)
		}
	}
	*dirty = append(*dirty, now...)
}

func lookup(es []Entry, path string) *Entry {
	if i, ok := search(es, path); ok {
		return &es[i]
	}
	return nil
}

// within is the stretch of what lies below a directory, all for "".
func within(es []Entry, dir string) (lo, hi int) {
	if dir == "" {
		return 0, len(es)
	}
	lo, _ = search(es, dir+"/")
	hi, _ = search(es, dir+"0") // '0' follows '/'
	return lo, hi
}

// lowerOf is the path in the lower tree that is merged at a path; has is false where
// the upper tree hides it or stands alone.
func (l *Layer) lowerOf(upper *Manifest, path string) (lower string, has bool) {
	has = true
	for i := 0; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' || path == "" {
			continue
		}
		here := path[:i]
		_, name := split(here)
		e := upper.Lookup(here)
		switch {
		case e == nil && has:
			lower = join(lower, name)
		case e == nil:
		case e.Kind != KindDir || l.opaque(e):
			has = false
		default:
			to := l.redirect(e)
			switch {
			case strings.HasPrefix(to, "/"):
				lower, has = to[1:], true
			case to != "" && has:
				lower = join(lower, to)
			case has:
				lower = join(lower, name)
			}
		}
		if i < len(path) && !has && e != nil && e.Kind != KindDir {
			return "", false
		}
	}
	return lower, has
}

// upperBelow adds what the upper tree has below a directory, and the lower content of
// those that were renamed.
func (l *Layer) upperBelow(upper *Manifest, dir string, to *[]Entry) {
	lo, hi := within(upper.Entries, dir)
	for i := lo; i < hi; i++ {
		e := &upper.Entries[i]
		if whiteout(e) {
			continue
		}
		*to = append(*to, l.placed(e))
		if e.Kind == KindDir && l.redirect(e) != "" {
			if from, has := l.lowerOf(upper, e.Path); has {
				l.lowerBelow(upper, from, e.Path, to)
			}
		}
	}
}

// lowerBelow adds what shows of the lower directory from at the path dir: what no name
// of the upper tree hides. In order, and in stretches, so that a large tree is copied
// and not looked at.
func (l *Layer) lowerBelow(upper *Manifest, from, dir string, to *[]Entry) {
	type span struct{ lo, hi int }
	var cut []span
	base := join(l.o.At, from)
	if from == "" {
		base = l.o.At
	}
	lo, hi := within(upper.Entries, dir)
	for i := lo; i < hi; i++ {
		e := &upper.Entries[i]
		rest := e.Path
		if dir != "" {
			rest = e.Path[len(dir)+1:]
		}
		at := join(base, rest)
		if n, ok := search(l.lower, at); ok {
			cut = append(cut, span{n, n + 1})
		}
		if e.Kind != KindDir || !l.plain(e) {
			a, b := within(l.lower, at)
			cut = append(cut, span{a, b})
		}
	}
	slices.SortFunc(cut, func(a, b span) int { return a.lo - b.lo })
	next, end := within(l.lower, base)
	for _, c := range append(cut, span{end, end}) {
		if c.lo > next {
			l.move(l.lower[next:c.lo], base, join(l.o.At, dir), to)
		}
		next = max(next, c.hi)
	}
}

// move adds entries from below one directory below another.
func (l *Layer) move(es []Entry, from, dir string, to *[]Entry) {
	dir = strings.TrimSuffix(dir, "/")
	if from == dir {
		*to = append(*to, es...)
		return
	}
	for i := range es {
		e := es[i]
		e.Path = dir + e.Path[len(from):]
		*to = append(*to, e)
	}
}

// readMarks adds the marks of a directory of an upper tree to its attributes.
func (t *Tracker) readMarks(fd int, e *Entry) error {
	if t.marks == "" {
		return nil
	}
	for _, name := range [...]string{markOpaque, markRedirect} {
		v, err := getXattr(fd, t.marks+name)
		switch {
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		case err != nil:
			return err
		default:
			if e.Xattrs == nil {
				e.Xattrs = map[string]string{}
			}
			e.Xattrs[t.marks+name] = v
		}
	}
	return nil
}
