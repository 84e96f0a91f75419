package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The single changes of an apply, each of which a crash leaves done or not done.
const (
	opMove  = "move"  // the name goes into the staging directory
	opRmdir = "rmdir" //
	opMkdir = "mkdir" //
	opPut   = "put"   // the old one is linked away, the new one renamed over it
	opChmod = "chmod" // of a directory
)

var verbs = map[string]string{opMove: "delete", opRmdir: "delete", opMkdir: "make", opPut: "write", opChmod: "set the mode of"}

// rawPath is a path that JSON keeps byte by byte.
type rawPath []byte

// op is one change with what is needed to take it back.
type op struct {
	Op     string  `json:"op"`
	Path   rawPath `json:"path"`
	Staged string  `json:"staged,omitempty"` // the new one's name in the staging directory
	Old    string  `json:"old,omitempty"`    // the old one's, "" when there was nothing
	New    *seen   `json:"new,omitempty"`    // the new one
	Was    *seen   `json:"was,omitempty"`    // the old one
	Mode   uint32  `json:"mode,omitempty"`   // of the old directory
	Want   uint32  `json:"want,omitempty"`   // of the new one
	UID    int     `json:"uid,omitempty"`    // of the old directory
	GID    int     `json:"gid,omitempty"`

	Optional bool `json:"-"` // a directory that is not empty may stay
	have     stat // what the plan saw
}

// seen tells one file from another and from a later state of itself: an inode's
// number alone is given again to the next file as soon as it is free.
type seen struct {
	Ino   uint64 `json:"ino"`
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"`
}

func seenOf(s stat) *seen { return &seen{s.ino, s.size, s.mtime} }

func (s *seen) is(now stat) bool { return s != nil && *s == *seenOf(now) }

// journal says what an apply is about to do to a tree, so that a crash in the
// middle can be undone. It lies in a directory of the caller's, never in the tree:
// a tree is somebody else's word, and what a journal says is carried out.
type journal struct {
	Dst     string `json:"dst"`
	Staging string `json:"staging"` // directory in the tree; its random name ties the two
	Ops     []*op  `json:"ops"`
	Done    bool   `json:"done"`
}

// file of a journal: one a tree, by the tree's path.
func (j *journal) file(dir string) string {
	sum := sha256.Sum256([]byte(j.Dst))
	return filepath.Join(dir, "apply-"+hex.EncodeToString(sum[:8])+".json")
}

// write makes the journal durable, all of it or nothing.
func (j *journal) write(dir string) error {
	if dir == "" {
		return nil
	}
	b, err := json.Marshal(j)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = replaceFile(j.file(dir), b)
	}
	if err != nil {
		return fmt.Errorf("write the journal of the apply: %w", err)
	}
	return nil
}

