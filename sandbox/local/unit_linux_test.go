package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
)

func TestWireRoundTrip(t *testing.T) {
	t.Parallel()
	for _, r := range []execRequest{
		{ID: 1, Argv: []string{"a"}, Env: []string{}, Dir: "/", Write: []string{}},
		{ID: 1 << 60, Argv: []string{"a", "", "ä\n"}, Env: []string{"A=", "B=c"}, Dir: "/x y", Has: [3]bool{true, false, true}, ReadOnly: true, Terminal: true, Write: []string{"a/", "~/b"}},
	} {
		var got execRequest
		if err := got.parse(r.append(nil)); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v: %+v, %v", r, got, err)
		}
		whole := r.append(nil)
		for n := range whole {
			if err := new(execRequest).parse(whole[:n]); err == nil {
				t.Errorf("%d of %d bytes: no error", n, len(whole))
			}
		}
	}
	res := execResult{ID: 7, PID: 8, Code: 137, Signal: 9, Killed: true, Leftover: 3, User: 4, System: 5, MaxRSS: 1 << 40, Refused: 1, Why: "x"}
	var gotRes execResult
	if err := gotRes.parse(res.append(nil)); err != nil || gotRes != res {
		t.Errorf("%+v, %v", gotRes, err)
	}
	kill := killRequest{ID: 9, Grace: -1}
	var gotKill killRequest
	if err := gotKill.parse(kill.append(nil)); err != nil || gotKill != kill {
		t.Errorf("%+v, %v", gotKill, err)
	}
}

func TestListenWire(t *testing.T) {
	t.Parallel()
	req := listenRequest{ID: 1 << 40, Addr: "127.0.0.1:80"}
	var gotReq listenRequest
	if err := gotReq.parse(req.append(nil)); err != nil || gotReq != req {
		t.Errorf("%+v, %v", gotReq, err)
	}
	res := listenResult{ID: 3, Errno: 98, Why: "address already in use"}
	var gotRes listenResult
	if err := gotRes.parse(res.append(nil)); err != nil || gotRes != res {
		t.Errorf("%+v, %v", gotRes, err)
	}
	whole := res.append(nil)
	for n := range whole {
		if err := new(listenResult).parse(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes: no error", n, len(whole))
		}
	}
}

func FuzzWire(f *testing.F) {
	r := execRequest{ID: 1, Argv: []string{"a", "b"}, Env: []string{"A=b"}, Dir: "/"}
	f.Add(r.append(nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again execRequest
		if r.parse(b) == nil {
			if err := again.parse(r.append(nil)); err != nil || !reflect.DeepEqual(r, again) {
				t.Errorf("%+v became %+v, %v", r, again, err)
			}
		}
		_ = new(execResult).parse(b)  // must not panic
		_ = new(killRequest).parse(b) // must not panic
		_ = new(listenRequest).parse(b)
		_ = new(listenResult).parse(b)
	})
}

