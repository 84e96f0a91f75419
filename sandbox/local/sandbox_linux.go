package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/internal/beneath"
	"flowrun.dev/flow/sandbox/internal/cgroup"
	"flowrun.dev/flow/sandbox/internal/listen"
)

// closeTimeout bounds Close: the kernel has to end every process inside.
const closeTimeout = 10 * time.Second

// Sandbox is one living sandbox: the host's side of its init. Two goroutines
// belong to it until Done: wait and receive.
type Sandbox struct {
	id, home, reason string
	tmp              string // the scratch folder in the tier landlock, "" elsewhere
	ids              ids
	limits           sandbox.Limits
	group            *cgroup.Group     // nil: no limit needs one
	owner            *checkpoint.Owner // of the tree on disk; nil: this process
	env              []string
	tracker          tracker
	view             *view // nil: the workspace is a directory
	layer            *checkpoint.Layer
	listeners        listen.Set
	caught           []net.Listener // see Caught
	names            net.PacketConn

	conn   *net.UnixConn
	stderr *os.File      // init's standard error, read once it has ended
	pid    int           // of init, in the tier landlock of its guard
	below  int           // in the tier landlock the guard's child, init; guarded by mu
	holds  int           // a pidfd of it, -1 for none; guarded by mu
	done   chan struct{} // closed by wait when init has ended and words is set

	mu      sync.Mutex
	next    uint64
	calls   map[uint64]chan *execResult // those who wait for a result
	listens map[uint64]chan listened    // those who wait for a listener
	closed  bool
	reaped  bool   // pid may be another's
	words   string // how init ended
}

// tracker is a checkpoint.Tracker, or a Layer.
type tracker interface {
	Snapshot(ctx context.Context, st checkpoint.Store) (checkpoint.Snapshot, error)
	Restore(ctx context.Context, st checkpoint.Store, m *checkpoint.Manifest) error
}

var _ sandbox.Sandbox = (*Sandbox)(nil)

// Info describes the sandbox.
func (s *Sandbox) Info() sandbox.Info {
	return sandbox.Info{ID: s.id, Driver: "local", Tier: s.ids.tier, PID: s.pid}
}

// Home is Spec.Dir/home.
func (s *Sandbox) Home() string { return s.home }

// BaseEnv is PATH, HOME, USER, LOGNAME, SHELL, LANG, TERM and TMPDIR, in the tier
// landlock also GIT_CONFIG_NOSYSTEM.
func (s *Sandbox) BaseEnv() []string { return append([]string(nil), s.env...) }

// Files reads beneath the workspace from the host's side.
func (s *Sandbox) Files() sandbox.Files {
	if s.view != nil {
		return beneath.Dir{Home: s.view.path(), Sub: "."}
	}
	return beneath.Dir{Home: s.home, Sub: path.Base(sandbox.WorkspaceDir)}
}

// Done is closed when init has ended, and everything inside with it.
func (s *Sandbox) Done() <-chan struct{} { return s.done }

// Snapshot stores the home tree.
func (s *Sandbox) Snapshot(ctx context.Context, st checkpoint.Store) (checkpoint.Snapshot, error) {
	return s.tracker.Snapshot(ctx, st)
}

// Restore makes the home tree equal to m.
func (s *Sandbox) Restore(ctx context.Context, st checkpoint.Store, m *checkpoint.Manifest) error {
	return s.tracker.Restore(ctx, st, m)
}

// Exec runs one command. With a ctx that has ended already it starts nothing and
// reports a command killed by SIGKILL.
func (s *Sandbox) Exec(ctx context.Context, c sandbox.Cmd) (sandbox.Result, error) {
	if err := checkCmd(c); err != nil {
		return sandbox.Result{}, execError(sandbox.ClassInvalid, err)
	}
	if ctx.Err() != nil {
		return sandbox.Result{ExitCode: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL), Killed: true}, nil
	}
	id, answer, err := s.register()
	if err != nil {
		return sandbox.Result{}, err
	}
	if err := s.request(id, c); err != nil {
		s.unregister(id)
		return sandbox.Result{}, s.failed(err)
	}
	before := s.counted()
	stop := context.AfterFunc(ctx, func() { s.requestKill(id, c.Grace) })
	defer stop()
	select {
	case r := <-answer:
		return s.answered(r, before)
	case <-s.done:
	}
	s.unregister(id)
	select {
	case r := <-answer: // it came with the end
		return s.answered(r, before)
	default:
		return sandbox.Result{}, s.failed(nil)
	}
}

