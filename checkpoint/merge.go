package checkpoint

import (
	"fmt"
	"slices"
	"strings"
)

// Side says whose state of a path a merge takes.
type Side uint8

const (
	// Neither is a conflict.
	Neither Side = iota
	// Ours is what is there already.
	Ours
	// Theirs is what comes in.
	Theirs
)

// Merge brings what leads from base to theirs onto ours: for each path that theirs
// changed, the three are compared; times do not count. A path that both changed
// differently is put to choose, and is a conflict where that says Neither, or is
// nil. So is a path that has lost its directory on the other side, whatever choose
// says: there is no tree that keeps both.
//
// The result is nil when there are conflicts, which are sorted. Its contents are
// those of ours and theirs.
func Merge(base, ours, theirs *Manifest, choose func(path string) Side) (*Manifest, []Conflict, error) {
	var dirty []Entry
	var gone []string
	var conflicts []Conflict
	for _, c := range Diff(base, theirs) {
		was, now, want := base.Lookup(c.Path), ours.Lookup(c.Path), c.Entry
		take := Theirs
		switch {
		case c.DirTimeOnly || alike(now, want) || alike(was, want):
			// The same on both sides, or touched only: what is there is as good, but a
			// time that nobody else changed comes in.
			if !alike(now, was) || want == nil {
				take = Ours
			}
		case !alike(now, was):
			take = Neither
			if choose != nil {
				take = choose(c.Path)
			}
		}
		switch {
		case take == Neither:
			conflicts = append(conflicts, Conflict{c.Path, bothSides(was, now, want)})
		case take == Theirs && want == nil:
			gone = append(gone, c.Path)
		case take == Theirs:
			dirty = append(dirty, *want)
		}
	}
	next, _ := merge(ours.Entries, dirty, gone)
	out := &Manifest{Entries: next}
	conflicts = append(conflicts, orphans(out, ours, conflicts)...)
	if len(conflicts) > 0 {
		slices.SortFunc(conflicts, func(a, b Conflict) int { return strings.Compare(a.Path, b.Path) })
		return nil, conflicts, nil
	}
	Unlink(out)
	if err := out.Validate(); err != nil {
		return nil, nil, fmt.Errorf("merge: %w", err)
	}
	return out, nil, nil
}

// alike: equal in everything but the time; nil is "not there".
func alike(a, b *Entry) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.equalButTime(b)
}

func bothSides(was, now, want *Entry) string {
	switch {
	case want == nil:
		return "it was changed, and deleted by the other"
	case now == nil && was != nil:
		return "it was deleted, and changed by the other"
	case was == nil:
		return "both made it, with different contents"
	}
	return "both changed it, differently"
}

// orphans are the entries without a directory: one side removed, or replaced, what
// the other put something into.
func orphans(m, ours *Manifest, known []Conflict) []Conflict {
	var out []Conflict
	dirs := map[string]bool{"": true}
	for i := range m.Entries {
		e := &m.Entries[i]
		if e.Kind == KindDir {
			dirs[e.Path] = true
		}
		if dirs[parent(e.Path)] {
			continue
		}
		if slices.ContainsFunc(known, func(c Conflict) bool { return c.Path == e.Path || strings.HasPrefix(e.Path, c.Path+"/") }) {
			continue
		}
		why := "its directory was removed by the other"
		if ours.Lookup(e.Path) == nil {
			why = "it was made in a directory that the other removed"
		}
		out = append(out, Conflict{e.Path, why})
	}
	return out
}

// Unlink makes a name that is no hardlink of an earlier one any more, because that
// was changed, a file of its own; of several such, the first becomes their head.
// For manifests that are put together from several.
func Unlink(m *Manifest) {
	head := map[string]string{} // first name as it was said → the one that can be
	for i := range m.Entries {
		e := &m.Entries[i]
		if e.HardlinkTo == "" {
			continue
		}
		was := e.HardlinkTo
		for _, to := range []string{was, head[was]} {
			if first := m.Lookup(to); to != "" && first != nil && first.Path < e.Path && first.HardlinkTo == "" && sameButLink(first, e) {
				e.HardlinkTo, was = to, ""
				break
			}
		}
		if was != "" {
			head[was], e.HardlinkTo = e.Path, ""
		}
	}
}

func sameButLink(first, e *Entry) bool {
	c := *e
	c.HardlinkTo = ""
	return sameInode(first, &c)
}
