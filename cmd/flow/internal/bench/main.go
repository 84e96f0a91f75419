// Command bench compares whole processes: flow against a bare sh loop and make,
// side by side in one run, and writes docs/benchmarks.md with this machine's
// figures. FLOW names the binary. Only ratios and medians count.
//
// Words after the command choose groups of the table (startup, host, local, …). Rows
// are kept in bin/bench.json, and the page is written when every group has some:
// each group has its own floor, taken in the same run.
//
// Invariants:
//
//  1. A figure is the median of processes that did their work: each exit code is
//     checked, and the durable ones are shown to sync once a step (see durability).
//  2. Memory is the greatest of all rounds, never the median.
//  3. A missed target is written as missed.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	{"memory", memory},
	{"durability", durability},
	{"host", func(b *runner) ([]row, error) { return sequential(b, "host", 2*time.Millisecond) }},
	{"local", func(b *runner) ([]row, error) { return sequential(b, "local", 3*time.Millisecond) }},
	{"parallel", parallel},
	{"reuse", reuse},
	{"sandbox", sandboxes},
	{"output", output},
	{"validate", validate},
	{"resume", resume},
	{"others10k", workspaces(10_000, 20<<10, false)},
	{"files10k", workspaces(10_000, 20<<10, true)},
	{"others100k", workspaces(100_000, 10<<10, false)},
	{"files100k", workspaces(100_000, 10<<10, true)},
}

type group struct {
	name    string
	measure func(*runner) ([]row, error)
}

// row is one line of the table.
type row struct {
	What  string
	Got   sample
	Times float64 // of the floor beside it, 0 for none
	Limit sample  // zero fields have no target
	Note  string  // instead of figures
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
	// A copy, as an installation makes one: what the linker wrote lies in the page
	// cache in pieces of megabytes, of which the kernel (6.18) maps all at the first
	// touch and counts them as the process's memory.
	b := &runner{flow: filepath.Join(dir, "flow"), dir: dir}
	if err := install(bin, b.flow); err != nil {
		return err
	}
	all := map[string][]row{}
	if b, err := os.ReadFile(rowsName); err == nil && len(only) > 0 {
		if err := json.Unmarshal(b, &all); err != nil {
			return fmt.Errorf("read %s: %w", rowsName, err)
		}
	}
	for _, g := range groups {
		if len(only) > 0 && !slices.Contains(only, g.name) {
			continue
		}
		got, err := g.measure(b)
		if err != nil {
			return fmt.Errorf("measure %s: %w", g.name, err)
		}
		for _, r := range got {
			fmt.Fprintf(w, "%-72s %-22s %-14s %s\n", r.What, r.figures(), r.target(), r.verdict())
		}
		all[g.name] = got
		text, err := json.MarshalIndent(all, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(rowsName, text, 0o644); err != nil {
			return err
		}
	}
	var rows []row
	for _, g := range groups {
		if all[g.name] == nil && !strings.HasSuffix(g.name, "0k") { // those take minutes: the page is written without them too
			return nil
		}
		rows = append(rows, all[g.name]...)
	}
	return writePage("docs/benchmarks.md", rows)
}

// rowsName is where rows are kept between runs.
const rowsName = "bin/bench.json"

func (r row) figures() string {
	if r.Note != "" {
		return r.Note
	}
	var words []string
	if r.Got.Wall > 0 {
		words = append(words, ms(r.Got.Wall))
	}
	if r.Got.RSS > 0 {
		words = append(words, mb(r.Got.RSS))
	}
	if r.Times > 0 {
		words = append(words, fmt.Sprintf("%.1f×", r.Times))
	}
	return strings.Join(words, ", ")
}

func (r row) target() string {
	var words []string
	if r.Limit.Wall > 0 {
		words = append(words, "≤ "+ms(r.Limit.Wall))
	}
	if r.Limit.RSS > 0 {
		words = append(words, "≤ "+mb(r.Limit.RSS))
	}
	return strings.Join(words, ", ")
}

func (r row) verdict() string {
	switch {
	case r.Limit == sample{}:
		return ""
	case r.Limit.Wall > 0 && r.Got.Wall > r.Limit.Wall, r.Limit.RSS > 0 && r.Got.RSS > r.Limit.RSS:
		return "**missed**"
	default:
		return "met"
	}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }
func mb(n int64) string         { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

func writePage(name string, rows []row) error {
	var s strings.Builder
	s.WriteString("# Benchmarks\n\nWhole processes, each group side by side with its floor in one run; medians of time, the greatest memory of all rounds.\nWritten by `make bench`\n" +
		"on the machine that ran it; only ratios carry over. `×` is the multiple of the bare `sh` (or fork and exec) measured beside it.\n\n")
	fmt.Fprintf(&s, "%d CPUs, %s, Linux %s, %s.\n\n| what | measured | target | |\n|---|---|---|---|\n", runtime.NumCPU(), runtime.GOARCH, kernel(), runtime.Version())
	for _, r := range rows {
		fmt.Fprintf(&s, "| %s | %s | %s | %s |\n", r.What, r.figures(), r.target(), r.verdict())
	}
	s.WriteString("\nDriver `host` works in a private copy of an empty workspace. Every step is stored by one transaction with `synchronous=FULL`, its execution\n" +
		"record and its checkpoint row. A step's cost is the difference of a run of N steps and a run of one, by N-1. Memory is the peak resident size\n" +
		"of the flow process; most of it is file pages of the binary, which it shares with every other flow (a line says how much).\n")
	var missed []string
	for _, w := range whys {
		if slices.ContainsFunc(rows, func(r row) bool { return strings.HasPrefix(r.What, w.row) && r.verdict() == "**missed**" }) {
			missed = append(missed, fmt.Sprintf("- **%s**: %s", strings.TrimSpace(strings.Trim(w.row, ",: ")), w.why))
		}
	}
	if len(missed) > 0 {
		s.WriteString("\n## What is missed, and why\nFrom profiles (perf, `GODEBUG=inittrace=1`, strace) of the version that wrote these lines.\n" + strings.Join(missed, "\n") + "\n")
	}
	return os.WriteFile(name, []byte(s.String()), 0o644)
}

func install(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	// Both sides hidden, so that the bytes really pass through here.
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, 64<<10))
	return errors.Join(err, out.Close())
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
