package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox/local"
)

// abuseMode is who runs flow, and where.
type abuseMode struct {
	name     string
	uid      int  // -1: whoever runs the tests
	landlock bool // namespaces are refused, as in a container with the default profile
}

// abuseModes are the columns of the table in docs/security.md.
func abuseModes() []abuseMode {
	user := 65534
	if os.Geteuid() != 0 {
		user = -1
	}
	return []abuseMode{{"root", 0, false}, {"user", user, false}, {"landlock-root", 0, true}, {"landlock-user", user, true}}
}

// TestAbuse runs the fifteen abuse tests of docs/security.md, each a script, in every
// mode: a workflow whose step is the attacker, through the real command.
func TestAbuse(t *testing.T) {
	t.Parallel()
	for _, m := range abuseModes() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			if m.uid == 0 && os.Geteuid() != 0 {
				t.Skip("only root can be root")
			}
			if _, err := os.Stat("/usr/bin/python3"); err != nil {
				t.Skip("the attackers are programs of python3, which is not in /usr/bin here")
			}
			if m.landlock && !landlockWorks() || !m.landlock && !sandboxWorks() {
				t.Skip("no such sandbox on this machine")
			}
			runAbuse(t, m)
		})
	}
}

func runAbuse(t *testing.T, m abuseMode) {
	root := t.TempDir()
	open(t, root)
	if flow, err := exec.LookPath("flow"); err == nil {
		open(t, filepath.Dir(flow))
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/abuse", WorkdirRoot: root, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Values[socketsKey{}] = &hostSockets{reached: make(chan string, 1000)}
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("LANG", "C.UTF-8")
			env.Setenv("TMPDIR", filepath.Join(env.WorkDir, ".tmp"))
			env.Setenv(asEnv, fmt.Sprintf("%d %t", m.uid, m.landlock))
			env.Setenv("MARK", fmt.Sprintf("flowmark-%d-%d", os.Getpid(), time.Now().UnixNano()))
			tries, err := os.ReadFile("testdata/tries.py")
			if err != nil {
				return err
			}
			for _, dir := range [...]string{".tmp", "ws"} {
				if err := os.MkdirAll(filepath.Join(env.WorkDir, dir), 0o755); err != nil {
					return err
				}
			}
			if err := os.WriteFile(filepath.Join(env.WorkDir, "ws", "tries.py"), tries, 0o644); err != nil {
				return err
			}
			return give(env.WorkDir, m.uid)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"world": cmdWorld, "survivors": cmdSurvivors, "appears": cmdAppears, "sockets": cmdSockets, "unreached": cmdUnreached},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "landlock":
				return m.landlock, nil
			case "root":
				return m.uid == 0, nil
			case "memory":
				return m.uid == 0 && !m.landlock && slices.Contains(cgroupLimits(), "memory"), nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}

// cgroupLimits are the limits of this machine, as whoever runs the tests.
var cgroupLimits = sync.OnceValue(func() []string {
	caps, err := local.New(local.Options{}).Probe(context.Background())
	if err != nil {
		return nil
	}
	return caps.Limits
})

// open lets other users come through folders of this test's own, up to the folder of
// temporary files.
func open(t *testing.T, dir string) {
	t.Helper()
	for dir != filepath.Dir(dir) && filepath.Clean(dir) != filepath.Clean(os.TempDir()) {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != os.Geteuid() {
			return
		}
		if err := os.Chmod(dir, info.Mode().Perm()|0o011); err != nil {
			t.Fatal(err)
		}
		dir = filepath.Dir(dir)
	}
}

func give(dir string, uid int) error {
	if uid <= 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
}

// asEnv is the mode in which the program `as-mode` executes another one.
const asEnv = "FLOW_TEST_AS"

// asMode becomes another user, in a place that refuses namespaces if the mode says so, and
// executes its arguments.
func asMode() {
	runtime.LockOSThread()
	var uid int
	var landlock bool
	if _, err := fmt.Sscan(os.Getenv(asEnv), &uid, &landlock); err != nil {
		fmt.Fprintln(os.Stderr, "as-mode:", err)
		os.Exit(1)
	}
	if uid > 0 {
		for _, err := range [...]error{syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid), unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)} {
			if err != nil {
				fmt.Fprintln(os.Stderr, "as-mode:", err)
				os.Exit(1)
			}
		}
	}
	if landlock {
		refuseNamespaces()
	}
	path, err := exec.LookPath(os.Args[1])
	if err == nil {
		err = unix.Exec(path, os.Args[1:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, "as-mode:", err)
	os.Exit(1)
}

// marked lists the processes with an argument, zombies left out.
func marked(mark string) (pids []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is ours
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err == nil && slices.ContainsFunc(bytes.Split(b, []byte{0}), func(a []byte) bool { return string(a) == mark }) {
			pids = append(pids, strings.Split(file, "/")[2])
		}
	}
	return pids
}

