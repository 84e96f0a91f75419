package local

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"flowrun.dev/flow/sandbox"
)

// newSandbox makes one that the test's end closes.
func newSandbox(t testing.TB, s sandbox.Spec) sandbox.Sandbox {
	t.Helper()
	return newSandboxWith(t, Options{}, s)
}

func newSandboxWith(t testing.TB, o Options, s sandbox.Spec) sandbox.Sandbox {
	t.Helper()
	d := newDriver(t, o)
	s.ID = "test"
	if s.Dir == "" {
		s.Dir = t.TempDir()
	}
	sb, err := d.Create(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sb.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return sb
}

// run runs a script to its end.
func run(t testing.TB, sb sandbox.Sandbox, script string, args ...string) (string, sandbox.Result) {
	t.Helper()
	return runWith(t, sb, sandbox.Rights{}, append([]string{"sh", "-c", script, "sh"}, args...))
}

// readText reads to the end; an error shows as missing text.
func readText(r io.Reader) string {
	b, _ := io.ReadAll(r)
	return string(b)
}

func TestNamespacesAreOneAndNotTheHosts(t *testing.T) {
	t.Parallel()
	sb := newSandbox(t, sandbox.Spec{})
	const script = "readlink /proc/self/ns/user /proc/self/ns/mnt /proc/self/ns/pid /proc/self/ns/net /proc/self/ns/ipc /proc/self/ns/cgroup"
	first, _ := run(t, sb, script)
	second, _ := run(t, sb, script)
	if first != second {
		t.Errorf("two execs in one sandbox differ:\n%s%s", first, second)
	}
	lines := strings.Fields(first)
	for i, ns := range []string{"user", "mnt", "pid", "net", "ipc", "cgroup"} {
		own, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil || len(lines) != 6 || lines[i] == own {
			t.Errorf("%s: inside %v, the host's %s, %v", ns, lines, own, err)
		}
	}
	other, _ := run(t, newSandbox(t, sandbox.Spec{}), script)
	for i, line := range strings.Fields(other) {
		if line == lines[i] {
			t.Errorf("two sandboxes share %s", line)
		}
	}
}

func TestNoPrivilege(t *testing.T) {
	t.Parallel()
	sb := newSandbox(t, sandbox.Spec{Hostname: "abc"})
	status, _ := run(t, sb, "cat /proc/self/status; hostname; id -u; id -g; cat /etc/hostname; ulimit -c; umask")
	for _, want := range []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
		"CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2",
		"Uid:\t1000\t1000\t1000\t1000", "Gid:\t1000\t1000\t1000\t1000", "\nabc\n1000\n1000\nabc\n0\n0022\n"} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
}

// TestRefused: each command must fail. Each is checked to exist first, so that a
// missing program is no success.
func TestRefused(t *testing.T) {
	t.Parallel()
	sb := newSandbox(t, sandbox.Spec{})
	for _, script := range []string{
		": > /proc/sys/kernel/core_pattern", ": > /proc/sysrq-trigger", "echo 1 > /proc/sys/user/max_user_namespaces",
		"mount -t tmpfs x /tmp", "umount /usr", "mount -o remount,rw /", "unshare -U true", "unshare -n true",
		"unshare -m true", "chroot / true", "nsenter -t 1 -m true", "unshare -u true", "hostname changed",
		": > /etc/x", ": > /usr/x", ": > /x", ": > /dev/x", ": > /home/x", "rm /etc/passwd", "mknod null c 1 3", "mknod disk b 8 0",
		"cat /proc/1/environ", "ls /proc/1/fd", "ls /proc/1/root/", ": > /proc/1/exe", "cat /proc/1/mem", "chown 0 .",
		"chmod u+s /usr/bin/env", "kill -KILL 1 && sleep 0.2 && exit 1", "renice -n -5 $$", "setpriv --reuid 0 true",
		"ls /sys/kernel", "ls /root", "ls /run/systemd", "ls /mnt", "ls /srv", "ls /boot", "cat /etc/shadow", "cat /etc/gitconfig",
	} {
		tool := strings.Fields(script)[0]
		if out, res := run(t, sb, `command -v "$1"`, tool); res.ExitCode != 0 {
			t.Errorf("%s does not exist inside: %s", tool, out)
		} else if out, res := run(t, sb, script); res.ExitCode == 0 {
			t.Errorf("%s: succeeded: %s", script, out)
		}
	}
	// init is still there and has the same state.
	if out, res := run(t, sb, "for s in TERM INT HUP QUIT USR1 USR2 SEGV BUS FPE ILL TRAP ABRT STOP TSTP PIPE ALRM CHLD PROF VTALRM SYS XCPU IO PWR WINCH URG; do kill -$s 1; done 2>/dev/null; true"); res.ExitCode != 0 {
		t.Errorf("signals to init: %+v %s", res, out)
	}
	if out, res := run(t, sb, "echo fine"); out != "fine\n" || res.ExitCode != 0 {
		t.Errorf("after signals to init: %q %+v", out, res)
	}
}

