package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// change replaces a piece of a file, which has it exactly once.
type change struct{ file, old, new string }

// mutant is a protection that is taken out, and the tests of which one at least must
// then fail.
type mutant struct {
	name    string
	changes []change
	pkg     string
	run     string // a pattern of tests
}

const (
	abuse     = "./cmd/flow"
	inSandbox = "./sandbox/local"
)

// mutants are the protections. Where one stands behind another, both are taken out: that
// is what the pair is for.
var mutants = []mutant{
	{"the sandbox's seccomp filter", []change{{"sandbox/local/lockdown_linux.go", "return installFilter(filter())", "return nil"}}, abuse, "TestAbuse/^root$/06"},
	{"TIOCSTI in the filter", []change{{"sandbox/local/seccomp_linux.go", "jump(unix.BPF_JEQ, unix.SYS_IOCTL, 0, 5)", "jump(unix.BPF_JEQ, unix.SYS_IOCTL, 5, 5)"}}, abuse, "TestAbuse/^root$/06"},
	{"i386 calls in the filter", []change{{"sandbox/local/seccomp_linux.go", "jump(unix.BPF_JEQ, auditArch, 1, 0), answer(unix.SECCOMP_RET_KILL_PROCESS)", "jump(unix.BPF_JEQ, auditArch, 1, 0), answer(unix.SECCOMP_RET_ALLOW)"}}, abuse, "TestAbuse/^root$/06"},
	{"families of sockets in the filter", []change{{"sandbox/local/seccomp_linux.go", "return append(f, fail(unix.EAFNOSUPPORT), allow, allow)", "return append(f, allow, allow, allow)"}}, abuse, "TestAbuse/^root$/06"},
	{"user namespaces: filter and setting", []change{{"sandbox/local/lockdown_linux.go", "return installFilter(filter())", "return nil"},
		{"sandbox/local/thread_linux.go", "return installFilter(commandFilter(r.NoSockets))", "return nil"},
		{"sandbox/local/rootfs_linux.go", `[]byte("0"), 0); err != nil {`, `[]byte("100"), 0); err != nil {`}}, abuse, "TestAbuse/^root$/05"},
	{"descriptors of the caller", []change{{"sandbox/local/stage1_linux.go", `err := step(unix.CloseRange(controlFD+1, ^uint(0), unix.CLOSE_RANGE_CLOEXEC), "close_range")`, "var err error"}}, abuse, "TestAbuse/^root$/02"},
	{"the private network", []change{{"sandbox/local/start_linux.go", "attr.Cloneflags |= unix.CLONE_NEWNET", "_ = attr"},
		{"sandbox/local/start_linux.go", "Network: spec.Network == sandbox.NetworkFull, Hostname", "Network: true, Hostname"}}, abuse, "TestAbuse/^root$/11"},
	{"abstract sockets, by scopes", []change{{"sandbox/local/thread_linux.go", "if s.apart != nil {\n\t\tif err := s.apart.Restrict(); err != nil {", "if s.apart != nil {\n\t\tif err := error(nil); err != nil {"}}, abuse, "TestAbuse/^root$/14"},
	{"the end of a step's tree", []change{{"sandbox/local/tree_linux.go", "res.Leftover = s.endAll()", "res.Leftover = 0"}}, abuse, "TestAbuse/^root$/08"},
	{"the end with flow: death signal and socket", []change{{"sandbox/local/start_linux.go", "Pdeathsig: syscall.SIGKILL,", ""},
		{"sandbox/local/stage2_linux.go", "if n == 0 {\n\t\t\treturn nil", "if n == 0 {\n\t\t\ttime.Sleep(20 * time.Second)\n\t\t\treturn nil"}}, abuse, "TestAbuse/^root$/08"},
	{"the size of scratch folders", []change{{"sandbox/local/rootfs_linux.go", `fmt.Sprintf("mode=1777,size=%d", c.Limits.Tmp)`, `fmt.Sprintf("mode=1777,size=%d", c.Limits.Tmp*100)`}}, abuse, "TestAbuse/^root$/15"},
	{"the number of processes", []change{{"sandbox/local/stage1_linux.go", "{unix.RLIMIT_NPROC, pids, pids > 0}", "{unix.RLIMIT_NPROC, pids + 1000, pids > 0}"}}, inSandbox, "TestPids"},
	{"the size of files", []change{{"sandbox/local/stage1_linux.go", "uint64(l.FileSize), l.FileSize > 0}", "uint64(l.FileSize), false}"}}, inSandbox, "TestLimits"},
	{"the read-only home", []change{{"sandbox/local/rights_linux.go", "&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil", "&unix.MountAttr{}); err != nil"}}, inSandbox, "TestReadOnlyByCalls"},
	{"siblings apart: scopes and domains", []change{{"sandbox/local/thread_linux.go", "if s.apart != nil {\n\t\tif err := s.apart.Restrict(); err != nil {", "if s.apart != nil {\n\t\tif err := error(nil); err != nil {"}}, inSandbox, "TestSiblingsByCalls"},
	{"landlock: the host's files", []change{{"sandbox/local/flat_linux.go", "if err := f.rules.Restrict(); err != nil {", "if err := error(nil); err != nil {"}}, abuse, "TestAbuse/^landlock-user$/0[34]"},
	{"landlock: sockets", []change{{"sandbox/local/seccomp_linux.go", "default:\n\t\tf = append(f, fail(unix.EACCES))", "default:\n\t\tf = append(f, allow)"}}, abuse, "TestAbuse/^landlock-user$/1[14]"},
	{"landlock: the guard", []change{{"sandbox/local/guard_linux.go", "ws := reapUntil(pid)\n\tendBelow()", "ws := reapUntil(pid)"}}, inSandbox, "TestFlatLostInit"},
	{"landlock: init is out of reach", []change{{"sandbox/local/seccomp_linux.go", "for _, c := range byNumber {", "for _, c := range byNumber[:0] {"}}, inSandbox, "TestFlatInitIsOutOfReach"},
	{"addresses of this machine", []change{{"egress/dial.go", "case a.IsLoopback(), a.IsUnspecified(), slices.Contains(own, a):", "case a.IsUnspecified():"}}, abuse, "TestAbuse/^root$/11"},
	{"the list of hosts", []change{{"egress/policy.go", "return r.Host == t.Host\n", "return true\n"}}, abuse, "TestAbuse/^root$/1[12]"},
	{"the name in TLS", []change{{"egress/tunnel.go", "if err != nil || name != t.Host {", "if err != nil || name == \"\" {"}}, abuse, "TestAbuse/^root$/12"},
	{"the Host in a tunnel", []change{{"egress/forward.go", "if err != nil || t != rt.target || r.Method", "if err != nil || r.Method"}}, "./egress", "TestParsing|TestSmuggling|TestTunnelContent"},
	{"a secret's host", []change{{"egress/credential.go", "if c.creds[i].target == t {", "if true {"}}, "./egress", "TestInjection"},
	{"echoes of a secret", []change{{"egress/forward.go", "if rt.cred != nil {\n\t\tif err := c.scrubAnswer(resp); err != nil {", "if rt.cred != nil {\n\t\tif err := error(nil); err != nil {"}}, abuse, "TestAbuse/^root$/13"},
	{"paths beneath the workspace", []change{{"checkpoint/beneath.go", "const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV", "const resolve = 0"},
		{"checkpoint/beneath.go", "flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW", "flags |= unix.O_CLOEXEC"}}, "./checkpoint", "TestASwapped|TestRestoreDoesNot|TestRestoreReplaces|TestRestoreRefuses"},
}

