package local

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/internal/cgroup"
)

// join puts init into a control group, where a limit needs one, before it has read
// its configuration and so before any command exists.
func (s *Sandbox) join(spec sandbox.Spec) error {
	l := cgroup.Limits{Memory: spec.Limits.Memory, CPUs: spec.Limits.CPUs}
	if spec.Limits.Pids > 0 && s.flat() && os.Getuid() == 0 {
		l.Pids = spec.Limits.Pids + initTasks // elsewhere RLIMIT_NPROC does it
	}
	if l == (cgroup.Limits{}) {
		return nil
	}
	place := cgroup.Find()
	place.Sweep(false) // what a killed flow left
	g, err := place.New(spec.ID, l)
	if err != nil {
		return step(err, "limit the sandbox")
	}
	s.group = g // wait removes it
	return step(g.Add(s.pid), "limit the sandbox")
}

// sharedPids is how many processes commands may have that share init's uid, and so
// its count: what stage 1 set without init's own share.
func sharedPids(root bool) (uint64, error) {
	if root {
		return 0, nil
	}
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &r); err != nil {
		return 0, step(err, "read the limit of processes")
	}
	return r.Max - min(r.Max, initTasks), nil
}

// narrow gives the command that fork makes, and what it makes, the bound of commands:
// as many as the file says beside the threads that init has now. Init's own wider one
// is back when a thread of its is made; it stays the hard limit, so that a command
// which raises its bound by its own act gains initTasks at most. (A filter keeps
// everybody here, us too, from setting another process's limits.)
func (s *server) narrow(fork func() (int, error)) (int, error) {
	if s.pids == 0 {
		return fork()
	}
	own, err := threads()
	if err != nil {
		return fork()
	}
	wide := s.pids + initTasks
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: s.pids + min(own, initTasks), Max: wide}); err != nil {
		return fork() // the host's own bound is lower
	}
	defer unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: wide, Max: wide})
	return fork()
}

// threads counts our own.
func threads() (uint64, error) {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, err
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	const numThreads = 17 // proc_pid_stat(5): field 20, of which three stand before
	if len(f) <= numThreads {
		return 0, unix.EINVAL
	}
	return strconv.ParseUint(string(f[numThreads]), 10, 64)
}

// counted is what the control group has counted so far.
func (s *Sandbox) counted() cgroup.Stats {
	if s.group == nil {
		return cgroup.Stats{}
	}
	return s.group.Stats()
}

// explained is an exec's result with the limit that it ran into.
func (s *Sandbox) explained(r *execResult, before cgroup.Stats) (sandbox.Result, error) {
	res, err := result(r)
	if err != nil || res.ExitCode == 0 || res.Killed {
		return res, err
	}
	now := s.counted()
	var host unix.Statfs_t
	switch {
	case now.OOMKills > before.OOMKills:
		res.Hit = "memory"
	case now.PidsRefused > before.PidsRefused:
		res.Hit = "pids"
	case res.Signal == int(unix.SIGXFSZ) || res.ExitCode == 128+int(unix.SIGXFSZ):
		res.Hit = "file_size"
	case r.Full:
		res.Hit = "tmp"
	case unix.Statfs(s.home, &host) == nil && (host.Bavail*uint64(host.Bsize) < fullBelow || host.Files > 0 && host.Ffree == 0):
		res.Hit = "host_disk"
	}
	return res, nil
}

// fullBelow is the free space, in bytes, below which a disk counts as full.
const fullBelow = 64 << 10

// scratchFull is asked inside.
func scratchFull() bool {
	for _, dir := range [...]string{"/tmp", "/var/tmp", "/dev/shm"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Blocks > 0 && (st.Bavail == 0 || st.Files > 0 && st.Ffree == 0) {
			return true
		}
	}
	return false
}

// Stats measures from the host's side.
func (s *Sandbox) Stats(ctx context.Context, disk bool) (sandbox.Stats, error) {
	var st sandbox.Stats
	page := int64(os.Getpagesize())
	for pid := range descendants(s.top()) {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
		if err != nil {
			continue // it has ended
		}
		if f := bytes.Fields(b); len(f) > 1 {
			pages, _ := strconv.ParseInt(string(f[1]), 10, 64)
			st.Memory += pages * page
		}
		st.Processes++
	}
	if s.group != nil {
		if n := s.group.Stats().Memory; n > 0 {
			st.Memory = n
		}
	}
	if !disk {
		return st, nil
	}
	size, err := diskOf(ctx, s.home)
	st.Disk = size
	if s.view != nil && err == nil {
		size, err = diskOf(ctx, s.view.upper) // the source takes no space of the run's
		st.Disk += size
	}
	if s.flat() && err == nil {
		size, err = diskOf(ctx, s.tmp)
		st.Disk += size
	}
	return st, err
}

var _ sandbox.Meter = (*Sandbox)(nil)

// entryCost is what a file takes beside its blocks, in bytes: an inode, its names, and
// its rows in checkpoints. So a limit of space bounds the number of empty files too.
const entryCost = 1 << 10

// diskOf is the space that a tree takes. What changes meanwhile is counted or not.
func diskOf(ctx context.Context, root string) (total int64, err error) {
	seen := map[uint64]bool{} // of files with several names
	err = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return nil // removed, or closed by its owner
		}
		info, err := d.Info()
		if err != nil {
			return nil // removed
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && (st.Nlink == 1 || d.IsDir() || !seen[st.Ino]) {
			seen[st.Ino] = st.Nlink > 1
			total += st.Blocks*512 + entryCost
		}
		return nil
	})
	return total, err
}
