package checkpoint

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// resolve is how every path below a root is resolved: never above it, never
// through a symlink or a /proc magic link, never onto another mount. Facts,
// sandbox technology: runc's CVEs of 2021 to 2025 are all path races.
const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// chunk is how much of a path goes into one call: a tree may be deeper than
// PATH_MAX (4096) allows in one.
const chunk = 4000

// openBeneath opens a path below the directory root without ever following a
// symlink; "" is root itself. A symlink on the way is ELOOP, a mount point EXDEV.
// The last component may be a symlink only with O_PATH.
func openBeneath(root int, path string, flags int, mode uint32) (int, error) {
	if path == "" {
		path = "."
	}
	dir := root
	for len(path) > chunk {
		cut := strings.LastIndexByte(path[:chunk], '/')
		if cut <= 0 {
			return -1, unix.ENAMETOOLONG
		}
		next, err := openOne(dir, path[:cut], unix.O_PATH|unix.O_DIRECTORY, 0)
		closeUnless(dir, root)
		if err != nil {
			return -1, err
		}
		dir, path = next, path[cut+1:]
	}
	fd, err := openOne(dir, path, flags, mode)
	closeUnless(dir, root)
	return fd, err
}

func closeUnless(fd, root int) {
	if fd != root {
		unix.Close(fd)
	}
}

func openOne(dir int, path string, flags int, mode uint32) (int, error) {
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	how := unix.OpenHow{Flags: uint64(flags), Mode: uint64(mode), Resolve: resolve}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(dir, path, &how)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN) && try < 100:
			// EAGAIN: something was renamed on the way, the kernel could not be sure.
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
			// EPERM is what old container seccomp profiles give for openat2.
			return openSteps(dir, path, flags, mode)
		default:
			return fd, err
		}
	}
}

// openSteps does the same one component at a time, where openat2 is missing
// (before Linux 5.6) or forbidden.
func openSteps(dir int, path string, flags int, mode uint32) (int, error) {
	at := dir
	for {
		name, rest, more := strings.Cut(path, "/")
		if name == ".." || name == "" {
			closeUnless(at, dir)
			return -1, unix.EXDEV
		}
		f, m := flags, mode
		if more {
			f, m = unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0
		}
		next, err := unix.Openat(at, name, f, m)
		closeUnless(at, dir)
		if err != nil {
			return -1, err
		}
		if err := sameMount(dir, next); err != nil {
			unix.Close(next)
			return -1, err
		}
		if !more {
			return next, nil
		}
		at, path = next, rest
	}
}

func sameMount(a, b int) error {
	var x, y unix.Stat_t
	if err := unix.Fstat(a, &x); err != nil {
		return err
	}
	if err := unix.Fstat(b, &y); err != nil {
		return err
	}
	if x.Dev != y.Dev {
		return unix.EXDEV
	}
	return nil
}

// openRoot opens the root of a tree. The root's own path is the caller's word and
// may lead through symlinks; nothing below it may.
func openRoot(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, fmt.Errorf("open directory %s: %w", path, err)
		}
		return fd, nil
	}
}

// stat is what lstat says of a name, as far as a snapshot compares it: two equal
// stats, not racy, are the same content.
type stat struct {
	ino, dev     uint64
	size         int64
	mtime, ctime int64  // ns since the epoch
	mode         uint32 // with the type
	nlink        uint32
	uid, gid     uint32
}

func (s *stat) kind() Kind {
	switch s.mode & unix.S_IFMT {
	case unix.S_IFREG:
		return KindFile
	case unix.S_IFDIR:
		return KindDir
	case unix.S_IFLNK:
		return KindSymlink
	case unix.S_IFSOCK:
		return KindSocket
	case unix.S_IFIFO:
		return KindFifo
	}
	return 0 // a device
}

func (s *stat) fromX(x *unix.Statx_t) {
	s.ino, s.dev = x.Ino, unix.Mkdev(x.Dev_major, x.Dev_minor)
	s.size, s.mode, s.nlink = int64(x.Size), uint32(x.Mode), x.Nlink
	s.mtime = x.Mtime.Sec*1e9 + int64(x.Mtime.Nsec)
	s.ctime = x.Ctime.Sec*1e9 + int64(x.Ctime.Nsec)
	s.uid, s.gid = x.Uid, x.Gid
}

// statFd is fstat, also for an O_PATH descriptor.
func statFd(fd int) (s stat, err error) {
	return statAt(fd, "", unix.AT_EMPTY_PATH)
}

// statAt is lstat of one name in a directory.
func statAt(dir int, name string, flags int) (s stat, err error) {
	var x unix.Statx_t
	for {
		err = unix.Statx(dir, name, flags|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &x)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		s.fromX(&x)
	}
	return s, err
}

// chmodFd changes the mode of what an O_PATH descriptor holds, so that no name is
// resolved a second time.
func chmodFd(fd int, mode uint32) error {
	err := unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		// fchmodat2 is Linux 6.6; before it /proc names the descriptor.
		return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
	}
	return err
}

func timespecs(mtimeNS int64) []unix.Timespec {
	return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(mtimeNS)}
}

// setTime sets the mtime of a name without following it.
func setTime(dir int, name string, mtimeNS int64) error {
	return unix.UtimesNanoAt(dir, name, timespecs(mtimeNS), unix.AT_SYMLINK_NOFOLLOW)
}

// listXattrs reads the user.* attributes of an open file or directory; nil for
// none and where the file system has none.
func listXattrs(fd int, buf []byte) (map[string]string, error) {
	n, err := unix.Flistxattr(fd, buf)
	if errors.Is(err, unix.ERANGE) {
		if n, err = unix.Flistxattr(fd, nil); err == nil {
			buf = make([]byte, n+4096)
			n, err = unix.Flistxattr(fd, buf)
		}
	}
	if err != nil || n == 0 {
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) {
			err = nil
		}
		return nil, err
	}
	var out map[string]string
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if !strings.HasPrefix(name, "user.") {
			continue
		}
		v, err := getXattr(fd, name)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read attribute %s: %w", name, err)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = v
	}
	return out, nil
}

func getXattr(fd int, name string) (string, error) {
	buf := make([]byte, 256)
	n, err := unix.Fgetxattr(fd, name, buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err = unix.Fgetxattr(fd, name, buf)
	}
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// setXattrs makes the user.* attributes of an open file equal to want.
func setXattrs(fd int, want map[string]string) error {
	var buf [1024]byte
	have, err := listXattrs(fd, buf[:])
	if err != nil {
		return err
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			if err := unix.Fremovexattr(fd, k); err != nil {
				return fmt.Errorf("remove attribute %s: %w", k, err)
			}
		}
	}
	for k, v := range want {
		if h, ok := have[k]; ok && h == v {
			continue
		}
		if err := unix.Fsetxattr(fd, k, []byte(v), 0); err != nil {
			return fmt.Errorf("set attribute %s: %w", k, err)
		}
	}
	return nil
}
