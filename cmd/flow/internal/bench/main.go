// Command bench compares whole processes: flow against a bare sh loop and make,
// side by side in one run, and writes docs/benchmarks.md with this machine's
// figures. FLOW names the binary. Only ratios and medians count.
//
// Words after the command choose groups of the table (startup, host, local, …);
// the page is then left alone.
//
// Invariants:
//
//  1. A figure is the median of processes that did their work: each exit code is
//     checked, and the durable ones are shown to sync once a step (see durability).
//  2. Memory is the greatest of all rounds, never the median.
//  3. A missed target is written as missed.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"flowrun.dev/flow/sandbox/local"
)

// groups is the table of what is measured, in the order of the page.
var groups = []group{
	{"binary", binary},
	{"startup", startup},
	{"durability", durability},
	{"host", func(b *runner) ([]row, error) { return sequential(b, "host", 2*time.Millisecond) }},
	{"local", func(b *runner) ([]row, error) { return sequential(b, "local", 3*time.Millisecond) }},
	{"parallel", parallel},
	{"sandbox", sandboxes},
	{"output", output},
	{"validate", validate},
	{"resume", resume},
}

type group struct {
	name    string
	measure func(*runner) ([]row, error)
}

// row is one line of the table.
type row struct {
	what  string
	got   sample
	times float64 // of the floor beside it, 0 for none
	limit sample  // zero fields have no target
	note  string  // instead of figures
}

func main() {
	// A sandbox's init is the program that makes the sandbox: this one, in group sandbox.
	if local.InitMain(os.Args) {
		return
	}
	if err := bench(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(w io.Writer, only []string) error {
	bin := os.Getenv("FLOW")
	if bin == "" {
		return fmt.Errorf("FLOW must name the binary to measure")
	}
	for _, name := range only {
		if !slices.ContainsFunc(groups, func(g group) bool { return g.name == name }) {
			return fmt.Errorf("unknown group %q", name)
		}
	}
	dir, err := os.MkdirTemp("", "flow-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &runner{flow: bin, dir: dir}
	var rows []row
	for _, g := range groups {
		if len(only) > 0 && !slices.Contains(only, g.name) {
			continue
		}
		got, err := g.measure(b)
		if err != nil {
			return fmt.Errorf("measure %s: %w", g.name, err)
		}
		for _, r := range got {
			fmt.Fprintf(w, "%-72s %-22s %-14s %s\n", r.what, r.figures(), r.target(), r.verdict())
		}
		rows = append(rows, got...)
	}
	if len(only) > 0 {
		return nil
	}
	return writePage("docs/benchmarks.md", rows)
}

func (r row) figures() string {
	if r.note != "" {
		return r.note
	}
	var words []string
	if r.got.wall > 0 {
		words = append(words, ms(r.got.wall))
	}
	if r.got.rss > 0 {
		words = append(words, mb(r.got.rss))
	}
	if r.times > 0 {
		words = append(words, fmt.Sprintf("%.1f×", r.times))
	}
	return strings.Join(words, ", ")
}

func (r row) target() string {
	var words []string
	if r.limit.wall > 0 {
		words = append(words, "≤ "+ms(r.limit.wall))
	}
	if r.limit.rss > 0 {
		words = append(words, "≤ "+mb(r.limit.rss))
	}
	return strings.Join(words, ", ")
}

func (r row) verdict() string {
	switch {
	case r.limit == sample{}:
		return ""
	case r.limit.wall > 0 && r.got.wall > r.limit.wall, r.limit.rss > 0 && r.got.rss > r.limit.rss:
		return "**missed**"
	default:
		return "met"
	}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }
func mb(n int64) string         { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

func writePage(name string, rows []row) error {
	var s strings.Builder
	s.WriteString("# Benchmarks\n\nWhole processes side by side in one run; medians of time, the greatest memory of all rounds. Written by `make bench`\n" +
		"on the machine that ran it; only ratios carry over. `×` is the multiple of the bare `sh` (or fork and exec) measured beside it.\n\n")
	fmt.Fprintf(&s, "%d CPUs, %s, Linux %s, %s.\n\n| what | measured | target | |\n|---|---|---|---|\n", runtime.NumCPU(), runtime.GOARCH, kernel(), runtime.Version())
	for _, r := range rows {
		fmt.Fprintf(&s, "| %s | %s | %s | %s |\n", r.what, r.figures(), r.target(), r.verdict())
	}
	s.WriteString("\nDriver `host` works in a private copy of an empty workspace. Every step is stored by one transaction with `synchronous=FULL`, its execution\n" +
		"record and its checkpoint row. A step's cost is the difference of a run of N steps and a run of one, by N-1. Memory is the peak resident size\n" +
		"of the flow process, file pages of the binary included.\n")
	return os.WriteFile(name, []byte(s.String()), 0o644)
}

func kernel() string {
	var u syscall.Utsname
	if syscall.Uname(&u) != nil {
		return "?"
	}
	var s strings.Builder
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		s.WriteByte(byte(c))
	}
	return s.String()
}
