package local

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
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

// BenchmarkFlat is the tier landlock: a sandbox made, a command in a living one, and a
// connection to where the host listens, which init makes.
func BenchmarkFlat(b *testing.B) {
	b.Run("create", func(b *testing.B) {
		d := newDriver(b, Options{onlyLandlock: true})
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
	})
	b.Run("exec", func(b *testing.B) {
		sb := newSandboxWith(b, Options{onlyLandlock: true}, sandbox.Spec{})
		for b.Loop() {
			if res, err := sb.Exec(context.Background(), sandbox.Cmd{Argv: []string{"/bin/true"}, Env: sb.BaseEnv()}); err != nil || res.ExitCode != 0 {
				b.Fatal(res, err)
			}
		}
	})
	b.Run("connect", func(b *testing.B) {
		sb := newSandboxWith(b, Options{onlyLandlock: true}, sandbox.Spec{})
		l, err := sb.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			b.Skip(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		// One program, so that its start does not count.
		out, res := runWith(b, sb, sandbox.Rights{}, []string{"python3", "-c", `
import socket, sys, time
start = time.perf_counter()
for i in range(1000): socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()
print((time.perf_counter() - start) * 1000)`, port})
		us, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
		if res.ExitCode != 0 || err != nil {
			b.Skip(out)
		}
		b.ReportMetric(us, "us/connect")
	})
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

// BenchmarkHundred makes a hundred sandboxes at once, runs a command in each, and
// closes them; it reports what an init takes (private memory).
func BenchmarkHundred(b *testing.B) {
	d := newDriver(b, Options{})
	var private int64
	for b.Loop() {
		var wg sync.WaitGroup
		boxes := make([]sandbox.Sandbox, 100)
		for i := range boxes {
			dir := b.TempDir()
			wg.Go(func() {
				sb, err := d.Create(context.Background(), sandbox.Spec{ID: fmt.Sprint("bench-", i), Dir: dir})
				if err != nil {
					b.Error(err)
					return
				}
				boxes[i] = sb
				if res, err := sb.Exec(context.Background(), sandbox.Cmd{Argv: []string{"/bin/true"}, Env: sb.BaseEnv()}); err != nil || res.ExitCode != 0 {
					b.Error(res, err)
				}
			})
		}
		wg.Wait()
		if b.Failed() {
			return
		}
		private = privateMemory(boxes[0].Info().PID)
		for _, sb := range boxes {
			wg.Go(func() {
				if err := sb.Close(context.Background()); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(private)/(1<<20), "MiB/init")
}

// privateMemory of a process, bytes; 0 where it cannot be read.
func privateMemory(pid int) (n int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && (f[0] == "Private_Dirty:" || f[0] == "Private_Clean:") {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			n += kib << 10
		}
	}
	return n
}
