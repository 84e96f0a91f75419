package local

import (
	"context"
	"testing"

	"flowrun.dev/flow/sandbox"
)

// TestClean: what a command leaves outside of the home is noticed, what it takes back
// is not, and neither is what it does to the home.
func TestClean(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, script string
		clean        bool
	}{
		{"nothing", "true", true},
		{"the home", "echo x > f; mkdir ~/d; chmod 700 ~", true},
		{"taken back", "echo x > /tmp/f; rm /tmp/f; cat <<E\nx\nE", true},
		{"a background process, which is killed", "sleep 100 & echo $!", true},
		{"/tmp", "echo x > /tmp/f", false},
		{"/var/tmp", "mkdir /var/tmp/d", false},
		{"/dev/shm", "echo x > /dev/shm/f", false},
		{"/run", "ln -s x /run/l", false},
		{"the mode of /run", "chmod 700 /run", false},
		{"a hidden file", "echo x > /tmp/.x", false},
		{"shared memory", `python3 -c 'import ctypes,sys; sys.exit(ctypes.CDLL(None).shmget(7,4096,0o1600)<0)'`, false},
		{"semaphores", `python3 -c 'import ctypes,sys; sys.exit(ctypes.CDLL(None).semget(7,1,0o1600)<0)'`, false},
		{"a message queue", `python3 -c 'import ctypes,sys; sys.exit(ctypes.CDLL(None).msgget(7,0o1600)<0)'`, false},
		{"a POSIX message queue", `python3 -c 'import ctypes,sys; sys.exit(ctypes.CDLL("librt.so.1").mq_open(b"/q",0o102,0o600,None)<0)'`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sb := newSandbox(t, sandbox.Spec{})
			if _, res := run(t, sb, "command -v python3"); res.ExitCode != 0 && len(c.script) > 7 && c.script[:7] == "python3" {
				t.Skip("no python3 here")
			}
			if out, res := run(t, sb, c.script); res.ExitCode != 0 {
				t.Fatalf("exit code %d\n%s", res.ExitCode, out)
			}
			clean, err := sb.(sandbox.Reusable).Clean(context.Background())
			if err != nil || clean != c.clean {
				t.Errorf("clean %v, %v; want %v", clean, err, c.clean)
			}
		})
	}
	t.Run("while a command runs", func(t *testing.T) {
		t.Parallel()
		sb := newSandbox(t, sandbox.Spec{})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = sb.Exec(ctx, sandbox.Cmd{Argv: []string{"sleep", "100"}, Env: sb.BaseEnv()})
		}()
		for clean := true; clean; {
			var err error
			if clean, err = sb.(sandbox.Reusable).Clean(ctx); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		<-ended
		if err := sb.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if _, err := sb.(sandbox.Reusable).Clean(context.Background()); err == nil {
			t.Error("a closed sandbox answers")
		}
	})
}
