package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// memory tells the peak of the table apart: what a living flow holds for itself, and
// the pages of its binary, which all flows and the page cache share.
func memory(b *runner) ([]row, error) {
	const mark = ": > $MARK; "
	const text = "yes 'a line of ordinary output, sixty-four bytes with its newline' | "
	var rows []row
	for _, c := range [...]struct{ what, script string }{
		{"while a step sleeps", mark + "exec sleep 60"},
		{"after 200 MB of a step's output", text + "head -c 200000000; " + mark + "exec sleep 60"},
	} {
		own, shared, err := b.held(c.script)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{What: "memory of flow " + c.what + ", driver host", Note: fmt.Sprintf("%s its own, %s pages of the binary", mb(own), mb(shared))})
	}
	return rows, nil
}

// held runs a script as a step and reads flow's memory once the script has made its
// mark.
func (b *runner) held(script string) (own, shared int64, err error) {
	dir, err := b.fresh()
	if err != nil {
		return 0, 0, err
	}
	mark := filepath.Join(dir, "mark")
	text := fmt.Sprintf("name: bench\nsandbox: {driver: host}\ndefaults: {shell: sh}\nenv: {MARK: %q}\nsteps:\n  - {id: one, run: %q}\n", mark, script)
	if err := file(dir, "w.yaml", text); err != nil {
		return 0, 0, err
	}
	cmd := exec.Command(b.flow, "run", "--output", "plain", "w.yaml")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt) // it ends its step, and then itself
		_ = cmd.Wait()
	}()
	for range 1000 {
		if _, err = os.Stat(mark); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("the step made no mark: %w", err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "RssAnon":
			own = n << 10
		case "RssFile":
			shared = n << 10
		}
	}
	if own == 0 || shared == 0 {
		return 0, 0, fmt.Errorf("%s does not tell own and shared memory apart", f.Name())
	}
	return own, shared, nil
}
