package host

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/internal/lookup"
)

// closeTimeout bounds Close.
const closeTimeout = 10 * time.Second

// tagName is the variable that marks the processes of one exec.
const tagName = "FLOW_EXEC_ID"

// tagSplit is between the sandbox's id and the number in a tag's value.
const tagSplit = "."

// Exec runs one command. See the package comment for what differs here.
func (s *Sandbox) Exec(ctx context.Context, c sandbox.Cmd) (sandbox.Result, error) {
	invalid := func(err error) (sandbox.Result, error) {
		return sandbox.Result{}, driverError("exec", sandbox.ClassInvalid, err)
	}
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return invalid(errors.New("no program"))
	}
	if err := c.Rights.Check(); err != nil {
		return invalid(err)
	}
	if !c.Rights.All() {
		return invalid(errors.New("driver host cannot bound what a command may do"))
	}
	dir, err := s.realDir(c.Dir)
	if err != nil {
		return invalid(err)
	}
	killed := sandbox.Result{ExitCode: 128 + int(syscall.SIGKILL), Signal: int(syscall.SIGKILL), Killed: true}
	if ctx.Err() != nil {
		return killed, nil
	}
	inner, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	leave, err := s.enter(cancel)
	if err != nil {
		return invalid(err)
	}
	defer leave()
	t := newTree(s.id)
	// PDEATHSIG means the end of the thread that forked: it stays ours until the
	// command has ended. We wait on it anyway.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := s.start(t, c, dir); err != nil {
		return notStarted(c, err)
	}
	stop := context.AfterFunc(ctx, func() { t.end(c.Grace) })
	stopClose := context.AfterFunc(inner, func() { t.end(0) })
	res, err := t.wait()
	stop()
	stopClose()
	if err != nil {
		return sandbox.Result{}, driverError("exec", sandbox.ClassInfrastructure, fmt.Errorf("wait for %s: %w", c.Argv[0], err))
	}
	if errors.Is(context.Cause(inner), errClosed) && res.Killed {
		return invalid(errClosed)
	}
	return res, nil
}

// realDir translates a directory of the contract to this machine.
func (s *Sandbox) realDir(dir string) (string, error) {
	if dir == "" {
		dir = sandbox.WorkspaceDir
	}
	if !path.IsAbs(dir) {
		return "", fmt.Errorf("working directory %q is not absolute", dir)
	}
	clean := path.Clean(dir)
	if below, ok := strings.CutPrefix(clean, sandbox.HomeDir); ok && (below == "" || below[0] == '/') {
		clean = filepath.Join(s.home, filepath.FromSlash(below))
	}
	info, err := os.Stat(clean)
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		var p *fs.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return "", fmt.Errorf("working directory %s: %w", dir, err)
	}
	return clean, nil
}

// start forks and executes, at the level below os/exec: no goroutine, no relay.
func (s *Sandbox) start(t *tree, c sandbox.Cmd, dir string) error {
	file, err := lookup.Path(c.Argv[0], c.Env, dir)
	if err != nil {
		return err
	}
	std := [3]*os.File{c.Stdin, c.Stdout, c.Stderr}
	var files [3]uintptr
	for i, f := range std {
		if f == nil {
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				return fmt.Errorf("open %s: %w", os.DevNull, err)
			}
			defer null.Close()
			f = null
		}
		files[i] = f.Fd()
	}
	env := make([]string, 0, len(c.Env)+1)
	for _, kv := range c.Env {
		if !strings.HasPrefix(kv, tagName+"=") {
			env = append(env, kv)
		}
	}
	attr := &syscall.ProcAttr{Dir: dir, Env: append(env, tagName+"="+t.tag), Files: files[:], Sys: processAttributes(c.Terminal)}
	t.pid, err = syscall.ForkExec(file, c.Argv, attr)
	if errors.Is(err, syscall.ENOEXEC) {
		// A script without an interpreter line: what execvp(3) and every shell do.
		t.pid, err = syscall.ForkExec("/bin/sh", append([]string{"sh", file}, c.Argv[1:]...), attr)
	}
	runtime.KeepAlive(std)
	return err
}

// notStarted is what a shell would say, or an error of the machine.
func notStarted(c sandbox.Cmd, err error) (sandbox.Result, error) {
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EMFILE) {
		return sandbox.Result{}, driverError("exec", sandbox.ClassInfrastructure, fmt.Errorf("start %s: %w", c.Argv[0], err))
	}
	if errors.Is(err, syscall.EINVAL) {
		return sandbox.Result{}, driverError("exec", sandbox.ClassInvalid, errors.New("an argument or a variable holds a NUL byte"))
	}
	code, message := lookup.Failure(c.Argv[0], err)
	if c.Stderr != nil {
		// The exit code says it too, if nobody reads that descriptor.
		_, _ = c.Stderr.WriteString(message)
	}
	return sandbox.Result{ExitCode: code}, nil
}

// tree is the processes of one exec.
type tree struct {
	tag string
	pid int

	mu     sync.Mutex
	killed bool
	over   bool // the first process was reaped: its number may be another's
	until  time.Time
	timer  *time.Timer
}

// newTree tags the processes of one exec: the sandbox's id, by which EndLeft finds
// them, and a number of their own.
func newTree(id string) *tree {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return &tree{tag: id + tagSplit + hex.EncodeToString(b[:])}
}

// end serves the end of ctx: SIGTERM now, SIGKILL after grace.
func (t *tree) end(grace time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over || t.killed && grace > 0 {
		return
	}
	t.killed = true
	if grace <= 0 {
		t.signal(syscall.SIGKILL)
		return
	}
	t.until = time.Now().Add(grace)
	t.signal(syscall.SIGTERM)
	t.timer = time.AfterFunc(grace, func() { t.end(0) })
}

// wait waits for the first process, ends the rest, and describes both.
func (t *tree) wait() (sandbox.Result, error) {
	ws, ru, leftover, err := t.waitAll()
	if err != nil {
		return sandbox.Result{}, err
	}
	t.mu.Lock()
	killed := t.killed
	t.mu.Unlock()
	res := sandbox.Result{
		PID: t.pid, Killed: killed, Leftover: leftover,
		UserTime:   time.Duration(syscall.TimevalToNsec(ru.Utime)),
		SystemTime: time.Duration(syscall.TimevalToNsec(ru.Stime)),
		MaxRSS:     int64(ru.Maxrss) * rssUnit,
	}
	if ws.Signaled() {
		res.Signal = int(ws.Signal())
		res.ExitCode = 128 + res.Signal
	} else {
		res.ExitCode = ws.ExitStatus()
	}
	return res, nil
}

// reap takes the first process's status; from now on its number may be another's.
// Callers hold mu or are alone.
func (t *tree) reap() (ws syscall.WaitStatus, ru syscall.Rusage, err error) {
	for {
		_, err = syscall.Wait4(t.pid, &ws, 0, &ru)
		if err != syscall.EINTR {
			return ws, ru, err
		}
	}
}

// overNow makes later ends of ctx do nothing. Callers hold mu.
func (t *tree) overNow() {
	t.over = true
	if t.timer != nil {
		t.timer.Stop()
	}
}
