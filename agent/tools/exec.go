package tools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"flowrun.dev/flow/sandbox"
)

const (
	// maxInternal bounds what our own scripts answer: lists of names, whole files.
	maxInternal = 64 << 20
	maxStderr   = 8 << 10
	// drainTime is how long output may still come after a command has ended: only a
	// process that escaped (driver host) keeps the descriptor open.
	drainTime = 500 * time.Millisecond
	grace     = 2 * time.Second
)

// bounded keeps the beginning and the end of a stream.
type bounded struct {
	max        int // bytes to keep
	head, tail []byte
	total      int64
}

func (b *bounded) Write(p []byte) (int, error) {
	n := len(p)
	b.total += int64(n)
	if room := b.max/2 - len(b.head); room > 0 {
		k := min(room, len(p))
		b.head = append(b.head, p[:k]...)
		p = p[k:]
	}
	b.tail = append(b.tail, p...)
	if keep := b.max - b.max/2; len(b.tail) > 2*keep {
		b.tail = append(b.tail[:0], b.tail[len(b.tail)-keep:]...)
	}
	return n, nil
}

func (b *bounded) cut() bool { return b.total > int64(b.max) }

// bytes is everything, when nothing was cut.
func (b *bounded) bytes() []byte { return append(b.head, b.tail...) }

// exec runs argv in the workspace. The output goes to out as it comes; stderr's
// beginning and end are returned. Where out stops reading (an error of its Write),
// the command is ended and that is no error.
func (s *Set) exec(ctx context.Context, argv []string, stdin io.Reader, out io.Writer) (sandbox.Result, string, error) {
	stderr := &bounded{max: maxStderr}
	res, err := s.execTo(ctx, argv, stdin, out, stderr)
	return res, string(stderr.bytes()), err
}

// errEnough is returned by a writer that needs no more.
var errEnough = errors.New("enough was read")

func (s *Set) execTo(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) (sandbox.Result, error) {
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var p plumbing
	defer p.close()
	cmd := sandbox.Cmd{Argv: argv, Env: s.env, Grace: grace, Rights: s.rights}
	var err error
	if stdin != nil {
		if cmd.Stdin, err = p.feed(stdin); err != nil {
			return sandbox.Result{}, place(err)
		}
	}
	stop := func() { cancel(errEnough) }
	if cmd.Stdout, err = p.drain(stdout, stop); err != nil {
		return sandbox.Result{}, place(err)
	}
	cmd.Stderr = cmd.Stdout
	if stderr != nil {
		if cmd.Stderr, err = p.drain(stderr, stop); err != nil {
			return sandbox.Result{}, place(err)
		}
	}
	res, err := s.sb.Exec(inner, cmd)
	p.finish()
	if err != nil {
		return res, fmt.Errorf("execute %s: %w", argv[0], err)
	}
	if ctx.Err() != nil {
		return res, context.Cause(ctx)
	}
	if errors.Is(context.Cause(inner), errEnough) {
		return sandbox.Result{}, nil
	}
	return res, nil
}

// place marks this machine's own failures (no descriptors left) as the place's.
func place(err error) error {
	return &sandbox.Error{Op: "connect a tool", Class: sandbox.ClassInfrastructure, Err: err}
}

// plumbing owns the pipes of one exec and the goroutines that serve them; finish
// ends and waits for all of them.
type plumbing struct {
	inside []*os.File // ends that the command got
	reads  []*os.File
	writes []*os.File
	wg     sync.WaitGroup
}

func (p *plumbing) feed(from io.Reader) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.inside, p.writes = append(p.inside, r), append(p.writes, w)
	p.wg.Go(func() {
		// EPIPE: the command did not want it all, which its exit code judges.
		_, _ = io.Copy(w, from)
		_ = w.Close()
	})
	return r, nil
}

func (p *plumbing) drain(to io.Writer, stop func()) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.inside, p.reads = append(p.inside, w), append(p.reads, r)
	p.wg.Go(func() {
		if _, err := io.Copy(to, r); errors.Is(err, errEnough) {
			stop()
		}
		_ = r.Close()
	})
	return w, nil
}

func (p *plumbing) finish() {
	for _, f := range p.inside {
		_ = f.Close()
	}
	for _, r := range p.reads {
		_ = r.SetReadDeadline(time.Now().Add(drainTime))
	}
	for _, w := range p.writes {
		_ = w.SetWriteDeadline(time.Now().Add(drainTime))
	}
	p.wg.Wait()
	p.inside = nil
}

// close is for an exec that never started.
func (p *plumbing) close() {
	if p.inside != nil {
		p.finish()
	}
}
