package local

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/internal/landlock"
)

// thread is an operating system thread that forks one command and then ends: what
// bounds that command (namespaces, a landlock domain, a filter) is set on it and
// inherited, and no thread can get rid of it. One is kept ready, so that making it
// is not a part of an exec's time.
type thread struct {
	jobs chan func()
	err  error // why it cannot be used

	tag  string // of its UTS namespace, "uts:[…]"; "" in the tier landlock
	hold int    // descriptor that keeps that namespace, -1 for none

	over chan struct{} // closed when it is not needed any more
}

// newThread makes one; it waits until it is used.
func (s *server) newThread() *thread {
	t := &thread{jobs: make(chan func()), hold: -1, over: make(chan struct{})}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		t.err = s.prepare(t)
		for {
			select {
			case job := <-t.jobs:
				job()
			case <-t.over:
				return
			}
		}
	}()
	return t
}

// do runs a job on the thread and waits for it; nothing happens when it is over.
func (t *thread) do(job func()) {
	done := make(chan struct{})
	select {
	case t.jobs <- func() { defer close(done); job() }:
		<-done
	case <-t.over:
	}
}

// doBeside is do; meanwhile the caller's goroutine makes the calls that come aside.
func (t *thread) doBeside(job func(), aside calls) {
	done := make(chan struct{})
	select {
	case t.jobs <- func() { defer close(done); job() }:
	case <-t.over:
		return
	}
	for {
		select {
		case f := <-aside:
			f()
		case <-done:
			return
		}
	}
}

// calls are made by another goroutine.
type calls chan func()

func (c calls) call(f func()) {
	done := make(chan struct{})
	c <- func() { defer close(done); f() }
	<-done
}

// end lets go of it.
func (t *thread) end() {
	if t.hold >= 0 {
		unix.Close(t.hold)
	}
	close(t.over)
}

// prepare does what does not depend on the command.
func (s *server) prepare(t *thread) error {
	if s.flat != nil {
		return s.flat.prepare()
	}
	if err := clearInherited(); err != nil {
		return err
	}
	if s.root {
		// Names are looked up with the rights of the commands.
		if err := errors.Join(unix.Setfsgid(UserID), unix.Setfsuid(UserID)); err != nil {
			return step(err, "set fsuid")
		}
	}
	// A namespace before the fork, not by the fork: a command that ends at once
	// would take the only readable trace of its tag with it.
	if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
		return step(err, "make a namespace for the command")
	}
	var err error
	if t.tag, t.hold, err = ownTag(); err != nil {
		return step(err, "read the command's namespace")
	}
	return nil
}

// confine is the last thing before the fork. Nobody that runs beside the command
// can look into it or signal it, nor it into them.
func (s *server) confine(r *execRequest) error {
	if s.flat != nil {
		return s.flat.confine(r)
	}
	if r.ReadOnly {
		if err := restrictPaths(sandbox.HomeDir, r.Write); err != nil {
			return err
		}
	}
	if s.apart != nil {
		if err := s.apart.Restrict(); err != nil {
			return err
		}
	}
	return installFilter(commandFilter(r.NoSockets))
}

// apartRules is the ruleset of the domains that keep commands apart, nil where the
// kernel has no Landlock. A domain needs something that it handles. Where scopes are
// unknown it is the making of device nodes, which commands cannot do anyway, and
// moves between directories, which every older domain takes away and a rule gives back.
func apartRules() (*landlock.Ruleset, error) {
	abi := landlock.ABI()
	switch {
	case abi == 0:
		return nil, nil
	case abi >= landlock.ABIScope:
		return landlock.New(landlock.Handled{Scoped: unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET})
	}
	rules, err := landlock.New(landlock.Handled{FS: landlock.Devices | unix.LANDLOCK_ACCESS_FS_REFER})
	if err != nil {
		return nil, err
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		rules.Close()
		return nil, step(err, "open /")
	}
	defer unix.Close(root)
	if err := rules.Allow(root, unix.LANDLOCK_ACCESS_FS_REFER|unix.LANDLOCK_ACCESS_FS_IOCTL_DEV); err != nil {
		rules.Close()
		return nil, err
	}
	return rules, nil
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
