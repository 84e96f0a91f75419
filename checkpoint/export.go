package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// ExportReport is what Export wrote and what it did not.
type ExportReport struct {
	Files   int       `json:"files"` // and links
	Dirs    int       `json:"dirs"`
	Bytes   int64     `json:"bytes"`
	LeftOut []LeftOut `json:"left_out,omitempty"`
}

// Refused lists what leads from base to m and may not come to the user, with the
// reasons, as Apply would leave it out: the same law for a patch and an export.
func Refused(m, base *Manifest, o ApplyOptions) ([]LeftOut, error) {
	if err := errors.Join(m.Validate(), base.Validate()); err != nil {
		return nil, err
	}
	a := &applier{m: m, base: base, o: o}
	var err error
	if a.allow, err = compile(o.AllowExecutable); err != nil {
		return nil, err
	}
	if a.out, err = Matcher(o.Exclude); err != nil {
		return nil, err
	}
	var out []LeftOut
	left := map[string]bool{}
	for _, c := range Diff(base, m) {
		was := base.Lookup(c.Path)
		if same(was, c.Entry) {
			continue
		}
		reason := a.refuse(c.Path, was, c.Entry)
		if reason == "" && left[parent(c.Path)] {
			reason = "its directory is left out"
		}
		if reason != "" {
			left[c.Path] = true
			out = append(out, LeftOut{c.Path, reason})
		}
	}
	return out, nil
}

// Export writes the tree m into the directory dst, which must not be there or be
// empty: it appears whole and verified, or not at all. What Apply would leave out
// is left out, unless all is set; setuid bits, sockets and fifos never come.
// What a killed Export left beside dst is removed by the next one.
func Export(ctx context.Context, m *Manifest, st Store, dst string, all bool) (ExportReport, error) {
	rep, err := export(ctx, m, st, dst, all)
	if err != nil {
		return rep, fmt.Errorf("export to %s: %w", dst, err)
	}
	return rep, nil
}

func export(ctx context.Context, m *Manifest, st Store, dst string, all bool) (rep ExportReport, err error) {
	var left []LeftOut
	if !all {
		if left, err = Refused(m, &Manifest{}, ApplyOptions{}); err != nil {
			return rep, err
		}
	} else if err := m.Validate(); err != nil {
		return rep, err
	}
	out := harmless(m, left)
	rep.LeftOut = left
	if dst, err = filepath.Abs(dst); err != nil {
		return rep, err
	}
	if err := emptyOrAbsent(dst); err != nil {
		return rep, err
	}
	part := filepath.Join(filepath.Dir(dst), ".flow-part-"+filepath.Base(dst))
	lock, err := takePart(part)
	if err != nil {
		return rep, err
	}
	defer lock.Close()
	var ps unix.Stat_t
	if err := unix.Stat(filepath.Dir(dst), &ps); err != nil {
		return rep, err
	}
	owner := &Owner{UID: int(ps.Uid), GID: int(ps.Gid)}
	if err = NewTracker(part, Options{Owner: owner}).Restore(ctx, st, out); err == nil {
		err = finishPart(lock, owner)
	}
	if err == nil {
		err = os.Rename(part, dst) // over an empty directory, too
	}
	if err != nil {
		return rep, errors.Join(err, removeTree(part))
	}
	for i := range out.Entries {
		e := &out.Entries[i]
		if e.Kind == KindDir {
			rep.Dirs++
			continue
		}
		rep.Files, rep.Bytes = rep.Files+1, rep.Bytes+e.Size
	}
	return rep, syncDir(filepath.Dir(dst))
}

func emptyOrAbsent(dst string) error {
	names, err := os.ReadDir(dst)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(names) > 0:
		return errors.New("it is there already and not empty: name a new directory")
	}
	return nil
}

// takePart makes the directory that becomes dst, and locks it.
func takePart(part string) (*os.File, error) {
	for range 2 {
		err := os.Mkdir(part, 0o755)
		if err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		f, oerr := os.Open(part)
		if oerr != nil {
			return nil, oerr
		}
		if lerr := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(lerr, unix.EWOULDBLOCK) {
			f.Close()
			return nil, errors.New("another export to it is at work")
		}
		if err == nil {
			return f, nil
		}
		// A killed one's: nobody holds it.
		f.Close()
		if err := removeTree(part); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("make %s: another export to it is at work", part)
}

// removeTree removes a tree of ours; a directory may have lost its rights.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, os.ErrPermission) {
		return err
	}
	if err := NewTracker(dir, Options{}).Restore(context.Background(), &MemStore{}, &Manifest{}); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

func finishPart(dir *os.File, o *Owner) error {
	if unix.Geteuid() == 0 {
		if err := dir.Chown(o.UID, o.GID); err != nil {
			return err
		}
	}
	return unix.Syncfs(int(dir.Fd()))
}

// harmless is m without what is left out, and without what would act by itself on
// a host: setuid bits, sockets, fifos.
func harmless(m *Manifest, left []LeftOut) *Manifest {
	gone := map[string]bool{}
	for _, l := range left {
		gone[l.Path] = true
	}
	out := &Manifest{Entries: make([]Entry, 0, len(m.Entries))}
	first := map[string]string{} // first name of an inode that is left out → first that is not
	for _, e := range m.Entries {
		if gone[e.Path] || !copies(e.Kind) {
			continue
		}
		if e.HardlinkTo != "" && gone[e.HardlinkTo] {
			head := e.HardlinkTo
			e.HardlinkTo = first[head]
			if e.HardlinkTo == "" {
				first[head] = e.Path
			}
		}
		e.Mode &= 0o777
		out.Entries = append(out.Entries, e)
	}
	return &Manifest{Entries: slices.Clip(out.Entries)}
}
