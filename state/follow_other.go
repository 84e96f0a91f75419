//go:build !linux

package state

import (
	"context"
	"time"
)

// Follower waits a moment: this system has no inotify.
type Follower struct{}

// Follow begins to watch a run.
func (s *Store) Follow(run string) (*Follower, error) { return &Follower{}, validRunID(run) }

// Wait returns after a moment.
func (*Follower) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(200 * time.Millisecond):
		return nil
	}
}

// Close does nothing.
func (*Follower) Close() error { return nil }
