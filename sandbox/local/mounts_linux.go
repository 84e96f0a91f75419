package local

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// stepError says which step of the set-up failed; stage 1 sends it to the host.
type stepError struct {
	op  string
	err error
}

func (e *stepError) Error() string { return e.op + ": " + e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

func step(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &stepError{op: fmt.Sprintf(format, args...), err: err}
}

// Attributes of what the host shows.
const (
	attrsShown = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	attrsRead  = attrsShown | unix.MOUNT_ATTR_RDONLY
)

// cloneTree makes a detached mount of path with the attributes.
func cloneTree(path string, attrs uint64, flags uint) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)
	if err != nil {
		return -1, step(err, "open_tree %s", path)
	}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|flags, &unix.MountAttr{Attr_set: attrs})
	if err != nil {
		unix.Close(fd)
		return -1, step(err, "mount_setattr %s", path)
	}
	return fd, nil
}

// attach moves a detached mount to target and closes its descriptor.
func attach(fd int, target string) error {
	err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	unix.Close(fd)
	return step(err, "move_mount %s", target)
}

// show binds path of the host at target, which exists.
func show(path, target string, attrs uint64, flags uint) error {
	fd, err := cloneTree(path, attrs, flags)
	if err != nil {
		return err
	}
	return attach(fd, target)
}

func mountTmpfs(target string, flags uintptr, options string) error {
	return step(unix.Mount("tmpfs", target, "tmpfs", flags, options), "mount tmpfs %s", target)
}

func setReadOnly(path string) error {
	err := unix.MountSetattr(unix.AT_FDCWD, path, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	return step(err, "make %s read-only", path)
}

func makeDir(path string, mode os.FileMode) error {
	return step(os.MkdirAll(path, mode), "mkdir %s", path)
}

// makeFile writes a file, or makes an empty one as the target of a bind.
func makeFile(path string, content []byte) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return step(err, "create %s", path)
	}
	defer unix.Close(fd)
	for len(content) > 0 {
		n, err := unix.Write(fd, content)
		if err != nil {
			return step(err, "write %s", path)
		}
		content = content[n:]
	}
	return nil
}
