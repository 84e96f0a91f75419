package local

import (
	"context"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/internal/landlock"
)

// beside starts a python program that prints a first line and then waits; it returns
// that line.
func beside(t *testing.T, sb sandbox.Sandbox, program string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer w.Close()
		_, _ = sb.Exec(ctx, sandbox.Cmd{Argv: []string{"python3", "-c", program}, Env: append(sb.BaseEnv(), "CANARY=1"), Stdout: w, Stderr: w}) // it is cancelled
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		r.Close()
	})
	if err := r.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 4096)
	n, err := r.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(line[:n]))
}

func needPython(t *testing.T, sb sandbox.Sandbox) {
	t.Helper()
	if _, res := run(t, sb, "command -v python3"); res.ExitCode != 0 {
		t.Skip("no python3 on this machine")
	}
}

// TestSiblingsByCalls makes the calls that no program on PATH makes: a command must
// not reach a command that runs beside it in the same sandbox, whatever its rights.
func TestSiblingsByCalls(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		t.Skip("the calls' numbers are those of amd64")
	}
	if landlock.ABI() < landlock.ABIScope {
		t.Skipf("landlock's interface %d has no scopes", landlock.ABI())
	}
	sb := newSandbox(t, sandbox.Spec{})
	needPython(t, sb)
	victim := beside(t, sb, `
import socket, os, ctypes, time
a = socket.socket(socket.AF_UNIX); a.bind("\0flow-victim"); a.listen()
d = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); d.bind("\0flow-victim-d")
secret = ctypes.create_string_buffer(b"canary")
os.open("open-file", os.O_RDWR | os.O_CREAT)
print(os.getpid(), ctypes.addressof(secret), flush=True)
time.sleep(1000)`)
	const attack = `
import ctypes, errno, os, signal, socket, sys
pid, addr = int(sys.argv[1]), int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
def refused(name, f):
    try:
        r = f()
    except (OSError, PermissionError, ProcessLookupError) as e:
        return
    print("reached:", name, r)
def call(nr, *args):
    r = libc.syscall(ctypes.c_long(nr), *[ctypes.c_long(a) for a in args])
    if r == -1: raise OSError(ctypes.get_errno(), "")
    return r
for f in ("environ", "mem", "maps", "auxv", "stack", "syscall", "io", "smaps", "pagemap", "fd/3", "root/etc/passwd", "cwd/open-file", "exe", "timens_offsets", "oom_score_adj", "clear_refs", "comm", "cmdline", "status"):
    refused(f, lambda: open("/proc/%d/%s" % (pid, f), "rb").read(8))
    refused("write " + f, lambda: os.open("/proc/%d/%s" % (pid, f), os.O_WRONLY))
for s in (0, signal.SIGCONT, signal.SIGSTOP, signal.SIGKILL):
    refused("kill", lambda: os.kill(pid, s) or "sent")
    refused("killpg", lambda: os.killpg(pid, s) or "sent")
    refused("tgkill", lambda: call(234, pid, pid, s))
    refused("sigqueue", lambda: call(129, pid, s, 0))
def pidfd(s):
    fd = os.pidfd_open(pid)
    signal.pidfd_send_signal(fd, s)
    return "sent"
refused("pidfd", lambda: pidfd(signal.SIGKILL))
refused("pidfd_getfd", lambda: call(438, os.pidfd_open(pid), 3, 0))
refused("ptrace attach", lambda: call(101, 16, pid, 0, 0))
refused("ptrace seize", lambda: call(101, 0x4206, pid, 0, 0))
buf = ctypes.create_string_buffer(8)
class Iov(ctypes.Structure): _fields_ = [("b", ctypes.c_void_p), ("l", ctypes.c_size_t)]
local, remote = Iov(ctypes.addressof(buf), 6), Iov(addr, 6)
refused("process_vm_readv", lambda: call(310, pid, ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0))
refused("process_vm_writev", lambda: call(311, pid, ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0))
refused("process_madvise", lambda: call(440, os.pidfd_open(pid), ctypes.addressof(remote), 1, 4, 0))
refused("kcmp", lambda: call(312, os.getpid(), pid, 0, 0, 0))
refused("move_pages", lambda: call(279, pid, 0, 0, 0, 0, 0))
import resource
refused("prlimit", lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 3)))
refused("prlimit read", lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE))
def conn(kind, name):
    s = socket.socket(socket.AF_UNIX, kind); s.connect(name); return "connected"
refused("abstract socket", lambda: conn(socket.SOCK_STREAM, "\0flow-victim"))
refused("abstract datagram", lambda: conn(socket.SOCK_DGRAM, "\0flow-victim-d"))
refused("abstract sendto", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", "\0flow-victim-d"))
pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
refused("pair sendto", lambda: pair[0].sendto(b"x", "\0flow-victim-d"))
refused("setns", lambda: call(308, os.pidfd_open(pid), 0x20000))
refused("io_uring", lambda: call(425, 4, ctypes.addressof(ctypes.create_string_buffer(256))))
refused("memory policy", lambda: call(256, pid, 8, 0, 0))
print("done")`
	for _, rights := range []sandbox.Rights{{}, {ReadOnly: true}} {
		args := append([]string{"python3", "-c", attack}, strings.Fields(victim)...)
		out, res := runWith(t, sb, rights, args)
		if out != "done\n" || res.ExitCode != 0 {
			t.Errorf("with %+v: %+v\n%s", rights, res, out)
		}
	}
}

