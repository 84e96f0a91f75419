package local

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/sandboxtest"
)

const (
	refuseHelper = "FLOW_TEST_HELPER_REFUSE"
	expectTier   = "FLOW_TEST_EXPECT_TIER"
)

// refuse executes this binary again where namespaces are refused as by the profile of
// a container: no capabilities, EPERM for clone and unshare with their flags.
func refuse() {
	runtime.LockOSThread()
	fail := func(err error) {
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	fail(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	fail(dropAll())
	allow := answer(unix.SECCOMP_RET_ALLOW)
	fail(installFilter([]unix.SockFilter{load(dataNr),
		jump(unix.BPF_JEQ, unix.SYS_CLONE3, 0, 1), refusal(unix.ENOSYS),
		jump(unix.BPF_JEQ, unix.SYS_UNSHARE, 0, 1), refusal(unix.EPERM),
		jump(unix.BPF_JEQ, unix.SYS_MOUNT, 0, 1), refusal(unix.EPERM),
		jump(unix.BPF_JEQ, unix.SYS_CLONE, 0, 3), load(dataArg0), jump(unix.BPF_JSET, nsFlags, 0, 1), refusal(unix.EPERM), allow}))
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, refuseHelper+"=") })
	fail(unix.Exec("/proc/self/exe", os.Args, env))
}

func refusal(e unix.Errno) unix.SockFilter { return fail(e) }

// TestWhereNamespacesAreRefused runs tests again there, as an ordinary user too.
func TestWhereNamespacesAreRefused(t *testing.T) {
	if os.Getenv(expectTier) != "" {
		t.Skip("this is the inner run")
	}
	users := map[string]*syscall.Credential{"same user": nil}
	if os.Geteuid() == 0 {
		users["ordinary user"] = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	for name, credential := range users {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "flow-refused-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			if credential != nil {
				if err := os.Chown(dir, int(credential.Uid), int(credential.Gid)); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("/proc/self/exe", "-test.run=^(TestRefusedTier|TestFlat)", "-test.v")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), refuseHelper+"=1", expectTier+"=landlock", "TMPDIR="+dir, "HOME="+dir)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: TestRefusedTier") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestRefusedTier is the conformance suite with the tier that the machine gives by
// itself; run from TestWhereNamespacesAreRefused it is landlock.
func TestRefusedTier(t *testing.T) {
	if os.Getenv(expectTier) == "" {
		t.Skip("only where namespaces are refused")
	}
	sandboxtest.Run(t, func(t *testing.T) sandboxtest.Subject {
		return flatSubject(t, Options{})
	})
}

// newFlat makes a sandbox of the tier landlock.
func newFlat(t testing.TB, s sandbox.Spec) sandbox.Sandbox {
	t.Helper()
	return newSandboxWith(t, Options{onlyLandlock: true}, s)
}
