package state

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// logInline: a finished log up to this size becomes a row; its file is removed.
const logInline = 64 << 10

// logName is whose output it is. Its text, the ref, is log/<run>/<step>/<attempt>.
type logName struct {
	run, step string
	attempt   int
}

func (n logName) ref() string {
	return "log/" + n.run + "/" + url.PathEscape(n.step) + "/" + strconv.Itoa(n.attempt)
}

func parseLogRef(ref string) (n logName, err error) {
	parts := strings.Split(ref, "/")
	if len(parts) == 4 && parts[0] == "log" {
		step, err1 := url.PathUnescape(parts[2])
		attempt, err2 := strconv.Atoi(parts[3])
		n = logName{run: parts[1], step: step, attempt: attempt}
		if err1 == nil && err2 == nil && n.check() == nil {
			return n, nil
		}
	}
	return n, fmt.Errorf("log %q: %w: a log's name looks like log/RUN/STEP/ATTEMPT", ref, ErrNotFound)
}

func (n logName) check() error {
	if err := validRunID(n.run); err != nil {
		return err
	}
	if n.step == "" || n.attempt < 1 {
		return fmt.Errorf("log of step %q, attempt %d: %w", n.step, n.attempt, ErrNotFound)
	}
	return nil
}

// maxLogName bounds a log's name on disk, in bytes; file systems take 255.
const maxLogName = 200

// file is the log's name on disk: the step's id, which for an item of a foreach
// holds text from elsewhere, made one name.
func (n logName) file() string {
	step := strings.NewReplacer("/", "%2F", ".", "%2E", "\x00", "%00").Replace(n.step)
	if len(step) > maxLogName {
		sum := sha256.Sum256([]byte(n.step))
		step = step[:maxLogName-33] + "~" + hex.EncodeToString(sum[:16])
	}
	return step + "." + strconv.Itoa(n.attempt) + ".log"
}

func (s *Store) logsDir(run string) string { return filepath.Join(s.RunDir(run), "logs") }

func (s *Store) logPath(n logName) string { return filepath.Join(s.logsDir(n.run), n.file()) }

// LogWriter keeps the whole output of one attempt. Write may be called from two
// goroutines; what is given must be redacted already.
type LogWriter struct {
	s    *Store
	name logName

	mu   sync.Mutex
	f    *os.File // nil until the first byte
	size int64
	err  error // the first one; the log ends there
	done bool
	buf  []byte
	// skip is how many chunks are not tried to compress, and grows while that
	// wins nothing: output of a compressor costs no second one.
	skip, penalty int
}

// OpenLog begins the log of an attempt. Nothing is created before the first byte.
func (s *Store) OpenLog(run, step string, attempt int) (*LogWriter, error) {
	n := logName{run: run, step: step, attempt: attempt}
	if err := n.check(); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if s.readOnly {
		return nil, &storageError{op: "open log", kind: ErrReadOnly, cause: errors.New("the state was opened for reading only")}
	}
	return &LogWriter{s: s, name: n}, nil
}

// Write appends output. It is in the file when it returns: readable for others,
// and still there when this process is killed. After an error every call fails.
func (l *LogWriter) Write(stream Stream, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if err := l.write(stream, p); err != nil {
		l.err = wrap(fmt.Sprintf("write log of step %q", l.name.step), err)
	}
	return l.err
}

