package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Source is a tree from which runs start, and which shows below an overlay instead of
// being copied (see Layer). It is looked at several times: once before the first
// sandbox, and whenever another one is made, as somebody may be working in it.
// Nothing of it is ever changed. Its methods may be called from several goroutines.
type Source struct {
	dir string
	o   ImportOptions

	mu sync.Mutex
	t  *Tracker
	// out are the paths that the last look found to be left out.
	out map[string]bool
	// listed is what became of known, the Tracker's manifest.
	known, listed *Manifest
}

// NewSource makes a Source that has looked at nothing yet.
func NewSource(dir string, o ImportOptions) (*Source, error) {
	t, err := source(dir, o)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	s := &Source{dir: dir, o: o, t: t, out: map[string]bool{}}
	inner := t.opts.Exclude
	var mu sync.Mutex
	t.opts.Exclude = func(path string, isDir bool) bool {
		if !inner(path, isDir) {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		s.out[path] = true
		return true
	}
	return s, nil
}

// Dir is the tree's root.
func (s *Source) Dir() string { return s.dir }

// Look is one look at a Source: every name and what lstat says of it, and no content.
// End it with Manifest or Drop.
type Look struct {
	s    *Source
	k    *keys
	scan *scan
	root stat
}

// Look walks the tree. Until the Look has ended others wait.
func (s *Source) Look(ctx context.Context) (*Look, error) {
	s.mu.Lock()
	l := &Look{s: s}
	err := l.walk(ctx)
	if err != nil {
		l.Drop()
		return nil, fmt.Errorf("list %s: %w", s.dir, err)
	}
	return l, nil
}

func (l *Look) walk(ctx context.Context) (err error) {
	t := l.s.t
	if l.k, err = t.enter(); err != nil {
		return err
	}
	if l.root, err = statFd(l.k.root); err != nil {
		return err
	}
	clear(l.s.out)
	for try := 1; ; try++ {
		l.scan, err = t.look(ctx, l.k, scanOptions{devices: true})
		if err == nil || !errors.Is(err, errChanged) || try == scanTries {
			break
		}
	}
	if err != nil {
		return err
	}
	l.scan.group(false)
	return nil
}

// Drop ends a Look that came to nothing. After Manifest it does nothing.
func (l *Look) Drop() {
	if l == nil || l.s == nil {
		return
	}
	if l.k != nil {
		_ = l.k.leave() // it changed no modes
	}
	l.s.mu.Unlock()
	l.s = nil
}

// Entries is how many names the tree has, with those that were known.
func (l *Look) Entries() int { return l.s.t.count() + l.fresh() }

func (l *Look) fresh() (n int) {
	for _, p := range l.scan.pends {
		if p.fresh {
			n++
		}
	}
	return n
}

// UID and GID own the tree's root: what belongs to others cannot show through a map of
// one id, and is copied.
func (l *Look) UID() int { return int(l.root.uid) }
func (l *Look) GID() int { return int(l.root.gid) }

// Manifest reads what is not known, and ends the Look. A file with the size and the
// time that was has for it is taken to have that content; nil for none. With a store
// the contents are brought into it, for the caller to seal; without one batch is nil.
// The manifest is what Import would bring.
func (l *Look) Manifest(ctx context.Context, was *Manifest, st Store) (m *Manifest, batch Batch, err error) {
	s := l.s
	defer l.Drop()
	defer func() {
		if err != nil {
			err = fmt.Errorf("list %s: %w", s.dir, err)
		}
	}()
	l.assume(was)
	if err := l.scan.hash(ctx, scanOptions{keep: st != nil}); err != nil {
		return nil, nil, err
	}
	l.scan.group(false)
	if st != nil {
		if batch, err = l.store(ctx, st); err != nil {
			return nil, nil, err
		}
	}
	known, _ := l.scan.commit()
	if known == s.known && s.listed != nil {
		return s.listed, batch, nil
	}
	m, err = l.clean(known, batch)
	if err != nil {
		if batch != nil {
			batch.Abort()
		}
		return nil, nil, err
	}
	s.known, s.listed = known, m
	return m, batch, nil
}

// assume gives files the contents that they had.
func (l *Look) assume(was *Manifest) {
	if was == nil {
		return
	}
	for _, p := range l.scan.pends {
		if p.e.Kind != KindFile {
			continue
		}
		if e := was.Lookup(p.e.Path); e != nil && e.Kind == KindFile && e.Size == p.e.Size && e.MtimeNS == p.e.MtimeNS && !isGitConfig(p.e.Path) {
			p.e.Hash, p.e.Xattrs, p.assumed = e.Hash, e.Xattrs, true
		}
	}
}

// store brings contents into a batch, but for those that may hold credentials.
func (l *Look) store(ctx context.Context, st Store) (Batch, error) {
	kept := l.scan.pends
	l.scan.pends = slices.DeleteFunc(slices.Clone(kept), func(p *pend) bool { return isGitConfig(p.e.Path) })
	put, batch, err := l.scan.store(ctx, st)
	l.scan.pends = kept
	if err == nil {
		l.s.t.unconfirmed = put
	}
	return batch, err
}

// clean is cleaned, with the contents that it made put into the batch.
func (l *Look) clean(known *Manifest, batch Batch) (*Manifest, error) {
	m, err := cleaned(l.s.dir, known)
	if err != nil || batch == nil {
		return m, err
	}
	for i := range m.Entries {
		e := &m.Entries[i]
		if e.Kind != KindFile || !isGitConfig(e.Path) {
			continue
		}
		b, err := readSmall(l.k.root, e.Path)
		if err != nil {
			return nil, err
		}
		if err := batch.Put(e.Hash, b); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// FillUpper prepares the upper tree of an overlay over the source, so that the merged
// tree is what Import would have made: what is left out is hidden, and what cannot show
// from below is copied: git configurations without their credentials, files of others,
// and hardlinks, which an overlay would cut when one of them is written. The directory
// is there and empty. owner is whom copies belong to, nil for the process.
func (l *Look) FillUpper(ctx context.Context, upper string, owner *Owner) error {
	if err := l.fillUpper(ctx, upper, owner); err != nil {
		return fmt.Errorf("prepare the layer over %s: %w", l.s.dir, err)
	}
	return nil
}

func (l *Look) fillUpper(ctx context.Context, upper string, owner *Owner) (err error) {
	plan := l.plan()
	im := &importer{o: ImportOptions{Owner: owner}, src: l.k.root}
	if im.dst, err = openRoot(upper); err != nil {
		return err
	}
	defer unix.Close(im.dst)
	for _, e := range plan.dirs {
		if err := im.mkdir(e); err != nil {
			return fmt.Errorf("make directory %q: %w", e.Path, err)
		}
	}
	err = l.s.t.parallel(ctx, nil, len(plan.files), func(ctx context.Context, r *reader, i int) error {
		if err := im.file(ctx, r, plan.files[i]); err != nil {
			return fmt.Errorf("copy %q: %w", plan.files[i].Path, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range plan.links {
		if err := im.link(e); err != nil {
			return fmt.Errorf("link %q to %q: %w", e.Path, e.HardlinkTo, err)
		}
	}
	for _, p := range plan.hidden {
		if err := im.hide(p); err != nil {
			return fmt.Errorf("hide %q: %w", p, err)
		}
	}
	for _, e := range slices.Backward(plan.dirs) {
		if err := im.finishDir(e); err != nil {
			return fmt.Errorf("set mode and time of %q: %w", e.Path, err)
		}
	}
	return nil
}

// hide makes a whiteout.
func (im *importer) hide(path string) error {
	dir, name, err := im.at(path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Mknodat(dir, name, unix.S_IFCHR, 0)
}

// upperPlan is what FillUpper makes.
type upperPlan struct {
	dirs, files, links []*Entry
	hidden             []string
}

// plan decides for each name of the source.
func (l *Look) plan() (p upperPlan) {
	heads := map[string]bool{}
	if len(l.scan.links) > 0 {
		l.each(func(e *Entry, _ *stat) {
			if e.HardlinkTo != "" {
				heads[e.HardlinkTo] = true
			}
		})
	}
	dirs := map[string]*Entry{}
	need := map[string]bool{} // directories that something in the upper tree lies in
	l.each(func(e *Entry, st *stat) {
		other := st.uid != l.root.uid || st.gid != l.root.gid
		switch {
		case e.Kind == KindDir:
			dirs[e.Path] = e
			if other {
				need[e.Path] = true
			}
			return
		case !copies(e.Kind):
			p.hidden = append(p.hidden, e.Path)
		case e.Kind == KindSymlink && !other && e.HardlinkTo == "" && !heads[e.Path]:
			return
		case e.Kind == KindSymlink:
			p.files = append(p.files, e)
		case e.HardlinkTo != "" && !isGitConfig(e.Path) && !isGitConfig(e.HardlinkTo):
			p.links = append(p.links, e)
		case heads[e.Path] || other || isGitConfig(e.Path) || e.HardlinkTo != "":
			p.files = append(p.files, e)
		default:
			return
		}
		need[parent(e.Path)] = true
	})
	for path := range l.s.out {
		p.hidden = append(p.hidden, path)
		need[parent(path)] = true
	}
	made := map[string]bool{"": true}
	for path := range need {
		for ; !made[path]; path = parent(path) {
			made[path] = true
			if e := dirs[path]; e != nil {
				p.dirs = append(p.dirs, e)
			}
		}
	}
	slices.SortFunc(p.dirs, func(a, b *Entry) int { return byPath(*a, *b) })
	slices.SortFunc(p.links, func(a, b *Entry) int { return byPath(*a, *b) })
	return p
}

// each calls f for every name of the source.
func (l *Look) each(f func(e *Entry, st *stat)) {
	for _, p := range l.scan.pends {
		f(&p.e, &p.st)
	}
	l.s.t.each(l.scan, f)
}

// count is how many names are known.
func (t *Tracker) count() int { return len(t.last.Entries) }

// each calls f for the known names that a scan found as they were.
func (t *Tracker) each(s *scan, f func(e *Entry, st *stat)) {
	if len(t.last.Entries) == 0 {
		return
	}
	changed := make(map[*node]bool, len(s.pends)+len(s.lost))
	for _, p := range s.pends {
		changed[p.n] = true
	}
	for _, x := range s.lost {
		changed[x.n] = true
	}
	var visit func(n *node)
	visit = func(n *node) {
		for _, c := range n.children {
			if c.gen != t.gen {
				continue // gone, with all below
			}
			if !changed[c] {
				f(&c.e, &c.st)
			}
			visit(c)
		}
	}
	visit(t.top)
}
