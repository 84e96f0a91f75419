// Package scratch empties a scratch folder on the host that commands have written to.
// Nothing in it is trusted: links are removed, never followed.
package scratch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Empty removes everything in dir and keeps dir. No process may be using it.
func Empty(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("empty %s: %w", dir, err)
	}
	defer root.Close()
	if err := root.Chmod(".", 0o700); err != nil {
		return fmt.Errorf("empty %s: %w", dir, err)
	}
	names, err := list(root)
	if err != nil {
		return fmt.Errorf("empty %s: %w", dir, err)
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, remove(root, name))
	}
	return errors.Join(errs...)
}

func list(root *os.Root) ([]string, error) {
	d, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// remove tries at once, and opens what its owner may not enter only when that fails.
func remove(root *os.Root, name string) error {
	if root.RemoveAll(name) == nil {
		return nil
	}
	open(root, name)
	return root.RemoveAll(name)
}

// open makes every folder below name one that its owner may enter; what cannot be
// opened cannot be removed either, and says so there.
func open(root *os.Root, name string) {
	info, err := root.Lstat(name)
	if err != nil || !info.IsDir() {
		return
	}
	_ = root.Chmod(name, 0o700)
	d, err := root.Open(name)
	if err != nil {
		return
	}
	entries, err := d.ReadDir(-1)
	d.Close()
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.Type()&fs.ModeDir != 0 {
			open(root, name+"/"+e.Name())
		}
	}
}
