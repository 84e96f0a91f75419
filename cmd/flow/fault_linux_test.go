package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDisk runs on a file system that fills up: one clear error, exit 3, and
// after somebody made room the run resumes and nothing is lost.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mount(t, dir, "size=3m")
	write(t, dir, "full.yaml", `name: full
sandbox: {driver: host}
defaults: {shell: sh}
steps:
  - {id: one, run: "echo one > one"}
  - {id: two, run: "head -c 1000000 /dev/urandom > two"}
  - {id: three, run: "head -c 1000000 /dev/urandom > three; sync; cp three three.copy"}
  - {id: four, run: "ls"}
`)
	out, code := flow(t, dir, "run", "--output", "plain", "full.yaml")
	if code == 0 || !strings.Contains(out, "no space left") && !strings.Contains(strings.ToLower(out), "disk") {
		t.Errorf("the run on a full disk: exit %d\n%s", code, out)
	}
	t.Logf("a full disk: exit %d\n%s", code, out)
	if out, code := flow(t, dir, "runs"); code != 0 || !strings.Contains(out, "full") {
		t.Errorf("flow runs: exit %d\n%s", code, out)
	}
	before := doneAttempts(t, "full disk", filepath.Join(dir, ".flow", "flow.db"))
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if out, code := flow(t, dir, "resume", "--output", "plain"); code != 0 {
		t.Errorf("the resume with room again: exit %d\n%s", code, out)
	}
	for step, n := range doneAttempts(t, "full disk", filepath.Join(dir, ".flow", "flow.db")) {
		if b, ok := before[step]; ok && b != n {
			t.Errorf("step %s was done after %d attempts and has %d now", step, b, n)
		}
	}
	if out, _ := flow(t, dir, "logs", "latest", "four", "--raw"); out != "one\nthree\nthree.copy\ntwo\n" {
		t.Errorf("the workspace at the end:\n%s", out)
	}
	integrity(t, "full disk", filepath.Join(dir, ".flow", "flow.db"))
}

// mount puts a tmpfs there; the test is skipped where that is not allowed.
func mount(t *testing.T, dir, options string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("only root mounts a file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// TestStateRefused: a directory that cannot be written, and one of somebody else,
// are refused in one clear sentence before anything runs.
func TestStateRefused(t *testing.T) {
	t.Parallel()
	const ok = "name: ok\nsandbox: {driver: host}\nsteps: [{id: a, run: \"touch ran\"}]\n"
	t.Run("read-only", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		mount(t, dir, "size=8m")
		write(t, dir, "ok.yaml", ok)
		if out, code := flow(t, dir, "run", "--output", "plain", "ok.yaml"); code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		out, code := flow(t, dir, "run", "--output", "plain", "ok.yaml")
		if code != 3 || !strings.Contains(out, "read-only") {
			t.Errorf("exit %d\n%s", code, out)
		}
		t.Logf("read-only: %s", strings.TrimSpace(out))
		if out, code := flow(t, dir, "runs"); code != 0 || !strings.Contains(out, "succeeded") {
			t.Errorf("looking at it: exit %d\n%s", code, out)
		}
	})
	t.Run("another user's", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		write(t, dir, "ok.yaml", ok)
		if out, code := flow(t, dir, "run", "--output", "plain", "ok.yaml"); code != 0 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		if err := os.Chown(filepath.Join(dir, ".flow"), 4242, -1); err != nil {
			if os.Geteuid() == 0 {
				t.Fatal(err)
			}
			t.Skipf("only root gives files away: %v", err)
		}
		for _, args := range [][]string{{"run", "--output", "plain", "ok.yaml"}, {"runs"}, {"resume"}} {
			if out, code := flow(t, dir, args...); code == 0 || !strings.Contains(out, "4242") && !strings.Contains(out, "another user") {
				t.Errorf("flow %s: exit %d\n%s", args[0], code, out)
			} else {
				t.Logf("flow %s: exit %d: %s", args[0], code, strings.TrimSpace(out))
			}
		}
	})
}