func TestHostIsHidden(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("host"), 0o644); err != nil {
		t.Fatal(err)
	}
	sb := newSandbox(t, sandbox.Spec{})
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/root"
	}
	out, res := run(t, sb, `for f in "$@"; do test -e "$f" && echo "visible: $f"; done; ls -A /tmp /var/tmp /run /home/user /home; ls /proc | grep -c '^[0-9]'`,
		secret, filepath.Dir(sb.Home()), home+"/.ssh", home+"/.bashrc", "/root", "/var/run/docker.sock", "/run/docker.sock", "/var/lib")
	// init, the shell, ls and grep
	want := "/home:\nuser\n\n/home/user:\nworkspace\n\n/run:\n\n/tmp:\n\n/var/tmp:\n"
	if !strings.HasPrefix(out, want) || res.ExitCode != 0 {
		t.Errorf("%+v\n%s", res, out)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(out, want))); err != nil || n > 4 {
		t.Errorf("%d processes are visible, %v", n, err)
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	// /proc/net/dev: two lines of headings, then the interfaces.
	out, _ := run(t, newSandbox(t, sandbox.Spec{}), "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; wc -c < /etc/resolv.conf")
	if out != "lo\n0\n" {
		t.Errorf("network none: %q", out)
	}
	// lo is up: a listener can be reached.
	sb := newSandbox(t, sandbox.Spec{})
	if out, res := run(t, sb, `command -v python3 >/dev/null || exit 0; python3 -c '
import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
c = socket.create_connection(s.getsockname(), 5); print("connected")'`); res.ExitCode != 0 || (out != "" && out != "connected\n") {
		t.Errorf("loopback: %+v %q", res, out)
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	full := newSandbox(t, sandbox.Spec{Network: sandbox.NetworkFull})
	if out, _ := run(t, full, "readlink /proc/self/ns/net"); strings.TrimSpace(out) != own {
		t.Errorf("network full: %s, the host has %s", out, own)
	}
	want, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Skipf("the host has no /etc/resolv.conf: %v", err)
	}
	if out, _ := run(t, full, "cat /etc/resolv.conf"); out != string(want) {
		t.Errorf("resolv.conf: %q", out)
	}
}

