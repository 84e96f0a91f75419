package cgroup

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"flowrun.dev/flow/sandbox/internal/owner"
)

func TestFind(t *testing.T) {
	t.Parallel()
	const v1 = `25 1 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
26 1 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
27 1 0:24 /part /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
28 1 0:25 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw
`
	for name, c := range map[string]struct {
		own, mounts string
		want        map[string]string
	}{
		"version 1": {"4:memory:/a/b\n3:pids:/\n2:cpu,cpuacct:/\n0::/\n", v1,
			map[string]string{"memory": "/sys/fs/cgroup/memory/a/b", "cpu": "/sys/fs/cgroup/cpu", "cpuacct": "/sys/fs/cgroup/cpu", "": "/sys/fs/cgroup/unified"}},
		"version 2": {"0::/user.slice/x\n", "28 1 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", map[string]string{"": "/sys/fs/cgroup/user.slice/x"}},
		"nothing":   {"", "junk\n1 2 3\n", map[string]string{}},
	} {
		if got := find(c.own, c.mounts); !maps.Equal(got.dirs, c.want) {
			t.Errorf("%s: %v, want %v", name, got.dirs, c.want)
		}
	}
}

// TestVersion2 uses a directory that looks like a group of version 2.
func TestVersion2(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("cpu memory pids\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := Place{dirs: map[string]string{"": dir}}
	// The kernel would fill it with files.
	group := filepath.Join(dir, owner.Name(Prefix+"x"))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"cgroup.type": "domain\n", "cpu.stat": "usage_usec 1500\n", "memory.peak": "77\n",
		"memory.events": "low 0\noom 4\noom_kill 3\n", "pids.events": "max 5\n", "memory.max": "", "cpu.max": "", "pids.max": "", "cgroup.procs": ""} {
		if err := os.WriteFile(filepath.Join(group, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	g, err := p.New("x", Limits{Memory: 1 << 20, CPUs: 1.5, Pids: 9})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Add(123); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"memory.max": "1048576", "cpu.max": "150000 100000", "pids.max": "9", "cgroup.procs": "123"} {
		if b, err := os.ReadFile(filepath.Join(group, name)); err != nil || string(b) != want {
			t.Errorf("%s = %q, %v; want %q", name, b, err, want)
		}
	}
	if s := g.Stats(); s.MemoryPeak != 77 || s.OOMKills != 3 || s.PidsRefused != 5 || s.CPU.Microseconds() != 1500 {
		t.Errorf("%+v", s)
	}
	if _, err := (Place{}).New("x", Limits{Memory: 1}); err == nil {
		t.Error("a group without a place")
	}
}

// TestReal makes a group of this machine.
func TestReal(t *testing.T) {
	t.Parallel()
	p := Find()
	if can := p.Can(); len(can) != len(controllers) {
		t.Skipf("control groups of this machine that can be made: %v", can)
	}
	g, err := p.New("test-real", Limits{Memory: 64 << 20, CPUs: 0.5, Pids: 20})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Remove()
	cmd := exec.Command("sh", "-c", "read x; i=0; while [ $i -lt 50 ]; do sleep 1 & i=$((i+1)); done; wait")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	in.Close()
	_ = cmd.Wait() // it fails to fork
	if s := g.Stats(); s.PidsRefused == 0 || s.MemoryPeak == 0 {
		t.Errorf("%+v", s)
	}
}

// TestSweep leaves what a living process made, and what it does not know.
func TestSweep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, fmt.Sprintf("%sa-1-%d", Prefix, dead.Process.Pid))
	for _, name := range []string{left, filepath.Join(dir, owner.Name(Prefix+"b")), filepath.Join(dir, Prefix+"c"), filepath.Join(dir, "other-1")} {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := (Place{dirs: map[string]string{"": dir}}).Sweep(false); !slices.Equal(got, []string{left}) {
		t.Errorf("%v", got)
	}
	if rest, err := os.ReadDir(dir); err != nil || len(rest) != 3 {
		t.Errorf("%v, %v", rest, err)
	}
}
