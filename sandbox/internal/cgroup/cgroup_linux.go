// Package cgroup bounds and measures a tree of processes with the kernel's control
// groups, version 2 where this process may make one, else version 1 (root).
//
// A group lies below the one that this process is in, is named by its maker, and is
// empty when its processes have ended: Remove takes it away. What a killed maker left
// is found by its name, which ends with the maker's pid (Sweep).
package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"flowrun.dev/flow/sandbox/internal/owner"
)

// Prefix of the names of all groups.
const Prefix = "flow-"

// Limits of a group; 0 is none.
type Limits struct {
	Memory int64   // bytes, of all its processes and what they keep in tmpfs
	CPUs   float64 // processors' time per time
	Pids   int     // processes and threads
}

// Stats of a group.
type Stats struct {
	Memory, MemoryPeak int64 // bytes
	CPU                time.Duration
	// OOMKills counts processes that were killed for the memory limit, PidsRefused
	// forks that failed for the limit of processes.
	OOMKills, PidsRefused int64
}

// Place is where groups can be made. The zero value can make none.
type Place struct {
	// dirs of this process's own groups, by controller; "" is version 2.
	dirs map[string]string
}

// controllers that are used.
var controllers = [...]string{"memory", "cpu", "pids"}

// Find looks at what there is. It makes nothing.
func Find() Place {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Place{}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Place{}
	}
	return find(string(own), string(mounts))
}

