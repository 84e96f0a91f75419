package steps

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/workflow"
)

// maxRead bounds files.read (design: language, Expressions).
const maxRead = 1 << 20

// Files is the workspace for conditions: the living sandbox's, else what the
// next sandbox would be filled with.
func (h *Host) Files() workflow.Files {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.cfg.Workflow.Workspace
	switch {
	case h.own != nil && !h.stale:
		return h.own.Files()
	case w.InPlace:
		return sourceFiles{dir: h.cfg.Source}
	case h.last != "" || h.base != "":
		id := h.last
		if id == "" {
			id = h.base
		}
		return &storedFiles{store: h.cfg.Checkpoints, id: id}
	default:
		return sourceFiles{dir: h.cfg.Source, exclude: w.Exclude, at: w.Path}
	}
}

// storedFiles is the workspace as a checkpoint holds it.
type storedFiles struct {
	store Checkpoints
	id    string
}

func (s *storedFiles) manifest() (*checkpoint.Manifest, error) {
	m, err := s.store.Manifest(context.Background(), s.id)
	if err != nil {
		return nil, fmt.Errorf("read checkpoint %s: %w", s.id, err)
	}
	return m, nil
}

func (s *storedFiles) Glob(pattern string) ([]string, error) {
	m, err := s.manifest()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range m.Entries {
		name, ok := strings.CutPrefix(e.Path, workspaceInTar+"/")
		if !ok || e.Kind != checkpoint.KindFile {
			continue
		}
		if match, err := doublestar.Match(pattern, name); err != nil {
			return nil, fmt.Errorf("match %q: %w", pattern, err)
		} else if match {
			out = append(out, name)
		}
	}
	return out, nil
}

func (s *storedFiles) ReadFile(name string) ([]byte, error) {
	m, err := s.manifest()
	if err != nil {
		return nil, err
	}
	want := workspaceInTar + "/" + name
	i := sort.Search(len(m.Entries), func(i int) bool { return m.Entries[i].Path >= want })
	if i == len(m.Entries) || m.Entries[i].Path != want || m.Entries[i].Kind != checkpoint.KindFile {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	r, err := s.store.Open(context.Background(), m.Entries[i].Hash)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readBounded(r, name)
}

func readBounded(r io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxRead+1))
	if err == nil && len(b) > maxRead {
		err = &fs.PathError{Op: "read", Path: name, Err: errors.New("larger than 1 MiB")}
	}
	return b, err
}

// sourceFiles is workspace.from before it was brought in.
type sourceFiles struct {
	dir     string
	exclude []string
	at      string // the folder in the workspace that it will be in, "" for itself
}

func (s sourceFiles) Glob(pattern string) ([]string, error) {
	if s.dir == "" {
		return nil, nil
	}
	if s.at != "" {
		return s.globBelow(pattern)
	}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, fmt.Errorf("open workspace.from: %w", err)
	}
	defer root.Close()
	left, err := checkpoint.Matcher(s.exclude)
	if err != nil {
		return nil, err
	}
	names, err := doublestar.Glob(root.FS(), pattern, doublestar.WithFilesOnly(), doublestar.WithNoFollow())
	if err != nil {
		return nil, fmt.Errorf("match %q: %w", pattern, err)
	}
	out := names[:0]
	for _, n := range names {
		if !left(n, false) {
			out = append(out, n)
		}
	}
	sort.Strings(out)
	return out, nil
}

// globBelow matches the names as they will be.
func (s sourceFiles) globBelow(pattern string) ([]string, error) {
	all, err := sourceFiles{dir: s.dir, exclude: s.exclude}.Glob("**")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range all {
		name = s.at + "/" + name
		if match, err := doublestar.Match(pattern, name); err != nil {
			return nil, fmt.Errorf("match %q: %w", pattern, err)
		} else if match {
			out = append(out, name)
		}
	}
	return out, nil
}

func (s sourceFiles) ReadFile(name string) ([]byte, error) {
	if s.at != "" {
		below, ok := strings.CutPrefix(name, s.at+"/")
		if !ok {
			return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
		}
		return sourceFiles{dir: s.dir, exclude: s.exclude}.ReadFile(below)
	}
	if s.dir == "" {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	left, err := checkpoint.Matcher(s.exclude)
	if err != nil {
		return nil, err
	}
	if left(name, false) {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, fmt.Errorf("open workspace.from: %w", err)
	}
	defer root.Close()
	st, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f, name)
}