// answered is the result of an exec. What Close killed has none, although init may
// still have had the time to report its end.
func (s *Sandbox) answered(r *execResult, before cgroup.Stats) (sandbox.Result, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed && r.Signal == int(unix.SIGKILL) && !r.Killed {
		return sandbox.Result{}, s.failed(nil)
	}
	return s.explained(r, before)
}

func checkCmd(c sandbox.Cmd) error {
	switch {
	case len(c.Argv) == 0 || c.Argv[0] == "":
		return errors.New("no program")
	case c.Dir != "" && !path.IsAbs(c.Dir):
		return fmt.Errorf("working directory %q is not absolute", c.Dir)
	}
	if err := c.Rights.Check(); err != nil {
		return err
	}
	for _, l := range [...][]string{c.Argv, c.Env} {
		for _, s := range l {
			if strings.IndexByte(s, 0) >= 0 {
				return errors.New("an argument or a variable holds a NUL byte")
			}
		}
	}
	return nil
}

func execError(class sandbox.Class, err error) error {
	return &sandbox.Error{Op: "exec", Class: class, Err: err}
}

func result(r *execResult) (sandbox.Result, error) {
	switch r.Refused {
	case refusedInvalid:
		return sandbox.Result{}, execError(sandbox.ClassInvalid, errors.New(r.Why))
	case refusedResource:
		return sandbox.Result{}, execError(sandbox.ClassInfrastructure, errors.New(r.Why))
	}
	return sandbox.Result{
		ExitCode: r.Code, Signal: r.Signal, Killed: r.Killed, Leftover: r.Leftover, PID: r.PID,
		UserTime: r.User, SystemTime: r.System, MaxRSS: r.MaxRSS,
	}, nil
}

func (s *Sandbox) register() (uint64, chan *execResult, error) {
	answer := make(chan *execResult, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, nil, execError(sandbox.ClassInvalid, errors.New("the sandbox is closed"))
	}
	s.next++
	s.calls[s.next] = answer
	return s.next, answer, nil
}

func (s *Sandbox) unregister(id uint64) {
	s.mu.Lock()
	delete(s.calls, id)
	s.mu.Unlock()
}

// request sends the command with its descriptors.
func (s *Sandbox) request(id uint64, c sandbox.Cmd) error {
	r := execRequest{ID: id, Argv: c.Argv, Env: c.Env, Dir: c.Dir, Terminal: c.Terminal,
		ReadOnly: c.Rights.ReadOnly, Write: c.Rights.Write, NoSockets: c.Rights.NoSockets}
	if r.Dir == "" {
		r.Dir = sandbox.WorkspaceDir
	}
	std := [3]*os.File{c.Stdin, c.Stdout, c.Stderr}
	fds := make([]int, 0, 4)
	for i, f := range std {
		if f != nil {
			r.Has[i] = true
			fds = append(fds, int(f.Fd()))
		}
	}
	b := r.append(append(make([]byte, 0, 4096), msgExec))
	if len(b) > maxInline {
		fd, err := memfd(b[1:])
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
		b = []byte{msgExecBig}
	}
	_, _, err := s.conn.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	runtime.KeepAlive(std)
	if err != nil {
		return fmt.Errorf("send the request: %w", err)
	}
	return nil
}

// memfd holds a body that is too large for a message.
func memfd(body []byte) (int, error) {
	fd, err := unix.MemfdCreate("flow-request", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("hold the request: %w", err)
	}
	for len(body) > 0 {
		n, err := unix.Write(fd, body)
		if err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("hold the request: %w", err)
		}
		body = body[n:]
	}
	return fd, nil
}

func (s *Sandbox) requestKill(id uint64, grace time.Duration) {
	k := killRequest{ID: id, Grace: grace}
	// If this fails init has ended, and the command with it.
	_, _ = s.conn.Write(k.append([]byte{msgKill}))
}

