package state

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// LogReader iterates a log. It can follow one that grows: Next gives io.EOF when
// there is no more yet, and goes on with what came since when called again.
type LogReader struct {
	c    *codec
	name string
	r    io.ReaderAt
	f    *os.File // nil for a row
	off  int64
	end  int64 // of a finished log, -1 while that is not known
}

// LogRef is the ref of an attempt's log, finished or not.
func LogRef(run, step string, attempt int) string {
	return logName{run: run, step: step, attempt: attempt}.ref()
}

// OpenLogReader opens a log by its ref: of a finished attempt, or of a running
// one, or of one whose process was killed. ErrNotFound when nothing was written.
func (s *Store) OpenLogReader(ctx context.Context, ref string) (*LogReader, error) {
	n, err := parseLogRef(ref)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	// The row first, then the file, then the row again: a short log moves from the
	// file to the row.
	for range 2 {
		r, err := s.logRow(ctx, n)
		if err != nil || r != nil {
			return r, wrap("open log "+ref, err)
		}
		f, err := os.Open(s.logPath(n))
		if err == nil {
			return &LogReader{c: &s.codec, name: "read log " + ref, r: f, f: f, end: -1}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, wrap("open log "+ref, err)
		}
	}
	return nil, fmt.Errorf("open log %s: %w: nothing was written", ref, ErrNotFound)
}

// logRow opens a finished log, nil when there is no row.
func (s *Store) logRow(ctx context.Context, n logName) (*LogReader, error) {
	var size int64
	var data []byte
	err := s.read.QueryRowContext(ctx, "SELECT l.bytes, l.data FROM logs l JOIN runs r ON r.key = l.run WHERE r.id = ? AND l.step = ? AND l.attempt = ?",
		n.run, n.step, n.attempt).Scan(&size, &data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &LogReader{c: &s.codec, name: "read log " + n.ref(), end: size}
	if data != nil {
		r.r = bytes.NewReader(data)
		return r, nil
	}
	if r.f, err = os.Open(s.logPath(n)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, corrupt(r.name, "its file is gone")
		}
		return nil, err
	}
	r.r = r.f
	return r, nil
}

// Next gives the next record. io.EOF: the end, for now when the log is not
// finished. ErrCorrupt: a finished log is damaged; of one that is not, what a
// killed writer left at its end is not given.
func (l *LogReader) Next() (LogRecord, error) {
	rec, _, err := l.next(nil)
	return rec, err
}

func (l *LogReader) next(want func(*logHead) bool) (LogRecord, int, error) {
	if l.end >= 0 && l.off >= l.end {
		return LogRecord{}, 0, io.EOF
	}
	rec, raw, next, err := l.c.readLogRecord(l.r, l.off, want)
	torn := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errLogRecord)
	switch {
	case err == nil:
		l.off = next
		return rec, raw, nil
	case torn && l.end < 0:
		return LogRecord{}, 0, io.EOF
	case torn:
		return LogRecord{}, 0, corrupt(l.name, "at byte %d of %d: %v", l.off, l.end, err) // %v: it is not io.EOF
	}
	return LogRecord{}, 0, wrap(l.name, err)
}

// Close ends the reading.
func (l *LogReader) Close() error {
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}

// Tail gives the last bytes of one stream of a log, at most limit; "" when the
// ref is "" or nothing was written to that stream. Only the records that hold
// them are expanded.
func (s *Store) Tail(ctx context.Context, ref string, stderr bool, limit int) (_ string, err error) {
	if ref == "" || limit <= 0 {
		return "", nil
	}
	l, err := s.OpenLogReader(ctx, ref)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	stream := Stdout
	if stderr {
		stream = Stderr
	}
	offs, err := l.last(stream, limit)
	if err != nil {
		return "", err
	}
	var out []byte
	for _, off := range offs {
		l.off = off
		rec, err := l.Next()
		if errors.Is(err, io.EOF) {
			break // the last record of a log that grows was not whole
		}
		if err != nil {
			return "", err
		}
		out = append(out, rec.Data...)
	}
	return string(out[max(0, len(out)-limit):]), nil
}

// last finds the records that hold the last limit bytes of a stream, by their heads.
func (l *LogReader) last(stream Stream, limit int) ([]int64, error) {
	type at struct {
		off int64
		raw int
	}
	var keep []at
	total := 0
	for {
		off := l.off
		rec, raw, err := l.next(func(*logHead) bool { return false })
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if rec.Stream != stream {
			continue
		}
		keep = append(keep, at{off, raw})
		total += raw
		for total-keep[0].raw >= limit {
			total -= keep[0].raw
			keep = keep[1:]
		}
	}
	offs := make([]int64, len(keep))
	for i, k := range keep {
		offs[i] = k.off
	}
	return offs, nil
}
