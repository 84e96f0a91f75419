package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Layer is a Tracker for a home of which one directory is an overlay: a lower tree
// that is only read (the source of a run), and an upper one that takes the changes.
// Only the home beside it and the upper tree are walked, so that a Snapshot costs what
// was changed, however large the lower tree is. Its manifests are those that a walk of
// the merged tree would give.
//
// The lower tree is what SetLower said: who changes it meanwhile is found by
// Source.Changed, not here.
type Layer struct {
	home, upper *Tracker
	o           LayerOptions

	mu    sync.Mutex
	lower []Entry // sorted, below o.At
	top   Entry   // what Begin found of the overlay's own directory
	begun bool    // and First has not been asked
	// last is made of these states of home and upper.
	last         *Manifest
	homeM, uppeM *Manifest
}

// LayerOptions of a Layer. All fields but Owner and Workers are required.
type LayerOptions struct {
	// At is the name in the home at which the overlay is mounted.
	At string
	// Upper is the upper tree's root on disk.
	Upper string
	// View is the merged tree's root, as long as it is mounted.
	View func() string
	// Prefix of the attributes by which the kernel marks opaque and renamed
	// directories in the upper tree: "trusted.overlay." or "user.overlay.".
	Prefix string
	// Owner of what Restore writes, and Workers, as in Options.
	Owner   *Owner
	Workers int
}

// errNoLower: Snapshot or Restore came before SetLower.
var errNoLower = errors.New("what lies below the upper tree is not known yet")

// NewLayer makes a Layer for the home. SetLower comes before anything else.
func NewLayer(home string, o LayerOptions) *Layer {
	l := &Layer{o: o}
	l.home = NewTracker(home, Options{Owner: o.Owner, Workers: o.Workers,
		Exclude: func(path string, _ bool) bool { return path == o.At }})
	l.upper = NewTracker(o.Upper, Options{Owner: o.Owner, Workers: o.Workers})
	l.upper.marks = o.Prefix
	return l
}

// SetLower says what the lower tree holds, as a manifest of that tree. What is in
// the upper tree already, to hide or to replace a part of it, is found by itself.
func (l *Layer) SetLower(m *Manifest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lower = make([]Entry, len(m.Entries))
	for i := range m.Entries {
		l.lower[i] = l.placed(&m.Entries[i])
	}
	l.last, l.homeM, l.uppeM = nil, nil, nil
}

// placed is an entry of one of the two trees at its place in the home.
func (l *Layer) placed(e *Entry) Entry {
	out := *e
	out.Path = join(l.o.At, e.Path)
	if e.HardlinkTo != "" {
		out.HardlinkTo = join(l.o.At, e.HardlinkTo)
	}
	for k := range e.Xattrs {
		if strings.HasPrefix(k, l.o.Prefix) {
			out.Xattrs = withoutPrefix(e.Xattrs, l.o.Prefix)
			break
		}
	}
	return out
}

func withoutPrefix(m map[string]string, prefix string) map[string]string {
	var out map[string]string
	for k, v := range m {
		if strings.HasPrefix(k, prefix) {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[k] = v
	}
	return out
}

// Manifest is the tree as the last Snapshot or Restore knew it; empty before.
func (l *Layer) Manifest() *Manifest {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		return &Manifest{}
	}
	return l.last
}

// Snapshot is Tracker.Snapshot for the whole home.
func (l *Layer) Snapshot(ctx context.Context, st Store) (Snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lower == nil {
		return Snapshot{}, fmt.Errorf("snapshot %s: %w", l.home.root, errNoLower)
	}
	one := &oneBatch{Store: st}
	_, err := l.home.Snapshot(ctx, one)
	if err == nil {
		_, err = l.upper.Snapshot(ctx, one)
	}
	var changes []Change
	if err == nil {
		changes, err = l.compose()
	}
	if err != nil {
		one.abort()
		return Snapshot{}, err
	}
	s := Snapshot{Manifest: l.last, Changes: changes}
	if one.batch != nil {
		s.Batch = one.batch
	}
	return s, nil
}

// Begin looks at what lies in the home and in the upper tree, and stores it, before
// anything is known of the lower one: the part of the first Snapshot that has to come
// before the first change. First is the other part; nothing else comes in between.
func (l *Layer) Begin(ctx context.Context, st Store) (Batch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := &oneBatch{Store: st}
	_, err := l.home.Snapshot(ctx, one)
	if err == nil {
		_, err = l.upper.Snapshot(ctx, one)
	}
	if err == nil {
		l.top, err = l.root()
	}
	if err != nil {
		one.abort()
		return nil, err
	}
	l.begun = true
	return one.batch, nil
}