// receive hands results to those who wait, until the socket ends.
func (s *Sandbox) receive() {
	buf, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := s.conn.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return
		}
		if buf[0] == msgSocket && s.receiveListener(buf[1:n], oob[:oobn]) {
			continue
		}
		r := new(execResult)
		if buf[0] != msgResult || r.parse(buf[1:n]) != nil {
			s.kill() // host and init no longer understand each other
			return
		}
		s.mu.Lock()
		answer := s.calls[r.ID]
		delete(s.calls, r.ID)
		s.mu.Unlock()
		if answer != nil {
			answer <- r
		}
	}
}

// wait ends with init. It runs on the thread that made it.
func (s *Sandbox) wait() {
	for errors.Is(unix.Waitid(unix.P_PID, s.pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	var ws unix.WaitStatus
	s.mu.Lock() // nobody signals a number that is not ours
	_, err := unix.Wait4(s.pid, &ws, 0, nil)
	s.reaped = true
	holds := s.holds
	s.mu.Unlock()
	if holds >= 0 {
		// Only the guard was killed: without a socket init ends what is left.
		s.conn.Close()
		awaitEnd(holds, flatKillTime)
		unix.Close(holds)
	}
	how := fmt.Sprintf("exit status %d", ws.ExitStatus())
	switch {
	case err != nil:
		how = err.Error()
	case ws.Signaled():
		how = "signal: " + ws.Signal().String()
	}
	// Everything inside has ended, so the pipe has no writer any more, but perhaps a
	// child of flow that another goroutine has forked and that has not executed yet.
	_ = s.stderr.SetReadDeadline(time.Now().Add(time.Second)) // a pipe has deadlines
	text, _ := io.ReadAll(io.LimitReader(s.stderr, 8<<10))    // half an answer is one too
	s.stderr.Close()
	s.conn.Close()
	s.listeners.Close()
	if s.names != nil {
		s.names.Close()
	}
	s.group.Remove()
	s.mu.Lock()
	s.words = strings.TrimSpace(how + "\n" + string(text))
	s.mu.Unlock()
	close(s.done)
}

// flat reports whether this is the tier landlock.
func (s *Sandbox) flat() bool { return s.ids.tier == sandbox.TierLandlock }

// kill ends init, and with it everything inside. In the tier landlock init has to do
// that itself; it is given time, as its commands would outlive it.
func (s *Sandbox) kill() {
	if s.flat() {
		_ = s.conn.CloseWrite() // it fails when the socket is closed already, as after init's end
		time.AfterFunc(flatKillTime, s.killNow)
		return
	}
	s.killNow()
}

// awaitEnd waits until the process of a pidfd has ended, at most that long.
func awaitEnd(pidfd int, most time.Duration) {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for end := time.Now().Add(most); time.Now().Before(end); {
		if _, err := unix.Poll(fds, int(time.Until(end).Milliseconds())+1); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// flatKillTime is what init of the tier landlock has to end its commands.
const flatKillTime = closeTimeout - 2*time.Second

func (s *Sandbox) killNow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.reaped:
	case s.holds >= 0:
		// The guard then ends the commands, and itself.
		send(s.holds, unix.SIGKILL)
	default:
		_ = unix.Kill(s.pid, unix.SIGKILL) // the only error is that it has ended
	}
}

// failed is the error of a call that init did not answer.
func (s *Sandbox) failed(cause error) error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	select {
	case <-s.done:
	default:
		if cause != nil {
			return execError(sandbox.ClassInfrastructure, cause)
		}
	}
	if closed {
		return execError(sandbox.ClassInvalid, errors.New("the sandbox was closed"))
	}
	return &sandbox.Error{Op: "exec", Class: sandbox.ClassInfrastructure,
		Err:  errors.Join(errors.New("the sandbox is lost: its init ended"), s.lastWords()),
		Hint: "Something on this machine killed it (out of memory?); a new sandbox can go on from the last checkpoint."}
}

// Close ends everything inside and waits until it has ended. It takes its own time,
// at most closeTimeout, also when ctx has ended.
func (s *Sandbox) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.listeners.Close()
	s.kill()
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), closeTimeout, fmt.Errorf("processes inside did not end within %v", closeTimeout))
	defer cancel()
	select {
	case <-s.done:
		s.view.close()
		return nil
	case <-ctx.Done():
		return &sandbox.Error{Op: "close sandbox " + s.id, Class: sandbox.ClassInfrastructure, Err: context.Cause(ctx),
			Hint: "A process that the kernel cannot end (a hanging disk or network file system) keeps it."}
	}
}
