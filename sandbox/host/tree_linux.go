package host

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// rssUnit: Linux counts ru_maxrss in KiB. It includes what this process had at the
// fork, because the kernel carries the peak over.
const rssUnit = 1 << 10

// pollEvery is how often the end of killed processes is looked for.
const pollEvery = time.Millisecond

// fewProcesses is up to how many process numbers are tried one by one; above, the
// list of /proc is read.
const fewProcesses = 256

// processAttributes of a command: a session of its own, and the end with flow.
func processAttributes(terminal bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Setctty: terminal, Pdeathsig: syscall.SIGKILL}
}

// keepDescriptors marks what flow's caller left open close-on-exec: a fork of Go's
// closes nothing else, and commands would see it (the class of CVE-2024-21626).
func keepDescriptors() error {
	return unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
}

// waitAll waits for the first process, ends the rest while its number (and that of
// its group and session) is still taken by the zombie, and then reaps it.
func (t *tree) waitAll() (ws syscall.WaitStatus, ru syscall.Rusage, leftover int, err error) {
	for {
		err = unix.Waitid(unix.P_PID, t.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return ws, ru, 0, err
	}
	t.mu.Lock()
	until := t.until
	t.mu.Unlock()
	t.linger(until)
	leftover = t.endRest()
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = syscall.Kill(-t.pid, syscall.SIGKILL) // whom the scan could not see; ESRCH: nobody
	ws, ru, err = t.reap()
	t.overNow()
	return ws, ru, leftover, err
}

// candidates are the living processes that may be of this tree: those made after
// its first one. Process numbers go up until they wrap.
func (t *tree) candidates() []int {
	last, ok := lastPID()
	if ok && last == t.pid {
		return nil // the machine has made no process or thread since
	}
	if ok && last > t.pid && last-t.pid <= fewProcesses {
		pids := make([]int, 0, last-t.pid)
		for pid := t.pid + 1; pid <= last; pid++ {
			pids = append(pids, pid)
		}
		return pids
	}
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil // without /proc there is only the process group (package comment)
	}
	var pids []int
	for _, e := range names {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != t.pid && (pid > t.pid || !ok || last < t.pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// lastPID is the newest process number, the last field of /proc/loadavg.
func lastPID() (int, bool) {
	fd, err := unix.Open("/proc/loadavg", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	var buf [128]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return 0, false
	}
	text := strings.TrimSpace(string(buf[:n]))
	pid, err := strconv.Atoi(text[strings.LastIndexByte(text, ' ')+1:])
	return pid, err == nil
}

// owns reports whether pid is a living process of this tree.
func (t *tree) owns(pid int) bool {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return false
	}
	// "pid (name) state ppid pgrp session …", where the name may hold anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 4 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return false
	}
	if string(fields[3]) == strconv.Itoa(t.pid) {
		return true
	}
	env, err := os.ReadFile(dir + "/environ")
	if err != nil {
		return false // another user's
	}
	entry := []byte(tagName + "=" + t.tag)
	for kv := range bytes.SplitSeq(env, []byte{0}) {
		if bytes.Equal(kv, entry) {
			return true
		}
	}
	return false
}

// visit calls f with a pidfd for each living process of the tree but the first.
func (t *tree) visit(f func(pid, pidfd int)) (n int) {
	for _, pid := range t.candidates() {
		if !t.owns(pid) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // ended
		}
		if t.owns(pid) { // again, now that the number is held
			n++
			if f != nil {
				f(pid, fd)
			}
		}
		unix.Close(fd)
	}
	return n
}

func send(pidfd int, sig unix.Signal) { _ = unix.PidfdSendSignal(pidfd, sig, nil, 0) } // ESRCH: ended

// signal reaches the whole tree. Callers hold mu, and the first process is not
// reaped. For SIGKILL the rest is stopped first, so that it cannot fork away.
func (t *tree) signal(sig syscall.Signal) {
	if sig == syscall.SIGKILL {
		_ = syscall.Kill(-t.pid, syscall.SIGSTOP)
		t.stop(map[int]bool{})
	} else {
		t.visit(func(pid, fd int) { send(fd, sig) })
	}
	_ = syscall.Kill(t.pid, sig)
	if sig == syscall.SIGKILL {
		_ = syscall.Kill(-t.pid, sig)
	}
}

// stop stops every process of the tree until no new one appears.
func (t *tree) stop(seen map[int]bool) {
	for stable := false; !stable; {
		stable = true
		t.visit(func(pid, fd int) {
			if !seen[pid] {
				seen[pid], stable = true, false
				send(fd, unix.SIGSTOP)
			}
		})
	}
}

// linger lets the tree end by itself until the grace of a cancelled exec is over.
func (t *tree) linger(until time.Time) {
	for time.Now().Before(until) && t.visit(nil) > 0 {
		time.Sleep(pollEvery)
	}
}

// endRest kills what is left and returns how many there were.
func (t *tree) endRest() int {
	seen := map[int]bool{}
	t.stop(seen)
	for len(seen) > 0 {
		if t.visit(func(pid, fd int) { send(fd, unix.SIGKILL) }) == 0 {
			break
		}
		time.Sleep(pollEvery)
	}
	return len(seen)
}