// First is the tree as it was at Begin, after SetLower. Its contents were stored then.
func (l *Layer) First() (Snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lower == nil || !l.begun {
		return Snapshot{}, fmt.Errorf("snapshot %s: %w", l.home.root, errNoLower)
	}
	l.begun = false
	changes := l.composeWith(l.top)
	return Snapshot{Manifest: l.last, Changes: changes}, nil
}

// oneBatch makes two snapshots fill one batch.
type oneBatch struct {
	Store
	batch Batch
}

func (o *oneBatch) Begin(ctx context.Context) (b Batch, err error) {
	if o.batch == nil {
		o.batch, err = o.Store.Begin(ctx)
	}
	return o.batch, err
}

func (o *oneBatch) abort() {
	if o.batch != nil {
		o.batch.Abort()
	}
}

// Restore is Tracker.Restore for the whole home. It writes through the merged tree,
// as a program inside would, so that the lower one is left alone.
func (l *Layer) Restore(ctx context.Context, st Store, m *Manifest) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fail := func(err error) error { return fmt.Errorf("restore %s: %w", l.home.root, err) }
	if l.lower == nil {
		return fail(errNoLower)
	}
	if err := m.Validate(); err != nil {
		return fail(err)
	}
	if !m.Layered(l.o.At) {
		return fail(fmt.Errorf("%w: its directory %s cannot be a mount of its own", ErrInvalidManifest, l.o.At))
	}
	k, err := l.home.enter()
	if err != nil {
		return fail(err)
	}
	defer func() {
		if err = errors.Join(err, k.leave()); err != nil {
			err = fail(err)
		}
	}()
	if k.graftRoot, err = openRoot(l.o.View()); err != nil {
		return err
	}
	k.graft = l.o.At
	r := &restore{t: l.home, st: st, m: m, keys: k, touched: map[string]bool{}, written: map[string]written{}}
	err = r.replace(ctx, func(o scanOptions) (*scan, *Manifest, error) {
		s, err := l.rescan(ctx, k, o)
		return s, l.last, err
	})
	if err != nil {
		return err
	}
	if _, err := unrestored(l.last, m); err != nil {
		return err
	}
	if len(l.last.Entries) == len(m.Entries) {
		l.last = m // its ID may be known already
	}
	return nil
}

// rescan brings the knowledge of both trees up to date. Hardlinks that lead out are
// looked for beside the overlay only: no name outside can be one of its files.
func (l *Layer) rescan(ctx context.Context, k *keys, o scanOptions) (*scan, error) {
	s, err := l.home.rescan(ctx, k, o)
	if err != nil {
		return nil, err
	}
	u, err := l.upper.enter()
	if err != nil {
		return nil, err
	}
	o.written, o.foreign = nil, false
	_, err = l.upper.rescan(ctx, u, o)
	if err = errors.Join(err, u.leave()); err != nil {
		return nil, err
	}
	_, err = l.compose()
	return s, err
}

// Layered reports whether the tree can be had with the directory at as a mount of its
// own: it is a directory, and no hardlink leads into or out of it.
func (m *Manifest) Layered(at string) bool {
	e := m.Lookup(at)
	if e == nil || e.Kind != KindDir {
		return false
	}
	in := func(p string) bool { return strings.HasPrefix(p, at) && len(p) > len(at) && p[len(at)] == '/' }
	for i := range m.Entries {
		if e := &m.Entries[i]; e.HardlinkTo != "" && in(e.Path) != in(e.HardlinkTo) {
			return false
		}
	}
	return true
}

// root is the entry of the overlay's own directory, which no walk of either tree has.
func (l *Layer) root() (Entry, error) {
	fd, err := unix.Open(l.o.Upper, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		// Its owner took his own rights away; its attributes cannot be read then.
		fd, err = unix.Open(l.o.Upper, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			defer unix.Close(fd)
			st, err := statFd(fd)
			return Entry{Path: l.o.At, Kind: KindDir, Mode: st.mode & 0o7777, MtimeNS: st.mtime}, err
		}
	}
	if err != nil {
		return Entry{}, fmt.Errorf("open %s: %w", l.o.Upper, err)
	}
	defer unix.Close(fd)
	st, err := statFd(fd)
	if err != nil {
		return Entry{}, fmt.Errorf("stat %s: %w", l.o.Upper, err)
	}
	x, err := listXattrs(fd, make([]byte, 1024))
	if err != nil {
		return Entry{}, fmt.Errorf("read attributes of %s: %w", l.o.Upper, err)
	}
	return Entry{Path: l.o.At, Kind: KindDir, Mode: st.mode & 0o7777, MtimeNS: st.mtime, Xattrs: withoutPrefix(x, l.o.Prefix)}, nil
}
