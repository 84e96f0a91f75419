package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"flowrun.dev/flow/cmd/flow/internal/tracer"
)

func binary(b *runner) ([]row, error) {
	st, err := os.Stat(b.flow)
	if err != nil {
		return nil, err
	}
	return []row{{What: "the binary", Got: sample{RSS: st.Size()}, Limit: sample{RSS: 30e6}}}, nil
}

func startup(b *runner) ([]row, error) {
	version, err := run(b.dir, 0, b.flow, "version")
	if err != nil {
		return nil, err
	}
	again, err := b.fresh()
	if err != nil {
		return nil, err
	}
	if _, err := b.flowSteps(1, "host", "sh", false)(again); err != nil {
		return nil, err
	}
	m, err := b.medians(31, shLoop(1), makeTargets(1, 1), b.flowSteps(1, "host", "sh", false),
		func(string) (sample, error) { return run(again, 0, b.flow, "run", "--output", "plain", "w.yaml") },
		b.flowSteps(1, "local", "sh", false))
	if err != nil {
		return nil, err
	}
	const what = "start-up and one `true` step: "
	floor := m[0].Wall
	limit := sample{10 * time.Millisecond, 15e6}
	return []row{
		{What: "flow version: a process that does nothing", Got: version},
		{What: what + "sh", Got: sample{Wall: floor}},
		{What: what + "make", Got: sample{Wall: m[1].Wall}, Times: ratio(m[1].Wall, floor)},
		{What: what + "flow, driver host, makes its state directory", Got: m[2], Times: ratio(m[2].Wall, floor), Limit: limit},
		{What: what + "flow, driver host, state directory exists", Got: m[3], Times: ratio(m[3].Wall, floor), Limit: limit},
		{What: what + "flow, driver local, makes its state directory", Got: m[4], Times: ratio(m[4].Wall, floor)},
	}, nil
}

// durability shows that the steps timed below are durable ones: it counts the
// syncs below the state directory of a real run.
func durability(b *runner) ([]row, error) {
	const n = 100
	dir, err := b.fresh()
	if err != nil {
		return nil, err
	}
	if err := file(dir, "w.yaml", trueSteps(n, "host", "sh", false)); err != nil {
		return nil, err
	}
	res, err := tracer.Trace(tracer.Job{Argv: []string{b.flow, "run", "--output", "plain", "w.yaml"}, Dir: dir, Under: filepath.Join(dir, ".flow")})
	switch {
	case err != nil:
		return nil, err
	case res.ExitCode != 0:
		return nil, fmt.Errorf("the traced run ended with exit code %d", res.ExitCode)
	case res.ByName["fsync"] < n:
		return nil, fmt.Errorf("a run of %d steps synced %d Times: its steps are not durable (synchronous=FULL syncs at every commit)", n, res.ByName["fsync"])
	}
	return []row{{What: fmt.Sprintf("syncs of the state directory in a run of %d steps (synchronous=FULL: at least one a step)", n),
		Note: fmt.Sprint(res.ByName["fsync"])}}, nil
}

