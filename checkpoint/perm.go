package checkpoint

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A step may take its own rights away (chmod 000). An ordinary user then opens the
// files of a tree by giving the owner's bits back for a moment. keys remembers the
// directories, which must stay open until all below them is done; files are put
// back at once.
type keys struct {
	root     int
	override bool // CAP_DAC_OVERRIDE: mode bits do not stop this process
	never    bool // the tree is not ours to change (the user's source)
	// graft is a directory of the tree, "" for none, which is another mount: graftRoot.
	graft     string
	graftRoot int

	mu   sync.Mutex
	dirs []lockedDir // in the order of unlocking: parents first
}

type lockedDir struct {
	path string
	mode uint32
}

// canOverride reports whether this process reads and searches whatever the mode.
func canOverride() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_DAC_OVERRIDE) != 0
}

// beneath opens a path of the tree, see openBeneath.
func (k *keys) beneath(path string, flags int) (int, error) {
	if k.graft != "" {
		if path == k.graft {
			return openBeneath(k.graftRoot, "", flags, 0)
		}
		if rest, ok := strings.CutPrefix(path, k.graft+"/"); ok {
			return openBeneath(k.graftRoot, rest, flags, 0)
		}
	}
	return openBeneath(k.root, path, flags, 0)
}

// enter opens the root of the tree.
func (t *Tracker) enter() (*keys, error) {
	k := &keys{override: t.override, never: t.readOnly}
	var err error
	k.root, err = openRoot(t.root)
	if err == nil && (k.override || k.never) {
		return k, nil
	}
	if errors.Is(err, unix.EACCES) {
		return k, k.unlockRoot(t.root)
	}
	if err != nil {
		return nil, err
	}
	if st, err := statFd(k.root); err == nil && st.mode&0o700 != 0o700 {
		unix.Close(k.root)
		return k, k.unlockRoot(t.root)
	}
	return k, nil
}

// unlockRoot opens a root that its owner may not read or search.
func (k *keys) unlockRoot(path string) error {
	look, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open directory %s: %w", path, err)
	}
	defer unix.Close(look)
	st, err := statFd(look)
	if err != nil {
		return fmt.Errorf("open directory %s: %w", path, err)
	}
	mode := st.mode & 0o7777
	if err := chmodFd(look, mode|0o700); err != nil {
		return fmt.Errorf("open directory %s: give the owner its rights for a moment: %w", path, err)
	}
	if k.root, err = openRoot(path); err != nil {
		return errors.Join(err, chmodFd(look, mode))
	}
	k.dirs = append(k.dirs, lockedDir{"", mode})
	return nil
}

// leave puts modes back and closes the root.
func (k *keys) leave() error {
	err := k.lock()
	unix.Close(k.root)
	if k.graft != "" {
		unix.Close(k.graftRoot)
	}
	return err
}

// openDir opens a directory for reading and, where bits says so (0700), writing
// in it. It gives missing owner bits for the time of the operation.
func (k *keys) openDir(path string, bits uint32) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	if k.override || k.never {
		return k.beneath(path, flags)
	}
	fd, err := k.beneath(path, flags)
	if err == nil {
		st, serr := statFd(fd)
		if serr != nil || st.mode&bits == bits || path == "" {
			return fd, serr
		}
		// It may be read but not searched or written.
		unix.Close(fd)
	} else if !errors.Is(err, unix.EACCES) {
		return -1, err
	}
	if uerr := k.unlockDir(path, bits); uerr != nil {
		return -1, errors.Join(err, uerr)
	}
	return k.beneath(path, flags)
}

// unlockDir gives the owner of a directory rights until lock.
func (k *keys) unlockDir(path string, bits uint32) error {
	fd, err := k.beneath(path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	st, err := statFd(fd)
	if err != nil {
		return err
	}
	mode := st.mode & 0o7777
	k.mu.Lock()
	k.dirs = append(k.dirs, lockedDir{path, mode})
	k.mu.Unlock()
	if err := chmodFd(fd, mode|bits); err != nil {
		return fmt.Errorf("give the owner its rights for a moment: %w", err)
	}
	return nil
}

// openFile opens a regular file for reading; done puts its mode back. It is never
// a fifo that blocks or a device that acts: O_PATH looks first where the mode
// must be changed, and the caller checks the opened descriptor (invariant 1).
func (k *keys) openFile(path string) (fd int, done func() error, err error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY
	done = func() error { return nil }
	fd, err = k.beneath(path, flags)
	if !errors.Is(err, unix.EACCES) || k.never {
		return fd, done, err
	}
	look, perr := k.beneath(path, unix.O_PATH)
	if perr != nil {
		return -1, done, perr
	}
	st, perr := statFd(look)
	if perr != nil || st.kind() != KindFile {
		unix.Close(look)
		return -1, done, errors.Join(err, perr)
	}
	mode := st.mode & 0o7777
	done = func() error {
		defer unix.Close(look)
		if err := chmodFd(look, mode); err != nil {
			return fmt.Errorf("put the mode of %s back to %#o: %w", path, mode, err)
		}
		return nil
	}
	if perr := chmodFd(look, mode|0o400); perr != nil {
		unix.Close(look)
		return -1, func() error { return nil }, fmt.Errorf("%w; giving the owner its rights for a moment: %w", err, perr)
	}
	if fd, err = k.beneath(path, flags); err != nil {
		return -1, func() error { return nil }, errors.Join(err, done())
	}
	return fd, done, nil
}

// lock puts the modes of directories back, children before their parents.
func (k *keys) lock() error {
	var errs []error
	for i := len(k.dirs) - 1; i >= 0; i-- {
		d := k.dirs[i]
		if d.path == "" {
			if err := unix.Fchmod(k.root, d.mode); err != nil {
				errs = append(errs, fmt.Errorf("put the mode of the root back to %#o: %w", d.mode, err))
			}
			continue
		}
		fd, err := k.beneath(d.path, unix.O_PATH|unix.O_DIRECTORY)
		if err == nil {
			err = chmodFd(fd, d.mode)
			unix.Close(fd)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			errs = append(errs, fmt.Errorf("put the mode of %s back to %#o: %w", d.path, d.mode, err))
		}
	}
	k.dirs = nil
	return errors.Join(errs...)
}
