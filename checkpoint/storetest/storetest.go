// Package storetest is the conformance suite of checkpoint.Store. Every
// implementation runs it.
package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"

	"flowrun.dev/flow/checkpoint"
)

// Committer is implemented by a Store whose batches become visible only in a
// transaction of the caller's: the suite calls Commit after Seal.
type Committer interface {
	Commit(ctx context.Context, b checkpoint.Batch) error
}

// Run checks what Store and Batch promise. newStore gives an empty store.
func Run(t *testing.T, newStore func(t *testing.T) checkpoint.Store) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(t *testing.T, s checkpoint.Store)
	}{
		{"unknown content", unknown},
		{"put and open", putAndOpen},
		{"stream a large content", stream},
		{"have answers in order", haveInOrder},
		{"parallel puts", parallel},
		{"the same content twice", twice},
		{"a wrong hash is refused", wrongHash},
		{"abort drops", abort},
		{"empty batch", emptyBatch},
		{"put does not keep the caller's memory", callersMemory},
		{"a failing reader", failingReader},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, newStore(t)) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func begin(t *testing.T, s checkpoint.Store) checkpoint.Batch {
	t.Helper()
	b, err := s.Begin(t.Context())
	must(t, err)
	return b
}

func seal(t *testing.T, s checkpoint.Store, b checkpoint.Batch) {
	t.Helper()
	must(t, b.Seal())
	if c, ok := s.(Committer); ok {
		must(t, c.Commit(t.Context(), b))
	}
}

func hash(b []byte) checkpoint.Hash { return sha256.Sum256(b) }

func have(t *testing.T, s checkpoint.Store, hs ...checkpoint.Hash) []bool {
	t.Helper()
	out, err := s.Have(t.Context(), hs)
	must(t, err)
	if len(out) != len(hs) {
		t.Fatalf("Have answered %d of %d", len(out), len(hs))
	}
	return out
}

func expect(t *testing.T, s checkpoint.Store, want []byte) {
	t.Helper()
	r, err := s.Open(t.Context(), hash(want))
	must(t, err)
	got, err := io.ReadAll(r)
	must(t, errors.Join(err, r.Close()))
	if !bytes.Equal(got, want) {
		t.Fatalf("the content of %d bytes came back as %d other bytes", len(want), len(got))
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 7))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func unknown(t *testing.T, s checkpoint.Store) {
	h := hash([]byte("nobody stored this"))
	if have(t, s, h)[0] {
		t.Error("Have of an unknown content is true")
	}
	if _, err := s.Open(t.Context(), h); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of an unknown content: %v, want fs.ErrNotExist", err)
	}
	if out := have(t, s); len(out) != 0 {
		t.Errorf("Have of nothing: %v", out)
	}
}

func putAndOpen(t *testing.T, s checkpoint.Store) {
	contents := [][]byte{{}, {0}, []byte("text"), bytes.Repeat([]byte("repeated "), 9999), noise(70000), make([]byte, 1<<20)}
	b := begin(t, s)
	for _, c := range contents {
		must(t, b.Put(hash(c), c))
	}
	seal(t, s, b)
	b.Abort() // harmless after a seal that was committed
	for _, c := range contents {
		if !have(t, s, hash(c))[0] {
			t.Errorf("the content of %d bytes is not there", len(c))
		}
		expect(t, s, c)
	}
}

func stream(t *testing.T, s checkpoint.Store) {
	for _, c := range [][]byte{noise(5<<20 + 3), {}, []byte("small")} {
		b := begin(t, s)
		h, n, err := b.PutReader(shortFirst(c))
		must(t, err)
		if h != hash(c) || n != int64(len(c)) {
			t.Fatalf("PutReader says %s and %d bytes, want %s and %d", h, n, hash(c), len(c))
		}
		seal(t, s, b)
		expect(t, s, c)
	}
}

