package tracer

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// durable is the table of calls that count. The value says which argument is the
// file descriptor, -1 where it is a path.
var durable = map[uint64]struct {
	name string
	fd   int
}{
	unix.SYS_WRITE:     {"write", 0},
	unix.SYS_PWRITE64:  {"write", 0},
	unix.SYS_WRITEV:    {"write", 0},
	unix.SYS_PWRITEV:   {"write", 0},
	unix.SYS_FTRUNCATE: {"truncate", 0},
	unix.SYS_FSYNC:     {"fsync", 0},
	unix.SYS_FDATASYNC: {"fsync", 0},
	unix.SYS_RENAME:    {"rename", -1},
	unix.SYS_RENAMEAT:  {"rename", -1},
	unix.SYS_RENAMEAT2: {"rename", -1},
	unix.SYS_MKDIR:     {"mkdir", -1},
	unix.SYS_MKDIRAT:   {"mkdir", -1},
	unix.SYS_UNLINKAT:  {"unlink", -1},
	unix.SYS_UNLINK:    {"unlink", -1},
}

// Trace runs the job. It must stay on one thread: a tracee listens to its tracer
// thread only.
func Trace(job Job) (Result, error) {
	if job.Tree {
		return traceTree(job)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	res := Result{ByName: map[string]int{}}
	// Threads are followed, children are not: they are steps and sandboxes.
	pid, err := begin(job, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL)
	if err != nil {
		return res, err
	}
	var ws unix.WaitStatus
	inside := map[int]bool{}  // thread → between entry and exit of a call
	failing := map[int]bool{} // thread → this call is to fail
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
			if tid != pid {
				continue
			}
			res.ExitCode = exitCode(ws)
			return res, nil
		}
		sig := 0
		switch stop := ws.StopSignal(); {
		case stop == unix.SIGTRAP|0x80:
			inside[tid] = !inside[tid]
			if failing[tid] && !inside[tid] {
				delete(failing, tid)
				setResult(tid, job.Errno)
			}
			if !inside[tid] || !counts(tid, pid, job.Under, &res) {
				break
			}
			if job.KillAt > 0 && res.Calls == job.KillAt {
				res.Killed = true
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			if job.FailAt > 0 && (res.Calls == job.FailAt || job.FailOn && res.Calls > job.FailAt) && skipCall(tid) {
				failing[tid] = true
				res.Failed++
			}
		case stop == unix.SIGTRAP: // a new thread was made
		case stop == unix.SIGSTOP: // a new thread's first stop
		default:
			sig = int(stop)
		}
		// ESRCH: it was killed meanwhile, and is waited for above.
		_ = unix.PtraceSyscall(tid, sig)
	}
}

// begin starts the job stopped at its first instruction, traced with the options.
func begin(job Job, options int) (pid int, err error) {
	cmd := exec.Command(job.Argv[0], job.Argv[1:]...)
	cmd.Dir = job.Dir
	cmd.Env = without(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid = cmd.Process.Pid
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil {
		return pid, err
	}
	return pid, unix.PtraceSetOptions(pid, options|unix.PTRACE_O_TRACESYSGOOD)
}

// exitCode as a shell has it.
func exitCode(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// skipCall makes the kernel skip the call that a thread is about to make. Removing
// what is there works on a full disk, so that it is left alone.
func skipCall(tid int) bool {
	var regs unix.PtraceRegs
	if unix.PtraceGetRegs(tid, &regs) != nil || durable[regs.Orig_rax].name == "unlink" {
		return false
	}
	regs.Orig_rax = ^uint64(0) // no such call
	return unix.PtraceSetRegs(tid, &regs) == nil
}

func setResult(tid, errno int) {
	var regs unix.PtraceRegs
	if unix.PtraceGetRegs(tid, &regs) == nil {
		regs.Rax = uint64(-int64(errno))
		_ = unix.PtraceSetRegs(tid, &regs)
	}
}

func counts(tid, pid int, under string, res *Result) bool {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return false
	}
	call, ok := durable[regs.Orig_rax]
	if !ok {
		return false
	}
	if call.fd == 0 {
		path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, int(regs.Rdi)))
		if err != nil || !strings.HasPrefix(path, under) {
			return false
		}
	}
	res.Calls++
	res.ByName[call.name]++
	return true
}

func without(env []string) []string {
	var out []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, Env+"=") {
			out = append(out, kv)
		}
	}
	return out
}
