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
// a scan finds no new one (a stopped process cannot fork), then killed. A process
// whose tag cannot be read (it executes a file that only its owner may read, see
// would_dump in the kernel) is attributed to its parent; an orphan of that kind is
// taken for a leftover of whichever exec ends first.

// pollEvery is how often the end of killed processes is looked for.
const pollEvery = time.Millisecond

// finish runs in the reaper when the first process of r has ended: it ends the
// rest of the tree, then sends the result.
func (s *server) finish(r *running, res *execResult) {
	s.mu.Lock()
	if len(s.execs) > 1 || (r.killed && time.Now().Before(r.deadline)) {
		s.mu.Unlock()
		go s.finishSlow(r, res)
		return
	}
	res.Leftover = s.endAll()
	s.forget(r, res)
	s.mu.Unlock()
	reply(res)
}

// forget ends the record of r. Callers hold mu.
func (s *server) forget(r *running, res *execResult) {
	delete(s.execs, r.id)
	res.Killed = r.killed
	unix.Close(r.hold)
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
	grace := time.Duration(0)
	if r.killed {
		grace = time.Until(r.deadline)
	}
	s.mu.Unlock()
	for end := time.Now().Add(grace); time.Now().Before(end) && s.visit(r, nil) > 0; {
		time.Sleep(pollEvery)
	}
	res.Leftover = s.endTree(r)
	s.mu.Lock()
	s.forget(r, res)
	s.mu.Unlock()
	reply(res)
}

// end serves a kill request until the first process of r has ended; finish does
// the rest.
func (s *server) end(r *running, grace time.Duration) {
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
	alone := len(s.execs) == 1 && s.execs[r.id] == r
	if alone {
		// ESRCH: the reaper has them all.
		_ = unix.Kill(-1, unix.SIGKILL)
	}
	s.mu.Unlock()
	if !alone {
		s.endTree(r)
	}
}

func (s *server) signal(r *running, sig unix.Signal) {
	s.visit(r, func(_ int, pidfd int) { send(pidfd, sig) })
}

// endTree stops the tree until it is stable, kills it, and returns when no member
// is left, with how many there were.
func (s *server) endTree(r *running) int {
	ended := map[int]bool{}
	for stable := false; !stable; {
		stable = true
		s.visit(r, func(pid, pidfd int) {
			if !ended[pid] {
				ended[pid], stable = true, false
				send(pidfd, unix.SIGSTOP)
			}
		})
	}
	for len(ended) > 0 {
		n := s.visit(r, func(pid, pidfd int) {
			ended[pid] = true
			send(pidfd, unix.SIGKILL)
		})
		if n == 0 {
			break
		}
		time.Sleep(pollEvery)
	}
	return len(ended)
}

// send ignores the one error that can come, ESRCH: it ended by itself.
func send(pidfd int, sig unix.Signal) { _ = unix.PidfdSendSignal(pidfd, sig, nil, 0) }

// visit calls f for each living process of r and returns how many there are. A
// process is held by a pidfd, so that its number cannot pass to another one
// between being found and being signalled; one at a time, because a fork bomb has
// more processes than we may have descriptors.
func (s *server) visit(r *running, f func(pid, pidfd int)) (n int) {
	for _, pid := range processes() {
		if !s.belongs(pid, r) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // ended
		}
		if s.belongs(pid, r) { // again, now that the number is held
			n++
			if f != nil {
				f(pid, fd)
			}
		}
		unix.Close(fd)
	}
	return n
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
			return tag == r.tag
		}
		if !errors.Is(err, fs.ErrPermission) {
			return false // ended: a zombie has no namespaces
		}
		s.mu.Lock()
		first := s.first[pid]
		s.mu.Unlock()
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