// TestSeccomp makes calls that no program on PATH makes.
func TestSeccomp(t *testing.T) {
	t.Parallel()
	sb := newSandbox(t, sandbox.Spec{})
	if _, res := run(t, sb, "command -v python3"); res.ExitCode != 0 {
		t.Skip("no python3 on this machine")
	}
	out, res := run(t, sb, `exec python3 -c '
import ctypes, errno, fcntl, os, socket, platform
libc = ctypes.CDLL(None, use_errno=True)
def call(name, want, nr, *args):
    ctypes.set_errno(0)
    r = libc.syscall(ctypes.c_long(nr), *[ctypes.c_long(a) for a in args])
    got = errno.errorcode.get(ctypes.get_errno(), "none") if r == -1 else "success"
    if got != want: print(name, "=", got, "want", want)
amd = platform.machine() == "x86_64"
call("clone3", "ENOSYS", 435, 0, 0)
call("io_uring_setup", "ENOSYS", 425, 1, 0)
call("clone(NEWUSER)", "EPERM", 56 if amd else 220, 0x10000000 | 17, 0, 0, 0, 0)
call("clone(NEWNS)", "EPERM", 56 if amd else 220, 0x00020000 | 17, 0, 0, 0, 0)
call("unshare(NEWUTS)", "EPERM", 272 if amd else 97, 0x04000000)
call("unshare(NEWUTS|NEWUSER)", "EPERM", 272 if amd else 97, 0x14000000)
call("open_tree", "EPERM", 428, -100, 0, 1)
call("ptrace", "EPERM", 101 if amd else 117, 0, 0, 0, 0)
call("bpf", "EPERM", 321 if amd else 280, 0, 0, 0)
call("pidfd_getfd", "EPERM", 438, 0, 0, 0)
if amd:
    call("x32 getpid", "ENOSYS", 0x40000000 | 39)
call("ioctl(TIOCSTI)", "EPERM", 16 if amd else 29, 0, 0x5412, 0)
call("ioctl(TIOCSTI|1<<32)", "EPERM", 16 if amd else 29, 0, 0x5412 | 1 << 32, 0)
call("ioctl(TIOCLINUX)", "EPERM", 16 if amd else 29, 0, 0x541c, 0)
for family, want in ((socket.AF_UNIX, ""), (socket.AF_INET, ""), (socket.AF_INET6, ""), (socket.AF_NETLINK, ""), (socket.AF_PACKET, "EAFNOSUPPORT"), (40, "EAFNOSUPPORT"), (38, "EAFNOSUPPORT")):
    try:
        socket.socket(family, socket.SOCK_RAW if family == socket.AF_NETLINK else socket.SOCK_STREAM).close(); got = ""
    except OSError as e:
        got = errno.errorcode[e.errno]
    if got != want: print("socket", family, "=", got, "want", want)
# What programs need goes on working.
if os.fork() == 0: os._exit(0)
os.wait()
m, s = os.openpty(); os.write(m, b"x"); os.close(m); os.close(s)
import threading; t = threading.Thread(target=lambda: None); t.start(); t.join()
'`)
	if out != "" || res.ExitCode != 0 {
		t.Errorf("%+v\n%s", res, out)
	}
}

// TestUndumpableIsFound: a process that hides its tag does not survive, beside
// another exec, where tags are what counts.
func TestUndumpableIsFound(t *testing.T) {
	t.Parallel()
	sb := newSandbox(t, sandbox.Spec{})
	if _, res := run(t, sb, "command -v python3"); res.ExitCode != 0 {
		t.Skip("no python3 on this machine")
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		defer close(done)
		defer w.Close()
		_, _ = sb.Exec(ctx, sandbox.Cmd{Argv: []string{"sh", "-c", "echo ready; sleep 1000"}, Env: sb.BaseEnv(), Stdout: w}) // it is cancelled
	}()
	if _, err := r.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	mark := fmt.Sprintf("flowhidden-%d", os.Getpid())
	out, res := run(t, sb, `python3 -c '
import ctypes, os, time
r, w = os.pipe()
if os.fork() == 0:
    os.setsid()
    ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE
    os.close(0); os.write(1, b"hidden\n"); os.write(w, b"x")
    time.sleep(1000)
os.read(r, 1)' "$1"`, mark)
	if out != "hidden\n" || res.Leftover < 1 {
		t.Errorf("%+v %q", res, out)
	}
	if n := withArgument(t, mark); n > 0 {
		t.Errorf("%d survived", n)
	}
	cancel()
	<-done
}

