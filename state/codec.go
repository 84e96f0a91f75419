package state

import (
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// How bytes are stored.
const (
	codecRaw  = 0
	codecZstd = 1
)

// zstdWindow bounds what an encoder and a decoder keep: 256 KiB instead of 4 MiB
// costs about 3 % of size on source trees and keeps the program small.
const zstdWindow = 256 << 10

// codec makes zstd coders by their first use: a run whose steps change and print
// nothing pays for none.
type codec struct {
	encOnce sync.Once
	enc     *zstd.Encoder
	decOnce sync.Once
	dec     *zstd.Decoder
	streams sync.Pool // of *zstd.Encoder, for contents that are not in memory
}

func encoderOptions(concurrency int) []zstd.EOption {
	return []zstd.EOption{
		zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(concurrency),
		zstd.WithWindowSize(zstdWindow), zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderCRC(false), // SHA-256 or CRC-32C is checked over all of it
	}
}

func (c *codec) encoder() *zstd.Encoder {
	c.encOnce.Do(func() {
		enc, err := zstd.NewWriter(nil, encoderOptions(4)...)
		if err != nil {
			panic("zstd: the options are constants and were refused: " + err.Error())
		}
		c.enc = enc
	})
	return c.enc
}

// compress gives the shorter of raw (p itself) and zstd.
func (c *codec) compress(p []byte) (kind int, out []byte) {
	kind, out, _ = c.compressInto(nil, p)
	return kind, out
}

// compressInto is compress with a buffer that the caller keeps for the next call.
func (c *codec) compressInto(buf, p []byte) (kind int, out, keep []byte) {
	if len(p) < 64 { // a frame's overhead eats what could be won
		return codecRaw, p, buf
	}
	buf = c.encoder().EncodeAll(p, buf[:0])
	if len(buf) >= len(p)-len(p)/32 {
		return codecRaw, p, buf
	}
	return codecZstd, buf, buf
}

// expand undoes compress; size is what must come out, and bounds the memory.
func (c *codec) expand(kind int, p []byte, size int64) ([]byte, error) {
	if kind == codecRaw {
		if int64(len(p)) != size {
			return nil, fmt.Errorf("%d bytes instead of %d", len(p), size)
		}
		return p, nil
	}
	if size < 0 || size > maxExpand {
		return nil, fmt.Errorf("a size of %d bytes", size)
	}
	c.decOnce.Do(func() {
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxExpand))
		if err != nil {
			panic("zstd: the options are constants and were refused: " + err.Error())
		}
		c.dec = dec
	})
	// No more than the input can hold is reserved for a size that is only claimed.
	out, err := c.dec.DecodeAll(p, make([]byte, 0, min(size, 64<<10+int64(len(p))*32)))
	if err != nil {
		return nil, err
	}
	if int64(len(out)) != size {
		return nil, fmt.Errorf("%d bytes instead of %d", len(out), size)
	}
	return out, nil
}

// maxExpand bounds what is expanded in memory: the manifest of a million files.
const maxExpand = 512 << 20

// stream compresses all of r into w, without memory in proportion to it.
func (c *codec) stream(w io.Writer, r io.Reader) error {
	enc, ok := c.streams.Get().(*zstd.Encoder)
	if ok {
		enc.Reset(w)
	} else {
		var err error
		if enc, err = zstd.NewWriter(w, encoderOptions(1)...); err != nil {
			return err
		}
	}
	_, err := io.Copy(enc, r)
	if cerr := enc.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		c.streams.Put(enc)
	}
	return err
}

func (c *codec) close() {
	if c.dec != nil {
		c.dec.Close()
	}
}
