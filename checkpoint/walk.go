package checkpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errChanged: the tree changed while it was read. The operation is tried again.
var errChanged = errors.New("it changed while it was read")

// pend is a name whose lstat is not the known one: new, or to be read again.
type pend struct {
	n       *node
	parent  *node // of a new name
	name    string
	fresh   bool
	e       Entry
	st      stat
	racy    bool
	assumed bool   // its hash is known without reading
	content []byte // kept in memory between hashing and storing, nil if too much
}

type lost struct {
	parent *node
	name   string
	n      *node
}

// linked is a name whose inode has others.
type linked struct {
	n *node
	p *pend // nil: unchanged
}

// walk compares the tree with what is known. It reads no file content.
type walk struct {
	t       *Tracker
	ctx     context.Context
	root    int
	keys    *keys
	gen     uint64
	start   int64 // ns; see racyGuard
	devices bool  // record devices as kind 0 instead of failing

	mu      sync.Mutex
	cond    sync.Cond
	queue   []dirJob
	pending int // directories queued or being read
	running int
	err     error
	wg      sync.WaitGroup
	done    []*walkWorker
}

type dirJob struct {
	n  *node
	p  *pend // when the directory itself is to be recorded
	st stat
}

// walkWorker has the buffers and findings of one goroutine.
type walkWorker struct {
	w     *walk
	buf   []byte
	sx    unix.Statx_t
	pends []*pend
	lost  []lost
	links []linked
	sub   []dirJob
}

// spawnAt is how many waiting directories are worth one more goroutine: a small
// tree is walked by the caller alone, in tens of microseconds.
const spawnAt = 12

func (w *walk) run() error {
	w.cond.L = &w.mu
	st, err := statFd(w.root)
	if err != nil {
		return fmt.Errorf("read directory %s: %w", w.t.root, err)
	}
	w.queue, w.pending = append(w.queue, dirJob{n: w.t.top, st: st}), 1
	w.mu.Lock()
	w.startWorker()
	w.mu.Unlock()
	w.done[0].loop()
	w.wg.Wait()
	return w.err
}

// startWorker is called with mu held; the first worker is the caller itself.
func (w *walk) startWorker() {
	var k *walkWorker
	if n := len(w.t.spare); n > 0 {
		k, w.t.spare = w.t.spare[n-1], w.t.spare[:n-1]
	} else {
		k = &walkWorker{buf: make([]byte, 32<<10)}
	}
	k.w = w
	w.done = append(w.done, k)
	w.running++
	if w.running > 1 {
		w.wg.Go(k.loop)
	}
}

// release keeps the buffers for the next walk.
func (w *walk) release() {
	for _, k := range w.done {
		clear(k.pends)
		clear(k.lost)
		clear(k.links)
		clear(k.sub)
		k.w, k.pends, k.lost, k.links, k.sub = nil, k.pends[:0], k.lost[:0], k.links[:0], k.sub[:0]
		w.t.spare = append(w.t.spare, k)
	}
	w.done = nil
}

func (k *walkWorker) loop() {
	w := k.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.queue) == 0 && w.pending > 0 && w.err == nil {
			w.cond.Wait()
		}
		if w.pending == 0 || w.err != nil {
			w.cond.Broadcast()
			return
		}
		j := w.queue[len(w.queue)-1]
		w.queue = w.queue[:len(w.queue)-1]
		w.mu.Unlock()
		k.sub = k.sub[:0]
		err := context.Cause(w.ctx)
		if err == nil {
			err = k.dir(j)
		}
		w.mu.Lock()
		if err != nil && w.err == nil {
			w.err = err
		}
		w.queue = append(w.queue, k.sub...)
		w.pending += len(k.sub) - 1
		for len(w.queue) > spawnAt*w.running && w.running < w.t.workers && w.err == nil {
			w.startWorker()
		}
		if w.running > 1 {
			w.cond.Broadcast()
		}
	}
}

func pathError(op, path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ESTALE):
		// lstat said otherwise a moment ago.
		return fmt.Errorf("%s %q: %w (%w)", op, path, errChanged, err)
	case errors.Is(err, unix.EXDEV):
		// The kernel says the same of a mount and of a directory moved out of the tree.
		return fmt.Errorf("%s %q: it is a mount point, and only one file system can be stored, or %w (%w)", op, path, errChanged, err)
	}
	return fmt.Errorf("%s %q: %w", op, path, err)
}