// replaceFile writes a file beside path and renames it over, synced.
func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (j *journal) remove(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.Remove(j.file(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the journal of the apply: %w", err)
	}
	return nil
}

func readJournal(dir, dst string) (*journal, error) {
	j := &journal{Dst: dst}
	b, err := os.ReadFile(j.file(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(b, j)
	}
	if err == nil && (j.Dst != dst || !strings.HasPrefix(j.Staging, tempPrefix) || strings.Contains(j.Staging, "/")) {
		err = errors.New("it belongs to another tree")
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal of an interrupted apply, %s: %w", j.file(dir), err)
	}
	return j, nil
}

// Recovered says what Apply did about an earlier one that a crash had cut.
type Recovered string

const (
	RecoveredNothing  Recovered = ""
	RecoveredUndone   Recovered = "undone"   // nothing of it is in the tree any more
	RecoveredFinished Recovered = "finished" // all of it is
)

// recover ends an apply that a crash cut: undone when it had not got to its end.
func (a *applier) recover() (Recovered, error) {
	if a.o.Journal == "" {
		return RecoveredNothing, nil
	}
	j, err := readJournal(a.o.Journal, a.dst)
	if err != nil || j == nil {
		return RecoveredNothing, err
	}
	if a.o.DryRun {
		return RecoveredNothing, errors.New("an earlier apply was interrupted in the middle: apply once more, which undoes it first")
	}
	dir, err := openBeneath(a.root, j.Staging, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		return RecoveredNothing, j.remove(a.o.Journal) // it had got to removing the journal, or it is another tree now
	}
	if err != nil {
		return RecoveredNothing, err
	}
	defer unix.Close(dir)
	what := RecoveredFinished
	if !j.Done {
		what = RecoveredUndone
		if err := j.undo(a.root, dir); err != nil {
			return RecoveredNothing, err
		}
	}
	s := &staging{a: a, name: j.Staging}
	return what, a.forget(s, j)
}

// undo takes back what was done, from the end. Each step finds out by itself
// whether it was done, so that a crash in the undoing is undone again. What
// somebody changed since is left alone and named; its old state stays in the
// staging directory.
func (j *journal) undo(root, dir int) error {
	var stuck []string
	for _, o := range slices.Backward(j.Ops) {
		err := o.undo(root, dir)
		switch {
		case errors.Is(err, errChangedSince):
			stuck = append(stuck, fmt.Sprintf("%q was changed since; what it was is %s/%s", o.Path, j.Staging, o.Old))
		case err != nil:
			return fmt.Errorf("put %q back: %w", o.Path, err)
		}
	}
	if len(stuck) > 0 {
		return fmt.Errorf("undo an interrupted apply: %s: move it where it belongs or delete it, then apply again", strings.Join(stuck, "; "))
	}
	return nil
}

var errChangedSince = errors.New("it was changed since")

func (o *op) undo(root, staging int) error {
	if o.Op == opChmod {
		if o.Old == "" {
			return nil // it is removed as a whole
		}
		return ignore(chmodBeneath(root, string(o.Path), o.Mode), unix.ENOENT, unix.ENOTDIR, unix.ELOOP)
	}
	d, name := split(string(o.Path))
	dir, err := openBeneath(root, d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if o.Op != opMove && ignore(err, unix.ENOENT, unix.ENOTDIR, unix.ELOOP) == nil && err != nil {
		return nil // its directory was never made
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	now, err := statAt(dir, name, 0)
	absent := errors.Is(err, unix.ENOENT)
	if err != nil && !absent {
		return err
	}
	switch o.Op {
	case opRmdir:
		if !absent {
			return nil
		}
		if err := unix.Mkdirat(dir, name, 0o700); err != nil {
			return err
		}
		if unix.Geteuid() == 0 {
			if err := unix.Fchownat(dir, name, o.UID, o.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return err
			}
		}
		return chmodBeneath(dir, name, o.Mode)
	case opMkdir:
		// Not empty: somebody put something of their own into it.
		return ignore(unix.Unlinkat(dir, name, unix.AT_REMOVEDIR), unix.ENOENT, unix.ENOTEMPTY, unix.ENOTDIR)
	case opMove:
		return o.moveBack(dir, name, staging, absent)
	}
	return o.takeBack(dir, name, staging, now, absent)
}

func (o *op) moveBack(dir int, name string, staging int, absent bool) error {
	if _, err := statAt(staging, o.Old, 0); errors.Is(err, unix.ENOENT) {
		return nil // it had not been moved
	}
	if !absent {
		return errChangedSince
	}
	return unix.Renameat(staging, o.Old, dir, name)
}

// takeBack undoes a put.
func (o *op) takeBack(dir int, name string, staging int, now stat, absent bool) error {
	if o.Old == "" {
		if absent || !o.New.is(now) {
			return nil
		}
		return unix.Unlinkat(dir, name, 0)
	}
	if _, err := statAt(staging, o.Old, 0); errors.Is(err, unix.ENOENT) {
		return nil // it had not begun
	}
	switch {
	case absent, o.New.is(now):
		return unix.Renameat(staging, o.Old, dir, name)
	case o.Was.is(now):
		return unix.Unlinkat(staging, o.Old, 0)
	}
	return errChangedSince
}

func ignore(err error, these ...error) error {
	for _, e := range these {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}
