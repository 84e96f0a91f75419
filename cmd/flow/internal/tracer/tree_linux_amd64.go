package tracer

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// building is the table of calls by which a sandbox is made and ended.
var building = map[uint64]string{
	unix.SYS_SOCKETPAIR: "socketpair", unix.SYS_CLONE: "clone", unix.SYS_CLONE3: "clone", unix.SYS_EXECVE: "execve",
	unix.SYS_UNSHARE: "unshare", unix.SYS_SETNS: "setns", unix.SYS_MOUNT: "mount", unix.SYS_UMOUNT2: "umount", unix.SYS_PIVOT_ROOT: "pivot_root",
	unix.SYS_OPEN_TREE: "open_tree", unix.SYS_MOVE_MOUNT: "move_mount", unix.SYS_MOUNT_SETATTR: "mount_setattr",
	unix.SYS_MKDIR: "mkdir", unix.SYS_MKDIRAT: "mkdir", unix.SYS_RMDIR: "rmdir", unix.SYS_UNLINKAT: "unlink", unix.SYS_SYMLINKAT: "symlink",
	unix.SYS_SETHOSTNAME: "sethostname", unix.SYS_SECCOMP: "seccomp", unix.SYS_CAPSET: "capset", unix.SYS_LCHOWN: "chown", unix.SYS_FCHOWNAT: "chown",
	unix.SYS_LANDLOCK_CREATE_RULESET: "landlock", unix.SYS_LANDLOCK_RESTRICT_SELF: "landlock", unix.SYS_SENDMSG: "sendmsg", unix.SYS_PIDFD_OPEN: "pidfd_open",
	unix.SYS_KILL: "kill", unix.SYS_PRLIMIT64: "setrlimit",
}

// traceTree is Trace for Job.Tree. Nothing ends with the tracer: what the killed program
// leaves is let go, and has to end by itself.
func traceTree(job Job) (Result, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	res := Result{ByName: map[string]int{}}
	pid, err := begin(job, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_TRACEFORK|unix.PTRACE_O_TRACEVFORK|unix.PTRACE_O_TRACEEXEC)
	res.PID = pid
	if err != nil {
		return res, err
	}
	var ws unix.WaitStatus
	inside := map[int]bool{}
	if err := unix.PtraceSyscall(pid, 0); err != nil {
		return res, err
	}
	for {
		tid, err := unix.Wait4(-1, &ws, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return res, err
		}
		if ws.Exited() || ws.Signaled() {
			delete(inside, tid)
			if tid == pid {
				res.ExitCode = exitCode(ws)
				return res, nil
			}
			continue
		}
		sig := 0
		switch stop := ws.StopSignal(); {
		case stop == unix.SIGTRAP|0x80:
			inside[tid] = !inside[tid]
			if inside[tid] && !res.Killed && countsBuilding(tid, &res) && job.KillAt == res.Calls {
				res.Killed = true
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		case stop == unix.SIGTRAP:
			if ws.TrapCause() == unix.PTRACE_EVENT_EXEC {
				// The other threads are gone, and this one's call goes on to its exit.
				inside[tid] = true
			}
		case stop == unix.SIGSTOP: // the first stop of a new thread or process
		default:
			sig = int(stop)
		}
		if res.Killed && tid != pid && !isThreadOf(tid, pid) {
			_ = unix.PtraceDetach(tid)
			continue
		}
		_ = unix.PtraceSyscall(tid, sig) // ESRCH: it was killed meanwhile
	}
}

func isThreadOf(tid, pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", pid, tid))
	return err == nil
}

func countsBuilding(tid int, res *Result) bool {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return false
	}
	name, ok := building[regs.Orig_rax]
	if regs.Orig_rax == unix.SYS_WRITE { // joining a control group
		path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, int(regs.Rdi)))
		name, ok = "cgroup", err == nil && strings.HasPrefix(path, "/sys/fs/cgroup/")
	}
	if !ok {
		return false
	}
	res.Calls++
	res.ByName[name]++
	return true
}
