package state

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"flowrun.dev/flow/checkpoint"
)

const (
	// inlineTotal: a batch whose contents take no more than this is stored in the
	// database and costs no file and no sync of its own.
	inlineTotal = 32 << 10
	// streamFrom: a content up to this size is handled in memory.
	streamFrom = 1 << 20
)

// blobRow is one stored content.
type blobRow struct {
	hash   checkpoint.Hash
	codec  int
	size   int64
	data   []byte // inline, or nil
	pack   *pack
	off    int64
	length int64
}

var (
	errBatchDone = errors.New("the batch was aborted or sealed before")
	errWrongHash = errors.New("the content has another hash")
)

// batch implements checkpoint.Batch. Its contents are in memory while they are
// few, in one pack file otherwise; a large content of unknown hash gets a pack of
// its own, so that nobody waits for its end.
type batch struct {
	s *Store

	mu     sync.Mutex
	done   bool // aborted, or sealed
	sealed bool
	rows   map[checkpoint.Hash]*blobRow
	inline int64 // bytes of the rows that are in memory
	pack   *pack // nil while everything is in memory
	alone  []*pack
}

// Begin implements checkpoint.Store.
func (s *Store) Begin(ctx context.Context) (checkpoint.Batch, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("begin batch: %w", err)
	}
	if s.readOnly {
		return nil, &storageError{op: "begin batch", kind: ErrReadOnly, cause: errors.New("the state was opened for reading only")}
	}
	return &batch{s: s, rows: map[checkpoint.Hash]*blobRow{}}, nil
}

// Put implements checkpoint.Batch. It compresses outside of the lock.
func (b *batch) Put(h checkpoint.Hash, content []byte) error {
	if got := checkpoint.Hash(sha256.Sum256(content)); got != h {
		return fmt.Errorf("put content %s: %w: %s", h, errWrongHash, got)
	}
	return b.put(h, content)
}

func (b *batch) put(h checkpoint.Hash, content []byte) error {
	b.mu.Lock()
	_, known := b.rows[h]
	done := b.done
	b.mu.Unlock()
	if done {
		return fmt.Errorf("put content %s: %w", h, errBatchDone)
	}
	if known {
		return nil
	}
	row := &blobRow{hash: h, size: int64(len(content))}
	row.codec, row.data = b.s.codec.compress(content)
	if row.codec == codecRaw {
		row.data = append([]byte{}, content...) // never nil: that says "in a pack"
	}
	row.length = int64(len(row.data))
	b.mu.Lock()
	defer b.mu.Unlock()
	return wrap("put content "+h.String(), b.add(row))
}

// add takes a row with its data; the lock is held.
func (b *batch) add(row *blobRow) error {
	if b.done {
		return errBatchDone
	}
	if _, known := b.rows[row.hash]; known {
		return nil
	}
	if b.pack == nil && b.inline+row.length <= inlineTotal {
		b.rows[row.hash] = row
		b.inline += row.length
		return nil
	}
	if b.pack == nil {
		if err := b.spill(); err != nil {
			return err
		}
	}
	if err := b.pack.add(row); err != nil {
		return err
	}
	b.rows[row.hash] = row
	return nil
}

// spill moves what is in memory into a pack.
func (b *batch) spill() error {
	p, err := b.s.createPack()
	if err != nil {
		return err
	}
	b.pack = p
	for _, row := range b.rows {
		if row.pack != nil {
			continue // a large one, alone in a pack
		}
		if err := p.add(row); err != nil {
			return err
		}
	}
	b.inline = 0
	return nil
}

// PutReader implements checkpoint.Batch.
func (b *batch) PutReader(r io.Reader) (checkpoint.Hash, int64, error) {
	var zero checkpoint.Hash
	head := make([]byte, streamFrom)
	n, err := io.ReadFull(r, head)
	head = head[:n]
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		h := checkpoint.Hash(sha256.Sum256(head))
		return h, int64(n), b.put(h, head)
	}
	if err != nil {
		return zero, 0, fmt.Errorf("put content: %w", err)
	}
	b.mu.Lock()
	done := b.done
	b.mu.Unlock()
	if done {
		return zero, 0, fmt.Errorf("put content: %w", errBatchDone)
	}
	row, err := b.s.packStream(head, r)
	if err != nil {
		return zero, 0, wrap("put content", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.rows[row.hash]; known || b.done {
		row.pack.discard()
		if b.done {
			return zero, 0, fmt.Errorf("put content %s: %w", row.hash, errBatchDone)
		}
		return row.hash, row.size, nil
	}
	b.rows[row.hash] = row
	b.alone = append(b.alone, row.pack)
	return row.hash, row.size, nil
}

func (b *batch) packs() []*pack {
	if b.pack == nil {
		return b.alone
	}
	return append([]*pack{b.pack}, b.alone...)
}

// Seal implements checkpoint.Batch: packs are synced, then the contents can be
// opened by this process and are stored by the next Append (or Commit). Sealing
// again does nothing.
func (b *batch) Seal() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sealed {
		return nil
	}
	if b.done {
		return fmt.Errorf("seal batch: %w", errBatchDone)
	}
	packs := b.packs()
	for _, p := range packs {
		if err := p.finish(); err != nil {
			return wrap("seal batch: write pack", err)
		}
	}
	if len(packs) > 0 {
		if err := syncDir(b.s.packsDir()); err != nil {
			return wrap("seal batch: sync directory", err)
		}
	}
	b.done, b.sealed = true, true
	b.s.blobs.seal(b)
	return nil
}

