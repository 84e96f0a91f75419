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
}

// errCrash is what a test's kill looks like from inside: everything stays as it is.
var errCrash = errors.New("killed here by a test")

// reach is called before each durable step, by its name; a test stops there.
func (a *applier) reach(name string) error {
	if a.o.crash != nil && a.o.crash(name) {
		return errCrash
	}
	return nil
}

// do carries out a plan: stage, write the journal, rename, commit, drop what was
// replaced. Until the journal is written nothing of the tree has changed; from the
// commit on all of it has; a crash in between is undone by Recover.
func (a *applier) do(ctx context.Context, acts []action) (err error) {
	s := &staging{a: a, name: tempName()}
	j := &journal{Dst: a.dst, Staging: s.name}
	// Without changes yet: what a kill leaves of the staging directory is removed.
	if err := j.write(a.o.Journal); err != nil {
		return err
	}
	if err := a.reach("begin"); err != nil {
		return err
	}
	if err := unix.Mkdirat(a.root, s.name, 0o700); err != nil {
		return errors.Join(fmt.Errorf("make a staging directory: %w", err), j.remove(a.o.Journal))
	}
	if s.dir, err = openBeneath(a.root, s.name, unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return errors.Join(err, unix.Unlinkat(a.root, s.name, unix.AT_REMOVEDIR), j.remove(a.o.Journal))
	}
	defer unix.Close(s.dir)
	err = s.carryOut(ctx, j, acts)
	switch {
	case errors.Is(err, errCrash):
		return err
	case err != nil:
		a.rep.Written, a.rep.Deleted = nil, nil
		if j.Done { // the commit failed half-way: it must not stand while this undoes
			j.Done = false
			err = errors.Join(err, j.write(a.o.Journal))
		}
		if uerr := j.undo(a.root, s.dir); uerr != nil {
			return fmt.Errorf("%w; %w", err, uerr) // the journal stays: apply again undoes the rest
		}
	}
	if rerr := a.forget(s, j); rerr != nil {
		err = errors.Join(err, rerr)
	}
	return err
}

// forget removes the staging directory, and then the journal.
func (a *applier) forget(s *staging, j *journal) error {
	if err := a.reach("clean"); err != nil {
		return err
	}
	if err := removeAll(a.root, s.name); err != nil {
		return err
	}
	if err := a.reach("forget"); err != nil {
		return err
	}
	return j.remove(a.o.Journal)
}

func (s *staging) carryOut(ctx context.Context, j *journal, acts []action) error {
	a := s.a
	staged := map[string]string{}
	rd := &reader{keys: a.keys}
	for _, x := range acts {
		if x.want == nil || x.want.Kind == KindDir {
			continue
		}
		if err := a.reach("stage"); err != nil {
			return err
		}
		name := s.next()
		if err := s.stage(ctx, rd, name, x); err != nil {
			return fmt.Errorf("stage %q: %w", x.path, err)
		}
		staged[x.path] = name
	}
	ops, err := s.ops(acts, staged)
	if err != nil {
		return err
	}
	if err := unix.Fsync(s.dir); err != nil {
		return fmt.Errorf("sync the staging directory: %w", err)
	}
	if err := a.reach("journal"); err != nil {
		return err
	}
	j.Ops = ops
	if err := j.write(a.o.Journal); err != nil {
		return err
	}
	for _, o := range ops {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := a.reach(o.Op); err != nil {
			return err
		}
		if err := s.perform(o); err != nil {
			return fmt.Errorf("%s %q: %w", verbs[o.Op], o.Path, err)
		}
	}
	if err := s.sync(ops); err != nil {
		return err
	}
	if err := a.reach("commit"); err != nil {
		return err
	}
	j.Done = true
	return j.write(a.o.Journal)
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
	if err := s.own(fd, x.have); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, x.want.Mode&0o777); err != nil {
		return err
	}
	return unix.Fsync(fd)
}

// own gives a new file the owner of what it replaces, or of the root of the tree:
// a run as root must not leave the user's files to root.
func (s *staging) own(fd int, st stat) error {
	if unix.Geteuid() != 0 {
		return nil
	}
	if st.mode == 0 {
		var err error
		if st, err = statFd(s.a.root); err != nil {
			return err
		}
	}
	return unix.Fchownat(fd, "", int(st.uid), int(st.gid), unix.AT_EMPTY_PATH)
}

