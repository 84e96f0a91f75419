package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/internal/landlock"
)

// TestFlatHostIsHidden: what of the host can be read and written in the tier landlock.
func TestFlatHostIsHidden(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	for name, content := range map[string]string{secret: "host", filepath.Join(dir, "script"): "#!/bin/sh\necho ran"} {
		if err := os.WriteFile(name, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sb := newFlat(t, sandbox.Spec{})
	for _, script := range []string{
		`cat "$1"`, `ls "$(dirname "$1")"`, `echo x > "$1"`, `echo x >> "$1"`, `: > "$1"`, `rm "$1"`, `mv "$1" .`, `ln "$1" hard`, `ln "$1" "$TMPDIR/hard"`, `truncate -s 0 "$1"`,
		`ln -s "$1" l; cat l`, `echo x > "$(dirname "$1")/new"`, `mkdir "$(dirname "$1")/new"`, `mv . "$(dirname "$1")/w"`, `"$(dirname "$1")/script"`,
		`cat "/proc/self/root$1"`, `cat "/proc/self/cwd/../../../../../../../..$1"`, `cat /etc/shadow`, `ls /root`, `ls /home`, `ls /tmp`, `ls /var/tmp`, `ls /`, `echo x > /tmp/flow-escape`, `echo x > /dev/shm/flow-escape`,
		`: > /proc/sys/kernel/core_pattern`, `: > /proc/sysrq-trigger`, `cat /proc/$PPID/environ`, `cat /proc/$PPID/cmdline`, `cat /proc/1/cmdline`, `ls /proc`, `ls /dev`, `cat /proc/kcore`, `cat /dev/kmsg`,
		`cat /proc/self/mounts`, `dd if=/dev/vda count=1`, `unshare -Ur true`, `unshare -n true`, `mount -t tmpfs x "$TMPDIR"`, `chroot / true`, `nsenter -t 1 -m true`, `mknod null c 1 3`,
		`chmod 4755 "$1"`, `cp /bin/sh s && chmod u+s s`, `cp /bin/sh s && chmod g+s s`, `chown 1 .`, `chgrp 1 .`, `kill -0 1`, `kill -0 "$PPID"`, `kill -CONT "$PPID"`,
		`ulimit -Su 100000`, `ulimit -Hu 5`, `prlimit --nproc=100000:100000 true`, `exec 3</dev/tty`, `exec 3<>/dev/ptmx`, `ls /run`, `ls /sys`, `cat /sys/class/dmi/id/product_name`, `renice -n 5 1`, `setpriv --reuid 0 --clear-groups true`,
	} {
		tool := strings.Fields(script)[0]
		if _, res := run(t, sb, `command -v "$1"`, tool); res.ExitCode != 0 && tool != ":" && !strings.HasPrefix(tool, `"`) {
			t.Errorf("%s does not exist inside", tool)
		} else if out, res := run(t, sb, script, secret); res.ExitCode == 0 {
			t.Errorf("%s: succeeded: %s", script, out)
		}
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "host" {
		t.Errorf("the host's file: %q, %v", b, err)
	}
	if out, res := run(t, sb, `cd && touch a && mkdir -p d/e && mv a d/e/ && ln d/e/a d/h && mktemp >/dev/null && cat /etc/passwd >/dev/null && id -un >/dev/null && sh -c 'kill -0 $PPID' &&
		{ sleep 100 & kill $!; } && cat /proc/cpuinfo >/dev/null && echo x | cat /dev/stdin >/dev/null && echo 'echo hi' > s && chmod +x s && ./s && echo fine`); out != "hi\nfine\n" || res.ExitCode != 0 {
		t.Errorf("what programs need: %+v %s", res, out)
	}
}

// TestFlatInitIsOutOfReach: a command that tries every number cannot end or stop init.
func TestFlatInitIsOutOfReach(t *testing.T) {
	t.Parallel()
	if landlock.ABI() < landlock.ABIScope {
		t.Skipf("landlock's interface %d has no scopes", landlock.ABI())
	}
	sb := newFlat(t, sandbox.Spec{})
	needPython(t, sb)
	pid := sb.Info().PID
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	out, res := runWith(t, sb, sandbox.Rights{}, []string{"python3", "-c", `
import ctypes, os, sys, fcntl, signal, struct
libc = ctypes.CDLL(None, use_errno=True)
low, high = int(sys.argv[1]), int(sys.argv[2])
me = {os.getpid()}
for n in range(low, high):
    if n in me: continue
    for sig in (19, 9):
        for f in (lambda: os.kill(n, sig), lambda: os.kill(-n, sig)):
            try: f(); print("kill", n)
            except OSError: pass
        for call in ((200, n, sig), (234, n, n, sig), (234, low, n, sig), (129, n, sig, 0), (297, low, n, sig, 0)):
            if libc.syscall(*[ctypes.c_long(x) for x in call]) == 0: print("call", call)
    try:
        fd = libc.syscall(434, n, 0x80)
        if fd >= 0 and libc.syscall(424, fd, 9, 0, 0) == 0: print("pidfd", n)
    except OSError: pass
r, w = os.pipe()
def own():
    fcntl.fcntl(r, 10, 9)
    for n in range(low, high): fcntl.fcntl(r, 15, struct.pack("ii", 0, n))
try: own(); print("fcntl")
except OSError: pass
for n in range(low, high):
    if n in me: continue
    try: fcntl.fcntl(r, fcntl.F_SETOWN, n); fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK); os.write(w, b"x"); os.read(r, 1)
    except OSError: pass
print("done")`, fmt.Sprint(pid), fmt.Sprint(pid + 200)})
	if out != "done\n" || res.ExitCode != 0 {
		t.Errorf("%+v\n%s", res, out)
	}
	if out, res := run(t, sb, "echo fine"); out != "fine\n" || res.ExitCode != 0 {
		t.Errorf("init (with threads %v) afterwards: %+v %s", tasks, res, out)
	}
}

// TestFlatNetwork: no sockets at all without a network, but to where the host listens.
func TestFlatNetwork(t *testing.T) {
	t.Parallel()
	if !canHold() {
		t.Skip("this kernel cannot hold connections")
	}
	canary, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer canary.Close()
	reached := make(chan string, 16)
	serve := func(l net.Listener, name string) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			reached <- name
			c.Close()
		}
	}
	go serve(canary, "canary")
	sb := newFlat(t, sandbox.Spec{})
	needPython(t, sb)
	_, port, _ := net.SplitHostPort(canary.Addr().String())
	const program = `
import socket, sys
def refused(name, f):
    try: f()
    except OSError: return
    print("did", name)
port = int(sys.argv[1])
refused("connect", lambda: socket.create_connection(("127.0.0.1", port), 2))
refused("connect 6", lambda: socket.create_connection(("::ffff:127.0.0.1", port), 2))
def fastopen():
    s = socket.socket(); s.sendto(b"x", 0x20000000, ("127.0.0.1", port)); return s
refused("fast open", fastopen)
def mptcp():
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); s.connect(("127.0.0.1", port))
refused("mptcp", mptcp)
refused("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
refused("udp 6", lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
refused("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW))
refused("icmp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1))
refused("unix", lambda: socket.socket(socket.AF_UNIX))
refused("unix datagram", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
refused("datagram pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
refused("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
refused("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
refused("sctp", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132))
def listener():
    s = socket.socket(); s.listen(); return s
refused("listen on any port", listener)
def binder():
    s = socket.socket(); s.bind(("127.0.0.1", 0)); return s
refused("bind", binder)
a, b = socket.socketpair(); a.send(b"x"); b.recv(1)
def again(): a.connect("/dev/log")
refused("connect a pair", again)
for p in sys.argv[2:]:
    for a in ("127.0.0.2", "0.0.0.0", "127.1.2.3", "::1", "::ffff:127.0.0.2"):
        refused("the port at " + a, lambda: socket.create_connection((a, int(p)), 2))
    s = socket.socket(); s.setblocking(False)
    try: s.connect(("127.0.0.1", int(p)))
    except BlockingIOError: pass
    s.close()
    s = socket.socket(); s.settimeout(2); s.connect(("127.0.0.1", int(p))); assert s.recv(1) == b""; s.close()
    s = socket.socket(socket.AF_INET6); s.settimeout(2); s.connect(("::ffff:127.0.0.1", int(p))); s.close()
    socket.create_connection(("127.0.0.1", int(p)), 2).close(); print("reached")
print("done")`
	if out, _ := runWith(t, sb, sandbox.Rights{}, []string{"python3", "-c", program, port}); out != "done\n" {
		t.Errorf("without a listener: %s", out)
	}
	l, err := sb.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go serve(l, "listener")
	_, open, _ := net.SplitHostPort(l.Addr().String())
	// The same port of another address is somebody else's.
	other, err := net.Listen("tcp", "127.0.0.2:"+open)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go serve(other, "other address")
	if out, _ := runWith(t, sb, sandbox.Rights{}, []string{"python3", "-c", program, port, open}); out != "reached\ndone\n" {
		t.Errorf("with a listener: %s", out)
	}
	if out, _ := runWith(t, sb, sandbox.Rights{NoSockets: true}, []string{"python3", "-c", program, port}); out != "done\n" {
		t.Errorf("without sockets: %s", out)
	}
	for range 4 {
		if got := <-reached; got != "listener" {
			t.Errorf("reached: %s", got)
		}
	}
	if len(reached) > 0 {
		t.Errorf("reached besides: %s", <-reached)
	}
}

// TestFlatKilledHost: kill -9 of flow ends its commands, whatever they did to hide.
func TestFlatKilledHost(t *testing.T) {
	t.Parallel()
	newDriver(t, Options{onlyLandlock: true}) // skips
	dir, mark := t.TempDir(), fmt.Sprintf("flowflat-%d", os.Getpid())
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperDir+"="+dir, helperFlat+"=1", "FLOW_TEST_MARK="+mark)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil || string(line[:n]) != "ready\n" {
		t.Fatalf("%q, %v", line[:n], err)
	}
	if n := withArgument(t, mark); n < 1 {
		t.Fatalf("%d processes run", n)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	deadline := time.Now().Add(10 * time.Second)
	for withArgument(t, mark) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d processes outlived flow", withArgument(t, mark))
		}
	}
}

