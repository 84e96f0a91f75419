package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// sample is one process: its wall time and its peak resident memory.
type sample struct {
	Wall time.Duration
	RSS  int64 // bytes
}

type runner struct{ flow, dir string }

// fresh makes an empty project.
func (b *runner) fresh() (string, error) { return os.MkdirTemp(b.dir, "p") }

// run times one process; it must exit with code want.
func run(dir string, want int, argv ...string) (sample, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	var text strings.Builder
	cmd.Stderr = &text
	t := time.Now()
	err := cmd.Run()
	s := sample{Wall: time.Since(t)}
	if cmd.ProcessState == nil {
		return s, err
	}
	s.RSS = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	if code := cmd.ProcessState.ExitCode(); code != want {
		return s, fmt.Errorf("%s: exit %d, want %d\n%s", strings.Join(argv, " "), code, want, text.String())
	}
	return s, nil
}

// medians runs several things n times, one after the other in each round, so that
// what disturbs the machine disturbs all of them. Each gets a fresh project, which
// stays until the end: ext4 makes files up to 6 times slower right after a delete.
func (b *runner) medians(n int, fs ...func(dir string) (sample, error)) ([]sample, error) {
	all := make([][]sample, len(fs))
	for range n {
		for i, f := range fs {
			dir, err := b.fresh()
			if err != nil {
				return nil, err
			}
			s, err := f(dir)
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], s)
		}
	}
	out := make([]sample, len(fs))
	for i, ss := range all {
		out[i] = middle(ss)
	}
	return out, nil
}

// middle is the median time and the greatest memory.
func middle(ss []sample) sample {
	slices.SortFunc(ss, func(a, b sample) int { return int(a.Wall - b.Wall) })
	out := ss[len(ss)/2]
	for _, s := range ss {
		out.RSS = max(out.RSS, s.RSS)
	}
	return out
}

func ratio(a, floor time.Duration) float64 { return float64(a) / float64(floor) }

func file(dir, name, text string) error {
	return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
}

// trueSteps writes n steps `true`; wide ones need nothing.
func trueSteps(n int, driver, shell string, wide bool) string {
	var s strings.Builder
	fmt.Fprintf(&s, "name: bench\nsandbox: {driver: %s}\nmax_parallel: 8\ndefaults: {shell: %s}\nsteps:\n", driver, shell)
	needs := ""
	if wide {
		needs = ", needs: []"
	}
	for i := range n {
		fmt.Fprintf(&s, "  - {id: s%d, run: \"true\"%s}\n", i, needs)
	}
	return s.String()
}

// flowSteps runs n of them in a project.
func (b *runner) flowSteps(n int, driver, shell string, wide bool) func(dir string) (sample, error) {
	return func(dir string) (sample, error) {
		if err := file(dir, "w.yaml", trueSteps(n, driver, shell, wide)); err != nil {
			return sample{}, err
		}
		return run(dir, 0, b.flow, "run", "--output", "plain", "w.yaml")
	}
}

// shLoop is the floor: n times a shell that does nothing, nothing durable.
func shLoop(n int) func(string) (sample, error) {
	return func(dir string) (sample, error) {
		return run(dir, 0, "sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do sh -c true; i=$((i+1)); done", n))
	}
}

// makeTargets is make with n phony targets, width at a time.
func makeTargets(n, width int) func(string) (sample, error) {
	return func(dir string) (sample, error) {
		var s strings.Builder
		s.WriteString("all:")
		for i := range n {
			fmt.Fprintf(&s, " t%d", i)
		}
		s.WriteString("\n.PHONY: all\n")
		for i := range n {
			fmt.Fprintf(&s, ".PHONY: t%d\nt%d:\n\t@sh -c true\n", i, i)
		}
		if err := file(dir, "Makefile", s.String()); err != nil {
			return sample{}, err
		}
		return run(dir, 0, "make", "-s", fmt.Sprintf("-j%d", width))
	}
}
