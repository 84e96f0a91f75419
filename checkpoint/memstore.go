package checkpoint

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
)

// MemStore is a Store in memory, for tests. The zero value is ready. Seal makes a
// batch's contents visible: it has no transaction of a caller to wait for.
type MemStore struct {
	mu sync.Mutex
	m  map[Hash][]byte
}

// Len is the number of contents.
func (s *MemStore) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.m)
}

// Have implements Store.
func (s *MemStore) Have(ctx context.Context, hs []Hash) ([]bool, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]bool, len(hs))
	for i, h := range hs {
		_, out[i] = s.m[h]
	}
	return out, nil
}

// Open implements Store.
func (s *MemStore) Open(ctx context.Context, h Hash) (io.ReadCloser, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.m[h]
	if !ok {
		return nil, fmt.Errorf("open content %s: %w", h, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// Begin implements Store.
func (s *MemStore) Begin(ctx context.Context) (Batch, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return &memBatch{s: s, m: map[Hash][]byte{}}, nil
}

type memBatch struct {
	s    *MemStore
	mu   sync.Mutex
	m    map[Hash][]byte
	done bool
}

var errBatchDone = errors.New("the batch was sealed or aborted already")

func (b *memBatch) Put(h Hash, content []byte) error {
	if got := Hash(sha256.Sum256(content)); got != h {
		return fmt.Errorf("put content: it has the hash %s, not %s", got, h)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return fmt.Errorf("put content %s: %w", h, errBatchDone)
	}
	b.m[h] = bytes.Clone(content)
	return nil
}

func (b *memBatch) PutReader(r io.Reader) (Hash, int64, error) {
	content, err := io.ReadAll(r)
	if err != nil {
		return Hash{}, 0, fmt.Errorf("put content: %w", err)
	}
	h := Hash(sha256.Sum256(content))
	return h, int64(len(content)), b.Put(h, content)
}

func (b *memBatch) Seal() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return fmt.Errorf("seal batch: %w", errBatchDone)
	}
	b.done = true
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.s.m == nil {
		b.s.m = map[Hash][]byte{}
	}
	for h, c := range b.m {
		b.s.m[h] = c
	}
	return nil
}

func (b *memBatch) Abort() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done, b.m = true, nil
}
