package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// staging holds new contents before, and old ones during the renames: a directory
// in dst itself, because only there a rename is sure not to cross file systems.
type staging struct {
	a    *applier
	name string
	dir  int
	n    int
	undo []func() error // newest last
	keep bool           // it holds something of the user's that could not go back
}

// do carries out a plan: stage, then rename, then drop what was replaced.
func (a *applier) do(ctx context.Context, acts []action) (err error) {
	s := &staging{a: a, name: tempName()}
	if err := unix.Mkdirat(a.root, s.name, 0o700); err != nil {
		return fmt.Errorf("make a staging directory: %w", err)
	}
	if s.dir, err = openBeneath(a.root, s.name, unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return errors.Join(err, unix.Unlinkat(a.root, s.name, unix.AT_REMOVEDIR))
	}
	defer func() {
		unix.Close(s.dir)
		if s.keep {
			err = fmt.Errorf("%w; what was replaced is in %s in the tree", err, s.name)
			return
		}
		err = errors.Join(err, removeAll(a.root, s.name))
	}()
	staged := map[string]string{}
	rd := &reader{keys: a.keys}
	for _, x := range acts {
		if x.want == nil || x.want.Kind == KindDir {
			continue
		}
		name := s.next()
		if err := s.stage(ctx, rd, name, x); err != nil {
			return fmt.Errorf("stage %q: %w", x.path, err)
		}
		staged[x.path] = name
	}
	if err := s.swap(ctx, acts, staged); err != nil {
		for _, undo := range slices.Backward(s.undo) {
			if uerr := undo(); uerr != nil {
				s.keep, err = true, errors.Join(err, fmt.Errorf("put back: %w", uerr))
			}
		}
		a.rep.Written, a.rep.Deleted = nil, nil
		return err
	}
	return nil
}

func (s *staging) next() string { s.n++; return strconv.Itoa(s.n) }

// stage writes a new file or link. A file is synced: the user's tree must not hold
// empty files after a power cut.
func (s *staging) stage(ctx context.Context, rd *reader, name string, x action) error {
	if x.want.Kind == KindSymlink {
		return unix.Symlinkat(x.want.Target, s.dir, name)
	}
	fd, err := openBeneath(s.dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := fill(ctx, s.a.st, rd, fd, x.want); err != nil {
		return err
	}
	if err := s.own(fd, x); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, x.want.Mode&0o777); err != nil {
		return err
	}
	return unix.Fsync(fd)
}

// own gives a new file the owner of what it replaces, or of the root of the tree:
// a run as root must not leave the user's files to root.
func (s *staging) own(fd int, x action) error {
	if unix.Geteuid() != 0 {
		return nil
	}
	st := x.have
	if st.mode == 0 {
		var err error
		if st, err = statFd(s.a.root); err != nil {
			return err
		}
	}
	return unix.Fchownat(fd, "", int(st.uid), int(st.gid), unix.AT_EMPTY_PATH)
}

// swap makes all changes by renames: deletions from the deepest up, then what is
// new from the top down.
func (s *staging) swap(ctx context.Context, acts []action, staged map[string]string) error {
	for _, x := range slices.Backward(acts) {
		if x.have.mode == 0 || x.want != nil && (x.want.Kind == KindDir) == (x.have.kind() == KindDir) {
			continue // nothing there, or replaced in place below
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := s.remove(x); err != nil {
			return fmt.Errorf("delete %q: %w", x.path, err)
		}
	}
	for _, x := range acts {
		if x.want == nil {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := s.write(x, staged[x.path]); err != nil {
			return fmt.Errorf("write %q: %w", x.path, err)
		}
	}
	// Modes of directories last: one may take the right to write away.
	for _, x := range slices.Backward(acts) {
		if x.want == nil || x.want.Kind != KindDir {
			continue
		}
		if err := s.chmod(x, x.want.Mode&0o777); err != nil {
			return fmt.Errorf("set the mode of %q: %w", x.path, err)
		}
	}
	return nil
}

// at opens the directory of a path and checks that the path is still what the plan
// saw: somebody may edit the tree at the same time.
func (s *staging) at(x action) (dir int, name string, err error) {
	d, name := split(x.path)
	if dir, err = openBeneath(s.a.root, d, unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return -1, "", err
	}
	now, err := statAt(dir, name, 0)
	if errors.Is(err, unix.ENOENT) {
		now, err = stat{}, nil
	}
	if err == nil && x.have.mode != 0 && x.have.kind() == KindDir {
		// Its own changes move a directory's size and times.
		if now.ino != x.have.ino || now.dev != x.have.dev {
			err = errChangedNow
		}
	} else if err == nil && x.have.nlink > 1 {
		// Replacing another name of it moved the ctime.
		now.ctime, now.nlink = x.have.ctime, x.have.nlink
	}
	if err == nil && x.have.kind() != KindDir && now != x.have {
		err = errChangedNow
	}
	if err != nil {
		unix.Close(dir)
		return -1, "", err
	}
	return dir, name, nil
}

var errChangedNow = errors.New("it was changed in the tree while apply was at work: all is put back, try again")

func (s *staging) remove(x action) error {
	dir, name, err := s.at(x)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if x.have.kind() != KindDir {
		return s.moveAway(dir, name, x.path)
	}
	err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOTEMPTY) && x.want == nil {
		// It holds what the run never saw (excluded files, or new ones).
		s.a.rep.Deleted = slices.DeleteFunc(s.a.rep.Deleted, func(p string) bool { return p == x.path })
		s.a.rep.Kept = append(s.a.rep.Kept, x.path)
		return nil
	}
	if err != nil {
		return err
	}
	s.undo = append(s.undo, func() error { return s.mkdir(x.path, x.have.mode&0o7777, x) })
	return nil
}

// moveAway renames a name into the staging directory, where it can come back from.
func (s *staging) moveAway(dir int, name, path string) error {
	to := s.next()
	if err := unix.Renameat(dir, name, s.dir, to); err != nil {
		return err
	}
	s.undo = append(s.undo, func() error { return s.put(to, path) })
	return nil
}

// put renames something out of the staging directory.
func (s *staging) put(from, path string) error {
	d, name := split(path)
	dir, err := openBeneath(s.a.root, d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Renameat(s.dir, from, dir, name)
}

func (s *staging) mkdir(path string, mode uint32, x action) error {
	d, name := split(path)
	dir, err := openBeneath(s.a.root, d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Mkdirat(dir, name, 0o700); err != nil {
		return err
	}
	fd, err := openBeneath(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return errors.Join(s.own(fd, x), unix.Fchmod(fd, mode))
}

// write puts one new state in place.
func (s *staging) write(x action, staged string) error {
	dirNow := x.have.mode != 0 && x.have.kind() == KindDir
	if x.want.Kind == KindDir {
		if dirNow {
			return nil
		}
		x.have = stat{}
		if err := s.mkdir(x.path, 0o700, x); err != nil {
			return err
		}
		s.undo = append(s.undo, func() error { return unlinkBeneath(s.a.root, x.path, unix.AT_REMOVEDIR) })
		return nil
	}
	if dirNow { // it was removed above
		x.have = stat{}
	}
	dir, name, err := s.at(x)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if x.have.mode != 0 {
		// The old one is linked away first, so that the name never is missing.
		old := s.next()
		if err := unix.Linkat(dir, name, s.dir, old, 0); err != nil {
			return err
		}
		s.undo = append(s.undo, func() error { return s.put(old, x.path) })
	} else {
		s.undo = append(s.undo, func() error { return unlinkBeneath(s.a.root, x.path, 0) })
	}
	if err := unix.Renameat(s.dir, staged, dir, name); err != nil {
		s.undo = s.undo[:len(s.undo)-1]
		return err
	}
	return nil
}

func (s *staging) chmod(x action, mode uint32) error {
	fd, err := openBeneath(s.a.root, x.path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if x.have.mode == 0 || x.have.kind() != KindDir {
		return unix.Fchmod(fd, mode) // made just now: nothing to undo
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	s.undo = append(s.undo, func() error {
		fd, err := openBeneath(s.a.root, x.path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Fchmod(fd, x.have.mode&0o7777)
	})
	return nil
}

func unlinkBeneath(root int, path string, flags int) error {
	d, name := split(path)
	dir, err := openBeneath(root, d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Unlinkat(dir, name, flags)
}

// removeAll removes the staging directory, which is flat.
func removeAll(root int, name string) error {
	fd, err := openBeneath(root, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var names []string
	for buf := make([]byte, 32<<10); ; {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			return fmt.Errorf("remove the staging directory %s: %w", name, err)
		}
		if n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	for _, c := range names {
		if err := unix.Unlinkat(fd, c, 0); err != nil {
			return fmt.Errorf("remove the staging directory %s: %w", name, err)
		}
	}
	return unix.Unlinkat(root, name, unix.AT_REMOVEDIR)
}
