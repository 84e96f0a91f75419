//go:build !linux

package beneath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

func (d Dir) open(name string) (*os.File, error) {
	root, err := d.root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	return f, escaped(err)
}

func (d Dir) stat(name string) (fs.FileInfo, error) {
	root, err := d.root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Stat(filepath.FromSlash(name))
	return info, escaped(err)
}

func (d Dir) root() (*os.Root, error) {
	dir := filepath.Join(d.Home, d.Sub)
	if info, err := os.Lstat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s: %w", d.Sub, syscall.ENOTDIR)
	}
	return os.OpenRoot(dir)
}

// escaped names the error of os.Root for a name that leaves it, which it does not
// export: the only one that is no system error.
func escaped(err error) error {
	var sys syscall.Errno
	if err == nil || errors.As(err, &sys) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fmt.Errorf("leads outside the workspace: %w", fs.ErrPermission)
}