// Abort implements checkpoint.Batch. After Seal it does nothing: another
// checkpoint may count on the contents already.
func (b *batch) Abort() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return
	}
	b.done = true
	for _, p := range b.packs() {
		p.discard()
	}
	b.rows, b.pack, b.alone = nil, nil, nil
}

// staging holds sealed batches until a transaction has stored their rows.
type staging struct {
	mu     sync.Mutex
	sealed []*batch
	index  map[checkpoint.Hash]*blobRow
}

func (st *staging) seal(b *batch) {
	if len(b.rows) == 0 {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.index == nil {
		st.index = map[checkpoint.Hash]*blobRow{}
	}
	st.sealed = append(st.sealed, b)
	for h, row := range b.rows {
		st.index[h] = row
	}
}

func (st *staging) lookup(h checkpoint.Hash) *blobRow {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.index[h]
}

// stagedBlobs is what one transaction stores.
type stagedBlobs struct{ batches []*batch }

// store inserts the rows of every sealed batch: a checkpoint may count on a
// content that an earlier, never named one brought.
func (st *staging) store(w *writer) (*stagedBlobs, error) {
	st.mu.Lock()
	out := &stagedBlobs{batches: slices.Clone(st.sealed)}
	st.mu.Unlock()
	for _, b := range out.batches {
		keys := map[*pack]int64{}
		for _, p := range b.packs() {
			key, err := w.insert("INSERT INTO packs (name, bytes) VALUES (?, ?)", p.name, p.off)
			if err != nil {
				return nil, fmt.Errorf("insert pack %s: %w", p.name, err)
			}
			keys[p] = key
		}
		if err := insertBlobs(w, b, keys); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func insertBlobs(w *writer, b *batch, keys map[*pack]int64) error {
	rows := make([]*blobRow, 0, len(b.rows))
	for _, row := range b.rows {
		rows = append(rows, row)
	}
	// In the order of the table, which an import of 100,000 files fills page by page.
	slices.SortFunc(rows, func(a, b *blobRow) int { return bytes.Compare(a.hash[:], b.hash[:]) })
	for _, row := range rows {
		var err error
		if row.pack == nil {
			_, err = w.exec("INSERT OR IGNORE INTO blobs (hash, codec, size, data) VALUES (?, ?, ?, ?)",
				row.hash[:], int64(row.codec), row.size, row.data)
		} else {
			_, err = w.exec("INSERT OR IGNORE INTO blobs (hash, codec, size, pack, off, length) VALUES (?, ?, ?, ?, ?, ?)",
				row.hash[:], int64(row.codec), row.size, keys[row.pack], row.off, row.length)
		}
		if err != nil {
			return fmt.Errorf("insert content %s: %w", row.hash, err)
		}
	}
	return nil
}

// settle forgets what was stored.
func (st *staging) settle(done *stagedBlobs) {
	if done == nil || len(done.batches) == 0 {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.sealed = slices.DeleteFunc(st.sealed, func(b *batch) bool { return slices.Contains(done.batches, b) })
	for _, b := range done.batches {
		for _, p := range b.packs() {
			p.s.open.drop(p.name)
		}
		for h, row := range b.rows {
			if st.index[h] == row {
				delete(st.index, h)
			}
		}
	}
}

// Commit stores all sealed contents now, in a transaction of their own, for a
// caller whose event does not follow soon. An Append does the same by itself.
func (s *Store) Commit(ctx context.Context, _ checkpoint.Batch) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("commit contents: %w", err)
	}
	var done *stagedBlobs
	err := s.tx(func(w *writer) (err error) {
		done, err = s.blobs.store(w)
		return err
	})
	if err != nil {
		return wrap("commit contents", err)
	}
	s.blobs.settle(done)
	return nil
}
