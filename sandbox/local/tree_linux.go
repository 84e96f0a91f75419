package local

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How the processes of one exec are found and ended.
//
// While it is the only exec, everything inside but init is its tree, and kill(-1)
// reaches all of it in one step that no fork can slip through: no scan.
//
// Otherwise its tag tells its processes from the others'. They are stopped until
// a scan finds no new one (a stopped process cannot fork), then killed. A fork
// bomb grows faster than a scan finds it (measured: 7 s for 4,000 processes), so
// where there is a crowd everybody is stopped first, the innocent too, and these
// go on after a fraction of a second; one of them that had stopped itself before
// goes on as well, which is the price. A process
// whose tag cannot be read (it executes a file that only its owner may read, see
// would_dump in the kernel) is attributed to its parent; an orphan of that kind is
// taken for a leftover of whichever exec ends first.

// pollEvery is how soon the end of killed processes is looked for, doubling up to
// pollMost while there are some.
const (
	pollEvery = time.Millisecond
	pollMost  = 32 * time.Millisecond
)

// crowd is the number of entries of /proc (some 70 are no processes) above which
// a tree is not stopped one by one.
const crowd = 400

// finish runs in the reaper when the first process of r has ended: it ends the
// rest of the tree, then sends the result.
func (s *server) finish(r *running, res *execResult) {
	s.mu.Lock()
	if len(s.execs) > 1 || (r.killed && time.Now().Before(r.deadline)) {
		s.mu.Unlock()
		go s.finishSlow(r, res)
		return
	}
	if s.flat != nil {
		res.Leftover = s.endAlone(r)
	} else {
		res.Leftover = s.endAll()
	}
	s.forget(r, res)
	s.mu.Unlock()
	reply(res)
}

// forget ends the record of r. Callers hold mu.
func (s *server) forget(r *running, res *execResult) {
	res.Full = res.Code != 0 && s.flat == nil && scratchFull()
	delete(s.execs, r.id)
	res.Killed = r.killed
	r.thread.end()
	close(r.ended)
}

// endAll kills and reaps every process but init and returns how many were alive.
// Only the reaper calls it, with mu held, so that nothing is forked meanwhile.
func (s *server) endAll() (n int) {
	for drained := false; !drained; {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		drained = pid <= 0 && !errors.Is(err, unix.EINTR)
	}
	if errors.Is(unix.Kill(-1, unix.SIGKILL), unix.ESRCH) {
		return 0
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		switch {
		case pid > 0:
			n++
		case errors.Is(err, unix.ECHILD):
			return n
		}
	}
}

// finishSlow does the same beside other execs, or when a kill request left the
// tree time to end by itself.
func (s *server) finishSlow(r *running, res *execResult) {
	s.mu.Lock()
	ender, deadline := r.ender, r.deadline // zero if it was not cancelled
	s.mu.Unlock()
	for time.Now().Before(deadline) && s.visit(r, nil) > 0 {
		time.Sleep(pollEvery)
	}
	if ender != nil && !time.Now().Before(deadline) {
		<-ender // it is killing the tree: two would be in each other's way
	}
	n := s.endTree(r)
	s.mu.Lock()
	res.Leftover = n + r.leftover
	s.forget(r, res)
	s.mu.Unlock()
	reply(res)
}

// end serves a kill request until the first process of r has ended; finish does
// the rest.
func (s *server) end(r *running, grace time.Duration) {
	defer close(r.ender)
	if grace > 0 {
		s.signal(r, unix.SIGTERM)
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-r.ended:
			return
		case <-timer.C:
		}
	}
	s.mu.Lock()
	alone := s.flat == nil && len(s.execs) == 1 && s.execs[r.id] == r
	if alone {
		// ESRCH: the reaper has them all.
		_ = unix.Kill(-1, unix.SIGKILL)
	}
	s.mu.Unlock()
	if !alone {
		n := s.endTree(r)
		s.mu.Lock()
		r.leftover = max(0, n-1) // the first process is none
		s.mu.Unlock()
	}
}

func (s *server) signal(r *running, sig unix.Signal) {
	s.visit(r, func(_ int, pidfd int) { send(pidfd, sig) })
}

