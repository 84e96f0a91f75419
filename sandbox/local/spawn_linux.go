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

// exec starts a command. It runs on the loop's thread, whose UTS namespace and
// capability sets the command inherits. A landlock domain of one exec would be set
// on a thread of its own, made here and thrown away after the fork.
func (s *server) exec(r *execRequest, fds []int) {
	res := execResult{ID: r.ID}
	refuse := func(kind int, format string, args ...any) {
		res.Refused, res.Why = kind, fmt.Sprintf(format, args...)
		reply(&res)
	}
	files, ok := s.stdio(r, fds)
	if !ok {
		refuse(refusedResource, "receive the descriptors: %v", unix.EBADMSG)
		return
	}
	// A directory that we may not look at is left to the command's own chdir.
	if info, err := os.Stat(r.Dir); err != nil && !errors.Is(err, fs.ErrPermission) {
		refuse(refusedInvalid, "working directory %s: %v", r.Dir, errors.Unwrap(err))
		return
	} else if err == nil && !info.IsDir() {
		refuse(refusedInvalid, "working directory %s: %v", r.Dir, unix.ENOTDIR)
		return
	}
	// A namespace before the fork, not by the fork: a command that ends at once
	// would take the only readable trace of its tag with it.
	if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
		refuse(refusedResource, "make a namespace for the command: %v", err)
		return
	}
	tag, hold, err := ownTag()
	if err != nil {
		refuse(refusedResource, "read the command's namespace: %v", err)
		return
	}
	s.mu.Lock()
	pid, err := s.fork(r, files)
	if err == nil {
		run := &running{id: r.ID, tag: tag, hold: hold, pid: pid, ended: make(chan struct{})}
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
		return
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOMEM):
		refuse(refusedResource, "start %s: %v", r.Argv[0], err)
	default:
		var message string
		res.Code, message = lookup.Failure(r.Argv[0], err)
		// The exit code says it too, if nobody reads that descriptor.
		_, _ = unix.Write(int(files[2]), []byte(message))
		reply(&res)
	}
	unix.Close(hold)
}

// ownTag reads the tag of this thread, and holds its namespace: the number of one
// that has ended may be given to the next, whose processes would be taken for ours.
func ownTag() (tag string, hold int, err error) {
	if hold, err = unix.Open(tagLink, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return "", -1, err
	}
	if tag, err = os.Readlink(tagLink); err != nil {
		unix.Close(hold)
		return "", -1, err
	}
	return tag, hold, nil
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
	sys := &syscall.SysProcAttr{Setsid: true}
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
