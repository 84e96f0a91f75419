package steps

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/redact"
)

const (
	// firstChunk, readChunk and pipeSize: 256 KiB reads from a 1 MiB pipe (design:
	// performance), once a read filled the first, small buffer. Most steps say
	// little, and the pages of a big buffer cost more than all of their output.
	firstChunk = 8 << 10
	readChunk  = 256 << 10
	pipeSize   = 1 << 20
	// drainTime is how long output is still read after the command's tree has
	// ended. A driver that cannot kill the whole tree may leave a grandchild that
	// holds the pipe; it must not hang the step.
	drainTime = 200 * time.Millisecond
	// excerptChars is practice 12's figure.
	excerptChars = 1000
)

var chunks = sync.Pool{New: func() any { b := make([]byte, readChunk); return &b }}

// capture takes both streams of one attempt: redacts, logs, shows, and keeps the
// excerpts. The write ends go to the command.
type capture struct {
	stdout, stderr *stream
	log            LogWriter
	once           sync.Once
}

func (h *Host) newCapture(a engine.Attempt, also ...func(Stream, []byte)) (*capture, error) {
	log, err := h.cfg.Logs.OpenLog(h.cfg.RunID, a.Step.ID, a.Attempt)
	if err != nil {
		return nil, err
	}
	c := &capture{log: log}
	for _, s := range []struct {
		to   **stream
		kind Stream
	}{{&c.stdout, Stdout}, {&c.stderr, Stderr}} {
		st, err := h.newStream(a.Step.ID, s.kind, log, also)
		if err != nil {
			if c.stdout != nil {
				c.stdout.close()
			}
			return nil, errors.Join(err, finishQuietly(log))
		}
		*s.to = st
	}
	return c, nil
}

func finishQuietly(log LogWriter) error { _, err := log.Finish(); return err }

// drain closes our write ends and waits until all output was taken.
func (c *capture) drain() {
	c.once.Do(func() {
		c.stdout.close()
		c.stderr.close()
	})
}

func (c *capture) finish() (string, error) {
	ref, err := c.log.Finish()
	return ref, errors.Join(c.stdout.err, c.stderr.err, err)
}

// stream is one of the two. Its reader goroutine owns all fields until done is
// closed; then the attempt's goroutine reads them.
type stream struct {
	w, r  *os.File
	done  chan struct{}
	err   error
	bytes int64
	head  []byte
	tail  []byte
}

func (h *Host) newStream(step string, kind Stream, log LogWriter, also []func(Stream, []byte)) (*stream, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	// A bigger pipe saves wake-ups; where the user's quota of pipe pages is spent
	// the default size works as well.
	_, _ = unix.FcntlInt(r.Fd(), unix.F_SETPIPE_SZ, pipeSize)
	// Fd() made r blocking; the read deadline in close needs it pollable.
	if err := unix.SetNonblock(int(r.Fd()), true); err != nil {
		return nil, errors.Join(fmt.Errorf("make the pipe pollable: %w", err), r.Close(), w.Close())
	}
	s := &stream{w: w, r: r, done: make(chan struct{})}
	sink := writerFunc(func(p []byte) (int, error) {
		if len(p) == 0 {
			return 0, nil
		}
		s.note(p)
		h.cfg.Output(step, kind, p)
		for _, f := range also {
			f(kind, p)
		}
		if err := log.Write(kind, p); err != nil && s.err == nil {
			s.err = err // keep draining: a full disk must not block the command
		}
		return len(p), nil
	})
	go s.pump(h.cfg.Redact.Writer(sink))
	return s, nil
}

func (s *stream) pump(red *redact.Writer) {
	defer close(s.done)
	defer s.r.Close()
	buf := make([]byte, firstChunk)
	for {
		n, err := s.r.Read(buf)
		if n > 0 {
			_, _ = red.Write(buf[:n]) // the sink never fails; it keeps its error
		}
		if n == firstChunk && len(buf) == firstChunk {
			big := chunks.Get().(*[]byte)
			defer chunks.Put(big)
			buf = *big
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) && s.err == nil {
				s.err = err
			}
			_ = red.Close()
			return
		}
	}
}

func (s *stream) close() {
	s.w.Close()
	_ = s.r.SetReadDeadline(time.Now().Add(drainTime))
	<-s.done
}

// note keeps the first and last characters. 4 bytes a character at the most.
func (s *stream) note(p []byte) {
	s.bytes += int64(len(p))
	const max = excerptChars * utf8.UTFMax
	if room := max - len(s.head); room > 0 {
		s.head = append(s.head, p[:min(room, len(p))]...)
	}
	if len(p) >= max {
		s.tail = append(s.tail[:0], p[len(p)-max:]...)
		return
	}
	if over := len(s.tail) + len(p) - max; over > 0 {
		s.tail = append(s.tail[:0], s.tail[over:]...)
	}
	s.tail = append(s.tail, p...)
}

func (s *stream) excerpt() engine.Excerpt {
	e := engine.Excerpt{Bytes: s.bytes, Head: firstChars(s.head, excerptChars)}
	if int64(len(e.Head)) < s.bytes {
		e.Tail = lastChars(s.tail, excerptChars)
	}
	return e
}

// firstChars and lastChars cut at characters; what is not UTF-8 counts a byte as one.
func firstChars(b []byte, n int) string {
	i := 0
	for ; n > 0 && i < len(b); n-- {
		_, size := utf8.DecodeRune(b[i:])
		i += size
	}
	return string(b[:i])
}

func lastChars(b []byte, n int) string {
	i := len(b)
	for ; n > 0 && i > 0; n-- {
		_, size := utf8.DecodeLastRune(b[:i])
		i -= size
	}
	return string(b[i:])
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
