package beneath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// tries bounds the repetitions of openat2, which answers EAGAIN when a rename in
// the tree raced with the resolution.
const tries = 32

// open opens a name for reading. O_NONBLOCK: a fifo must not hold us up before
// fstat has said what it is.
func (d Dir) open(name string) (*os.File, error) {
	f, err := d.resolve(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if errors.Is(err, unix.ENXIO) {
		return nil, ErrNotRegular // a socket
	}
	return f, err
}

func (d Dir) stat(name string) (fs.FileInfo, error) {
	f, err := d.resolve(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

func (d Dir) resolve(name string, flags uint64) (*os.File, error) {
	home, err := unix.Open(d.Home, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(home)
	sub, err := openat2(home, d.Sub, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Sub, err)
	}
	defer unix.Close(sub)
	fd, err := openat2(sub, name, flags)
	if err != nil {
		return nil, err
	}
	// A name by which os.File finds the entries of a directory again, wherever the
	// directory is moved meanwhile.
	return os.NewFile(uintptr(fd), fmt.Sprintf("/proc/self/fd/%d", fd)), nil
}

func openat2(dir int, name string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(dir, name, &how)
		switch {
		case (errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)) && try < tries:
			continue
		case errors.Is(err, unix.EXDEV):
			return -1, fmt.Errorf("leads outside the workspace: %w", fs.ErrPermission)
		}
		return fd, err
	}
}
