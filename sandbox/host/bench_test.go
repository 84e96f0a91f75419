package host_test

import (
	"context"
	"os"
	"syscall"
	"testing"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/host"
)

func newSandbox(tb testing.TB) sandbox.Sandbox {
	tb.Helper()
	sb, err := host.New(host.Options{Path: os.Getenv("PATH")}).Create(context.Background(), sandbox.Spec{ID: "test", Dir: tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := sb.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return sb
}

func benchExec(b *testing.B, argv ...string) {
	sb := newSandbox(b)
	env := sb.BaseEnv()
	for b.Loop() {
		if res, err := sb.Exec(context.Background(), sandbox.Cmd{Argv: argv, Env: env}); err != nil || res.ExitCode != 0 {
			b.Fatal(res, err)
		}
	}
}

func BenchmarkExecTrue(b *testing.B) { benchExec(b, "/bin/true") }

// BenchmarkExecShFork makes a process of its own, so that the tree is looked for.
func BenchmarkExecShFork(b *testing.B) { benchExec(b, "sh", "-c", "/bin/true; :") }

func BenchmarkFloorForkExec(b *testing.B) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	attr := &syscall.ProcAttr{Files: []uintptr{null.Fd(), null.Fd(), null.Fd()}, Env: []string{"A=b"}}
	for b.Loop() {
		pid, err := syscall.ForkExec("/bin/true", []string{"true"}, attr)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
			b.Fatal(err)
		}
	}
}
