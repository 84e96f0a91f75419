package local

import (
	"context"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
)

// Whether a sandbox is, but for its home, as it was made: what commands can change
// inside and what outlives them is only what these look at. Everything else is
// read-only, or a process's own.

// keptDirs are the places that commands may write beside the home.
var keptDirs = [...]string{"/tmp", "/var/tmp", "/dev/shm", "/run"}

const queues = "/dev/mqueue"

var _ sandbox.Reusable = (*Sandbox)(nil)

// Clean asks init. In the tier landlock it never is: there is nothing that would be
// one sandbox's alone.
func (s *Sandbox) Clean(ctx context.Context) (bool, error) {
	if s.flat() {
		return false, nil
	}
	id, answer, err := s.register()
	if err != nil {
		return false, err
	}
	defer s.unregister(id)
	k := killRequest{ID: id}
	if _, err := s.conn.Write(k.append([]byte{msgClean})); err != nil {
		return false, s.failed(err)
	}
	select {
	case r := <-answer:
		return r.Code == 0, nil
	case <-s.done:
		return false, s.failed(nil)
	case <-ctx.Done():
		return false, execError(sandbox.ClassInfrastructure, context.Cause(ctx))
	}
}

// dirState is what a folder looks like while nothing is in it.
type dirState struct {
	mode   uint32
	xattrs int
	inodes uint64
}

func stateOf(dir string) (d dirState) {
	var st unix.Stat_t
	var fs unix.Statfs_t
	if unix.Stat(dir, &st) != nil || unix.Statfs(dir, &fs) != nil {
		return dirState{}
	}
	n, err := unix.Listxattr(dir, nil) // an access list is one too
	if err != nil {
		n = 0 // a file system without any
	}
	return dirState{mode: st.Mode, xattrs: n, inodes: fs.Files - fs.Ffree}
}

// remember notes what the folders look like before the first command.
func (s *server) remember() {
	for i, dir := range keptDirs {
		s.kept[i] = stateOf(dir)
	}
}

// clean is asked between commands; anything that it cannot see counts as unclean.
func (s *server) clean() bool {
	s.mu.Lock()
	busy := len(s.execs) > 0
	s.mu.Unlock()
	if busy || unix.Kill(-1, 0) != unix.ESRCH {
		return false
	}
	for i, dir := range keptDirs {
		if now := stateOf(dir); now != s.kept[i] || now.mode == 0 {
			return false
		}
	}
	names, err := os.ReadDir(queues)
	return err == nil && len(names) == 0 && ipcObjects() == 0
}

// ipcObjects counts shared memory, semaphores and message queues of System V. A call
// that fails counts as one.
func ipcObjects() int {
	const shmInfo, semInfo, msgInfo = 14, 19, 12 // <linux/shm.h>, <linux/sem.h>, <linux/msg.h>
	var info [32]int32
	var used int
	// struct shm_info begins with used_ids.
	if _, _, e := unix.Syscall(unix.SYS_SHMCTL, 0, shmInfo, uintptr(unsafe.Pointer(&info))); e != 0 {
		return 1
	}
	used += int(info[0])
	// struct seminfo: semmap, semmni, semmns, semmnu, semmsl, semopm, semume, semusz (sets in use).
	if _, _, e := unix.Syscall6(unix.SYS_SEMCTL, 0, 0, semInfo, uintptr(unsafe.Pointer(&info)), 0, 0); e != 0 {
		return 1
	}
	used += int(info[7])
	// struct msginfo begins with msgpool (queues in use).
	if _, _, e := unix.Syscall(unix.SYS_MSGCTL, 0, msgInfo, uintptr(unsafe.Pointer(&info))); e != 0 {
		return 1
	}
	return used + int(info[0])
}