// shortFirst reads short first, as pipes do.
func shortFirst(b []byte) io.Reader {
	n := min(1, len(b))
	return io.MultiReader(bytes.NewReader(b[:n]), bytes.NewReader(b[n:]))
}

func haveInOrder(t *testing.T, s checkpoint.Store) {
	b := begin(t, s)
	var hs []checkpoint.Hash
	for i := range 3000 {
		c := fmt.Appendf(nil, "content %d", i)
		hs = append(hs, hash(c))
		if i%3 == 0 {
			must(t, b.Put(hash(c), c))
		}
	}
	seal(t, s, b)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(hs), func(i, j int) { hs[i], hs[j] = hs[j], hs[i] })
	want := map[checkpoint.Hash]bool{}
	for i := 0; i < 3000; i += 3 {
		want[hash(fmt.Appendf(nil, "content %d", i))] = true
	}
	for i, ok := range have(t, s, append(hs, hs[0])...) {
		if h := append(hs, hs[0])[i]; ok != want[h] {
			t.Fatalf("answer %d is %v, want %v", i, ok, want[h])
		}
	}
}

func parallel(t *testing.T, s checkpoint.Store) {
	b := begin(t, s)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 50 {
				c := fmt.Appendf(nil, "%d", (g*25+i)%200) // overlaps with others
				if err := b.Put(hash(c), c); err != nil {
					t.Error(err)
				}
			}
			c := noise(1<<20 + g)
			if h, _, err := b.PutReader(bytes.NewReader(c)); err != nil || h != hash(c) {
				t.Errorf("PutReader: %s, %v", h, err)
			}
		})
	}
	wg.Wait()
	seal(t, s, b)
	for i := range 200 {
		expect(t, s, fmt.Appendf(nil, "%d", i))
	}
	for g := range 8 {
		expect(t, s, noise(1<<20+g))
	}
}

func twice(t *testing.T, s checkpoint.Store) {
	c := []byte("the same")
	for range 2 {
		b := begin(t, s)
		must(t, b.Put(hash(c), c))
		must(t, b.Put(hash(c), c))
		_, _, err := b.PutReader(bytes.NewReader(c))
		must(t, err)
		seal(t, s, b)
		expect(t, s, c)
	}
}

func wrongHash(t *testing.T, s checkpoint.Store) {
	b := begin(t, s)
	defer b.Abort()
	if err := b.Put(hash([]byte("a")), []byte("b")); err == nil {
		t.Error("Put took a content under the hash of another")
	}
}

func abort(t *testing.T, s checkpoint.Store) {
	c := noise(3000)
	b := begin(t, s)
	must(t, b.Put(hash(c), c))
	b.Abort()
	b.Abort()
	if have(t, s, hash(c))[0] {
		t.Error("an aborted content is there")
	}
	b = begin(t, s)
	must(t, b.Put(hash(c), c))
	seal(t, s, b)
	expect(t, s, c)
}

func emptyBatch(t *testing.T, s checkpoint.Store) {
	seal(t, s, begin(t, s))
}

func callersMemory(t *testing.T, s checkpoint.Store) {
	buf := []byte("first use of the buffer")
	want := bytes.Clone(buf)
	b := begin(t, s)
	must(t, b.Put(hash(buf), buf))
	copy(buf, "SECOND")
	seal(t, s, b)
	expect(t, s, want)
}

var errBroken = errors.New("the file broke")

func failingReader(t *testing.T, s checkpoint.Store) {
	b := begin(t, s)
	_, _, err := b.PutReader(io.MultiReader(bytes.NewReader(noise(100000)), brokenReader{}))
	if !errors.Is(err, errBroken) {
		t.Errorf("PutReader of a failing reader: %v", err)
	}
	good := []byte("still usable")
	must(t, b.Put(hash(good), good))
	seal(t, s, b)
	expect(t, s, good)
	if have(t, s, hash(noise(100000)))[0] {
		t.Error("half a content is stored")
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }
