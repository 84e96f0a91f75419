package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
)

// TestLimits: each limit, what a command that runs into it is told apart by, and that
// the sandbox goes on.
func TestLimits(t *testing.T) {
	t.Parallel()
	for _, tier := range []Options{{}, {onlyLandlock: true}} {
		caps, err := newDriver(t, tier).Probe(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			limits sandbox.Limits
			script string
			hit    string // "" when nothing tells
		}{
			{sandbox.Limits{FileSize: 1 << 20}, `dd if=/dev/zero of=f bs=64k count=32 2>&1`, "file_size"},
			{sandbox.Limits{OpenFiles: 64}, `i=3; while [ $i -lt 100 ]; do eval "exec $i</dev/null" || exit 9; i=$((i+1)); done`, ""},
			{sandbox.Limits{Pids: 32}, `i=0; while [ $i -lt 200 ]; do sleep 100 & i=$((i+1)); done 2>/dev/null`, ""},
			{sandbox.Limits{Tmp: 1 << 20}, `dd if=/dev/zero of=/tmp/f bs=64k count=32 2>&1`, "tmp"},
			{sandbox.Limits{Tmp: 1 << 20}, `dd if=/dev/zero of=/dev/shm/f bs=64k count=32 2>&1`, "tmp"},
			{sandbox.Limits{Memory: 64 << 20}, `x=$(head -c 300000000 /dev/zero | tr "\\0" x); echo ${#x}`, "memory"},
			{sandbox.Limits{Memory: 64 << 20}, `dd if=/dev/zero of=/dev/shm/f bs=1M count=256 2>&1; exit $?`, "tmp|memory"}, // half of it; the rest may not do for what else there is
		} {
			name := fmt.Sprintf("%s/%v", caps.Tier, c.limits.Asked())
			if !slices.Contains(caps.Limits, c.limits.Asked()[0]) {
				_, err := newDriver(t, tier).Create(context.Background(), sandbox.Spec{ID: "test", Dir: t.TempDir(), Limits: c.limits})
				var e *sandbox.Error
				if !errors.As(err, &e) || e.Class != sandbox.ClassInvalid {
					t.Errorf("%s: not listed, and %v", name, err)
				}
				continue
			}
			if caps.Tier == sandbox.TierLandlock && strings.Contains(c.script, "/dev/shm") {
				continue // closed in this tier
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				sb := newSandboxWith(t, tier, sandbox.Spec{Limits: c.limits})
				out, res := run(t, sb, c.script)
				if res.ExitCode == 0 || c.hit != "" && !slices.Contains(strings.Split(c.hit, "|"), res.Hit) {
					t.Errorf("%s: %+v\n%s", c.script, res, out)
				}
				// What fills the memory is there until rm has run, which may be ended for it.
				var out2 string
				for range 20 {
					if out2, res = run(t, sb, "rm -f f /tmp/f /dev/shm/f 2>/dev/null; echo fine"); res.Hit != "memory" {
						break
					}
				}
				if out2 != "fine\n" || res.ExitCode != 0 {
					t.Errorf("afterwards: %+v %s", res, out2)
				}
			})
		}
	}
}

// TestPids: the bound is one of commands, for an ordinary user too, whose commands
// the kernel counts together with init's threads.
func TestPids(t *testing.T) {
	t.Parallel()
	const pids = 32
	sb := newSandbox(t, sandbox.Spec{Limits: sandbox.Limits{Pids: pids}})
	for range 3 {
		_, res := run(t, sb, `i=0; while [ $i -lt 200 ]; do sleep 100 & i=$((i+1)); done 2>/dev/null`)
		if most := pids - 1; res.Leftover > most || res.Leftover < most-4 { // the shell itself; a thread of init's that has ended meanwhile
			t.Errorf("with %d processes a shell made %d", pids, res.Leftover)
		}
	}
}

func TestCPULimit(t *testing.T) {
	t.Parallel()
	caps, err := newDriver(t, Options{}).Probe(context.Background())
	if err != nil || !slices.Contains(caps.Limits, "cpus") {
		t.Skipf("cpus cannot be limited here: %v", err)
	}
	sb := newSandbox(t, sandbox.Spec{Limits: sandbox.Limits{CPUs: 0.1}})
	_, res := run(t, sb, `end=$(($(date +%s%N) / 1000000 + 600)); while [ $(($(date +%s%N) / 1000000)) -lt $end ]; do :; done`)
	// 0.6 s of time with a tenth of a processor, and the slack of a period.
	if used := res.UserTime + res.SystemTime; used.Milliseconds() > 250 {
		t.Errorf("took %v of processor time", used)
	}
}

// TestGroupsAreRemoved: no control group is left after Close.
func TestGroupsAreRemoved(t *testing.T) {
	t.Parallel()
	d := newDriver(t, Options{})
	caps, err := d.Probe(context.Background())
	if err != nil || !slices.Contains(caps.Limits, "memory") {
		t.Skipf("memory cannot be limited here: %v", err)
	}
	sb, err := d.Create(context.Background(), sandbox.Spec{ID: "left-over-test", Dir: t.TempDir(), Limits: sandbox.Limits{Memory: 64 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, sb, "sleep 100 & true")
	if err := sb.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, _ os.DirEntry, _ error) error {
		if strings.Contains(path, "left-over-test") {
			t.Errorf("left: %s", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk: a full disk of the host is told apart; making space is enough.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("only root can make a small disk: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	sb := newSandbox(t, sandbox.Spec{Dir: dir})
	if out, res := run(t, sb, "dd if=/dev/zero of=f bs=64k count=32 2>&1"); res.Hit != "host_disk" {
		t.Errorf("%+v %s", res, out)
	}
	if out, res := run(t, sb, "rm f; echo x > f && cat f"); out != "x\n" || res.Hit != "" {
		t.Errorf("%+v %s", res, out)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {onlyLandlock: true}} {
		sb := newSandboxWith(t, o, sandbox.Spec{})
		needPython(t, sb)
		beside(t, sb, `
import os, time
b = bytearray(40 << 20)
open("f", "wb").write(b"x" * (1 << 20)); os.link("f", "g")
for i in range(3):
    if os.fork() == 0: time.sleep(1000)
print("ready", flush=True); time.sleep(1000)`)
		st, err := sb.(sandbox.Meter).Stats(context.Background(), true)
		if err != nil || st.Processes != 4 || st.Memory < 40<<20 || st.Disk < 1<<20 || st.Disk > 3<<19 {
			t.Errorf("%+v, %v", st, err)
		}
	}
}

// TestOffered: the kernel is told to end commands before init.
func TestOffered(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {onlyLandlock: true}} {
		sb := newSandboxWith(t, o, sandbox.Spec{}).(*Sandbox)
		needPython(t, sb)
		beside(t, sb, `import time; print("ready", flush=True); time.sleep(1000)`)
		n := 0
		for pid := range descendants(sb.top()) {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
			if n++; err != nil || strings.TrimSpace(string(b)) != oomScore {
				t.Errorf("tier %s: %q, %v", sb.ids.tier, b, err)
			}
		}
		if n == 0 {
			t.Error("no command")
		}
	}
}