// dir reads one directory.
func (k *walkWorker) dir(j dirJob) error {
	fd, own := k.w.root, false
	if j.n != k.w.t.top {
		var err error
		if fd, err = k.w.keys.openDir(j.n.e.Path, 0o500); err != nil {
			return pathError("read directory", j.n.e.Path, err)
		}
		own = true
	}
	if !own {
		// The root's descriptor serves several walks.
		if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
			return pathError("read directory", ".", err)
		}
	} else {
		defer unix.Close(fd)
		st, err := statFd(fd)
		if err != nil {
			return pathError("read directory", j.n.e.Path, err)
		}
		if st.ino != j.st.ino || st.dev != j.st.dev {
			return fmt.Errorf("read directory %q: %w: it is another directory now", j.n.e.Path, errChanged)
		}
	}
	if j.p != nil {
		x, err := listXattrs(fd, k.buf)
		if err != nil {
			return pathError("read attributes of", j.n.e.Path, err)
		}
		j.p.e.Xattrs = x
		if err := k.w.t.readMarks(fd, &j.p.e); err != nil {
			return pathError("read attributes of", j.n.e.Path, err)
		}
	}
	seen := 0
	for {
		n, err := unix.Getdents(fd, k.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return pathError("read directory", j.n.e.Path, err)
		}
		if n <= 0 {
			break
		}
		for rec := k.buf[:n]; len(rec) > 0; {
			// struct linux_dirent64: ino 8, off 8, reclen 2, type 1, name.
			l := binary.NativeEndian.Uint16(rec[16:])
			name := rec[19:l]
			name = name[:bytes.IndexByte(name, 0)+1]
			rec = rec[l:]
			if s := string(name); s == ".\x00" || s == "..\x00" {
				continue
			}
			known, err := k.name(fd, j.n, name)
			if err != nil {
				return err
			}
			if known {
				seen++
			}
		}
	}
	if seen < len(j.n.children) {
		for name, c := range j.n.children {
			if c.gen != k.w.gen {
				k.lost = append(k.lost, lost{j.n, name, c})
			}
		}
	}
	return nil
}

// name looks at one name of a directory; known says that a node of it lives on.
// The name ends with a NUL, as the kernel gave it, so that nothing is copied.
func (k *walkWorker) name(fd int, parent *node, name []byte) (known bool, err error) {
	bare := name[:len(name)-1]
	st, err := k.lstat(fd, name)
	if err != nil {
		return false, pathError("stat", join(parent.e.Path, string(bare)), err)
	}
	kind := st.kind()
	c := parent.children[string(bare)]
	if ex := k.w.t.opts.Exclude; ex != nil {
		path := ""
		if c != nil {
			path = c.e.Path
		} else {
			path = join(parent.e.Path, string(bare))
		}
		if ex(path, kind == KindDir) {
			return false, nil
		}
	}
	if c == nil || (c.e.Kind == KindDir) != (kind == KindDir) {
		return false, k.changed(fd, parent, nil, string(bare), st, kind)
	}
	c.gen = k.w.gen
	if c.racy || c.st != st {
		return true, k.changed(fd, parent, c, "", st, kind)
	}
	if kind == KindDir {
		k.sub = append(k.sub, dirJob{n: c, st: st})
	} else if st.nlink > 1 {
		k.links = append(k.links, linked{n: c})
	}
	return true, nil
}

func (k *walkWorker) lstat(fd int, name []byte) (st stat, err error) {
	for {
		_, _, e := unix.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(&name[0])),
			unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(&k.sx)), 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return st, e
		}
		st.fromX(&k.sx)
		return st, nil
	}
}

// changed records a name that must be read: a known node c, or a new one.
func (k *walkWorker) changed(fd int, parent, c *node, name string, st stat, kind Kind) error {
	p := &pend{n: c, parent: parent, name: name, st: st}
	if c == nil {
		path := join(parent.e.Path, name)
		if len(path) > maxPath {
			return fmt.Errorf("read %q…: the path is longer than %d bytes: too deep a tree", path[:64], maxPath)
		}
		p.n, p.fresh = &node{gen: k.w.gen}, true
		p.n.e.Path, p.n.e.Kind = path, kind
	}
	p.e = Entry{Path: p.n.e.Path, Kind: kind, Mode: st.mode & 0o7777, MtimeNS: st.mtime}
	p.racy = k.w.racy(&st)
	switch kind {
	case KindFile:
		p.e.Size = st.size
	case KindDir:
		k.sub = append(k.sub, dirJob{n: p.n, p: p, st: st})
	case KindSymlink:
		if name == "" {
			_, name = split(p.e.Path)
		}
		target, err := readlinkAt(fd, name)
		if err != nil {
			return pathError("read symlink", p.e.Path, err)
		}
		p.e.Target = target
	case 0:
		if !k.w.devices {
			return fmt.Errorf("read %q: it is a device, which cannot be stored: remove it or leave it out", p.e.Path)
		}
		p.racy = true
	}
	k.pends = append(k.pends, p)
	if kind != KindDir && st.nlink > 1 {
		k.links = append(k.links, linked{p.n, p})
	}
	return nil
}

func readlinkAt(fd int, name string) (string, error) {
	var buf [maxTarget + 1]byte
	n, err := unix.Readlinkat(fd, name, buf[:])
	if errors.Is(err, unix.EINVAL) {
		return "", unix.ELOOP // it is no symlink any more
	}
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// racyGuard: a file whose mtime or ctime is this close to the start of the walk
// may change once more within the same tick of the kernel's clock (a jiffy, up to
// 10 ms) without a new timestamp, so that it is read again next time.
const racyGuard = 20e6

func (w *walk) racy(st *stat) bool {
	return max(st.mtime, st.ctime) >= w.start-racyGuard
}
