// Package cache keeps results of steps in a directory, by what they depend on.
//
//	<dir>/entries/<key>.json     one result: outputs and changed files
//	<dir>/blobs/ab/<hash>.zst    contents of changed files
//	<dir>/latest/<id>.json       the parts of the newest key of one step, to say why
//	                             another key misses
//
// Words: a Key is the SHA-256 of the Parts; Parts name what a result depends on.
//
// Invariants:
//
//  1. Files appear whole, by a rename, and are never changed: any number of
//     processes read and write one directory at the same time, over a network file
//     system too, and readers need no right to write.
//  2. Nothing is believed unchecked: a content by its hash, an entry by its key. What
//     is damaged, cut or gone is a miss, never a wrong result.
//  3. Everything of a key's scope is in the key: what an untrusted run stores is
//     never found by a trusted one.
//
// It imports package checkpoint only.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"flowrun.dev/flow/checkpoint"
)

// maxEntry bounds what an entry makes a reader allocate.
const maxEntry = 64 << 20

// Dir is a cache directory.
type Dir struct {
	path     string
	readOnly bool
}

// Open makes the directory, unless it is only read.
func Open(path string, readOnly bool) (*Dir, error) {
	d := &Dir{path: path, readOnly: readOnly}
	if readOnly {
		return d, nil
	}
	for _, sub := range []string{"entries", "blobs", "latest"} {
		if err := os.MkdirAll(filepath.Join(path, sub), 0o700); err != nil {
			return nil, fmt.Errorf("open cache: %w", err)
		}
	}
	return d, nil
}

// Parts are what a result depends on, by name: "definition", "env HOME", "file
// go.sum". Values are hashes or short words; never secrets.
type Parts map[string]string

// Key of the parts.
func (p Parts) Key() string {
	b, _ := json.Marshal(p) // maps are written in the order of their keys
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Entry is one stored result.
type Entry struct {
	Key      string          `json:"key"`
	Workflow string          `json:"workflow"`
	Step     string          `json:"step"`
	Run      string          `json:"run"` // that stored it
	At       time.Time       `json:"at"`
	Parts    Parts           `json:"parts"`
	Result   json.RawMessage `json:"result"` // the caller's
	Changes  []Change        `json:"changes"`
	Bytes    int64           `json:"bytes"` // of the changed files
}

// Change is one changed path of the tree. Paths and targets are bytes.
type Change struct {
	Path    []byte            `json:"path"`
	Deleted bool              `json:"deleted,omitempty"`
	Kind    checkpoint.Kind   `json:"kind,omitempty"`
	Mode    uint32            `json:"mode,omitempty"`
	Size    int64             `json:"size,omitempty"`
	MtimeNS int64             `json:"mtime,omitempty"`
	Target  []byte            `json:"target,omitempty"`
	Hash    string            `json:"hash,omitempty"`
	Link    []byte            `json:"link,omitempty"`
	Xattrs  map[string][]byte `json:"xattrs,omitempty"`
}

// ChangesOf turns what a snapshot found into what an entry holds.
func ChangesOf(cs []checkpoint.Change) []Change {
	out := make([]Change, 0, len(cs))
	for _, c := range cs {
		if c.DirTimeOnly {
			continue
		}
		x := Change{Path: []byte(c.Path), Deleted: c.Op == checkpoint.OpDeleted}
		if e := c.Entry; !x.Deleted {
			x.Kind, x.Mode, x.Size, x.MtimeNS, x.Target, x.Link = e.Kind, e.Mode, e.Size, e.MtimeNS, []byte(e.Target), []byte(e.HardlinkTo)
			if e.Kind == checkpoint.KindFile {
				x.Hash = e.Hash.String()
			}
			for k, v := range e.Xattrs {
				if x.Xattrs == nil {
					x.Xattrs = map[string][]byte{}
				}
				x.Xattrs[k] = []byte(v)
			}
		}
		out = append(out, x)
	}
	return out
}

func (c *Change) entry() (checkpoint.Entry, error) {
	e := checkpoint.Entry{Path: string(c.Path), Kind: c.Kind, Mode: c.Mode, Size: c.Size, MtimeNS: c.MtimeNS, Target: string(c.Target), HardlinkTo: string(c.Link)}
	for k, v := range c.Xattrs {
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		e.Xattrs[k] = string(v)
	}
	if c.Kind == checkpoint.KindFile {
		h, err := hex.DecodeString(c.Hash)
		if err != nil || len(h) != len(e.Hash) {
			return e, fmt.Errorf("%q has no hash", c.Path)
		}
		e.Hash = checkpoint.Hash(h)
	}
	return e, nil
}

// Onto is the tree that the entry's changes make of m, checked as any manifest
// from outside. Directories on the way that m does not have are made.
func (e *Entry) Onto(m *checkpoint.Manifest) (*checkpoint.Manifest, error) {
	all := make(map[string]checkpoint.Entry, len(m.Entries)+len(e.Changes))
	for _, x := range m.Entries {
		all[x.Path] = x
	}
	for i := range e.Changes {
		c := &e.Changes[i]
		if c.Deleted {
			delete(all, string(c.Path))
			continue
		}
		x, err := c.entry()
		if err != nil {
			return nil, err
		}
		all[x.Path] = x
	}
	out := &checkpoint.Manifest{Entries: make([]checkpoint.Entry, 0, len(all))}
	for _, x := range all {
		out.Entries = append(out.Entries, x)
	}
	slices.SortFunc(out.Entries, func(a, b checkpoint.Entry) int { return strings.Compare(a.Path, b.Path) })
	checkpoint.Unlink(out)
	return out, out.Validate()
}

func (d *Dir) entryPath(key string) string { return filepath.Join(d.path, "entries", key+".json") }

func (d *Dir) blobPath(h string) string { return filepath.Join(d.path, "blobs", h[:2], h+".zst") }

// Lookup finds a result. nil, and no error, when there is none; an error says that
// what is there cannot be used.
func (d *Dir) Lookup(key string) (*Entry, error) {
	e, err := d.read(d.entryPath(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if e.Key != key || e.Parts.Key() != key {
		return nil, errors.New("the stored result belongs to another key")
	}
	for i := range e.Changes {
		if c := &e.Changes[i]; c.Hash != "" && c.Size > 0 {
			if !isHash(c.Hash) {
				return nil, errors.New("the stored result is damaged")
			}
			if _, err := os.Stat(d.blobPath(c.Hash)); err != nil {
				return nil, fmt.Errorf("the content of %q is gone from the cache", c.Path)
			}
		}
	}
	return e, nil
}

func isHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size
}

func (d *Dir) read(path string) (*Entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxEntry+1))
	if err == nil && len(b) > maxEntry {
		err = errors.New("it is too large")
	}
	e := &Entry{}
	if err == nil {
		err = json.Unmarshal(b, e)
	}
	if err != nil {
		return nil, fmt.Errorf("read a stored result: %w", err)
	}
	return e, nil
}