// TestReadOnlyByCalls: what changes a file without opening it for writing.
func TestReadOnlyByCalls(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		t.Skip("the calls' numbers are those of amd64")
	}
	sb := newSandbox(t, sandbox.Spec{})
	needPython(t, sb)
	if out, res := run(t, sb, `echo one > file; mkdir out d; echo two > d/g; chmod 640 file; touch -d 2001-01-01 file; ls -lan --time-style=full-iso . > /tmp/before`); res.ExitCode != 0 {
		t.Fatal(out)
	}
	const attack = `
import ctypes, fcntl, mmap, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def refused(name, f):
    try:
        r = f()
    except (OSError, ValueError) as e:
        return
    print("did:", name, r)
def call(nr, *args):
    r = libc.syscall(ctypes.c_long(nr), *[a if isinstance(a, bytes) else ctypes.c_long(a) for a in args])
    if r == -1: raise OSError(ctypes.get_errno(), "")
    return r
fd = os.open("file", os.O_RDONLY); here = os.open(".", os.O_RDONLY); out = os.open("out", os.O_RDONLY)
for name, f in {
    "chmod": lambda: os.chmod("file", 0o777), "fchmod": lambda: os.fchmod(fd, 0o777), "chown": lambda: os.chown("file", 1000, 1000),
    "fchown": lambda: os.fchown(fd, 1000, 1000), "lchown": lambda: os.lchown("file", 1000, 1000),
    "utime": lambda: os.utime("file"), "futimens": lambda: os.utime(fd), "truncate": lambda: os.truncate("file", 0), "ftruncate": lambda: os.ftruncate(fd, 0),
    "setxattr": lambda: os.setxattr("file", "user.x", b"y"), "fsetxattr": lambda: os.setxattr(fd, "user.x", b"y"), "removexattr": lambda: os.removexattr("file", "user.x"),
    "link": lambda: os.link("file", "out/hard"), "link by fd": lambda: os.link("/proc/self/fd/%d" % fd, "out/hard", follow_symlinks=True),
    "linkat empty path": lambda: call(265, fd, b"", out, b"hard", 0x1000),
    "rename": lambda: os.rename("file", "out/file"), "rename in": lambda: os.rename("out", "d/out"), "exchange": lambda: call(316, here, b"file", here, b"d/g", 2),
    "symlink": lambda: os.symlink("x", "s"), "mknod": lambda: os.mknod("fifo", 0o10600), "bind a socket": lambda: socket.socket(socket.AF_UNIX).bind("sock"),
    "O_TMPFILE": lambda: os.open(".", os.O_TMPFILE | os.O_RDWR), "O_CREAT": lambda: os.open("new", os.O_CREAT | os.O_WRONLY),
    "O_TRUNC": lambda: os.open("file", os.O_TRUNC | os.O_RDONLY), "reopen": lambda: os.open("/proc/self/fd/%d" % fd, os.O_RDWR),
    "mmap shared": lambda: mmap.mmap(fd, 3, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE), "fallocate": lambda: os.posix_fallocate(fd, 0, 9),
    "FS_IOC_SETFLAGS": lambda: fcntl.ioctl(fd, 0x40086602, b"\0" * 8), "FICLONE": lambda: fcntl.ioctl(fd, 0x40049409, fd),
    "copy_file_range": lambda: os.copy_file_range(os.open("d/g", 0), fd, 1), "sendfile": lambda: os.sendfile(fd, os.open("d/g", 0), 0, 1),
    "open_tree": lambda: call(428, -100, b".", 1), "unshare": lambda: call(272, 0x20000), "mount_setattr": lambda: call(442, -100, b"/home/user", 0, 0, 0),
    "io_uring": lambda: call(425, 4, 0), "name_to_handle_at": lambda: call(303, -100, b"file", 0, 0, 0),
    "chroot": lambda: os.chroot("."),
}.items():
    refused(name, f)
print("done")`
	out, res := runWith(t, sb, sandbox.Rights{ReadOnly: true, Write: []string{"out/"}}, []string{"python3", "-c", attack})
	if out != "done\n" || res.ExitCode != 0 {
		t.Errorf("%+v\n%s", res, out)
	}
	if out, _ := run(t, sb, `ls -lan --time-style=full-iso . | diff /tmp/before - ; ls -A out`); out != "" {
		t.Errorf("changed:\n%s", out)
	}
}

func runWith(t testing.TB, sb sandbox.Sandbox, rights sandbox.Rights, argv []string) (string, sandbox.Result) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text := make(chan string)
	go func() { text <- readText(r) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	res, err := sb.Exec(ctx, sandbox.Cmd{Argv: argv, Env: sb.BaseEnv(), Stdout: w, Stderr: w, Rights: rights})
	w.Close()
	out := <-text
	if err != nil {
		t.Fatalf("exec %q: %v", argv, err)
	}
	return out, res
}
