package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"flowrun.dev/flow/checkpoint"
)

// A pack is "flowpack1\n" and then contents, one after another; the database says
// where each is. It is written once and never changed.
const packMagic = "flowpack1\n"

type pack struct {
	name string
	path string
	f    *os.File
	w    *bufio.Writer
	off  int64
	s    *Store
}

// names is a set that several goroutines use.
type names struct {
	mu sync.Mutex
	m  map[string]bool
}

func (n *names) add(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m == nil {
		n.m = map[string]bool{}
	}
	n.m[name] = true
}

func (n *names) drop(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.m, name)
}

// all is a copy.
func (n *names) all() map[string]bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := maps.Clone(n.m)
	if out == nil {
		out = map[string]bool{}
	}
	return out
}

func (s *Store) packsDir() string { return filepath.Join(s.dir, packsName) }

func (s *Store) createPack() (*pack, error) {
	p := &pack{name: randomID(16) + ".pack", s: s}
	s.open.add(p.name)
	p.path = filepath.Join(s.packsDir(), p.name)
	f, err := os.OpenFile(p.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		s.open.drop(p.name)
		return nil, err
	}
	p.f, p.w = f, bufio.NewWriterSize(f, 128<<10)
	n, err := p.w.WriteString(packMagic)
	p.off = int64(n)
	return p, err
}

// add appends the row's data and lets go of it.
func (p *pack) add(row *blobRow) error {
	if _, err := p.w.Write(row.data); err != nil {
		return err
	}
	row.pack, row.off, row.length = p, p.off, int64(len(row.data))
	p.off += row.length
	row.data = nil
	return nil
}

// Write appends part of a content.
func (p *pack) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.off += int64(n)
	return n, err
}

// finish makes the pack's bytes durable. Its name becomes so with the directory.
func (p *pack) finish() error {
	if p.f == nil {
		return nil
	}
	err := p.w.Flush()
	if err == nil {
		err = p.f.Sync()
	}
	if err != nil {
		return err
	}
	err = p.f.Close()
	p.f, p.w = nil, nil
	return err
}

// discard removes a pack that no row names. What fails is left for RemoveOrphans.
func (p *pack) discard() {
	if p.f != nil {
		p.f.Close()
		p.f, p.w = nil, nil
	}
	os.Remove(p.path)
	p.s.open.drop(p.name)
}

// packStream stores head and all of r as one content in a pack of its own. It is
// compressed when its head compresses.
func (s *Store) packStream(head []byte, r io.Reader) (_ *blobRow, err error) {
	p, err := s.createPack()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.discard()
		}
	}()
	row := &blobRow{pack: p, off: p.off}
	sum := sha256.New()
	count := &counter{}
	in := io.TeeReader(io.MultiReader(bytes.NewReader(head), r), io.MultiWriter(sum, count))
	row.codec, _ = s.codec.compress(head)
	if row.codec == codecZstd {
		err = s.codec.stream(p, in)
	} else {
		_, err = io.CopyBuffer(struct{ io.Writer }{p}, in, make([]byte, 128<<10))
	}
	if err != nil {
		return nil, err
	}
	row.hash = checkpoint.Hash(sum.Sum(nil))
	row.size, row.length = count.n, p.off-row.off
	return row, nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// verifier reads a content and gives its end only when size and hash are right.
type verifier struct {
	r     io.Reader
	close func() error
	name  string
	want  checkpoint.Hash
	sum   hash.Hash
	left  int64
}

func (v *verifier) Read(b []byte) (int, error) {
	n, err := v.r.Read(b)
	v.sum.Write(b[:n])
	v.left -= int64(n)
	switch {
	case v.left < 0:
		return 0, corrupt(v.name, "it is longer than its row says")
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		if classify(err) == nil { // what the decoder found, not the disk
			return n, corrupt(v.name, "%w", err)
		}
		return n, wrap(v.name, err)
	case v.left > 0:
		return n, corrupt(v.name, "%d bytes are missing at its end", v.left)
	case !bytes.Equal(v.sum.Sum(nil), v.want[:]):
		return n, corrupt(v.name, "its SHA-256 is %x", v.sum.Sum(nil))
	}
	return n, io.EOF
}

func (v *verifier) Close() error { return v.close() }

func verifyBytes(name string, want checkpoint.Hash, b []byte) error {
	if got := sha256.Sum256(b); got != want {
		return corrupt(name, "its SHA-256 is %s", fmt.Sprintf("%x", got))
	}
	return nil
}
