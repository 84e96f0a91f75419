package claudecode

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"flowrun.dev/flow/sandbox"
)

const (
	// grace is the time between SIGTERM and SIGKILL: the CLI writes its session.
	grace = 2 * time.Second
	// maxLine bounds one event; a tool's result of this size was cut by the CLI before.
	maxLine   = 64 << 20
	maxStderr = 8 << 10
)

// process is the running CLI.
type process struct {
	io     *net.UnixConn // its stdin and stdout
	lines  *bufio.Reader
	stderr *tail
	words  sync.WaitGroup // the reader of stderr

	exit sandbox.Result // valid after done
	err  error
	done chan struct{}
}

// start executes the CLI in the sandbox. stdio is a socket pair: /proc/PID/fd of a
// socket cannot be opened by another process, as that of a pipe can.
func start(ctx context.Context, sb sandbox.Sandbox, c command) (*process, error) {
	conn, inside, err := socketPair()
	if err != nil {
		return nil, place(err)
	}
	errConn, errInside, err := socketPair()
	if err != nil {
		conn.Close()
		inside.Close()
		return nil, place(err)
	}
	p := &process{io: conn, lines: bufio.NewReaderSize(conn, 64<<10), stderr: &tail{}, done: make(chan struct{})}
	p.words.Go(func() {
		_, _ = io.Copy(p.stderr, errConn) // its end is the CLI's
		_ = errConn.Close()
	})
	go func() {
		defer close(p.done)
		p.exit, p.err = sb.Exec(ctx, sandbox.Cmd{Argv: c.argv, Env: c.env, Stdin: inside, Stdout: inside, Stderr: errInside, Grace: grace})
		// Our copies of its ends: closing them is the end of its output.
		_ = inside.Close()
		_ = errInside.Close()
		p.words.Wait()
	}()
	if _, err := io.WriteString(conn, c.token+"\n"); err != nil && !errors.Is(err, syscall.EPIPE) {
		return p, place(err)
	}
	return p, nil
}

func place(err error) error {
	return &sandbox.Error{Op: "connect the CLI", Class: sandbox.ClassInfrastructure, Err: err}
}

// socketPair is a connection for us and a file for the CLI.
func socketPair() (*net.UnixConn, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours := os.NewFile(uintptr(fds[0]), "claude")
	theirs := os.NewFile(uintptr(fds[1]), "claude inside")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// send writes one message of the control protocol.
func (p *process) send(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a control message: %w", err)
	}
	if _, err := p.io.Write(append(raw, '\n')); err != nil && !errors.Is(err, syscall.EPIPE) {
		return place(err)
	}
	return nil // EPIPE: it has ended, and how is said by its exit
}

// next reads one line; io.EOF after the last.
func (p *process) next() ([]byte, error) {
	var line []byte
	for {
		part, err := p.lines.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return nil, fmt.Errorf("read the CLI's events: one is longer than %d bytes", maxLine)
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
			if len(line) > 0 {
				return line, nil
			}
			return nil, io.EOF
		case err != nil:
			return nil, place(err)
		default:
			return line, nil
		}
	}
}

// finish says that nothing more will be asked: the CLI ends by itself.
func (p *process) finish() { _ = p.io.CloseWrite() }

// wait waits for the end of the CLI and everything that it started.
func (p *process) wait() (sandbox.Result, error) {
	<-p.done
	_ = p.io.Close()
	return p.exit, p.err
}

// tail keeps the end of what was written.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if len(t.b) > 2*maxStderr {
		t.b = append(t.b[:0], t.b[len(t.b)-maxStderr:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.b
	if len(b) > maxStderr {
		b = b[len(b)-maxStderr:]
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(b), "\uFFFD"))
}