// cmdSurvivors is the script command `survivors MARK`: it fails when a process with
// that argument is there; the kernel has a moment to end what it was told to.
func cmdSurvivors(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: survivors MARK")
	}
	for end := time.Now().Add(10 * time.Second); ; {
		left := marked(args[0])
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%d processes survived: %v", len(left), left)
		}
	}
}

// cmdAppears is the script command `appears MARK`: it waits for such a process.
func cmdAppears(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: appears MARK")
	}
	for end := time.Now().Add(30 * time.Second); len(marked(args[0])) == 0; {
		if time.Now().After(end) {
			ts.Fatalf("no process has the argument %s", args[0])
		}
	}
}

// hostSockets are sockets that no attacker may reach, and what reached them.
type hostSockets struct{ reached chan string }

// socketsKey finds those of a script among its values.
type socketsKey struct{}

// cmdSockets is the script command `sockets FOLDER`: it opens an abstract socket and two
// in the folder (a stream and a datagram), and one of TCP on each loopback address; the
// script gets their names in variables.
func cmdSockets(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sockets FOLDER")
	}
	s := ts.Value(socketsKey{}).(*hostSockets)
	note := func(what string) {
		select {
		case s.reached <- what:
		default:
		}
	}
	abstract := "@flow-abuse-" + ts.Getenv("MARK")
	for _, l := range [...][2]string{{"unix", abstract}, {"unix", ts.MkAbs(args[0] + "/s")}, {"tcp", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}} {
		listener, err := net.Listen(l[0], l[1])
		if err != nil {
			if l[0] == "tcp6" {
				continue // no IPv6 here
			}
			ts.Fatalf("%v", err)
		}
		if l[0] == "unix" && l[1][0] != '@' {
			ts.Check(os.Chmod(l[1], 0o777))
		}
		ts.Defer(func() { listener.Close() })
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				note(listener.Addr().String())
				c.Close()
			}
		}()
		if l[0] == "tcp" {
			_, port, _ := net.SplitHostPort(listener.Addr().String())
			ts.Setenv("CANARY", port)
		}
	}
	for _, name := range [...]string{abstract + "-d", ts.MkAbs(args[0] + "/d")} {
		pc, err := net.ListenPacket("unixgram", name)
		ts.Check(err)
		if name[0] != '@' {
			ts.Check(os.Chmod(name, 0o777))
		}
		ts.Defer(func() { pc.Close() })
		go func() {
			for {
				if _, _, err := pc.ReadFrom(make([]byte, 16)); err != nil {
					return
				}
				note(name)
			}
		}()
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:"+ts.Getenv("CANARY"))
	ts.Check(err)
	ts.Defer(func() { udp.Close() })
	go func() {
		for {
			if _, _, err := udp.ReadFrom(make([]byte, 16)); err != nil {
				return
			}
			note("udp")
		}
	}()
	ts.Setenv("ABSTRACT", abstract[1:])
}

// cmdUnreached is the script command `unreached`: nothing came to the sockets.
func cmdUnreached(ts *testscript.TestScript, _ bool, _ []string) {
	if ts.Getenv("CANARY") == "" {
		ts.Fatalf("unreached: there are no sockets")
	}
	select {
	case what := <-ts.Value(socketsKey{}).(*hostSockets).reached:
		ts.Fatalf("%s was reached", what)
	default:
	}
}

// TestAbuseTable: docs/security.md has a row for each script and a column for each mode.
func TestAbuseTable(t *testing.T) {
	t.Parallel()
	docs, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Glob("testdata/abuse/*.txtar")
	if err != nil || len(scripts) != 15 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	for _, s := range scripts {
		name := strings.TrimSuffix(filepath.Base(s), ".txtar")
		if !strings.Contains(string(docs), "\n| "+name+": ") {
			t.Errorf("docs/security.md has no row for %s", name)
		}
	}
	head := "\n| abuse |"
	for _, m := range abuseModes() {
		head += " " + m.name + " |"
	}
	if !strings.Contains(string(docs), head) {
		t.Errorf("docs/security.md has no table with the head %q", head)
	}
}
