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
	dir := filepath.Join(d.Home, d.Sub)
	if info, err := os.Lstat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s: %w", d.Sub, syscall.ENOTDIR)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	var sys syscall.Errno
	if err != nil && !errors.As(err, &sys) && !errors.Is(err, fs.ErrNotExist) {
		// os.Root has no exported error for a name that escapes.
		return nil, fmt.Errorf("leads outside the workspace: %w", fs.ErrPermission)
	}
	return f, err
}
