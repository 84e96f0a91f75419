package checkpoint

import (
	"runtime"
	"sync"
)

// Owner is whom restored files belong to.
type Owner struct{ UID, GID int }

// Options of a Tracker.
type Options struct {
	// Exclude says which paths (relative to the root) are no part of the tree:
	// not recorded, not touched by Restore. An excluded directory is not entered.
	// Nil: everything is part of it. Called from several goroutines.
	Exclude func(path string, dir bool) bool
	// Owner of what Restore writes, where the process may chown. Nil: the process.
	Owner *Owner
	// Workers is how many goroutines walk, hash and write. 0: GOMAXPROCS, at most 8.
	Workers int
}

// Tracker knows one tree on this host between snapshots: what every file's lstat
// said when its content was hashed, so that what did not change is not opened
// again. One Tracker serves one Store. Its methods may be called from several
// goroutines and wait for each other.
//
// The tree should be quiescent during a call (its processes frozen or ended). A
// change during a snapshot is noticed and tried again, then an error; a writer
// that keeps a file mapped can change it unnoticed, because the kernel moves the
// mtime only once for it.
type Tracker struct {
	root     string
	opts     Options
	workers  int
	override bool
	readOnly bool // never chmod in the tree: it is the user's own
	noHash   bool // lists only
	// marks is the prefix of an overlay's attributes when the tree is one's upper layer:
	// those of directories are recorded, and whiteouts as devices.
	marks string

	mu   sync.Mutex
	gen  uint64
	top  *node
	last *Manifest
	// unconfirmed are contents that were given to a batch, or found, of which it is
	// not known that the store has them: the caller may have dropped the batch. The
	// next snapshot asks the store.
	unconfirmed map[Hash]struct{}
	spare       []*walkWorker // buffers of the last walk
}

// node is one known name of the tree.
type node struct {
	e        Entry
	st       stat
	racy     bool   // it may have changed after it was read without showing it
	gen      uint64 // the last walk that saw it
	children map[string]*node
}

// NewTracker makes a Tracker for the tree at root, which knows nothing yet: its
// first Snapshot reads every file, unless LoadCache was called.
func NewTracker(root string, opts Options) *Tracker {
	w := opts.Workers
	if w <= 0 {
		w = min(runtime.GOMAXPROCS(0), 8)
	}
	t := &Tracker{root: root, opts: opts, workers: w, override: canOverride()}
	t.forget()
	return t
}

// forget drops all that is known, as if the tree had been empty.
func (t *Tracker) forget() {
	t.top = &node{e: Entry{Kind: KindDir}}
	t.last = &Manifest{}
	t.unconfirmed = nil
}

// Root is the directory of the tree.
func (t *Tracker) Root() string { return t.root }

// Manifest is the tree as the last Snapshot, Restore or LoadCache knew it; empty
// before.
func (t *Tracker) Manifest() *Manifest {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}
