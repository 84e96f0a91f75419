package checkpoint

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// source is a Tracker over a tree that must not be changed.
func source(src string, o ImportOptions) (*Tracker, error) {
	out, err := matcher(o.Exclude)
	if err != nil {
		return nil, err
	}
	t := NewTracker(src, Options{Workers: o.Workers, Exclude: out})
	t.readOnly = true
	return t, nil
}

// SourceManifest is the manifest that Import would bring: for the frozen record of
// a run, and to see later whether the source is still the same. cache names a stat
// cache (see LoadCache) that saves reading what did not change, "" for none.
func SourceManifest(ctx context.Context, src string, o ImportOptions, cache string) (*Manifest, error) {
	t, err := source(src, o)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", src, err)
	}
	if cache != "" {
		// A damaged cache is worth a full read and nothing more.
		_ = t.LoadCache(cache)
	}
	m, err := t.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", src, err)
	}
	if cache != "" {
		if err := t.SaveCache(cache); err != nil {
			return nil, err
		}
	}
	return cleaned(src, m)
}

// list scans without storing. Devices are listed with kind 0.
func (t *Tracker) list(ctx context.Context) (*Manifest, error) {
	k, err := t.enter()
	if err != nil {
		return nil, err
	}
	_, err = t.rescan(ctx, k, scanOptions{devices: true})
	return t.last, errors.Join(err, k.leave())
}

// copies reports whether Import copies an entry of this kind.
func copies(k Kind) bool { return k == KindFile || k == KindDir || k == KindSymlink }

// cleaned is m as Import brings it: without special files, and with git
// configurations that hold no credentials.
func cleaned(src string, m *Manifest) (*Manifest, error) {
	root, err := openRoot(src)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	out := &Manifest{Entries: make([]Entry, 0, len(m.Entries))}
	for _, e := range m.Entries {
		if !copies(e.Kind) {
			continue
		}
		if e.Kind == KindSymlink || isGitConfig(e.HardlinkTo) {
			e.HardlinkTo = ""
		}
		if e.Kind == KindFile && isGitConfig(e.Path) {
			b, err := readSmall(root, e.Path)
			if err != nil {
				return nil, err
			}
			e.Hash, e.Size, e.HardlinkTo = sha256.Sum256(b), int64(len(b)), ""
		}
		out.Entries = append(out.Entries, e)
	}
	return out, nil
}

// readSmall reads a git configuration and cleans it.
func readSmall(root int, path string) ([]byte, error) {
	k := &keys{root: root, never: true}
	fd, _, err := k.openFile(path)
	if err != nil {
		return nil, pathError("open", path, err)
	}
	defer unix.Close(fd)
	if st, err := statFd(fd); err != nil || st.kind() != KindFile {
		return nil, errors.Join(fmt.Errorf("read %q: %w", path, errChanged), err)
	}
	b, err := io.ReadAll(io.LimitReader(fdReader{context.Background(), fd}, smallFile+1))
	if err == nil && len(b) > smallFile {
		err = fmt.Errorf("a git configuration of more than %d bytes", smallFile)
	}
	if err != nil {
		return nil, pathError("read", path, err)
	}
	return cleanGitConfig(b), nil
}
