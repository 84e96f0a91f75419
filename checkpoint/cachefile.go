package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// The stat cache in a file: the manifest and, for each entry, its stat, closed by
// a SHA-256. It is private to one machine and may be deleted at any time.
const (
	cacheMagic   = "flowst"
	cacheVersion = 1
	statSize     = 5*8 + 4*4 + 1
	maxCacheFile = 512 << 20
)

// ErrBadCache: the file is no stat cache of this version, or damaged. The Tracker
// is as it was; the next Snapshot reads every file.
var ErrBadCache = errors.New("no usable stat cache")

// SaveCache writes what the Tracker knows to path, atomically, mode 0600. It is
// not synced: a lost cache costs time and nothing else.
func (t *Tracker) SaveCache(path string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.last.encode()
	b := make([]byte, 0, 16+len(m)+len(t.last.Entries)*statSize+sha256.Size)
	b = append(b, cacheMagic...)
	b = append(b, cacheVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(m)))
	b = append(b, m...)
	for i := range t.last.Entries {
		n := t.nodeOf(t.last.Entries[i].Path)
		b = appendStat(b, &n.st, n.racy)
	}
	sum := sha256.Sum256(b)
	b = append(b, sum[:]...)
	f, err := os.CreateTemp(filepath.Dir(path), ".statcache-*")
	if err != nil {
		return fmt.Errorf("save stat cache: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("save stat cache: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

func appendStat(b []byte, s *stat, racy bool) []byte {
	le := binary.LittleEndian
	for _, v := range []uint64{s.ino, s.dev, uint64(s.size), uint64(s.mtime), uint64(s.ctime)} {
		b = le.AppendUint64(b, v)
	}
	for _, v := range []uint32{s.mode, s.nlink, s.uid, s.gid} {
		b = le.AppendUint32(b, v)
	}
	if racy {
		return append(b, 1)
	}
	return append(b, 0)
}

func readStat(b []byte) (s stat, racy bool) {
	le := binary.LittleEndian
	s.ino, s.dev = le.Uint64(b), le.Uint64(b[8:])
	s.size, s.mtime, s.ctime = int64(le.Uint64(b[16:])), int64(le.Uint64(b[24:])), int64(le.Uint64(b[32:]))
	s.mode, s.nlink, s.uid, s.gid = le.Uint32(b[40:]), le.Uint32(b[44:]), le.Uint32(b[48:]), le.Uint32(b[52:])
	return s, b[56] != 0
}

// LoadCache makes the Tracker know what SaveCache saved: the next Snapshot's
// Changes are relative to it. Which of its contents the store has is asked once.
// The error satisfies errors.Is(err, fs.ErrNotExist) when there is no file, or
// ErrBadCache; the Tracker is then as before.
func (t *Tracker) LoadCache(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("load stat cache: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxCacheFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("load stat cache: %w", err)
	}
	m, stats, err := parseCache(b)
	if err != nil {
		return fmt.Errorf("load stat cache %s: %w", path, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget()
	t.unconfirmed = map[Hash]struct{}{}
	for i := range m.Entries {
		e := &m.Entries[i]
		n := &node{e: *e}
		n.st, n.racy = readStat(stats[i*statSize:])
		if e.Kind == KindFile {
			t.unconfirmed[e.Hash] = struct{}{}
		}
		dir := t.nodeOf(parent(e.Path))
		if dir.children == nil {
			dir.children = map[string]*node{}
		}
		dir.children[e.Path[strings.LastIndexByte(e.Path, '/')+1:]] = n
	}
	t.last = m
	return nil
}

func parseCache(b []byte) (*Manifest, []byte, error) {
	head := len(cacheMagic) + 1 + 8
	if len(b) > maxCacheFile || len(b) < head+sha256.Size || !bytes.HasPrefix(b, append([]byte(cacheMagic), cacheVersion)) {
		return nil, nil, ErrBadCache
	}
	body := b[:len(b)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], b[len(body):]) {
		return nil, nil, fmt.Errorf("%w: its checksum is wrong", ErrBadCache)
	}
	size := binary.LittleEndian.Uint64(body[head-8:])
	body = body[head:]
	if size > uint64(len(body)) {
		return nil, nil, ErrBadCache
	}
	m := &Manifest{}
	if err := m.UnmarshalBinary(body[:size]); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrBadCache, err)
	}
	stats := body[size:]
	if len(stats) != len(m.Entries)*statSize {
		return nil, nil, ErrBadCache
	}
	return m, stats, nil
}
