package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// A log is a sequence of records, each readable on its own:
//
//	magic 'F' | stream 1, 2 | codec 0, 1 | 0 | raw length u32 | stored length u32 | time i64 (ns) | crc u32 | data
//
// little-endian; the crc is CRC-32C of all before it and the data. What a killed
// writer left of its last record is recognised and ignored.
const (
	logMagic  = 'F'
	logHeader = 24
	// logChunk is the most that one record holds, and what a reader must keep.
	logChunk = 256 << 10
	// logCompressFrom: less is stored as it is; compressing it wins little.
	logCompressFrom = 16 << 10
)

// Stream says which of a step's outputs.
type Stream uint8

const (
	Stdout Stream = 1
	Stderr Stream = 2
)

func (s Stream) String() string {
	switch s {
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	}
	return fmt.Sprintf("stream %d", uint8(s))
}

// LogRecord is one piece of output as it was written, at most 256 KiB.
type LogRecord struct {
	Stream Stream
	At     time.Time
	Data   []byte
}

type logHead struct {
	stream Stream
	codec  int
	raw    int
	stored int
	at     int64
	crc    uint32
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // made once by the library

func (h *logHead) encode(data []byte) [logHeader]byte {
	var b [logHeader]byte
	b[0], b[1], b[2] = logMagic, byte(h.stream), byte(h.codec)
	binary.LittleEndian.PutUint32(b[4:], uint32(h.raw))
	binary.LittleEndian.PutUint32(b[8:], uint32(h.stored))
	binary.LittleEndian.PutUint64(b[12:], uint64(h.at))
	binary.LittleEndian.PutUint32(b[20:], logSum(b[:20], data))
	return b
}

func logSum(head, data []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli()), castagnoli(), data)
}

var errLogRecord = errors.New("no log record")

func decodeLogHead(b []byte) (h logHead, err error) {
	h = logHead{
		stream: Stream(b[1]), codec: int(b[2]),
		raw: int(binary.LittleEndian.Uint32(b[4:])), stored: int(binary.LittleEndian.Uint32(b[8:])),
		at: int64(binary.LittleEndian.Uint64(b[12:])), crc: binary.LittleEndian.Uint32(b[20:]),
	}
	if b[0] != logMagic || b[3] != 0 || h.stream != Stdout && h.stream != Stderr || h.codec > codecZstd ||
		h.raw == 0 || h.raw > logChunk || h.stored == 0 || h.stored > h.raw {
		return h, errLogRecord
	}
	return h, nil
}

// readLogRecord reads the record at off, expanding its data only when want says
// so (nil: always). next is where the following one begins. io.EOF: nothing is
// there; io.ErrUnexpectedEOF: only the beginning of a record is.
func (c *codec) readLogRecord(r io.ReaderAt, off int64, want func(*logHead) bool) (rec LogRecord, raw int, next int64, err error) {
	var head [logHeader]byte
	n, err := r.ReadAt(head[:], off)
	if n < logHeader {
		if errors.Is(err, io.EOF) && n > 0 {
			err = io.ErrUnexpectedEOF
		}
		return rec, 0, off, err
	}
	h, err := decodeLogHead(head[:])
	if err != nil {
		return rec, 0, off, err
	}
	next = off + logHeader + int64(h.stored)
	if want != nil && !want(&h) {
		return LogRecord{Stream: h.stream}, h.raw, next, nil
	}
	data := make([]byte, h.stored)
	if n, err = r.ReadAt(data, off+logHeader); n < len(data) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return rec, 0, off, err
	}
	if logSum(head[:20], data) != h.crc {
		return rec, 0, off, errLogRecord
	}
	if data, err = c.expand(h.codec, data, int64(h.raw)); err != nil {
		return rec, 0, off, fmt.Errorf("%w: %w", errLogRecord, err)
	}
	return LogRecord{Stream: h.stream, At: fromNano(h.at), Data: data}, h.raw, next, nil
}
