package redact

import (
	"io"
	"sync"
)

// Writer redacts what is written to it and passes it on. It may be used by many
// goroutines, so that one can flush an idle stream that another one feeds; what
// they write is one stream in the order of the calls.
type Writer struct {
	mu     sync.Mutex
	w      io.Writer
	stream *Stream
	err    error // the first error of w; final
}

// Writer returns a Writer to w. Each Write makes at most one Write to w. The
// caller must Flush or Close it at the end.
func (s *Set) Writer(w io.Writer) *Writer { return &Writer{w: w, stream: s.Stream()} }

// Write passes on p without secrets, and without an end that may turn out to be
// the start of one. After an error of the underlying writer, which is returned
// as it is, nothing is written any more.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	if w.pass(w.stream.Next(p)); w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// Flush passes on what is held back, as it is, even if it is the first half of a
// secret: call it when the input has ended or has been idle for so long that a
// person waits for it. What follows is a new stream.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.pass(w.stream.Rest())
	}
	return w.err
}

// Close is Flush. It does not close the underlying writer.
func (w *Writer) Close() error { return w.Flush() }

// Seen returns the names of the secrets that were replaced so far.
func (w *Writer) Seen() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stream.Seen()
}

func (w *Writer) pass(p []byte) {
	if len(p) == 0 {
		return
	}
	n, err := w.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	w.err = err
}