// TestOwners: what a command makes lies on disk as the right user.
func TestOwners(t *testing.T) {
	t.Parallel()
	sb := newSandbox(t, sandbox.Spec{})
	if out, res := run(t, sb, "echo x > f; mkdir d; stat -c %u:%g f d . .."); res.ExitCode != 0 || out != strings.Repeat("1000:1000\n", 4) {
		t.Fatalf("inside: %+v %q", res, out)
	}
	want := os.Geteuid()
	if want == 0 {
		want = UserID
	}
	out, err := exec.Command("stat", "-c", "%u", filepath.Join(sb.Home(), "workspace/f")).Output()
	if err != nil || strings.TrimSpace(string(out)) != strconv.Itoa(want) {
		t.Errorf("on disk: %q, %v; want %d", out, err, want)
	}
}

const (
	helperDir  = "FLOW_TEST_HELPER_DIR"
	helperFlat = "FLOW_TEST_HELPER_FLAT"
)

// helper turns the test binary into a flow that owns a sandbox with a command
// and waits to be killed.
func helper() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	sb, err := New(Options{onlyLandlock: os.Getenv(helperFlat) != ""}).Create(context.Background(), sandbox.Spec{ID: "helper", Dir: os.Getenv(helperDir)})
	fail(err)
	_, err = sb.Exec(context.Background(), sandbox.Cmd{Argv: []string{"sh", "-c", `
		setsid sh -c 'trap "" TERM HUP; while :; do sleep 0.01; done' "$1" & echo ready; while :; do sleep 0.01; done`, "sh", os.Getenv("FLOW_TEST_MARK")},
		Env: sb.BaseEnv(), Stdout: os.Stdout})
	fail(err)
}

func TestKilledHostLeavesNothing(t *testing.T) {
	t.Parallel()
	newDriver(t, Options{}) // skips
	dir, mark := t.TempDir(), fmt.Sprintf("flowhelper-%d", os.Getpid())
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperDir+"="+dir, "FLOW_TEST_MARK="+mark)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if n := withArgument(t, mark); n < 1 {
		t.Fatalf("%d processes run", n)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for withArgument(t, mark) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d processes outlived flow", withArgument(t, mark))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || bytes.Contains(mounts, []byte(dir)) {
		t.Errorf("mounts are left: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "home" {
		t.Errorf("in its directory: %v, %v", entries, err)
	}
}

// withArgument counts the processes of this machine with an argument.
func withArgument(t *testing.T, arg string) (n int) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range lines {
		b, err := os.ReadFile(file)
		if err == nil && bytes.Contains(b, []byte("\x00"+arg+"\x00")) {
			n++
		}
	}
	return n
}

// TestNoDescriptorsPileUp looks at both sides after many calls of every outcome.
func TestNoDescriptorsPileUp(t *testing.T) {
	// Not parallel: it counts this process's descriptors.
	d := newDriver(t, Options{})
	count := func(pid string) int {
		names, err := os.ReadDir("/proc/" + pid + "/fd")
		if err != nil {
			return -1 // only root may look at init
		}
		return len(names)
	}
	cycle := func() (init [2]int) {
		sb, err := d.Create(context.Background(), sandbox.Spec{ID: "test", Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer sb.Close(context.Background())
		pid := strconv.Itoa(sb.Info().PID)
		calls := func() {
			for _, argv := range [][]string{{"true"}, {"no-such"}, {"/etc/passwd"}, {"sh", "-c", "sleep 100 & exit 1"}, {"echo", strings.Repeat("x", 50_000)}} {
				if _, err := sb.Exec(context.Background(), sandbox.Cmd{Argv: argv, Env: sb.BaseEnv(), Stdin: os.Stdin}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := sb.Exec(context.Background(), sandbox.Cmd{Argv: []string{"true"}, Dir: "/no/such"}); err == nil {
				t.Fatal("no error")
			}
		}
		calls()
		init[0] = count(pid)
		for range 20 {
			calls()
		}
		init[1] = count(pid)
		return init
	}
	cycle()
	before := count("self")
	for range 3 {
		// One more: the thread that is kept ready holds one, and may just be made.
		if n := cycle(); n[1] > n[0]+1 {
			t.Errorf("init has %d descriptors, had %d", n[1], n[0])
		}
	}
	if after := count("self"); after > before {
		t.Errorf("%d descriptors, had %d", after, before)
	}
}
