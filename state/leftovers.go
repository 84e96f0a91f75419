package state

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Leftover is a directory of sandboxes whose run has no owner: their processes
// are gone or orphaned, and whoever made them may clean up.
type Leftover struct {
	Run  string
	Path string // …/runs/<run>/sandboxes
}

// Leftovers lists what runs without a living owner left in their directories. To
// remove it safely, Acquire the run first: that keeps a resume out.
func (s *Store) Leftovers(ctx context.Context) ([]Leftover, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, runsName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, wrap("list leftovers", err)
	}
	var out []Leftover
	for _, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return nil, fmt.Errorf("list leftovers: %w", err)
		}
		if validRunID(e.Name()) != nil || !e.IsDir() {
			continue // not ours
		}
		path := filepath.Join(s.RunDir(e.Name()), "sandboxes")
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		alive, err := s.IsAlive(e.Name())
		if err != nil {
			return nil, err
		}
		if !alive {
			out = append(out, Leftover{Run: e.Name(), Path: path})
		}
	}
	return out, nil
}

// MakeRunDir makes the run's own directory (0700) and returns it.
func (s *Store) MakeRunDir(run string) (string, error) {
	if err := validRunID(run); err != nil {
		return "", fmt.Errorf("make directory of run: %w", err)
	}
	dir := s.RunDir(run)
	return dir, wrap("make directory of run "+run, os.MkdirAll(dir, 0o700))
}

// RemoveRunDir removes a run's directory with its long logs, if no process owns
// the run (*BusyError otherwise). The run's rows stay.
func (s *Store) RemoveRunDir(ctx context.Context, run string) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("remove directory of run %s: %w", run, err)
	}
	if err := validRunID(run); err != nil {
		return fmt.Errorf("remove directory of run: %w", err)
	}
	lock, err := s.lock(run)
	if err != nil {
		return err
	}
	defer lock.Close()
	return wrap("remove directory of run "+run, os.RemoveAll(s.RunDir(run)))
}

// RemoveOrphans removes packs that no row names: what a process left that died
// between writing a pack and storing its rows. It does nothing, and says 0, while
// any other process has this state open for writing: a pack may be about to be
// named. It returns the number of files removed.
func (s *Store) RemoveOrphans(ctx context.Context) (int, error) {
	if s.use == nil {
		return 0, &storageError{op: "remove orphaned packs", kind: ErrReadOnly, cause: errors.New("it was opened for reading only")}
	}
	err := setLock(s.use, unix.F_WRLCK)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return 0, nil
	}
	if err != nil {
		return 0, wrap("remove orphaned packs", err)
	}
	n, err := s.removeOrphans(ctx)
	return n, wrap("remove orphaned packs", errors.Join(err, setLock(s.use, unix.F_RDLCK)))
}

// removeOrphans looks at the files first, then at what is being written, then at
// the rows: a pack of this process that is in none of the latter two had neither
// been begun nor stored in between.
func (s *Store) removeOrphans(ctx context.Context) (int, error) {
	entries, err := os.ReadDir(s.packsDir())
	if err != nil {
		return 0, err
	}
	keep := s.open.all()
	s.mu.Lock()
	err = s.w.each("SELECT name FROM packs", func(row []driver.Value) error {
		var r scan
		keep[r.text(row[0])] = true
		return r.err
	})
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	removed := 0
	for _, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return removed, err
		}
		if !strings.HasSuffix(e.Name(), ".pack") || keep[e.Name()] {
			continue
		}
		if err := os.Remove(filepath.Join(s.packsDir(), e.Name())); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}