// Open reads a content and checks it: the reader's end comes only when the whole
// of it had the right hash.
func (d *Dir) Open(_ context.Context, h checkpoint.Hash) (io.ReadCloser, error) {
	f, err := os.Open(d.blobPath(h.String()))
	if err != nil {
		return nil, fmt.Errorf("open cached content %s: %w", h, err)
	}
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open cached content %s: %w", h, err)
	}
	return &checked{z: z, f: f, want: h}, nil
}

// Store writes the contents of the changed files, then the entry. It replaces an
// entry of the same key.
func (d *Dir) Store(ctx context.Context, e *Entry, src checkpoint.Store) error {
	if d.readOnly {
		return errors.New("store a result: the cache is only read")
	}
	e.Key, e.Bytes = e.Parts.Key(), 0
	for i := range e.Changes {
		c := &e.Changes[i]
		if c.Hash == "" || c.Size == 0 {
			continue
		}
		e.Bytes += c.Size
		if err := d.storeBlob(ctx, c.Hash, src); err != nil {
			return fmt.Errorf("store the content of %q in the cache: %w", c.Path, err)
		}
	}
	b, err := json.Marshal(e)
	if err == nil && len(b) > maxEntry {
		err = errors.New("it has too many changed files")
	}
	if err == nil {
		err = appear(d.entryPath(e.Key), b)
	}
	if err == nil {
		err = d.storeLatest(e)
	}
	if err != nil {
		return fmt.Errorf("store a result in the cache: %w", err)
	}
	return nil
}

func (d *Dir) storeBlob(ctx context.Context, hash string, src checkpoint.Store) error {
	path := d.blobPath(hash)
	now := time.Now()
	if err := os.Chtimes(path, now, now); err == nil { // there; in use again
		return nil
	}
	b, err := hex.DecodeString(hash)
	if err != nil {
		return err
	}
	r, err := src.Open(ctx, checkpoint.Hash(b))
	if err != nil {
		return err
	}
	defer r.Close()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err == nil {
		_, err = io.Copy(z, r)
		err = errors.Join(err, z.Close())
	}
	return settle(f, err, path)
}

// settle closes a new file and gives it its name. Not synced: what a power cut
// leaves of it does not have its hash, and is a miss.
func settle(f *os.File, err error, path string) error {
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func appear(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return settle(f, err, path)
}

// checked verifies a content while it is read.
type checked struct {
	z    *zstd.Decoder
	f    *os.File
	sum  hashState
	want checkpoint.Hash
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.z.Read(p)
	c.sum.write(p[:n])
	if errors.Is(err, io.EOF) && c.sum.value() != c.want {
		return n, fmt.Errorf("cached content %s is damaged", c.want)
	}
	return n, err
}

func (c *checked) Close() error {
	c.z.Close()
	return c.f.Close()
}
