package host

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestEndLeft leaves a command's children behind, as kill -9 of flow does, and ends
// those of one sandbox only.
func TestEndLeft(t *testing.T) {
	t.Parallel()
	alive := func(id string) chan error {
		// A session of its own and a child: neither ends with its parent.
		cmd := exec.Command("sh", "-c", "sleep 50 & echo there; wait")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), tagName + "=" + id + tagSplit + "0123"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		return ended
	}
	gone := alive("left-1")
	stays := alive("left-12") // a longer id with the same beginning
	if n := EndLeft("left-1"); n != 2 {
		t.Errorf("EndLeft ended %d processes, want the shell and its child", n)
	}
	<-gone
	select {
	case err := <-stays:
		t.Errorf("another sandbox's process ended too: %v", err)
	default:
	}
	if n := EndLeft("left-1"); n != 0 {
		t.Errorf("a second EndLeft found %d", n)
	}
}
