// Command bench compares whole processes: flow against a bare sh loop and make,
// side by side in one run, and writes docs/benchmarks.md with this machine's
// figures. FLOW names the binary. Only ratios and medians count.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// sample is one process: its wall time and its peak resident memory.
type sample struct {
	wall time.Duration
	rss  int64 // bytes
}

// row is one line of the table.
type row struct {
	what, value, target string
}

func main() {
	if err := bench(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(w io.Writer) error {
	bin := os.Getenv("FLOW")
	if bin == "" {
		return fmt.Errorf("FLOW must name the binary to measure")
	}
	dir, err := os.MkdirTemp("", "flow-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &runner{flow: bin, dir: dir}
	var rows []row
	for _, m := range measures {
		r, err := m(b)
		if err != nil {
			return err
		}
		for _, x := range r {
			fmt.Fprintf(w, "%-58s %-28s %s\n", x.what, x.value, x.target)
		}
		rows = append(rows, r...)
	}
	return writeDoc("docs/benchmarks.md", rows)
}

// measures is the table of what is measured, in order.
var measures = []func(*runner) ([]row, error){
	startup, sequential("host"), sequential("local"), parallel, output, validate, resume,
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
	s := sample{wall: time.Since(t)}
	if cmd.ProcessState == nil {
		return s, err
	}
	s.rss = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	if code := cmd.ProcessState.ExitCode(); code != want {
		return s, fmt.Errorf("%s: exit %d, want %d\n%s", strings.Join(argv, " "), code, want, text.String())
	}
	return s, nil
}

// median runs f n times, each in a fresh project.
func (b *runner) median(n int, f func(dir string) (sample, error)) (sample, error) {
	var walls []time.Duration
	var rss int64
	for range n {
		dir, err := b.fresh()
		if err != nil {
			return sample{}, err
		}
		s, err := f(dir)
		if err != nil {
			return sample{}, err
		}
		walls = append(walls, s.wall)
		rss = max(rss, s.rss)
		if err := os.RemoveAll(dir); err != nil {
			return sample{}, err
		}
	}
	slices.Sort(walls)
	return sample{walls[len(walls)/2], rss}, nil
}

func file(dir, name, text string) error {
	return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
}

// steps writes n steps `true`; wide ones need nothing.
func steps(n int, driver, shell string, wide bool) string {
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

func makefile(n int) string {
	var s strings.Builder
	s.WriteString("all:")
	for i := range n {
		fmt.Fprintf(&s, " t%d", i)
	}
	s.WriteString("\n.PHONY: all\n")
	for i := range n {
		fmt.Fprintf(&s, ".PHONY: t%d\nt%d:\n\t@sh -c true\n", i, i)
	}
	return s.String()
}

func (b *runner) steps(dir string, n int, driver, shell string, wide bool) (sample, error) {
	if err := file(dir, "w.yaml", steps(n, driver, shell, wide)); err != nil {
		return sample{}, err
	}
	return run(dir, 0, b.flow, "run", "--output", "plain", "w.yaml")
}

func startup(b *runner) ([]row, error) {
	sh, err := b.median(31, func(dir string) (sample, error) { return run(dir, 0, "sh", "-c", "sh -c true") })
	if err != nil {
		return nil, err
	}
	mk, err := b.median(31, func(dir string) (sample, error) {
		if err := file(dir, "Makefile", makefile(1)); err != nil {
			return sample{}, err
		}
		return run(dir, 0, "make", "-s")
	})
	if err != nil {
		return nil, err
	}
	fl, err := b.median(31, func(dir string) (sample, error) { return b.steps(dir, 1, "host", "sh", false) })
	if err != nil {
		return nil, err
	}
	again, err := b.again(31)
	if err != nil {
		return nil, err
	}
	return []row{
		{"start-up, one `true` step: sh", ms(sh.wall), ""},
		{"start-up, one `true` step: make", ms(mk.wall), ""},
		{"start-up, one `true` step: flow, new state directory", ms(fl.wall) + ", " + mib(fl.rss), ""},
		{"start-up, one `true` step: flow, state directory exists", ms(again.wall) + ", " + mib(again.rss), "≤ 10 ms, ≤ 15 MB"},
	}, nil
}

// again is start-up in a project that has a state directory already.
func (b *runner) again(n int) (sample, error) {
	dir, err := b.fresh()
	if err != nil {
		return sample{}, err
	}
	if _, err := b.steps(dir, 1, "host", "sh", false); err != nil {
		return sample{}, err
	}
	return b.median(n, func(string) (sample, error) { return run(dir, 0, b.flow, "run", "--output", "plain", "w.yaml") })
}

// sequential gives the cost of a durable step, start-up taken off by the
// difference of two lengths, from 10 to 10,000 steps.
func sequential(driver string) func(*runner) ([]row, error) {
	return func(b *runner) ([]row, error) {
		target := map[string]string{"host": "≤ 2.0 ms, flat", "local": "≤ 3.0 ms, flat"}[driver]
		var rows []row
		if driver == "host" {
			sh, err := b.median(5, func(dir string) (sample, error) {
				return run(dir, 0, "sh", "-c", "i=0; while [ $i -lt 1000 ]; do sh -c true; i=$((i+1)); done")
			})
			if err != nil {
				return nil, err
			}
			mk, err := b.median(5, func(dir string) (sample, error) {
				if err := file(dir, "Makefile", makefile(1000)); err != nil {
					return sample{}, err
				}
				return run(dir, 0, "make", "-s")
			})
			if err != nil {
				return nil, err
			}
			rows = append(rows,
				row{"a step of 1,000 in a row: sh loop of `sh -c true`, nothing durable", ms(sh.wall / 1000), ""},
				row{"a step of 1,000 in a row: make, nothing durable", ms(mk.wall / 1000), ""})
		}
		for _, shell := range []string{"sh", "bash"} {
			one, err := b.median(9, func(dir string) (sample, error) { return b.steps(dir, 1, driver, shell, false) })
			if err != nil {
				return nil, err
			}
			for _, n := range []int{10, 100, 1000, 10000} {
				if shell == "bash" && n != 1000 {
					continue
				}
				s, err := b.median(max(1, min(9, 3000/n)), func(dir string) (sample, error) { return b.steps(dir, n, driver, shell, false) })
				if err != nil {
					return nil, err
				}
				per := (s.wall - one.wall) / time.Duration(n-1)
				rows = append(rows, row{fmt.Sprintf("a durable step of %d in a row: flow, driver %s, shell %s", n, driver, shell),
					ms(per) + ", " + mib(s.rss), target})
			}
		}
		return rows, nil
	}
}

func parallel(b *runner) ([]row, error) {
	s, err := b.median(3, func(dir string) (sample, error) { return b.steps(dir, 1000, "host", "sh", true) })
	if err != nil {
		return nil, err
	}
	return []row{{"a step of 1,000 side by side, width 8: flow, driver host", ms(s.wall / 1000), "≤ 1.0 ms"}}, nil
}

func output(b *runner) ([]row, error) {
	const text = "yes 'a line of ordinary output, sixty-four bytes with its newline' | head -c 200000000"
	sh, err := b.median(5, func(dir string) (sample, error) { return run(dir, 0, "sh", "-c", text+" | cat > /dev/null") })
	if err != nil {
		return nil, err
	}
	rows := []row{{"200 MB of output: sh, a pipe into cat", ms(sh.wall), ""}}
	for _, c := range []struct{ what, secrets, env string }{
		{"no secret", "", ""},
		{"one secret", "secrets: [BENCH_TOKEN]\n", "BENCH_TOKEN=correct-horse-battery-staple"},
	} {
		s, err := b.median(5, func(dir string) (sample, error) {
			step := "  - id: out\n    run: " + text + "\n"
			if c.secrets != "" {
				step += "    secrets: [BENCH_TOKEN]\n"
			}
			err := file(dir, "w.yaml", "name: bench\n"+c.secrets+"sandbox: {driver: host}\nsteps:\n"+step)
			if err != nil {
				return sample{}, err
			}
			if err := file(dir, "env", c.env+"\n"); err != nil {
				return sample{}, err
			}
			return run(dir, 0, b.flow, "run", "--output", "plain", "--env-file", "env", "w.yaml")
		})
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{"200 MB of output: flow, " + c.what, ms(s.wall) + ", " + mib(s.rss), "≤ 250 ms, ≤ 25 MB"})
	}
	return rows, nil
}

func validate(b *runner) ([]row, error) {
	s, err := b.median(9, func(dir string) (sample, error) {
		if err := file(dir, "w.yaml", big(10000)); err != nil {
			return sample{}, err
		}
		return run(dir, 0, b.flow, "validate", "w.yaml")
	})
	if err != nil {
		return nil, err
	}
	return []row{{fmt.Sprintf("validate 10,000 steps (%d KB)", len(big(10000))>>10), ms(s.wall) + ", " + mib(s.rss), "≤ 150 ms, ≤ 40 MB"}}, nil
}

// big is a file of n steps with conditions and variables in some.
func big(n int) string {
	var s strings.Builder
	s.WriteString("name: big\nsteps:\n")
	for i := range n {
		fmt.Fprintf(&s, "  - id: step_%d\n    run: echo step %d\n", i, i)
		if i%10 == 9 {
			fmt.Fprintf(&s, "    if: steps.step_%d.exit_code == 0\n", i-1)
		}
	}
	return s.String()
}

// resume stops after 1,000 steps and measures the whole of `flow resume` with one
// step to go: an upper bound of the time to the next step.
func resume(b *runner) ([]row, error) {
	s, err := b.median(5, func(dir string) (sample, error) {
		text := steps(1000, "host", "sh", false) + "  - {id: last, run: \"[ -e ok ] || [ \\\"$FLOW_ATTEMPT\\\" -gt 1 ]\"}\n"
		if err := file(dir, "w.yaml", text); err != nil {
			return sample{}, err
		}
		if s, err := run(dir, 1, b.flow, "run", "--output", "plain", "w.yaml"); err != nil {
			return s, err
		}
		return run(dir, 0, b.flow, "resume", "--output", "plain")
	})
	if err != nil {
		return nil, err
	}
	return []row{{"resume of a run of 1,000 steps, the whole process with its last step", ms(s.wall) + ", " + mib(s.rss), "≤ 20 ms"}}, nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }
func mib(n int64) string        { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

func writeDoc(name string, rows []row) error {
	var s strings.Builder
	s.WriteString("# Benchmarks\n\nWhole processes side by side in one run; medians. Written by `make bench` on the machine that ran it; ")
	fmt.Fprintf(&s, "only ratios carry over.\n\n%d CPUs, %s, %s.\n\n| what | measured | target |\n|---|---|---|\n", runtime.NumCPU(), runtime.GOARCH, runtime.Version())
	for _, r := range rows {
		fmt.Fprintf(&s, "| %s | %s | %s |\n", r.what, r.value, r.target)
	}
	s.WriteString("\nDriver `host` works in a private copy of an empty workspace. SQLite runs with `synchronous=FULL` (a test of package state asks its own connection); one execution record and one checkpoint row a step.\n" +
		"Memory is the peak resident size of the flow process, file pages of the binary included.\n")
	return os.WriteFile(name, []byte(s.String()), 0o644)
}
