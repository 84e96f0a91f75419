package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flowrun.dev/flow/cmd/flow/internal/tracer"
)

// phasesRounds bounds the number of calls at which flow is killed while it makes, uses
// and ends a sandbox; with FLOW_LONG=1 it is killed at every one.
const phasesRounds = 7

// TestKillInEveryPhase kills flow with SIGKILL at the calls by which it, or the init that
// it started, makes a sandbox: nothing is left, or gc finds it.
func TestKillInEveryPhase(t *testing.T) {
	if testing.Short() {
		t.Skip("many traced runs; -short")
	}
	if !sandboxWorks() {
		t.Skip("the local sandbox does not work on this machine")
	}
	flowBinary(t) // it is for other tests too, and so not in this one's TMPDIR
	limits := ""
	for _, name := range cgroupLimits() {
		if name == "memory" {
			limits = ", limits: {memory: 256MiB}" // a control group
		}
	}
	for _, c := range []struct {
		name string
		as   []string
		ok   bool
		file string
	}{
		{"namespaces", nil, true, phases(limits)},
		{"landlock", []string{"refuse-namespaces"}, landlockWorks(), phases("")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !c.ok {
				t.Skip("no such tier on this machine")
			}
			killInEveryPhase(t, c.as, c.file)
		})
	}
}

func phases(limits string) string {
	return "name: phases\nsandbox: {driver: local" + limits + "}\nsteps: [{id: one, run: 'echo x > f; sleep 0.01 & true'}]\n"
}

func killInEveryPhase(t *testing.T, as []string, file string) {
	ref := killedRun(t, as, file, 0)
	if ref.ExitCode != 0 || ref.Calls < 30 {
		t.Fatalf("reference run: exit %d, %d calls %v", ref.ExitCode, ref.Calls, ref.ByName)
	}
	step := max(1, ref.Calls/phasesRounds)
	if os.Getenv("FLOW_LONG") != "" {
		step = 1
	}
	killed := map[bool]int{}
	for at := 1 + step/2; at <= ref.Calls; at += step {
		killed[killedRun(t, as, file, at).Killed]++
	}
	t.Logf("%d calls %v; %d runs were killed, %d ended before", ref.Calls, ref.ByName, killed[true], killed[false])
}

func killedRun(t *testing.T, as []string, file string, at int) tracer.Result {
	t.Helper()
	dir := t.TempDir()
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", tmp)
	write(t, dir, "phases.yaml", file)
	res := traced(t, tracer.Job{Argv: append(slices.Clone(as), flowBinary(t), "run", "--output", "plain", "phases.yaml"), Dir: dir, Tree: true, KillAt: at})
	where := fmt.Sprintf("killed at call %d", at)
	processesGone(t, where, dir, func() []string { return nil })
	out, code := flow(t, dir, "gc")
	if code != 0 {
		t.Errorf("%s: flow gc: exit %d\n%s", where, code, out)
	}
	if left := leftBehind(t, dir, res.PID); len(left) > 0 {
		t.Errorf("%s: after gc there is %s\n%s", where, strings.Join(left, ", "), out)
	}
	if !res.Killed {
		return res
	}
	// What was begun can go on, or begins anew.
	if out, code := flow(t, dir, "run", "--output", "plain", "phases.yaml"); code != 0 {
		t.Errorf("%s: the next run: exit %d\n%s", where, code, out)
	}
	return res
}

// leftBehind lists folders of sandboxes and of probes, and control groups that the dead
// process made.
func leftBehind(t *testing.T, dir string, pid int) (left []string) {
	t.Helper()
	for _, pattern := range []string{dir + "/.flow/runs/*/sandboxes/*", dir + "/tmp/flow-*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, found...)
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.HasPrefix(e.Name(), "flow-") && strings.HasSuffix(e.Name(), fmt.Sprintf("-%d", pid)) {
			left = append(left, path)
		}
		return nil // not for this user, or gone
	})
	return left
}
