// Package checkpoint stores and restores a tree of files by content.
//
// Words: an Entry is one file, directory, link, socket or fifo with all that a
// program could see of it; a Manifest is every Entry of a tree, sorted by path;
// a Snapshot is a Manifest with the Changes since the one before; a Store keeps
// file contents by their SHA-256.
//
// Invariants:
//
//  1. A file is opened only when lstat and fstat of the opened descriptor say
//     that it is a regular file; never through a symlink, never a fifo or device.
//  2. Restore writes what differs, deletes what is extra, never touches anything
//     outside its root (openat2 RESOLVE_BENEATH|NO_SYMLINKS), and verifies.
//     Nothing of a user's own tree is changed but by Apply, which changes all or nothing.
//  3. A Manifest does not depend on the machine: no uid, gid, inode or path of
//     the host is in it. ID is the SHA-256 of its canonical encoding.
//
// Tracker snapshots and restores one tree; Import brings a source tree in, Apply
// brings changes back three-way; Matcher is the language of what is left out.
// Package storetest is the conformance suite of Store.
//
// A leaf: imports no other package of this module.
package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"sync/atomic"
)

// Hash is the SHA-256 of a content.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Kind of an Entry.
type Kind uint8

const (
	KindFile Kind = iota + 1
	KindDir
	KindSymlink
	KindSocket // recorded, never opened, not restored
	KindFifo   // recorded, never opened, restored by mkfifo
)

// Entry is one name of a tree.
type Entry struct {
	// Path relative to the root, slash-separated, as bytes on disk (need not be
	// UTF-8), never "" or ".".
	Path string
	Kind Kind
	// Mode is the permission bits incl. setuid, setgid and sticky (07777).
	Mode uint32
	// Size in bytes of a regular file.
	Size int64
	// MtimeNS is the modification time in nanoseconds since the epoch.
	MtimeNS int64
	// Target of a symlink.
	Target string
	// Hash of a regular file's content.
	Hash Hash
	// HardlinkTo is the path of the first entry (in path order) of the same inode
	// within the tree, "" for none.
	HardlinkTo string
	// Xattrs in the user.* namespace, nil for none.
	Xattrs map[string]string
}

// Manifest is a whole tree: entries sorted by Path, bytewise. It is not changed
// once somebody asked for its ID; it may be read by several goroutines.
type Manifest struct {
	Entries []Entry

	id atomic.Pointer[Hash] // ID, once somebody asked
}

// Op is what happened to a path.
type Op string

const (
	OpAdded    Op = "added"
	OpModified Op = "modified"
	OpDeleted  Op = "deleted"
)

// Change is one changed path between two manifests. A change of nothing but a
// directory's mtime is in the list, because a restore needs it, but it is no
// change to people: Listed leaves it out.
type Change struct {
	Path string `json:"path"`
	Op   Op     `json:"op"`
	// DirTimeOnly: a directory of which nothing but the mtime differs.
	DirTimeOnly bool `json:"-"`
	// Entry is the new state; nil for OpDeleted.
	Entry *Entry `json:"-"`
}

// Snapshot is a stored tree.
type Snapshot struct {
	Manifest *Manifest
	// Changes since the snapshot before, sorted by path, including mtime-only
	// changes of directories (which differ in the manifest but are not listed to
	// people; see Change).
	Changes []Change
	// Batch holds the new contents. The caller seals it, then commits its rows
	// in the transaction that makes the snapshot known. Nil when there is nothing new.
	Batch Batch
}

// Store keeps contents. Implemented by package state over SQLite and packs, by
// MemStore here for tests.
type Store interface {
	// Have reports which hashes are stored already, in the order asked.
	Have(ctx context.Context, hs []Hash) ([]bool, error)
	// Begin starts a batch of new contents.
	Begin(ctx context.Context) (Batch, error)
	// Open reads a content; the error for an unknown one satisfies
	// errors.Is(err, fs.ErrNotExist).
	Open(ctx context.Context, h Hash) (io.ReadCloser, error)
}

// Batch collects new contents. Put may be called from several goroutines.
type Batch interface {
	// Put stores a content that is fully in memory. It does not keep the slice, and
	// fails when h is not its hash.
	Put(h Hash, content []byte) error
	// PutReader stores a large content of unknown hash and returns hash and size.
	PutReader(r io.Reader) (Hash, int64, error)
	// Seal makes the contents durable (written and synced), before the
	// transaction that names them. Seal of an empty batch does nothing.
	Seal() error
	// Abort drops the batch. Harmless after Seal was committed.
	Abort()
}