// sequential gives the cost of a durable step, start-up taken off by the
// difference of two lengths, from 10 to 10,000 steps.
func sequential(b *runner, driver string, limit time.Duration) ([]row, error) {
	m, err := b.medians(3, shLoop(1000), makeTargets(1000, 1))
	if err != nil {
		return nil, err
	}
	floor := m[0].Wall / 1000
	rows := []row{
		{What: "a step of 1,000 in a row: sh, a loop of `sh -c true`, nothing durable", Got: sample{Wall: floor}},
		{What: "a step of 1,000 in a row: make, nothing durable", Got: sample{Wall: m[1].Wall / 1000}, Times: ratio(m[1].Wall/1000, floor)},
	}
	for _, c := range []struct {
		n, rounds int
		shell     string
	}{{10, 15, "sh"}, {100, 7, "sh"}, {1000, 3, "sh"}, {10000, 1, "sh"}, {1000, 1, "bash"}} {
		m, err := b.medians(c.rounds, b.flowSteps(1, driver, c.shell, false), b.flowSteps(c.n, driver, c.shell, false))
		if err != nil {
			return nil, err
		}
		per := sample{Wall: (m[1].Wall - m[0].Wall) / time.Duration(c.n-1), RSS: m[1].RSS}
		r := row{What: fmt.Sprintf("a durable step of %d in a row: flow, driver %s, shell %s", c.n, driver, c.shell), Got: per, Times: ratio(per.Wall, floor)}
		if c.shell == "sh" {
			r.Limit.Wall = limit
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func parallel(b *runner) ([]row, error) {
	m, err := b.medians(3, shLoop(1000), makeTargets(1000, 8), b.flowSteps(1000, "host", "sh", true), b.flowSteps(1000, "local", "sh", true))
	if err != nil {
		return nil, err
	}
	per := func(i int) sample { return sample{Wall: m[i].Wall / 1000} }
	const what = "a step of 1,000 side by side, width 8: "
	return []row{
		{What: what + "make -j8, nothing durable", Got: per(1), Times: ratio(m[1].Wall, m[0].Wall)},
		{What: what + "flow, driver host", Got: sample{per(2).Wall, m[2].RSS}, Times: ratio(m[2].Wall, m[0].Wall), Limit: sample{Wall: time.Millisecond}},
		{What: what + "flow, driver local", Got: sample{per(3).Wall, m[3].RSS}, Times: ratio(m[3].Wall, m[0].Wall)},
	}, nil
}

func output(b *runner) ([]row, error) {
	const text = "yes 'a line of ordinary output, sixty-four bytes with its newline' | head -c 200000000"
	with := func(secrets, env string) func(string) (sample, error) {
		return func(dir string) (sample, error) {
			step := "  - id: out\n    run: " + text + "\n"
			if secrets != "" {
				step += "    secrets: [BENCH_TOKEN]\n"
			}
			err := errors.Join(
				file(dir, "w.yaml", "name: bench\n"+secrets+"sandbox: {driver: host}\ndefaults: {shell: sh}\nsteps:\n"+step),
				file(dir, "env", env+"\n"))
			if err != nil {
				return sample{}, err
			}
			return run(dir, 0, b.flow, "run", "--output", "plain", "--env-file", "env", "w.yaml")
		}
	}
	m, err := b.medians(5,
		func(dir string) (sample, error) { return run(dir, 0, "sh", "-c", text+" | cat > /dev/null") },
		with("", ""), with("secrets: [BENCH_TOKEN]\n", "BENCH_TOKEN=correct-horse-battery-staple"))
	if err != nil {
		return nil, err
	}
	limit := sample{250 * time.Millisecond, 25e6}
	return []row{
		{What: "200 MB of output: sh, a pipe into cat", Got: sample{Wall: m[0].Wall}},
		{What: "200 MB of output: flow, no secret", Got: m[1], Times: ratio(m[1].Wall, m[0].Wall), Limit: limit},
		{What: "200 MB of output: flow, one secret", Got: m[2], Times: ratio(m[2].Wall, m[0].Wall), Limit: limit},
	}, nil
}

func validate(b *runner) ([]row, error) {
	m, err := b.medians(9, func(dir string) (sample, error) {
		if err := file(dir, "w.yaml", big(10000)); err != nil {
			return sample{}, err
		}
		return run(dir, 0, b.flow, "validate", "w.yaml")
	})
	if err != nil {
		return nil, err
	}
	return []row{{What: fmt.Sprintf("validate 10,000 steps (%d KB)", len(big(10000))>>10), Got: m[0], Limit: sample{150 * time.Millisecond, 40e6}}}, nil
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

// resume stops after 1,000 steps and measures the time from the start of `flow
// resume` until its next step runs: that step makes a file, whose time is taken.
func resume(b *runner) ([]row, error) {
	var next []sample
	m, err := b.medians(7, func(dir string) (sample, error) {
		mark := filepath.Join(dir, "mark")
		text := trueSteps(1000, "host", "sh", false) + "  - {id: last, run: \": > " + mark + "; [ \\\"$FLOW_ATTEMPT\\\" -gt 1 ]\"}\n"
		if err := file(dir, "w.yaml", text); err != nil {
			return sample{}, err
		}
		if s, err := run(dir, 1, b.flow, "run", "--output", "plain", "w.yaml"); err != nil {
			return s, err
		}
		if err := os.Remove(mark); err != nil {
			return sample{}, err
		}
		t := time.Now()
		s, err := run(dir, 0, b.flow, "resume", "--output", "plain")
		if err != nil {
			return s, err
		}
		st, err := os.Stat(mark)
		if err != nil {
			return s, err
		}
		next = append(next, sample{Wall: st.ModTime().Sub(t)})
		return s, nil
	})
	if err != nil {
		return nil, err
	}
	return []row{
		{What: "resume of a run of 1,000 steps: until its next step runs", Got: middle(next), Limit: sample{Wall: 20 * time.Millisecond}},
		{What: "resume of a run of 1,000 steps: the whole process", Got: m[0]},
	}, nil
}
