package checkpoint

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// file makes one name that is no directory and no further hardlink. It is written
// under a temporary name and renamed over whatever is there.
func (r *restore) file(ctx context.Context, rd *reader, e *Entry) error {
	dir, name, err := r.in(e.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	old := r.live.Lookup(e.Path)
	if old != nil && r.adjustable(old, e) {
		if ok, err := r.adjust(dir, name, e); ok || err != nil {
			return err
		}
	}
	tmp := tempName()
	switch e.Kind {
	case KindFile:
		err = r.content(ctx, rd, dir, tmp, name, e)
	case KindSymlink:
		err = unix.Symlinkat(e.Target, dir, tmp)
		if err == nil {
			err = r.place(dir, tmp, name, e)
		}
	case KindFifo:
		err = unix.Mknodat(dir, tmp, unix.S_IFIFO|0o600, 0)
		if err == nil {
			err = chmodAt(dir, tmp, e.Mode, r.chown)
		}
		if err == nil {
			err = r.place(dir, tmp, name, e)
		}
	}
	if err != nil {
		// After a rename the temporary name is gone; before, this is what is left.
		_ = unix.Unlinkat(dir, tmp, 0)
	}
	return err
}

// chmodAt owns and then chmods a name without following it; chown would clear
// setuid bits, so it comes first.
func chmodAt(dir int, name string, mode uint32, chown func(int, string) error) error {
	if err := chown(dir, name); err != nil {
		return err
	}
	fd, err := openBeneath(dir, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return chmodFd(fd, mode)
}

// place gives a finished symlink or fifo its time and its name.
func (r *restore) place(dir int, tmp, name string, e *Entry) error {
	if e.Kind == KindSymlink {
		if err := r.chown(dir, tmp); err != nil {
			return err
		}
	}
	if err := setTime(dir, tmp, e.MtimeNS); err != nil {
		return err
	}
	return unix.Renameat(dir, tmp, dir, name)
}

// adjustable: nothing but mode, time and attributes differ, and the inode is this
// name's alone. A planted setuid file is replaced instead, and so is every file beside
// an overlay, whose stat is not the one that was walked.
func (r *restore) adjustable(old, e *Entry) bool {
	return r.keys.graft == "" && old.Kind == KindFile && e.Kind == KindFile && old.Hash == e.Hash && old.Size == e.Size &&
		old.Mode&0o6000 == 0 && e.Mode&0o6000 == 0 && !r.foreign[e.Path] &&
		old.HardlinkTo == "" && r.t.nodeOf(e.Path).st.nlink == 1
}

// adjust changes mode, time and attributes of a file in place; false when it is
// not the known one any more.
func (r *restore) adjust(dir int, name string, e *Entry) (bool, error) {
	known := r.t.nodeOf(e.Path).st
	fd, err := openBeneath(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return false, nil // unreadable for its owner, or swapped: it is replaced
	}
	defer unix.Close(fd)
	st, err := statFd(fd)
	if err != nil || st != known {
		return false, err
	}
	if err := setXattrs(fd, e.Xattrs); err != nil {
		return false, nil // needs the right to write
	}
	if err := unix.Fchmod(fd, e.Mode); err != nil {
		return false, err
	}
	if err := unix.UtimesNanoAt(fd, "", timespecs(e.MtimeNS), unix.AT_EMPTY_PATH); err != nil {
		return false, err
	}
	return true, r.remember(fd, e)
}

// content writes a regular file from the store, hashing as it writes.
func (r *restore) content(ctx context.Context, rd *reader, dir int, tmp, name string, e *Entry) (err error) {
	if e.Mode&0o111 != 0 {
		// A process that flow forks meanwhile holds the file open for writing until its
		// own exec: who runs the program next would be told "text file busy".
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock() // after the close
	}
	fd, err := openBeneath(dir, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := fill(ctx, r.st, rd, fd, e); err != nil {
		return err
	}
	if err := setXattrs(fd, e.Xattrs); err != nil {
		return err
	}
	if o := r.t.opts.Owner; o != nil && unix.Geteuid() == 0 {
		if err := unix.Fchown(fd, o.UID, o.GID); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, e.Mode); err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(fd, "", timespecs(e.MtimeNS), unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if err := unix.Renameat(dir, tmp, dir, name); err != nil {
		return err
	}
	return r.remember(fd, e)
}

// remember notes the stat of what was written, so that verifying need not read it
// again. A rename moves the ctime, so it comes after that.
func (r *restore) remember(fd int, e *Entry) error {
	st, err := statFd(fd)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written[e.Path] = written{st, e.Hash}
	return nil
}

// fill copies a stored content into fd and checks that it is the wanted one.
// Blocks of zeros become holes.
func fill(ctx context.Context, st Store, rd *reader, fd int, e *Entry) (err error) {
	rc, err := st.Open(ctx, e.Hash)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	sum := sha256.New()
	buf := rd.buffer(streamBuf)
	var n int64
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		got, rerr := io.ReadFull(rc, buf)
		sum.Write(buf[:got])
		if err := writeSparse(fd, buf[:got], n); err != nil {
			return err
		}
		n += int64(got)
		if n > e.Size || errors.Is(rerr, io.EOF) || errors.Is(rerr, io.ErrUnexpectedEOF) {
			break
		}
		if rerr != nil {
			return fmt.Errorf("read content %s: %w", e.Hash, rerr)
		}
	}
	var h Hash
	if sum.Sum(h[:0]); h != e.Hash || n != e.Size {
		return fmt.Errorf("the store gave %d bytes of hash %s, wanted %d of %s", n, h, e.Size, e.Hash)
	}
	return unix.Ftruncate(fd, n)
}

const block = 4096

// writeSparse writes at an offset and leaves aligned blocks of zeros out.
func writeSparse(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n := 0
		for n+block <= len(b) && zero(b[n:n+block]) {
			n += block
		}
		b, off = b[n:], off+int64(n)
		n = 0
		for n < len(b) && !(n+block <= len(b) && zero(b[n:n+block])) {
			n += min(block, len(b)-n)
		}
		for n > 0 {
			w, err := unix.Pwrite(fd, b[:n], off)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return err
			}
			b, off, n = b[w:], off+int64(w), n-w
		}
	}
	return nil
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// link gives an inode of the tree one more name.
func (r *restore) link(e *Entry) error {
	from, first, err := r.in(e.HardlinkTo)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	dir, name, err := r.in(e.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	tmp := tempName()
	if err := unix.Linkat(from, first, dir, tmp, 0); err != nil {
		return err
	}
	err = unix.Renameat(dir, tmp, dir, name)
	// A rename onto another name of the same inode does nothing and leaves both.
	if uerr := unix.Unlinkat(dir, tmp, 0); uerr != nil && !errors.Is(uerr, unix.ENOENT) {
		err = errors.Join(err, uerr)
	}
	return err
}