func (l *LogWriter) write(stream Stream, p []byte) error {
	if l.done {
		return errors.New("it was finished already")
	}
	if stream != Stdout && stream != Stderr {
		return fmt.Errorf("there is no %s", stream)
	}
	if l.f == nil {
		if err := l.create(); err != nil {
			return err
		}
	}
	for len(p) > 0 {
		n := min(len(p), logChunk)
		if err := l.chunk(stream, p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (l *LogWriter) create() error {
	path := l.s.logPath(l.name)
	open := func() (*os.File, error) {
		// An attempt has a number of its own over all resumes: a file of that name
		// is left from a process that died before it stored the attempt's start.
		return os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	}
	f, err := open()
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			f, err = open()
		}
	}
	l.f = f
	return err
}

func (l *LogWriter) chunk(stream Stream, p []byte) error {
	h := logHead{stream: stream, codec: codecRaw, raw: len(p), at: l.s.opts.Now().UnixNano()}
	data := p
	switch {
	case len(p) < logCompressFrom:
	case l.skip > 0:
		l.skip--
	default:
		h.codec, data, l.buf = l.s.codec.compressInto(l.buf, p)
		if h.codec == codecZstd {
			l.penalty = 0
		} else {
			l.penalty = min(2*l.penalty+1, 31)
			l.skip = l.penalty
		}
	}
	h.stored = len(data)
	head := h.encode(data)
	// One call, so that a reader seldom sees half a record.
	n, err := writev(l.f, head[:], data)
	l.size += int64(n)
	return err
}

// writev writes both or fails; a short write goes on where it ended.
func writev(f *os.File, a, b []byte) (int, error) {
	total := 0
	for len(a)+len(b) > 0 {
		iov := [][]byte{a, b}
		if len(a) == 0 {
			iov = iov[1:]
		}
		n, err := unix.Writev(int(f.Fd()), iov)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return total, &os.PathError{Op: "write", Path: f.Name(), Err: err}
		}
		total += n
		k := min(n, len(a))
		a, b = a[k:], b[n-k:]
	}
	return total, nil
}

// Finish ends the log and gives the ref for engine.Outcome.Log, "" when nothing
// was written. A short log becomes a row with the Append that names the ref; a
// long one is durable when Finish returns. Finish again gives the same.
func (l *LogWriter) Finish() (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		l.done = true
		return "", l.err
	}
	if l.done {
		return l.name.ref(), l.err
	}
	l.done = true
	st, err := l.seal()
	if err = errors.Join(err, l.f.Close()); err != nil {
		err = wrap(fmt.Sprintf("finish log of step %q", l.name.step), err)
		l.err = errors.Join(l.err, err)
	}
	if st != nil {
		l.s.lmu.Lock()
		l.s.logs[st.ref] = st
		l.s.lmu.Unlock()
	}
	return l.name.ref(), l.err
}

func (l *LogWriter) seal() (*stagedLog, error) {
	st := &stagedLog{name: l.name, ref: l.name.ref(), path: l.f.Name(), bytes: l.size}
	if l.size > logInline {
		if err := l.f.Sync(); err != nil {
			return nil, err
		}
		// Both names that may be new: the file's and its directories'.
		for _, dir := range []string{l.s.logsDir(l.name.run), l.s.RunDir(l.name.run), filepath.Join(l.s.dir, runsName)} {
			if err := syncDir(dir); err != nil {
				return nil, err
			}
		}
		return st, nil
	}
	data, err := os.ReadFile(st.path)
	if err == nil && int64(len(data)) < l.size {
		err = fmt.Errorf("%s has %d bytes instead of %d", st.path, len(data), l.size)
	}
	if err != nil {
		return nil, err
	}
	st.data = data[:l.size]
	return st, nil
}

// stagedLog is a finished log that waits for the Append whose event names it.
type stagedLog struct {
	name  logName
	ref   string
	path  string
	bytes int64
	data  []byte // nil: it stays a file
}

// stored removes the file of a log that has become a row. One that cannot be
// removed does no harm: the row is looked at first.
func (l *stagedLog) stored() {
	if l.data != nil {
		os.Remove(l.path)
	}
}

func (c *change) storeLog(ref string) error {
	s := c.o.s
	s.lmu.Lock()
	st := s.logs[ref]
	s.lmu.Unlock()
	if st == nil {
		return fmt.Errorf("store log %s: the event names a log that was not finished here", ref)
	}
	var data any
	if st.data != nil {
		data = st.data
	}
	if _, err := c.w.exec("INSERT INTO logs (run, step, attempt, bytes, data) VALUES (?, ?, ?, ?, ?)",
		c.o.row.key, st.name.step, int64(st.name.attempt), st.bytes, data); err != nil {
		return fmt.Errorf("insert log %s: %w", ref, err)
	}
	c.logs = append(c.logs, st)
	return nil
}
