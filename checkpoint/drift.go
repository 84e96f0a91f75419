package checkpoint

import (
	"context"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// SourceNow is the manifest that Import would bring of src now. base is what it
// brought before: a file with the same size and time as there is not read. It
// changes nothing, and stores nothing.
func SourceNow(ctx context.Context, src string, base *Manifest, o ImportOptions) (*Manifest, error) {
	t, err := source(src, o)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", src, err)
	}
	t.noHash = true
	m, err := t.list(ctx)
	if err == nil {
		m, err = cleaned(src, m)
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", src, err)
	}
	root, err := openRoot(src)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	rd := &reader{keys: &keys{root: root, never: true}}
	out := &Manifest{Entries: slices.Clone(m.Entries)}
	for i := range out.Entries {
		e := &out.Entries[i]
		if e.Kind != KindFile || isGitConfig(e.Path) {
			continue // the latter was read already
		}
		if was := base.Lookup(e.Path); was != nil && was.Kind == KindFile && was.Size == e.Size && was.MtimeNS == e.MtimeNS {
			e.Hash, e.Xattrs = was.Hash, was.Xattrs // without being opened
			continue
		}
		st, err := statBeneath(root, e.Path)
		if err != nil {
			return nil, pathError("stat", e.Path, err)
		}
		p := &pend{e: *e, st: st}
		if err := rd.read(ctx, &walk{}, p, false); err != nil {
			return nil, fmt.Errorf("list %s: %w", src, err)
		}
		e.Hash, e.Size, e.Xattrs = p.e.Hash, p.e.Size, p.e.Xattrs
	}
	return out, nil
}

func statBeneath(root int, path string) (stat, error) {
	fd, err := openBeneath(root, path, unix.O_PATH, 0)
	if err != nil {
		return stat{}, err
	}
	defer unix.Close(fd)
	return statFd(fd)
}

// Drifted lists what the source tree has now that the run has neither as it was
// imported nor as its result: what somebody changed by hand meanwhile. Times of
// directories do not count, nor do those of files.
func Drifted(base, result, now *Manifest) []Change {
	return slices.DeleteFunc(Diff(base, now), func(c Change) bool {
		return alike(base.Lookup(c.Path), c.Entry) || alike(result.Lookup(c.Path), c.Entry)
	})
}

// StoreSource brings the contents of changed files of src into the store. The
// caller seals the batch. A file that changed since it was listed is an error.
func StoreSource(ctx context.Context, src string, cs []Change, st Store) (Batch, error) {
	batch, err := st.Begin(ctx)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(src)
	if err != nil {
		batch.Abort()
		return nil, fmt.Errorf("open %s: %w", src, err)
	}
	defer root.Close()
	for _, c := range cs {
		if c.Entry == nil || c.Entry.Kind != KindFile {
			continue
		}
		if err := storeOne(root, c.Entry, batch); err != nil {
			batch.Abort()
			return nil, fmt.Errorf("read %s/%s: %w", src, c.Path, err)
		}
	}
	return batch, nil
}

func storeOne(root *os.Root, e *Entry, batch Batch) error {
	if isGitConfig(e.Path) {
		return fmt.Errorf("it is a git configuration: leave it out, or start a new run")
	}
	f, err := root.OpenFile(e.Path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	h, _, err := batch.PutReader(f)
	if err == nil && h != e.Hash {
		err = errChanged
	}
	return err
}

// WithSubtree is m with the tree at a directory replaced.
func (m *Manifest) WithSubtree(prefix string, sub *Manifest) *Manifest {
	out := &Manifest{}
	for _, e := range m.Entries {
		if len(e.Path) > len(prefix) && e.Path[:len(prefix)+1] == prefix+"/" {
			continue
		}
		out.Entries = append(out.Entries, e)
	}
	for _, e := range sub.Entries {
		e.Path = prefix + "/" + e.Path
		if e.HardlinkTo != "" {
			e.HardlinkTo = prefix + "/" + e.HardlinkTo
		}
		out.Entries = append(out.Entries, e)
	}
	slices.SortFunc(out.Entries, byPath)
	Unlink(out)
	return out
}
