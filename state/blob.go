package state

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"flowrun.dev/flow/checkpoint"
)

// Have implements checkpoint.Store. A content that is sealed counts: it is stored
// before any row that refers to it.
func (s *Store) Have(ctx context.Context, hs []checkpoint.Hash) ([]bool, error) {
	out := make([]bool, len(hs))
	if len(hs) == 0 {
		return out, nil
	}
	at := make(map[checkpoint.Hash][]int, len(hs)) // the same may be asked twice
	ask := make([]any, 0, len(hs))
	for i, h := range hs {
		if s.blobs.lookup(h) != nil {
			out[i] = true
			continue
		}
		if at[h] == nil {
			ask = append(ask, h[:])
		}
		at[h] = append(at[h], i)
	}
	for chunk := range slices.Chunk(ask, haveChunk) {
		err := s.each(ctx, "SELECT hash FROM blobs WHERE hash IN (?"+strings.Repeat(", ?", len(chunk)-1)+")", chunk,
			func(rows *sql.Rows) error {
				var b []byte
				if err := rows.Scan(&b); err != nil {
					return err
				}
				for _, i := range at[checkpoint.Hash(b)] { // the schema fixes the length
					out[i] = true
				}
				return nil
			})
		if err != nil {
			return nil, wrap("look for contents", err)
		}
	}
	return out, nil
}

// haveChunk hashes are asked in one statement: 100,000 of a first import would
// take a second one by one.
const haveChunk = 500

// Open implements checkpoint.Store. The reader's end comes only when the whole
// content had the right hash; ErrCorrupt otherwise.
func (s *Store) Open(ctx context.Context, h checkpoint.Hash) (io.ReadCloser, error) {
	name := "open content " + h.String()
	if row := s.blobs.lookup(h); row != nil {
		if row.pack == nil {
			return s.openInline(name, row)
		}
		return s.openPacked(name, row, row.pack.name)
	}
	row := &blobRow{hash: h}
	var pack sql.NullString
	var off, length sql.NullInt64
	err := s.read.QueryRowContext(ctx, `SELECT b.codec, b.size, b.data, p.name, b.off, b.length
		FROM blobs b LEFT JOIN packs p ON p.key = b.pack WHERE b.hash = ?`, h[:]).
		Scan(&row.codec, &row.size, &row.data, &pack, &off, &length)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, wrap(name, err)
	}
	if !pack.Valid {
		return s.openInline(name, row)
	}
	row.off, row.length = off.Int64, length.Int64
	return s.openPacked(name, row, pack.String)
}

func (s *Store) openInline(name string, row *blobRow) (io.ReadCloser, error) {
	b, err := s.codec.expand(row.codec, row.data, row.size)
	if err != nil {
		return nil, corrupt(name, "%w", err)
	}
	if err := verifyBytes(name, row.hash, b); err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (s *Store) openPacked(name string, row *blobRow, pack string) (io.ReadCloser, error) {
	f, err := os.Open(filepath.Join(s.packsDir(), pack))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, corrupt(name, "its pack %s is gone", pack)
	}
	if err != nil {
		return nil, wrap(name, err)
	}
	section := io.NewSectionReader(f, row.off, row.length)
	if row.size <= streamFrom && row.length <= 2*streamFrom {
		defer f.Close()
		data := make([]byte, row.length)
		if _, err := io.ReadFull(section, data); err != nil {
			return nil, corrupt(name, "pack %s ends too early: %v", pack, err)
		}
		inline := *row
		inline.data = data
		return s.openInline(name, &inline)
	}
	v := &verifier{r: section, close: f.Close, name: name, want: row.hash, sum: sha256.New(), left: row.size}
	if row.codec == codecZstd {
		dec, err := zstd.NewReader(section, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(64<<20))
		if err != nil {
			return nil, errors.Join(corrupt(name, "%w", err), f.Close())
		}
		v.r = dec
		v.close = func() error {
			dec.Close()
			return f.Close()
		}
	}
	return v, nil
}
