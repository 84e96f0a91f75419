// Package child runs an agent's own program inside a sandbox, with its stdin and
// stdout in our hands.
//
// Its stdio are socket pairs: /proc/PID/fd of a socket cannot be opened by another
// process, as that of a pipe can, so that nothing inside reads or forges what the
// program and we say to each other.
//
// Imports of this module: sandbox.
package child

import (
	"context"
	"errors"
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
	// Grace is the time between SIGTERM and SIGKILL: programs write their sessions.
	Grace     = 2 * time.Second
	maxStderr = 8 << 10
)

// Process is the running program.
type Process struct {
	IO *net.UnixConn // its stdin and stdout

	stderr *tail
	words  sync.WaitGroup // the reader of stderr
	exit   sandbox.Result // valid after done
	err    error
	done   chan struct{}
}

// Start executes the command in the sandbox; its stdio and grace are set here.
func Start(ctx context.Context, sb sandbox.Sandbox, cmd sandbox.Cmd) (*Process, error) {
	conn, inside, err := socketPair()
	if err != nil {
		return nil, Place(err)
	}
	errConn, errInside, err := socketPair()
	if err != nil {
		conn.Close()
		inside.Close()
		return nil, Place(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Grace = inside, inside, errInside, Grace
	p := &Process{IO: conn, stderr: &tail{}, done: make(chan struct{})}
	p.words.Go(func() {
		_, _ = io.Copy(p.stderr, errConn) // its end is the program's
		_ = errConn.Close()
	})
	go func() {
		defer close(p.done)
		p.exit, p.err = sb.Exec(ctx, cmd)
		// Our copies of its ends: closing them is the end of its output.
		_ = inside.Close()
		_ = errInside.Close()
		p.words.Wait()
	}()
	return p, nil
}

// Stderr is the end of what the program wrote there.
func (p *Process) Stderr() string { return p.stderr.String() }

// Write sends to its stdin. That it has ended is no error: how is said by Wait.
func (p *Process) Write(b []byte) (int, error) {
	n, err := p.IO.Write(b)
	// It is ECONNRESET when the program left something unread.
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return len(b), nil
	}
	if err != nil {
		return n, Place(err)
	}
	return n, nil
}

// Done is closed when the program and everything that it started have ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Finish says that nothing more will be asked: the program ends by itself.
func (p *Process) Finish() { _ = p.IO.CloseWrite() }

// Wait waits for the end of the program and everything that it started.
func (p *Process) Wait() (sandbox.Result, error) {
	<-p.done
	_ = p.IO.Close()
	return p.exit, p.err
}

// Place marks this machine's own failures (no descriptors left) as the place's.
func Place(err error) error {
	return &sandbox.Error{Op: "connect the agent's program", Class: sandbox.ClassInfrastructure, Err: err}
}

// socketPair is a connection for us and a file for the program.
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
	ours := os.NewFile(uintptr(fds[0]), "agent")
	theirs := os.NewFile(uintptr(fds[1]), "agent inside")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
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
