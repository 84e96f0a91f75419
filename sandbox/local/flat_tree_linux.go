package local

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How the processes of one exec are found in the tier landlock, where neither a pid
// nor a UTS namespace can be made: the thread that forked it stays, in the command's
// own domain, and is asked what it can reach. With scopes (Linux 6.12) it reaches
// with kill(2) exactly what is in its domain, so kill(-1) of that thread ends the
// tree in one step. Before, it can look into exactly what is in its domain and can
// be looked into; a process that hides from that is taken for its parent's, an orphan
// for a leftover of whichever exec ends first, as in the other tiers.

// scopedKill ends everything in the domain of r but nothing else; false: the kernel
// has no scopes.
func (s *server) scopedKill(r *running) bool {
	if !s.flat.scoped {
		return false
	}
	r.thread.do(func() { _ = unix.Kill(-1, unix.SIGKILL) }) // ESRCH: all have ended
	return true
}

// endAlone ends what is left of r when nothing else runs; the reaper calls it, with mu
// held, so that nothing is forked meanwhile.
func (s *server) endAlone(r *running) (n int) {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if errors.Is(err, unix.ECHILD) {
			return 0 // orphans would be our children
		}
		if pid == 0 {
			break
		}
	}
	for {
		if !s.scopedKill(r) {
			s.killFlat()
		}
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case pid > 0:
			n++
		case errors.Is(err, unix.ECHILD):
			return n
		case err == nil:
			time.Sleep(pollEvery)
		}
	}
}

// killFlat stops what is below init until no new process appears, and kills it.
func (s *server) killFlat() {
	found := map[int]bool{}
	for stable := false; !stable; {
		stable = true
		for pid := range descendants(s.flat.self) {
			if !found[pid] {
				found[pid], stable = true, false
				s.signalBelow(pid, unix.SIGSTOP)
			}
		}
	}
	for pid := range found {
		s.signalBelow(pid, unix.SIGKILL)
	}
}

// signalBelow signals a process that was below init when it was listed. Its number may
// be another's by now, anybody's on this machine: what it names is held, and looked at
// again, before it is signalled.
func (s *server) signalBelow(pid int, sig unix.Signal) {
	if fd := s.holdBelow(pid); fd >= 0 {
		send(fd, sig)
		unix.Close(fd)
	}
}

// holdBelow returns a pidfd of a process that is below init, or -1.
func (s *server) holdBelow(pid int) int {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1 // it has ended
	}
	for hops, at := 0, pid; hops < MaxProcesses && at > 1; hops++ {
		if at == s.flat.self {
			return fd
		}
		at, _ = parentOf("/proc/" + strconv.Itoa(at))
	}
	unix.Close(fd)
	return -1
}

// members lists the living processes of r.
func (s *server) members(r *running) []int {
	parents := descendants(s.flat.self)
	reach := make(map[int]bool, len(parents))
	r.thread.do(func() {
		for pid := range parents {
			reach[pid] = s.reaches(pid)
		}
	})
	var pids []int
	for pid := range parents {
		if reach[pid] || !s.flat.scoped && s.inherits(pid, r, parents, reach) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// reaches is asked on the thread of an exec.
func (s *server) reaches(pid int) bool {
	if s.flat.scoped {
		return unix.Kill(pid, 0) == nil
	}
	_, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/uts")
	return err == nil
}

// inherits attributes a process that hides: one that nobody can look into.
func (s *server) inherits(pid int, r *running, parents map[int]int, reach map[int]bool) bool {
	for hops := 0; hops < MaxProcesses; hops++ {
		if reach[pid] {
			return true
		}
		if _, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/uts"); err == nil {
			return false // we can, and r cannot: another's
		}
		s.firstMu.Lock()
		first := s.first[pid]
		s.firstMu.Unlock()
		if first != nil {
			return first == r
		}
		parent, ok := parents[pid]
		if !ok {
			return false
		}
		if parent == s.flat.self {
			return true
		}
		pid = parent
	}
	return false
}

// descendants maps every living process below pid to its parent. Without zombies.
func descendants(pid int) map[int]int {
	out := map[int]int{}
	queue := []int{pid}
	for len(queue) > 0 {
		parent := queue[0]
		queue = queue[1:]
		for _, child := range children(parent) {
			if _, seen := out[child]; seen {
				continue
			}
			if _, state := parentOf("/proc/" + strconv.Itoa(child)); state == 'Z' || state == 'X' {
				continue // its children are somebody else's by now
			}
			out[child] = parent
			queue = append(queue, child)
		}
	}
	return out
}

// children of all threads of a process.
func children(pid int) (pids []int) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	d, err := os.Open(dir)
	if err != nil {
		return nil // ended
	}
	defer d.Close()
	tasks, _ := d.Readdirnames(-1) // what was read counts; the next round sees the rest
	for _, task := range tasks {
		b, err := os.ReadFile(dir + "/" + task + "/children")
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}