// TestFlatLostInit: when init itself is killed, its guard ends what commands left. (The
// conformance suite kills the guard.)
func TestFlatLostInit(t *testing.T) {
	t.Parallel()
	sb := newFlat(t, sandbox.Spec{}).(*Sandbox)
	mark := fmt.Sprintf("flowlost-%d", os.Getpid())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	failed := make(chan error, 1)
	go func() {
		_, err := sb.Exec(context.Background(), sandbox.Cmd{Argv: []string{"sh", "-c", `
			(setsid sh -c 'trap "" TERM HUP; i=0; while [ $i -lt 3000 ]; do sleep 0.01; i=$((i+1)); done' "$1" &) ; echo ready; sleep 60`, "sh", mark}, Env: sb.BaseEnv(), Stdout: w})
		w.Close()
		failed <- err
	}()
	if _, err := r.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	if n := withArgument(t, mark); n < 1 {
		t.Fatalf("%d processes run", n)
	}
	send(sb.holds, unix.SIGKILL)
	if err := <-failed; err == nil {
		t.Error("no error")
	}
	<-sb.Done()
	if n := withArgument(t, mark); n > 0 {
		t.Errorf("%d processes outlived init", n)
	}
}

// TestFlatBombBesideOthers: a step that takes all processes does not take init's, so
// that others start and end, and so does the step. In all tiers, but not for uid 0 in
// this one, whose processes only a control group counts, and that counts init's too.
func TestFlatBombBesideOthers(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {onlyLandlock: true}} {
		d := newDriver(t, o)
		caps, err := d.Probe(context.Background())
		if err != nil || !slices.Contains(caps.Limits, "pids") || o.onlyLandlock && os.Geteuid() == 0 {
			t.Logf("tier %s: processes cannot be limited here: %v", caps.Tier, err)
			continue
		}
		sb := newSandboxWith(t, o, sandbox.Spec{Limits: sandbox.Limits{Pids: 40}})
		needPython(t, sb)
		ctx, cancel := context.WithCancel(context.Background())
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := sb.Exec(ctx, sandbox.Cmd{Argv: []string{"python3", "-c", `
import os, time
end = time.time() + 20
while time.time() < end:
    try:
        if os.fork() == 0: os.setsid(); time.sleep(30)
    except OSError: os.write(1, b"full"); time.sleep(0.01)`}, Env: sb.BaseEnv(), Stdout: w})
			w.Close()
			done <- err
		}()
		if _, err := r.Read(make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			// It may find no room for itself; init must answer.
			_, err := sb.Exec(context.Background(), sandbox.Cmd{Argv: []string{"true"}, Env: sb.BaseEnv()})
			var e *sandbox.Error
			if err != nil && (!errors.As(err, &e) || strings.Contains(err.Error(), "lost")) {
				t.Errorf("tier %s: %v", caps.Tier, err)
				break
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("tier %s: the bomb: %v", caps.Tier, err)
		}
		r.Close()
		if out, res := run(t, sb, "echo fine"); out != "fine\n" || res.ExitCode != 0 {
			t.Errorf("tier %s: afterwards: %+v %s", caps.Tier, res, out)
		}
	}
}