// TestMutants takes out one protection after the other, in an overlay of the sources
// that only its own builds see, and wants a test to fail for it. `make mutants` runs it.
func TestMutants(t *testing.T) {
	if os.Getenv("FLOW_LONG") == "" {
		t.Skip("minutes of builds; FLOW_LONG=1, or make mutants")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	only := os.Getenv("FLOW_MUTANT")
	for _, m := range mutants {
		if strings.Contains(m.name, only) {
			t.Run(m.name, func(t *testing.T) { tryMutant(t, root, m) })
		}
	}
}

var failedTest = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

func tryMutant(t *testing.T, root string, m mutant) {
	overlay, err := m.overlay(root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	cmd := exec.Command("timeout", "240", "go", "test", "-tags", "osusergo,netgo,sqlite_omit_load_extension", "-overlay", overlay, "-count=1", "-run", m.run, m.pkg)
	cmd.Dir = root
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "FLOW_LONG=") })
	out, err := cmd.CombinedOutput()
	var failed []string
	for _, f := range failedTest.FindAllStringSubmatch(string(out), -1) {
		// The innermost names say it.
		failed = slices.DeleteFunc(failed, func(outer string) bool { return strings.HasPrefix(f[1], outer+"/") })
		failed = append(failed, f[1])
	}
	if err == nil || len(failed) == 0 {
		t.Fatalf("without it no test of %s %s fails: %v\n%s", m.pkg, m.run, err, out)
	}
	t.Logf("%.0f s: fails %s", time.Since(start).Seconds(), strings.Join(failed, " "))
}

// overlay writes the changed files, and the description that the go command reads.
func (m mutant) overlay(root, dir string) (string, error) {
	replaced := map[string]string{}
	for _, c := range m.changes {
		name := filepath.Join(root, c.file)
		from := name
		if replaced[name] != "" {
			from = replaced[name]
		}
		b, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		if n := strings.Count(string(b), c.old); n != 1 {
			return "", fmt.Errorf("%s has %d times what is to be taken out: %q", c.file, n, c.old)
		}
		to := filepath.Join(dir, strings.ReplaceAll(c.file, "/", "_"))
		if err := os.WriteFile(to, []byte(strings.Replace(string(b), c.old, c.new, 1)), 0o644); err != nil {
			return "", err
		}
		replaced[name] = to
	}
	b, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, b, 0o644)
}

// TestMutantsFit: what is to be taken out is there, so that the table does not rot.
func TestMutantsFit(t *testing.T) {
	t.Parallel()
	for _, m := range mutants {
		if _, err := m.overlay("../..", t.TempDir()); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}
