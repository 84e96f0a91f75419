package main

import (
	"fmt"
	"strings"
)

// reuse compares the ways in which steps share sandboxes (practice 13), where each step
// leaves something in the home and in /tmp, which a pool has to take away.
func reuse(b *runner) ([]row, error) {
	const n = 100
	with := func(reuse string, wide bool) func(string) (sample, error) {
		return func(dir string) (sample, error) {
			var s strings.Builder
			fmt.Fprintf(&s, "name: bench\nsandbox: {driver: local, %s}\nmax_parallel: 3\ndefaults: {shell: sh}\nsteps:\n", reuse)
			needs := ""
			if wide {
				needs = ", needs: []"
			}
			for i := range n {
				fmt.Fprintf(&s, "  - {id: s%d, run: \"echo x > ~/left; echo x > /tmp/left; echo x > f%d\"%s}\n", i, i, needs)
			}
			if err := file(dir, "w.yaml", s.String()); err != nil {
				return sample{}, err
			}
			return run(dir, 0, b.flow, "run", "--output", "plain", "w.yaml")
		}
	}
	m, err := b.medians(3, with("reuse: run", false), with("reuse: step", false), with("reuse: pool, pool: {size: 3}", false),
		with("reuse: run", true), with("reuse: step", true), with("reuse: pool, pool: {size: 3}", true))
	if err != nil {
		return nil, err
	}
	var rows []row
	for i, what := range []string{"reuse: run", "reuse: step", "reuse: pool", "reuse: run (forks)", "reuse: step", "reuse: pool of 3"} {
		how, floor := "in a row", m[0].Wall
		if i >= 3 {
			how, floor = "3 side by side", m[3].Wall
		}
		r := row{What: fmt.Sprintf("a step of 100 %s, driver local, each writes 3 files: %s", how, what), Got: sample{m[i].Wall / n, m[i].RSS}}
		if i%3 > 0 {
			r.Times = ratio(m[i].Wall, floor)
		}
		rows = append(rows, r)
	}
	return rows, nil
}