func find(own, mounts string) Place {
	points := map[string]string{} // by controller
	for lines := bufio.NewScanner(strings.NewReader(mounts)); lines.Scan(); {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if len(f) < 5 || len(kind) < 3 || f[3] != "/" {
			continue // a part of a hierarchy: our path does not lie below it
		}
		switch kind[0] {
		case "cgroup2":
			points[""] = f[4]
		case "cgroup":
			for _, option := range strings.Split(kind[2], ",") {
				points[option] = f[4]
			}
		}
	}
	p := Place{dirs: map[string]string{}}
	for lines := bufio.NewScanner(strings.NewReader(own)); lines.Scan(); {
		f := strings.SplitN(lines.Text(), ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, c := range strings.Split(f[1], ",") {
			if point, ok := points[c]; ok {
				p.dirs[c] = filepath.Join(point, f[2])
			}
		}
	}
	return p
}

// v2 reports whether a controller can be had by version 2 here.
func (p Place) v2(controller string) bool {
	dir, ok := p.dirs[""]
	if !ok {
		return false
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	return err == nil && bytes.Contains(append([]byte{' '}, b...), []byte(controller))
}

// Can lists the controllers of which a group can be made, by making one.
func (p Place) Can() (can []string) {
	for _, c := range controllers {
		g, err := p.newGroup("probe", []string{c})
		if err == nil {
			can = append(can, c)
		}
		g.Remove()
	}
	return can
}

// Group is one group: a directory for each hierarchy.
type Group struct {
	dirs map[string]string // by controller
}

// New makes a group with limits.
func (p Place) New(name string, l Limits) (*Group, error) {
	var need []string
	for c, wanted := range map[string]bool{"memory": l.Memory > 0, "cpu": l.CPUs > 0, "pids": l.Pids > 0} {
		if wanted {
			need = append(need, c)
		}
	}
	g, err := p.newGroup(name, need)
	if err == nil {
		err = g.limit(l)
	}
	if err != nil {
		g.Remove()
		return nil, err
	}
	return g, nil
}

func (p Place) newGroup(name string, need []string) (*Group, error) {
	g := &Group{dirs: map[string]string{}}
	for _, c := range need {
		parent, ok := p.dirs[c]
		if p.v2(c) {
			parent, ok = p.dirs[""], true
		}
		if !ok {
			return g, fmt.Errorf("there is no control group with %s", c)
		}
		dir := filepath.Join(parent, owner.Name(Prefix+name))
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return g, fmt.Errorf("make a control group: %w", err)
		}
		g.dirs[c] = dir
	}
	return g, nil
}

func (g *Group) isV2(c string) bool {
	_, err := os.Stat(filepath.Join(g.dirs[c], "cgroup.type"))
	return err == nil
}

func (g *Group) write(c, file, value string) error {
	err := os.WriteFile(filepath.Join(g.dirs[c], file), []byte(value), 0)
	if err != nil {
		return fmt.Errorf("set %s of a control group: %w", file, err)
	}
	return nil
}

// period of the processor's time, µs.
const period = 100_000

func (g *Group) limit(l Limits) error {
	var errs []error
	if l.Memory > 0 {
		bytes := strconv.FormatInt(l.Memory, 10)
		if g.isV2("memory") {
			errs = append(errs, g.write("memory", "memory.max", bytes))
			_ = g.write("memory", "memory.swap.max", "0") // where swap is counted
		} else {
			errs = append(errs, g.write("memory", "memory.limit_in_bytes", bytes))
			_ = g.write("memory", "memory.memsw.limit_in_bytes", bytes) // where swap is counted
		}
	}
	if l.CPUs > 0 {
		quota := strconv.FormatInt(int64(l.CPUs*period), 10)
		if g.isV2("cpu") {
			errs = append(errs, g.write("cpu", "cpu.max", quota+" "+strconv.Itoa(period)))
		} else {
			errs = append(errs, g.write("cpu", "cpu.cfs_period_us", strconv.Itoa(period)), g.write("cpu", "cpu.cfs_quota_us", quota))
		}
	}
	if l.Pids > 0 {
		errs = append(errs, g.write("pids", "pids.max", strconv.Itoa(l.Pids)))
	}
	return errors.Join(errs...)
}

// Add puts a process into the group; its children are made there.
func (g *Group) Add(pid int) error {
	seen := map[string]bool{}
	for c, dir := range g.dirs {
		if seen[dir] {
			continue
		}
		seen[dir] = true
		if err := g.write(c, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
}

// Stats reads what the group's controllers count; the others are 0.
func (g *Group) Stats() Stats {
	var s Stats
	if g.dirs["memory"] != "" {
		if g.isV2("memory") {
			s.Memory, s.MemoryPeak = g.number("memory", "memory.current"), g.number("memory", "memory.peak")
			s.OOMKills = g.field("memory", "memory.events", "oom_kill")
		} else {
			s.Memory, s.MemoryPeak = g.number("memory", "memory.usage_in_bytes"), g.number("memory", "memory.max_usage_in_bytes")
			s.OOMKills = g.field("memory", "memory.oom_control", "oom_kill")
		}
	}
	if g.dirs["cpu"] != "" && g.isV2("cpu") {
		s.CPU = time.Duration(g.field("cpu", "cpu.stat", "usage_usec")) * time.Microsecond
	}
	if g.dirs["pids"] != "" {
		s.PidsRefused = g.field("pids", "pids.events", "max")
	}
	return s
}

func (g *Group) number(c, file string) int64 {
	b, err := os.ReadFile(filepath.Join(g.dirs[c], file))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64) // "max": nothing is known
	return n
}

func (g *Group) field(c, file, name string) int64 {
	b, err := os.ReadFile(filepath.Join(g.dirs[c], file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// Remove takes the group away. Its processes have ended; the kernel may need a moment
// to notice, so a busy group is tried again for a second. A nil group is none.
func (g *Group) Remove() {
	if g == nil {
		return
	}
	for _, dir := range g.dirs {
		removeDir(dir)
	}
}

func removeDir(dir string) bool {
	for wait := time.Millisecond; ; wait *= 2 {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return true
		}
		if wait > 512*time.Millisecond {
			return false
		}
		time.Sleep(wait)
	}
}

// Sweep removes the groups beside our own that have no process any more and whose maker
// has ended, as a killed process leaves them, and returns their paths. A patient one
// waits a second for processes that are just ending.
func (p Place) Sweep(patient bool) (gone []string) {
	for _, parent := range p.dirs {
		found, _ := filepath.Glob(filepath.Join(parent, Prefix+"*")) // the pattern is ours
		for _, dir := range found {
			// Of a living maker it may belong to a sandbox that is just being made. A group
			// with processes cannot be removed.
			if !owner.Alive(dir) && (os.Remove(dir) == nil || patient && removeDir(dir)) {
				gone = append(gone, dir)
			}
		}
	}
	return gone
}
