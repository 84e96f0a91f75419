package local

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// guardFlat stands above init in the tier landlock, where commands do not end with it:
// when init ends without having ended them (it was killed, or could make no thread
// beside a fork bomb), they become the guard's children, and it does. When the guard is
// killed, flow lets go of the socket, and init ends them.
func guardFlat() int {
	err := step(unix.CloseRange(controlFD+1, ^uint(0), unix.CLOSE_RANGE_CLOEXEC), "close_range")
	if err == nil {
		err = standAbove()
	}
	var pid int
	if err == nil {
		// Flow puts this process into its control group before it sends anything.
		awaitWord()
		pid, err = syscall.ForkExec("/proc/self/exe", []string{"flow-sandbox", argServe}, &syscall.ProcAttr{
			Dir: "/", Env: initEnv(), Files: []uintptr{0, 1, 2, controlFD},
		})
		err = step(err, "execute init")
	}
	if err != nil {
		return giveUp(err)
	}
	unix.Close(controlFD)
	ws := reapUntil(pid)
	endBelow()
	if ws.Signaled() {
		// So that flow reads how init ended. It was no signal that is handled here.
		_ = unix.Kill(os.Getpid(), ws.Signal())
	}
	return ws.ExitStatus()
}

// standAbove makes orphans below this process its children, and keeps commands from
// looking into it.
func standAbove() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return step(err, "set undumpable")
	}
	return step(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "become the subreaper")
}

// awaitWord returns when something has come over the socket, or it has ended.
func awaitWord() {
	fds := []unix.PollFd{{Fd: controlFD, Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// reapUntil waits until a child has ended, and reaps the others that do.
func reapUntil(pid int) unix.WaitStatus {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		if got == pid || errors.Is(err, unix.ECHILD) {
			return ws
		}
	}
}

// endBelow ends everything below this process.
func endBelow() {
	s := &server{flat: &flat{self: os.Getpid()}}
	s.endEverything()
}

// endEverything ends all commands when the host is gone: in this tier they do not
// end with us.
func (s *server) endEverything() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.execs {
		s.scopedKill(r)
	}
	for {
		// The reaper takes them; both may.
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if len(descendants(s.flat.self)) == 0 {
			return
		}
		s.killFlat()
		time.Sleep(pollEvery)
	}
}
