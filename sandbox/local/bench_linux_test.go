package local

import (
	"context"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"flowrun.dev/flow/sandbox"
)

func BenchmarkCreateClose(b *testing.B) {
	d := newDriver(b, Options{})
	dir := b.TempDir()
	for b.Loop() {
		sb, err := d.Create(context.Background(), sandbox.Spec{ID: "bench", Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		if err := sb.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	d := newDriver(b, Options{})
	dir := b.TempDir()
	for b.Loop() {
		sb, err := d.Create(context.Background(), sandbox.Spec{ID: "bench", Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := sb.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func benchExec(b *testing.B, argv []string, piped bool) {
	benchRights(b, argv, piped, sandbox.Rights{})
}

func benchRights(b *testing.B, argv []string, piped bool, rights sandbox.Rights) {
	sb := newSandbox(b, sandbox.Spec{})
	env := sb.BaseEnv()
	for b.Loop() {
		c := sandbox.Cmd{Argv: argv, Env: env, Rights: rights}
		var r *os.File
		if piped {
			var err error
			if r, c.Stdout, err = os.Pipe(); err != nil {
				b.Fatal(err)
			}
		}
		res, err := sb.Exec(context.Background(), c)
		if err != nil || res.ExitCode != 0 {
			b.Fatal(res, err)
		}
		if piped {
			c.Stdout.Close()
			if out, err := io.ReadAll(r); err != nil || string(out) != "hi\n" {
				b.Fatalf("%q, %v", out, err)
			}
			r.Close()
		}
	}
}

func BenchmarkExecTrue(b *testing.B)    { benchExec(b, []string{"/bin/true"}, false) }
func BenchmarkExecShPiped(b *testing.B) { benchExec(b, []string{"sh", "-c", "echo hi"}, true) }

func BenchmarkExecTrueReadOnly(b *testing.B) {
	benchRights(b, []string{"/bin/true"}, false, sandbox.Rights{ReadOnly: true})
}
func BenchmarkExecTrueWritable(b *testing.B) {
	benchRights(b, []string{"/bin/true"}, false, sandbox.Rights{ReadOnly: true, Write: []string{"a/", "b/c/"}, NoSockets: true})
}

// BenchmarkExecTrueBeside is an exec while another one runs, which scans /proc.
func BenchmarkExecTrueBeside(b *testing.B) {
	sb := newSandbox(b, sandbox.Spec{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = sb.Exec(ctx, sandbox.Cmd{Argv: []string{"sleep", "1000"}, Env: sb.BaseEnv()}) // it is cancelled
	}()
	for b.Loop() {
		if res, err := sb.Exec(context.Background(), sandbox.Cmd{Argv: []string{"/bin/true"}, Env: sb.BaseEnv()}); err != nil || res.ExitCode != 0 {
			b.Fatal(res, err)
		}
	}
	b.StopTimer()
	cancel()
	<-done
}

// The floor: fork and exec with nothing around them, and with os/exec.
func BenchmarkFloorForkExec(b *testing.B) {
	for b.Loop() {
		pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFloorOSExec(b *testing.B) {
	for b.Loop() {
		if err := exec.Command("/bin/true").Run(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWire(b *testing.B) {
	r := execRequest{ID: 1, Argv: []string{"sh", "-c", "echo hi"}, Env: baseEnv(os.Getenv("PATH")), Dir: sandbox.WorkspaceDir}
	for b.Loop() {
		var got execRequest
		if err := got.parse(r.append(nil)); err != nil {
			b.Fatal(err)
		}
	}
}
