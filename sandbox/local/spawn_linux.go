package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox/internal/lookup"
)

// tagLink is the UTS namespace of the calling thread.
const tagLink = "/proc/thread-self/ns/uts"

// exec starts a command, on a thread of its own.
func (s *server) exec(r *execRequest, fds []int) {
	t := s.spare
	started := false
	t.doBeside(func() { started = s.execOn(t, r, fds) }, s.aside)
	if !started {
		t.end()
	}
	s.spare = s.newThread()
}

// execOn reports whether the command runs; the thread is its from then on.
func (s *server) execOn(t *thread, r *execRequest, fds []int) bool {
	res := execResult{ID: r.ID}
	refuse := func(kind int, format string, args ...any) bool {
		res.Refused, res.Why = kind, fmt.Sprintf(format, args...)
		reply(&res)
		return false
	}
	if t.err != nil {
		return refuse(refusedResource, "%v", t.err)
	}
	files, ok := s.stdio(r, fds)
	if !ok {
		return refuse(refusedResource, "receive the descriptors: %v", unix.EBADMSG)
	}
	if s.flat != nil {
		r.Dir = s.flat.real(r.Dir)
	}
	if err := s.confine(r); err != nil {
		var wrong *writableError
		if errors.As(err, &wrong) {
			return refuse(refusedInvalid, "%v", wrong)
		}
		return refuse(refusedResource, "bound the command: %v", err)
	}
	// A directory that we may not look at is left to the command's own chdir.
	if info, err := os.Stat(r.Dir); err != nil && !errors.Is(err, fs.ErrPermission) {
		return refuse(refusedInvalid, "working directory %s: %v", r.Dir, errors.Unwrap(err))
	} else if err == nil && !info.IsDir() {
		return refuse(refusedInvalid, "working directory %s: %v", r.Dir, unix.ENOTDIR)
	}
	s.mu.Lock()
	pid, err := s.forkNarrow(r, files)
	if err == nil {
		run := &running{id: r.ID, thread: t, pid: pid, ended: make(chan struct{})}
		s.execs[r.ID] = run
		s.firstMu.Lock()
		s.first[pid] = run
		s.firstMu.Unlock()
		s.forks++
		s.forked.Signal()
	}
	s.mu.Unlock()
	switch {
	case err == nil:
		return true
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOMEM):
		return refuse(refusedResource, "start %s: %v", r.Argv[0], err)
	}
	var message string
	res.Code, message = lookup.Failure(r.Argv[0], err)
	// The exit code says it too, if nobody reads that descriptor.
	_, _ = unix.Write(int(files[2]), []byte(message))
	reply(&res)
	return false
}

// forkNarrow forks with the bound of processes that commands have.
func (s *server) forkNarrow(r *execRequest, files []uintptr) (pid int, err error) {
	if s.flat == nil {
		pid, err = s.narrow(func() (int, error) { return s.fork(r, files) })
		if err == nil {
			s.offer(pid)
		}
		return pid, err
	}
	// By the loop's thread: the command's filter, which ours has by now, refuses it.
	var widen func()
	s.aside.call(func() { widen = s.flat.narrow() })
	pid, err = s.fork(r, files)
	s.aside.call(func() {
		widen()
		if err == nil {
			s.offer(pid) // our domain keeps us from /proc
		}
	})
	return pid, err
}

// stdio picks the three descriptors of a command out of those that came.
func (s *server) stdio(r *execRequest, fds []int) ([]uintptr, bool) {
	files := make([]uintptr, 3)
	next := 0
	for i, has := range r.Has {
		files[i] = uintptr(s.null)
		if has {
			if next == len(fds) {
				return nil, false
			}
			files[i] = uintptr(fds[next])
			next++
		}
	}
	return files, true
}

func (s *server) fork(r *execRequest, files []uintptr) (int, error) {
	file, err := lookup.Path(r.Argv[0], r.Env, r.Dir)
	if err != nil {
		return 0, err
	}
	sys := &syscall.SysProcAttr{Setsid: true, Setctty: r.Terminal} // Ctty 0: its stdin
	if s.flat != nil {
		sys.Pdeathsig = syscall.SIGKILL // the thread lives as long as the command: if init is killed
	}
	if s.root {
		sys.Credential = &syscall.Credential{Uid: UserID, Gid: UserID}
	}
	attr := &syscall.ProcAttr{Dir: r.Dir, Env: r.Env, Files: files, Sys: sys}
	pid, err := syscall.ForkExec(file, r.Argv, attr)
	if errors.Is(err, unix.ENOEXEC) {
		// A script without an interpreter line: what execvp(3) and every shell do.
		pid, err = syscall.ForkExec("/bin/sh", append([]string{"sh", file}, r.Argv[1:]...), attr)
	}
	return pid, err
}

// kill serves a kill request: SIGTERM to the whole tree, SIGKILL after the grace.
func (s *server) kill(k killRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.execs[k.ID]
	if r == nil || r.killed {
		return // its result is on the way
	}
	r.killed, r.ender = true, make(chan struct{})
	r.deadline = time.Now().Add(k.Grace)
	go s.end(r, k.Grace)
}
