package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/cmd/flow/internal/tracer"
)

const travelFile = `name: travel
sandbox: {driver: host}
workspace: {from: src}
inputs: {word: {type: string, default: one}}
defaults: {timeout: 1m, shell: sh}
steps:
  - {id: one, run: 'echo "$W" > list; rm gone; mkdir -p d/e; for i in 1 2 3 4; do echo $i > d/e/$i; done; chmod +x list; ln -s list link; head -c 200000 /dev/urandom > big', env: {W: '${{ inputs.word }}'}}
  - {id: two, run: 'test "$FLOW_ATTEMPT" -gt 1 || test -e once; echo two >> list'}
`

// travelProject has three runs; the newest failed at its second step.
func travelProject(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "w.yaml", travelFile)
	write(t, dir, "src/gone", "bye\n")
	write(t, dir, "src/list", "base\n")
	write(t, dir, "src/once", "x\n")
	for _, word := range []string{"a", "b"} {
		if out, code := flow(t, dir, "run", "--output", "plain", "-i", "word="+word, "w.yaml"); code != 0 {
			t.Fatalf("flow run: exit %d\n%s", code, out)
		}
	}
	if err := os.Remove(filepath.Join(dir, "src/once")); err != nil {
		t.Fatal(err)
	}
	if out, code := flow(t, dir, "run", "--output", "plain", "-i", "word=c", "w.yaml"); code != 1 {
		t.Fatalf("flow run: exit %d\n%s", code, out)
	}
	return dir
}

// travelCases are the commands that change what the user has, with what must hold
// after they were cut anywhere and called again.
var travelCases = []struct {
	name  string
	argv  []string
	after func(t *testing.T, where, dir string)
}{
	{"apply", []string{"apply", "latest"}, func(t *testing.T, where, dir string) {
		again(t, where, dir, "apply", "latest")
		if b, _ := os.ReadFile(filepath.Join(dir, "src/d/e/4")); string(b) != "4\n" {
			t.Errorf("%s: d/e/4 holds %q", where, b)
		}
		if _, err := os.Lstat(filepath.Join(dir, "src/gone")); err == nil {
			t.Errorf("%s: gone is there", where)
		}
		for _, e := range entries(t, filepath.Join(dir, "src")) {
			if strings.HasPrefix(e, ".flow-") {
				t.Errorf("%s: %s was left", where, e)
			}
		}
	}},
	{"export", []string{"export", "latest", "out"}, func(t *testing.T, where, dir string) {
		if _, err := os.Lstat(filepath.Join(dir, "out")); err != nil {
			again(t, where, dir, "export", "latest", "out")
		}
		for _, name := range []string{"list", "link", "big", "d/e/4"} {
			if _, err := os.Stat(filepath.Join(dir, "out", name)); err != nil {
				t.Errorf("%s: half an export appeared: %v", where, err)
			}
		}
		for _, e := range entries(t, dir) {
			if strings.HasPrefix(e, ".flow-part-") {
				t.Errorf("%s: %s was left", where, e)
			}
		}
	}},
	{"gc", []string{"gc", "--keep", "1"}, func(t *testing.T, where, dir string) {
		again(t, where, dir, "gc", "--keep", "1")
		again(t, where, dir, "diff", "latest")
	}},
	{"resume", []string{"resume", "--output", "plain", "--keep-source"}, func(t *testing.T, where, dir string) {
		if status := latestStatus(t, dir); status != "succeeded" {
			again(t, where, dir, "resume", "--output", "plain", "--keep-source")
		}
		if out, _ := flow(t, dir, "diff", "latest", "two"); !strings.Contains(out, "\n+two") {
			t.Errorf("%s: the resumed step's work is not there:\n%s", where, out)
		}
	}},
}

func again(t *testing.T, where, dir string, args ...string) {
	t.Helper()
	if out, code := flow(t, dir, args...); code != 0 {
		t.Errorf("%s: afterwards flow %s: exit %d\n%s", where, strings.Join(args, " "), code, out)
	}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// TestTravelCutAnywhere kills the commands at their durable calls, lets single calls
// fail with EIO, and lets the disk be full from a call on: nothing that was stored
// is lost, nothing is half done once the command was called again. Always on: a few
// points a command; with FLOW_LONG every one.
func TestTravelCutAnywhere(t *testing.T) {
	if testing.Short() {
		t.Skip("kills; -short")
	}
	t.Parallel()
	master := travelProject(t)
	rounds := 0
	for _, c := range travelCases {
		dir := copied(t, master)
		ref := traced(t, tracer.Job{Argv: append([]string{flowBinary(t)}, c.argv...), Dir: dir, Under: dir})
		if ref.ExitCode != 0 || ref.Calls == 0 {
			t.Fatalf("%s: exit %d after %d calls", c.name, ref.ExitCode, ref.Calls)
		}
		step := max(1, ref.Calls/4)
		if os.Getenv("FLOW_LONG") != "" {
			step = 1
		}
		for at := 1; at <= ref.Calls; at += step {
			for _, job := range []tracer.Job{{KillAt: at}, {FailAt: at, Errno: int(unix.EIO)}, {FailAt: at, FailOn: true, Errno: int(unix.ENOSPC)}} {
				dir := copied(t, master)
				job.Argv, job.Dir, job.Under = append([]string{flowBinary(t)}, c.argv...), dir, dir
				res := traced(t, job)
				where := fmt.Sprintf("%s, call %d of %d, killed %v, failed %d", c.name, at, ref.Calls, res.Killed, res.Failed)
				rounds++
				c.after(t, where, dir)
				if out, code := flow(t, dir, "doctor", "--deep", "--json"); strings.Contains(out, `"name":"stored","ok":false`) || code == 2 {
					t.Errorf("%s: flow doctor --deep: exit %d\n%s", where, code, out)
				}
				os.RemoveAll(dir)
			}
		}
		t.Logf("%s: %d durable calls %v", c.name, ref.Calls, ref.ByName)
	}
	t.Logf("%d rounds", rounds)
}

// copied is the project in a new place, which must not matter to it.
func copied(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "p")
	if out, err := exec.Command("cp", "-a", dir, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	return to
}