// ops turns the plan into single renames: deletions from the deepest up, then what
// is new from the top down, and modes of directories last, because one may take
// the right to write away.
func (s *staging) ops(acts []action, staged map[string]string) ([]*op, error) {
	var out []*op
	for _, x := range slices.Backward(acts) {
		if x.have.mode == 0 || x.want != nil && (x.want.Kind == KindDir) == (x.have.kind() == KindDir) {
			continue // nothing there, or replaced in place below
		}
		o := &op{Op: opMove, Path: rawPath(x.path), Mode: x.have.mode & 0o7777, have: x.have, Optional: x.want == nil}
		if x.have.kind() == KindDir {
			o.Op, o.UID, o.GID = opRmdir, int(x.have.uid), int(x.have.gid)
		} else {
			o.Old = s.next()
		}
		out = append(out, o)
	}
	for _, x := range acts {
		switch {
		case x.want == nil:
		case x.want.Kind == KindDir:
			if x.have.mode == 0 || x.have.kind() != KindDir {
				out = append(out, &op{Op: opMkdir, Path: rawPath(x.path)})
			}
		default:
			o := &op{Op: opPut, Path: rawPath(x.path), Staged: staged[x.path]}
			st, err := statAt(s.dir, o.Staged, 0)
			if err != nil {
				return nil, err
			}
			o.New = seenOf(st)
			if x.have.mode != 0 && x.have.kind() != KindDir {
				o.have, o.Was, o.Old = x.have, seenOf(x.have), s.next()
			}
			out = append(out, o)
		}
	}
	for _, x := range slices.Backward(acts) {
		if x.want == nil || x.want.Kind != KindDir {
			continue
		}
		o := &op{Op: opChmod, Path: rawPath(x.path), Want: x.want.Mode & 0o777}
		if x.have.mode != 0 && x.have.kind() == KindDir {
			o.Mode, o.have, o.Old = x.have.mode&0o7777, x.have, "there"
		}
		out = append(out, o)
	}
	return out, nil
}

// perform does one step. It checks that the path is still what the plan saw:
// somebody may edit the tree at the same time.
func (s *staging) perform(o *op) error {
	if o.Op == opChmod {
		return chmodBeneath(s.a.root, string(o.Path), o.Want)
	}
	dir, name, err := s.at(o)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	switch o.Op {
	case opMove:
		return unix.Renameat(dir, name, s.dir, o.Old)
	case opRmdir:
		err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
		if errors.Is(err, unix.ENOTEMPTY) && o.Optional {
			// It holds what the run never saw (excluded files, or new ones).
			path := string(o.Path)
			s.a.rep.Deleted = slices.DeleteFunc(s.a.rep.Deleted, func(p string) bool { return p == path })
			s.a.rep.Kept = append(s.a.rep.Kept, path)
			return nil
		}
		return err
	case opMkdir:
		if err := unix.Mkdirat(dir, name, 0o700); err != nil {
			return err
		}
		fd, err := openBeneath(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return s.own(fd, stat{})
	}
	if o.Old != "" {
		// The old one is linked away first, so that the name never is missing.
		if err := unix.Linkat(dir, name, s.dir, o.Old, 0); err != nil {
			return err
		}
		if err := s.a.reach("replace"); err != nil {
			return err
		}
	}
	return unix.Renameat(s.dir, o.Staged, dir, name)
}

// at opens the directory of a path and compares the path with what the plan saw.
func (s *staging) at(o *op) (dir int, name string, err error) {
	d, name := split(string(o.Path))
	if dir, err = openBeneath(s.a.root, d, unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return -1, "", err
	}
	now, err := statAt(dir, name, 0)
	if errors.Is(err, unix.ENOENT) {
		now, err = stat{}, nil
	}
	switch have := o.have; {
	case err != nil:
	case have.mode != 0 && have.kind() == KindDir:
		// Its own changes move a directory's size and times.
		if now.ino != have.ino || now.dev != have.dev {
			err = errChangedNow
		}
	default:
		if have.nlink > 1 {
			// Replacing another name of it moved the ctime.
			now.ctime, now.nlink = have.ctime, have.nlink
		}
		if now != have {
			err = errChangedNow
		}
	}
	if err != nil {
		unix.Close(dir)
		return -1, "", err
	}
	return dir, name, nil
}

var errChangedNow = errors.New("it was changed in the tree while apply was at work: all is put back, try again")

// sync makes the renames durable before the journal says that they are done.
func (s *staging) sync(ops []*op) error {
	done := map[string]bool{}
	for _, o := range ops {
		d := parent(string(o.Path))
		if done[d] {
			continue
		}
		done[d] = true
		fd, err := openBeneath(s.a.root, d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // it was deleted or replaced, which its own directory says
		}
		if err != nil {
			return fmt.Errorf("sync %q: %w", d, err)
		}
		err = unix.Fsync(fd)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("sync %q: %w", d, err)
		}
	}
	return nil
}

func chmodBeneath(root int, path string, mode uint32) error {
	fd, err := openBeneath(root, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fchmod(fd, mode)
}

// removeAll removes a staging directory, which is flat. One that is gone is well.
func removeAll(root int, name string) error {
	fd, err := openBeneath(root, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
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
