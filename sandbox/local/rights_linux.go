package local

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
)

// How Rights.ReadOnly is enforced: the command gets a mount namespace of its own, in
// which the home is mounted read-only, and its writable paths are mounted over it.
// Landlock alone would not do: it knows no right for chmod, chown, times and
// extended attributes, and before Linux 5.19 none for renames.

// restrictPaths gives the calling thread its own view of the home at root (its path
// inside). The thread has the user's file system ids.
func restrictPaths(home string, writable []string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return step(err, "make a mount namespace for the command")
	}
	trees, err := openWritable(home, writable)
	defer trees.close()
	if err != nil {
		return err
	}
	copies := make([]int, 0, len(trees))
	defer func() {
		for _, fd := range copies {
			unix.Close(fd)
		}
	}()
	for i, tree := range trees {
		fd, err := unix.OpenTree(tree, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
		if err != nil {
			return step(err, "open_tree %s", writable[i])
		}
		copies = append(copies, fd)
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, home, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return step(err, "make %s read-only", home)
	}
	for i, fd := range copies {
		if err := unix.MoveMount(fd, "", trees[i], "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
			return step(err, "mount %s", writable[i])
		}
	}
	return nil
}

// descriptors are closed together.
type descriptors []int

func (d descriptors) close() {
	for _, fd := range d {
		unix.Close(fd)
	}
}

// writableError says that a writable path cannot be had; the request is wrong.
type writableError struct {
	name string
	err  error
}

func (e *writableError) Error() string {
	switch {
	case errors.Is(e.err, unix.ENOENT):
		return fmt.Sprintf("writable path %s does not exist; name its folder, with a slash at the end (it is then made when it is missing)", e.name)
	case errors.Is(e.err, unix.ELOOP), errors.Is(e.err, unix.ENOTDIR):
		return fmt.Sprintf("writable path %s is no folder or leads through a symlink", e.name)
	}
	return fmt.Sprintf("writable path %s: %v", e.name, e.err)
}

func (e *writableError) Unwrap() error { return e.err }

// openWritable opens what the names mean, from a home whose content is hostile:
// no link is followed.
func openWritable(home string, names []string) (descriptors, error) {
	var fds descriptors
	for _, name := range names {
		rest, inHome := strings.CutPrefix(name, "~/")
		rest, folder := strings.CutSuffix(rest, "/")
		if !inHome {
			rest = path.Base(sandbox.WorkspaceDir) + "/" + rest
		}
		fd, err := openBelow(home, rest, folder)
		if err != nil {
			return fds, &writableError{name, err}
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// openBelow opens dir/rest as an O_PATH descriptor; a folder's missing parts are made.
func openBelow(dir, rest string, folder bool) (int, error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	base, err := unix.Open(dir, flags|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(base)
	how := unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	if folder {
		how.Flags |= unix.O_DIRECTORY
	}
	fd, err := openat2(base, rest, &how)
	if err == nil || !folder || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	at := base
	for part := range strings.SplitSeq(rest, "/") {
		if err := unix.Mkdirat(at, part, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, err
		}
		next, err := openat2(at, part, &how)
		if at != base {
			unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		at = next
	}
	return at, nil
}

// openat2 tries again what a rename elsewhere in the system made fail for a moment.
// O_PATH with O_NOFOLLOW opens a link itself, which is no place to write: ELOOP.
func openat2(dir int, name string, how *unix.OpenHow) (int, error) {
	for {
		fd, err := unix.Openat2(dir, name, how)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return -1, err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			unix.Close(fd)
			return -1, unix.ELOOP
		}
		return fd, nil
	}
}
