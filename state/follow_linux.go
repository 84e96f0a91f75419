package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Follower sleeps until something of a run may have changed: the kernel says when
// a file is written (inotify). A commit writes the database's log, output the
// attempt's log; the end of the owner, whatever it died of, closes its lock file.
type Follower struct {
	f    *os.File
	dirs []string
	seen map[int]bool // watches
}

// Follow begins to watch a run. Close it.
func (s *Store) Follow(run string) (*Follower, error) {
	if err := validRunID(run); err != nil {
		return nil, err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, wrap("follow run "+run, err)
	}
	return &Follower{
		f: os.NewFile(uintptr(fd), "inotify"), seen: map[int]bool{},
		dirs: []string{s.dir, filepath.Join(s.dir, locksName), filepath.Join(s.dir, runsName), s.RunDir(run), s.logsDir(run)},
	}, nil
}

// Wait returns when something may have changed since it returned last; the first
// time it returns at once. It says nothing of other things that it misses: read
// again what you follow.
func (w *Follower) Wait(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	// A directory that is new is watched from now on, and what was written before
	// has to be read: no waiting this time.
	fresh := false
	for _, dir := range w.dirs {
		n, err := unix.InotifyAddWatch(int(w.f.Fd()), dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_CLOSE_WRITE|unix.IN_ONLYDIR|unix.IN_DONT_FOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return wrap("watch "+dir, err)
		}
		fresh = fresh || !w.seen[n]
		w.seen[n] = true
	}
	if fresh {
		return nil
	}
	// Fd() made it blocking; the deadline below needs it pollable.
	if err := unix.SetNonblock(int(w.f.Fd()), true); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = w.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := w.f.Read(make([]byte, 64<<10)) // what changed is of no interest
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return wrap("watch", err)
}

// Close ends the watch.
func (w *Follower) Close() error { return w.f.Close() }
