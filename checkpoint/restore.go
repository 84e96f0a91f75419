package checkpoint

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Restore makes the tree equal to m: writes what differs, deletes what is extra,
// leaves the rest alone, and verifies the result. Sockets are not made (their
// program would have to be there). Nothing outside the root is touched, whatever
// was planted in it: names are replaced, never opened for writing.
//
// A Restore that failed or was killed is finished by calling it again. After a
// success the Tracker knows the tree as m, so that the next Snapshot's Changes
// are relative to it; after a failure they are relative to what was found.
func (t *Tracker) Restore(ctx context.Context, st Store, m *Manifest) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := m.Validate(); err != nil {
		return fmt.Errorf("restore %s: %w", t.root, err)
	}
	k, err := t.enter()
	if err != nil {
		return fmt.Errorf("restore %s: %w", t.root, err)
	}
	defer func() {
		if err = errors.Join(err, k.leave()); err != nil {
			err = fmt.Errorf("restore %s: %w", t.root, err)
		}
	}()
	r := &restore{t: t, st: st, m: m, keys: k, touched: map[string]bool{}, written: map[string]written{}}
	err = r.replace(ctx, func(o scanOptions) (*scan, *Manifest, error) {
		s, err := t.rescan(ctx, k, o)
		return s, t.last, err
	})
	if err != nil {
		return err
	}
	return t.adopt(m)
}

// replace looks at the tree, writes what differs, and looks again, so that what is
// there now can be compared. look also returns what it then knows of the tree.
func (r *restore) replace(ctx context.Context, look func(scanOptions) (*scan, *Manifest, error)) error {
	s, live, err := look(scanOptions{lenient: true, foreign: true})
	if err != nil {
		return err
	}
	r.live, r.foreign = live, s.foreign
	if err := r.run(ctx); err != nil {
		return err
	}
	// The directories that had to be unlocked have their final modes now.
	r.keys.dirs = slices.DeleteFunc(r.keys.dirs, func(d lockedDir) bool { return d.path != "" })
	s, _, err = look(scanOptions{written: r.written, foreign: true})
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	for p := range s.foreign {
		return fmt.Errorf("verify: %q still is a hardlink to a file outside", p)
	}
	return nil
}

// unrestored compares a tree as it was just read with what it should be. A socket
// cannot be restored: those that are missing, or live with their own time, are returned.
func unrestored(now, m *Manifest) (sockets []Change, err error) {
	var wrong []string
	for _, c := range Diff(now, m) {
		if c.Entry != nil && c.Entry.Kind == KindSocket {
			if e := now.Lookup(c.Path); e == nil || e.Kind == KindSocket {
				sockets = append(sockets, c)
				continue
			}
		}
		wrong = append(wrong, fmt.Sprintf("%s (%s)", c.Path, c.Op))
	}
	if n := len(wrong); n > 0 {
		return nil, fmt.Errorf("verify: %d paths differ from the checkpoint after it was restored: %s",
			n, strings.Join(wrong[:min(n, 5)], ", "))
	}
	return sockets, nil
}

// rescan brings the Tracker's knowledge up to date. The contents that it finds are
// not known to be stored.
func (t *Tracker) rescan(ctx context.Context, k *keys, o scanOptions) (*scan, error) {
	for try := 1; ; try++ {
		s, err := t.scan(ctx, k, o)
		if err == nil {
			for _, p := range s.pends {
				if p.e.Kind == KindFile {
					if t.unconfirmed == nil {
						t.unconfirmed = map[Hash]struct{}{}
					}
					t.unconfirmed[p.e.Hash] = struct{}{}
				}
			}
			s.commit()
			return s, nil
		}
		if !errors.Is(err, errChanged) || try == scanTries {
			return nil, err
		}
	}
}

// adopt takes the manifest as what is known of the tree, if the tree is as it says.
func (t *Tracker) adopt(m *Manifest) error {
	sockets, err := unrestored(t.last, m)
	if err != nil {
		return err
	}
	for _, c := range sockets {
		if c.Op != OpAdded {
			t.nodeOf(c.Path).e = *c.Entry // it lives, with its own time
			continue
		}
		// One that is not there is known, so that the next snapshot misses it.
		dir := t.nodeOf(parent(c.Path))
		if dir.children == nil {
			dir.children = map[string]*node{}
		}
		_, name := split(c.Path)
		dir.children[name] = &node{e: *c.Entry, racy: true}
	}
	t.last = m
	t.unconfirmed = nil
	return nil
}

// nodeOf finds the node of a path that is known to exist.
func (t *Tracker) nodeOf(path string) *node {
	n := t.top
	if path == "" {
		return n
	}
	for c := range strings.SplitSeq(path, "/") {
		n = n.children[c]
	}
	return n
}

// restore is one Restore at work.
type restore struct {
	t       *Tracker
	st      Store
	m, live *Manifest
	keys    *keys
	foreign map[string]bool

	mu      sync.Mutex
	touched map[string]bool    // directories whose mode and time are to be set at the end
	written map[string]written // their stats and hashes
}

