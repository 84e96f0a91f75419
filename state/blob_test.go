package state

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/checkpoint/storetest"
)

func TestStoreConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) checkpoint.Store { return open(t) })
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// store puts contents and commits them.
func store(t testing.TB, s *Store, contents ...[]byte) []checkpoint.Hash {
	t.Helper()
	b, err := s.Begin(t.Context())
	must(t, err)
	var hs []checkpoint.Hash
	for _, c := range contents {
		h := checkpoint.Hash(sha256.Sum256(c))
		must(t, b.Put(h, c))
		hs = append(hs, h)
	}
	must(t, b.Seal())
	must(t, s.Commit(t.Context(), b))
	return hs
}

func read(t testing.TB, s *Store, h checkpoint.Hash) ([]byte, error) {
	t.Helper()
	r, err := s.Open(t.Context(), h)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

// TestBatchPlaces: few bytes make no file, many make one, a stream one of its own.
func TestBatchPlaces(t *testing.T) {
	t.Parallel()
	s := open(t)
	packs := func() int {
		e, err := os.ReadDir(s.packsDir())
		must(t, err)
		return len(e)
	}
	store(t, s, noise(100), noise(20_000))
	if n := packs(); n != 0 {
		t.Errorf("a small batch made %d packs", n)
	}
	hs := store(t, s, noise(100), noise(20_000), noise(20_000))
	if n := packs(); n != 1 {
		t.Errorf("a large batch made %d packs, want 1", n)
	}
	for _, h := range hs {
		if _, err := read(t, s, h); err != nil {
			t.Error(err)
		}
	}
	b, err := s.Begin(t.Context())
	must(t, err)
	if _, _, err := b.PutReader(bytes.NewReader(noise(3 << 20))); err != nil {
		t.Fatal(err)
	}
	b.Abort()
	if n := packs(); n != 1 {
		t.Errorf("an aborted batch left a pack: %d", n)
	}
}

// TestContentsDamaged: what comes back is right or an error that says so.
func TestContentsDamaged(t *testing.T) {
	t.Parallel()
	text := bytes.Repeat([]byte("a line of text\n"), 200_000) // 3 MB, compresses
	for _, c := range []struct {
		name   string
		data   []byte
		damage func(b []byte) []byte
	}{
		{"flipped byte, raw", noise(100_000), func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
		{"flipped byte, zstd stream", text, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
		{"cut short, raw", noise(100_000), func(b []byte) []byte { return b[:len(b)-10] }},
		{"cut short, large", noise(3 << 20), func(b []byte) []byte { return b[:len(b)-10] }},
		{"cut short, zstd stream", text, func(b []byte) []byte { return b[:len(b)-10] }},
		{"emptied", noise(100_000), func([]byte) []byte { return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			// With enough beside it that it goes into a pack.
			h := store(t, s, noise(inlineTotal), c.data)[1]
			files, err := filepath.Glob(filepath.Join(s.packsDir(), "*.pack"))
			must(t, err)
			b, err := os.ReadFile(files[0])
			must(t, err)
			// The order in the pack is not fixed: damage what belongs to this one.
			var off, length int64
			must(t, s.read.QueryRow("SELECT off, length FROM blobs WHERE hash = ?", h[:]).Scan(&off, &length))
			must(t, os.WriteFile(files[0], append(b[:off:off], c.damage(bytes.Clone(b[off:off+length]))...), 0o600))
			got, err := read(t, s, h)
			wantIs(t, err, ErrCorrupt)
			if len(got) == len(c.data) && bytes.Equal(got, c.data) {
				t.Error("the damage did no damage")
			}
			must(t, os.Remove(files[0]))
			_, err = read(t, s, h)
			wantIs(t, err, ErrCorrupt)
		})
	}
	t.Run("row", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		h := store(t, s, []byte("content"))[0]
		must(t, s.tx(func(w *writer) error {
			_, err := w.exec("UPDATE blobs SET data = CAST('CONTENT' AS BLOB)")
			return err
		}))
		_, err := read(t, s, h)
		wantIs(t, err, ErrCorrupt)
	})
}

// TestContentsWaitForAppend: sealed contents can be read here, and are in the
// database with the next Append, not before.
func TestContentsWaitForAppend(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	b, err := s.Begin(t.Context())
	must(t, err)
	c := []byte("new content")
	h := checkpoint.Hash(sha256.Sum256(c))
	must(t, b.Put(h, c))
	if _, err := read(t, s, h); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before Seal: %v", err)
	}
	must(t, b.Seal())
	got, err := read(t, s, h)
	must(t, err)
	if !bytes.Equal(got, c) {
		t.Errorf("read %q", got)
	}
	count := func() (n int) {
		must(t, s.read.QueryRow("SELECT count(*) FROM blobs").Scan(&n))
		return n
	}
	if count() != 0 {
		t.Error("it was stored before the Append")
	}
	put(t, o, started("build", 1))
	if count() != 1 {
		t.Error("it was not stored by the Append")
	}
	if len(s.blobs.sealed)+len(s.blobs.index) != 0 {
		t.Error("memory still holds what was stored")
	}
}

func TestRemoveOrphans(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), DirName)
	s, err := Open(dir, Options{})
	must(t, err)
	kept := store(t, s, noise(2*inlineTotal))[0]
	orphan := filepath.Join(s.packsDir(), "orphan.pack")
	must(t, os.WriteFile(orphan, []byte(packMagic), 0o600))
	b, err := s.Begin(t.Context()) // one that is being written
	must(t, err)
	mine := noise(2 * inlineTotal)
	must(t, b.Put(sha256.Sum256(mine), mine))

	other, err := Open(dir, Options{})
	must(t, err)
	if n, err := s.RemoveOrphans(t.Context()); n != 0 || err != nil {
		t.Errorf("with another writer: removed %d, %v", n, err)
	}
	must(t, other.Close())
	if n, err := s.RemoveOrphans(t.Context()); n != 1 || err != nil {
		t.Errorf("removed %d, %v; want 1", n, err)
	}
	if _, err := os.Stat(orphan); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the orphan is still there: %v", err)
	}
	if _, err := read(t, s, kept); err != nil {
		t.Error(err)
	}
	must(t, b.Seal())
	must(t, s.Commit(t.Context(), b))
	if _, err := read(t, s, sha256.Sum256(mine)); err != nil {
		t.Error(err)
	}
	must(t, s.Close())
}

func BenchmarkBatch(b *testing.B) {
	for _, c := range []struct {
		name     string
		contents int
		size     int
	}{{"10x2KiB", 10, 2 << 10}, {"1000x10KiB", 1000, 10 << 10}} {
		b.Run(c.name, func(b *testing.B) {
			s := open(b)
			b.SetBytes(int64(c.contents * c.size))
			for b.Loop() {
				b.StopTimer()
				data := make([][]byte, c.contents)
				for i := range data {
					data[i] = bytes.Repeat(noise(c.size/8), 8)
				}
				b.StartTimer()
				store(b, s, data...)
			}
		})
	}
}