func TestChooseIDs(t *testing.T) {
	t.Parallel()
	const full = "         0          0 4294967295\n"
	for _, c := range []struct {
		name  string
		euid  int
		files map[string]string
		tier  sandbox.Tier
		base  int
		fails bool
	}{
		{"ordinary user", 1234, map[string]string{"/proc/self/uid_map": full}, sandbox.TierNamespaceUser, 0, false},
		{"root, no subuid", 0, map[string]string{"/proc/self/uid_map": full}, sandbox.TierNamespaceRoot, DefaultIDBase, false},
		{"root, its range", 0, map[string]string{"/proc/self/uid_map": full, "/etc/subuid": "me:100000:65536\nroot:500000:65536\n", "/etc/subgid": "root:500000:65536\n"}, sandbox.TierNamespaceRoot, 500000, false},
		{"flow's range first", 0, map[string]string{"/proc/self/uid_map": full, "/etc/subuid": "root:500000:65536\nflow:700000:65536", "/etc/subgid": "root:500000:65536\nflow:700000:65536"}, sandbox.TierNamespaceRoot, 700000, false},
		{"too small a range", 0, map[string]string{"/proc/self/uid_map": full, "/etc/subuid": "root:500000:1000\n", "/etc/subgid": "root:500000:1000\n"}, sandbox.TierNamespaceRoot, DefaultIDBase, false},
		{"gid differs", 0, map[string]string{"/proc/self/uid_map": full, "/etc/subuid": "root:500000:65536\n", "/etc/subgid": "root:600000:65536\n"}, sandbox.TierNamespaceRoot, DefaultIDBase, false},
		{"range from 0", 0, map[string]string{"/proc/self/uid_map": full, "/etc/subuid": "root:0:65536\n", "/etc/subgid": "root:0:65536\n"}, sandbox.TierNamespaceRoot, DefaultIDBase, false},
		{"garbage", 0, map[string]string{"/proc/self/uid_map": full, "/etc/subuid": "root:x:y\nroot\n::\n", "/etc/subgid": ""}, sandbox.TierNamespaceRoot, DefaultIDBase, false},
		{"root of a container", 0, map[string]string{"/proc/self/uid_map": "0 1000 1\n1 100000 65536\n"}, sandbox.TierNamespaceUser, 0, false},
		{"real root, few ids", 0, map[string]string{"/proc/self/uid_map": "0 0 65536\n"}, "", 0, true},
		{"no proc", 0, nil, "", 0, true},
	} {
		got, err := chooseIDs(c.euid, func(name string) ([]byte, error) {
			if text, ok := c.files[name]; ok {
				return []byte(text), nil
			}
			return nil, fs.ErrNotExist
		})
		if (err != nil) != c.fails || got.tier != c.tier || got.base != c.base || got.root != (c.tier == sandbox.TierNamespaceRoot) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
		uid, gid := got.maps(c.euid, c.euid)
		for _, m := range append(uid, gid...) {
			if c.tier == sandbox.TierNamespaceRoot && m.HostID == 0 {
				t.Errorf("%s: host id 0 is mapped", c.name)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	start := func(e error) error {
		return &stepError{opExecuteSelf, &fs.PathError{Op: "fork/exec", Path: "/proc/self/exe", Err: e}}
	}
	for _, c := range []struct {
		name    string
		err     error
		sysctls map[string]string
		root    bool
		want    string // part of the reason; "" for no explanation
		hint    string
	}{
		{"no namespaces left", start(unix.ENOSPC), map[string]string{"user/max_user_namespaces": "0"}, false, "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces"},
		{"inside a sandbox", start(unix.EPERM), map[string]string{"user/max_user_namespaces": "0"}, true, "user.max_user_namespaces is 0", "outside"},
		{"Debian's switch", start(unix.EPERM), map[string]string{"kernel/unprivileged_userns_clone": "0"}, false, "unprivileged_userns_clone is 0", "kernel.unprivileged_userns_clone=1"},
		{"AppArmor", &stepError{"make mounts private", unix.EACCES}, map[string]string{"kernel/apparmor_restrict_unprivileged_userns": "1"}, false, "AppArmor", "profile"},
		{"AppArmor does not stop root", start(unix.EPERM), map[string]string{"kernel/apparmor_restrict_unprivileged_userns": "1"}, true, "binary", "chmod"},
		{"Docker", start(unix.EPERM), nil, false, "seccomp", "seccomp=unconfined"},
		{"Docker without seccomp", &stepError{"mount proc", unix.EPERM}, nil, false, "/proc", "systempaths=unconfined"},
		{"something else", &stepError{"pivot_root", unix.EPERM}, nil, false, "refuses a step", "--privileged"},
		{"old kernel", &stepError{"mount_setattr /usr", unix.ENOSYS}, nil, false, "lacks a call", "Linux 5.12"},
		{"may pass: too many", start(unix.EAGAIN), nil, false, "", ""},
		{"may pass: memory", start(unix.ENOMEM), map[string]string{"user/max_user_namespaces": "0"}, false, "", ""},
		{"cancelled", &stepError{opReady, context.Canceled}, map[string]string{"user/max_user_namespaces": "0"}, false, "", ""},
	} {
		why, ok := explain(c.err, func(name string) string { return c.sysctls[name] }, c.root)
		if ok != (c.want != "") || !strings.Contains(why.reason, c.want) || !strings.Contains(why.hint, c.hint) {
			t.Errorf("%s: %+v, %v", c.name, why, ok)
		}
	}
}

// TestProbeExplains really probes where namespaces are forbidden: in a sandbox.
func TestProbeExplains(t *testing.T) {
	t.Parallel()
	sb := newSandbox(t, sandbox.Spec{})
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(sb.Home(), "workspace/flow"), exe, 0o755); err != nil {
		t.Fatal(err)
	}
	out, res := run(t, sb, probeHelper+"=1 ./flow")
	for _, want := range []string{"tier: landlock\n", "user.max_user_namespaces is 0", "lift: Allow user namespaces"} {
		if res.ExitCode != 0 || !strings.Contains(out, want) {
			t.Errorf("no %q: %+v\n%s", want, res, out)
		}
	}
}

const probeHelper = "FLOW_TEST_HELPER_PROBE"

func probe() {
	caps, err := New(Options{}).Probe(context.Background())
	fmt.Printf("tier: %s\nreason: %s\nlift: %s\n", caps.Tier, caps.Reason, caps.Lift)
	var e *sandbox.Error
	if errors.As(err, &e) {
		fmt.Printf("%v\nhint: %s\nclass: %s\n", e, e.Hint, e.Class)
	}
}

func TestVisiblePath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink("/usr/bin", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	const standard = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for path, want := range map[string]string{
		"":                            standard,
		"/usr/bin:/usr/local/bin":     "/usr/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/sbin:/bin",
		dir + ":" + dir + "/link":     standard,
		".:bin:/usr/no/such":          standard,
		"/usr/../usr/lib:/usr/lib/":   "/usr/lib:" + standard,
		"/usrlocal:/etc:/root:/home/": standard,
	} {
		if got := visiblePath(path); got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}

func TestBadSpecs(t *testing.T) {
	t.Parallel()
	d := New(Options{})
	for name, s := range map[string]sandbox.Spec{
		"no id": {Dir: "/tmp/x"}, "bad id": {ID: "A b", Dir: "/tmp/x"}, "relative": {ID: "a", Dir: "x"},
		"network": {ID: "a", Dir: "/tmp/x", Network: "some"}, "host name": {ID: "a", Dir: "/tmp/x", Hostname: "a\nb"},
	} {
		_, err := d.Create(context.Background(), s)
		var e *sandbox.Error
		if !errors.As(err, &e) || e.Class != sandbox.ClassInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := d.Create(context.Background(), sandbox.Spec{ID: "a", Dir: "/no/such/dir"})
	var e *sandbox.Error
	if !errors.As(err, &e) || e.Class != sandbox.ClassInfrastructure || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
}

// TestInitMain: people who type the hidden argument get a sentence.
func TestInitMain(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"flow"}, {"flow", "run"}} {
		if InitMain(args) {
			t.Errorf("%q was handled", args)
		}
	}
	out, err := exec.Command("/proc/self/exe", argStage2).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitSetup || !strings.Contains(string(out), "people do not") {
		t.Errorf("%v: %s", err, out)
	}
	if err := exec.Command("/proc/self/exe", argStage1).Run(); !errors.As(err, &exit) || exit.ExitCode() != exitSetup {
		t.Errorf("stage 1 by hand: %v", err)
	}
}