// endTree kills the tree and returns when no member is left, with how many there
// were.
func (s *server) endTree(r *running) int {
	n := s.killTree(r)
	if n == 0 {
		return 0
	}
	// Each has a SIGKILL to its name; those that the kernel holds take their time.
	for poll := pollEvery; s.visit(r, func(_, pidfd int) { send(pidfd, unix.SIGKILL) }) > 0; poll = min(2*poll, pollMost) {
		time.Sleep(poll)
	}
	return n
}

// killTree stops the tree until it is stable and kills it. One at a time, so that
// letting a crowd go on does not wake what another call has stopped.
func (s *server) killTree(r *running) int {
	s.ending.Lock()
	defer s.ending.Unlock()
	if s.flat != nil && s.flat.scoped {
		n := s.visit(r, nil)
		s.scopedKill(r)
		return n
	}
	if s.flat == nil && isCrowd() {
		// mu: a command that is just being forked would be stopped too, and with it
		// the loop, which waits for its execve.
		s.mu.Lock()
		defer s.mu.Unlock()
		// ESRCH, twice: all have just ended.
		_ = unix.Kill(-1, unix.SIGSTOP)
		defer func() { _ = unix.Kill(-1, unix.SIGCONT) }()
	}
	found := map[int]bool{}
	for stable := false; !stable; {
		stable = true
		s.visit(r, func(pid, pidfd int) {
			if !found[pid] {
				found[pid], stable = true, false
				send(pidfd, unix.SIGSTOP)
			}
		})
	}
	if len(found) > 0 {
		s.visit(r, func(_, pidfd int) { send(pidfd, unix.SIGKILL) })
	}
	return len(found)
}

// send ignores the one error that can come, ESRCH: it ended by itself.
func send(pidfd int, sig unix.Signal) { _ = unix.PidfdSendSignal(pidfd, sig, nil, 0) }

// visit calls f for each living process of r and returns how many there are. A
// process is held by a pidfd while it is looked at, so that its number cannot pass
// to another one before it is signalled; one at a time, because a fork bomb has
// more processes than we may have descriptors.
func (s *server) visit(r *running, f func(pid, pidfd int)) (n int) {
	if s.flat != nil {
		for _, pid := range s.members(r) {
			n++
			if f == nil {
				continue
			}
			if fd := s.holdBelow(pid); fd >= 0 {
				f(pid, fd)
				unix.Close(fd)
			}
		}
		return n
	}
	for _, pid := range processes() {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // ended
		}
		if s.belongs(pid, r) {
			n++
			if f != nil {
				f(pid, fd)
			}
		}
		unix.Close(fd)
	}
	return n
}

// isCrowd reports whether there are many processes, without reading all their names.
func isCrowd() bool {
	d, err := os.Open("/proc")
	if err != nil {
		panic(err) // as processes does
	}
	defer d.Close()
	names, err := d.Readdirnames(crowd)
	return err == nil && len(names) == crowd
}

// processes lists all but init. A directory that cannot be read means a broken
// sandbox, and an empty answer would call a living tree ended: init ends instead.
func processes() []int {
	d, err := os.Open("/proc")
	if err != nil {
		panic(err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		panic(err)
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid > 1 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// belongs reports whether pid is a living process of r's tree.
func (s *server) belongs(pid int, r *running) bool {
	for hops := 0; hops < MaxProcesses; hops++ {
		dir := "/proc/" + strconv.Itoa(pid)
		tag, err := os.Readlink(dir + "/ns/uts")
		if err == nil {
			return tag == r.thread.tag
		}
		if !errors.Is(err, fs.ErrPermission) {
			return false // ended: a zombie has no namespaces
		}
		s.firstMu.Lock()
		first := s.first[pid]
		s.firstMu.Unlock()
		if first != nil {
			return first == r
		}
		parent, state := parentOf(dir)
		switch {
		case state == 'Z' || state == 'X' || parent == 0:
			return false
		case parent == 1:
			return true
		}
		pid = parent
	}
	return false
}

// parentOf reads /proc/PID/stat: "pid (name) state ppid …", where the name may
// hold anything.
func parentOf(dir string) (parent int, state byte) {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return 0, 'X'
	}
	text := string(b)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 2 {
		return 0, 'X'
	}
	parent, err = strconv.Atoi(fields[1])
	if err != nil {
		return 0, 'X'
	}
	return parent, fields[0][0]
}