func (r *restore) touch(dir string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.touched[dir] = true
}

// run does it in an order that a crash may cut anywhere: deletions, directories,
// contents, further names, and last the modes and times of directories.
func (r *restore) run(ctx context.Context) error {
	for _, d := range r.keys.dirs {
		r.touch(d.path) // its mode was changed by reading it
	}
	del, dirs, files, links := r.plan()
	for _, p := range del {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := r.remove(p); err != nil {
			return fmt.Errorf("delete %q: %w", p, err)
		}
	}
	for _, e := range dirs {
		if err := r.mkdir(e); err != nil {
			return fmt.Errorf("make directory %q: %w", e.Path, err)
		}
	}
	err := r.t.parallel(ctx, r.keys, len(files), func(ctx context.Context, rd *reader, i int) error {
		if err := r.file(ctx, rd, files[i]); err != nil {
			return fmt.Errorf("write %q: %w", files[i].Path, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range links {
		if err := r.link(e); err != nil {
			return fmt.Errorf("link %q to %q: %w", e.Path, e.HardlinkTo, err)
		}
	}
	return r.finishDirs()
}

// plan compares the live tree with the wanted one.
func (r *restore) plan() (del []string, dirs, files, links []*Entry) {
	replaced := map[string]bool{} // first names of an inode that will be a new one
	add := func(e *Entry) {
		switch {
		case e.Kind == KindDir:
			dirs = append(dirs, e)
		case e.Kind == KindSocket:
		case e.HardlinkTo != "":
			links = append(links, e)
		default:
			files = append(files, e)
		}
	}
	listed := map[string]bool{}
	for _, c := range Diff(r.live, r.m) {
		listed[c.Path] = true
		if c.Op == OpDeleted {
			del = append(del, c.Path)
			continue
		}
		if old := r.live.Lookup(c.Path); old != nil {
			switch {
			case c.Entry.Kind == KindDir && old.Kind == KindDir:
				r.touch(c.Path)
				continue
			case c.Entry.Kind == KindDir || old.Kind == KindDir || c.Entry.Kind == KindSocket && old.Kind != KindSocket:
				del = append(del, c.Path)
			}
		}
		add(c.Entry)
		replaced[c.Path] = true
	}
	for i := range r.m.Entries {
		e := &r.m.Entries[i]
		if listed[e.Path] || e.Kind == KindDir {
			continue
		}
		if r.foreign[e.Path] || replaced[e.HardlinkTo] {
			// Equal, but also a name of something outside, or of an inode that goes.
			add(e)
			replaced[e.Path] = true
		}
	}
	slices.Sort(del)
	slices.Reverse(del) // children before their directory
	return del, dirs, files, links
}

// in opens the directory of a path for changing names in it.
func (r *restore) in(path string) (dir int, name string, err error) {
	d, name := split(path)
	dir, err = r.keys.openDir(d, 0o700)
	if err == nil && d != "" {
		r.touch(d)
	}
	return dir, name, err
}

func (r *restore) remove(path string) error {
	dir, name, err := r.in(path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	st, err := statAt(dir, name, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	flags := 0
	if st.kind() == KindDir {
		flags = unix.AT_REMOVEDIR
	}
	return unix.Unlinkat(dir, name, flags)
}

func (r *restore) mkdir(e *Entry) error {
	dir, name, err := r.in(e.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	r.touch(e.Path)
	if err := unix.Mkdirat(dir, name, 0o700); err != nil {
		return err
	}
	return r.chown(dir, name)
}

func (r *restore) chown(dir int, name string) error {
	o := r.t.opts.Owner
	if o == nil || unix.Geteuid() != 0 {
		return nil
	}
	return unix.Fchownat(dir, name, o.UID, o.GID, unix.AT_SYMLINK_NOFOLLOW)
}

// finishDirs sets what directories look like, children first: a parent that takes
// the owner's rights away closes the way to them.
func (r *restore) finishDirs() error {
	var paths []string
	for p := range r.touched {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range slices.Backward(paths) {
		e := r.m.Lookup(p)
		if e == nil || e.Kind != KindDir {
			continue // the root, or one that was deleted
		}
		if err := r.finishDir(e); err != nil {
			return fmt.Errorf("set mode and time of %q: %w", p, err)
		}
	}
	return nil
}

func (r *restore) finishDir(e *Entry) error {
	fd, err := r.keys.openDir(e.Path, 0o700)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := setXattrs(fd, e.Xattrs); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, e.Mode); err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", timespecs(e.MtimeNS), unix.AT_EMPTY_PATH)
}

// tempName is a name that no tree has. What a crash leaves of it is extra to the
// next Restore, which deletes it.
func tempName() string { return tempPrefix + rand.Text() }

const tempPrefix = ".flow-tmp-"
