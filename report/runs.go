package report

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// RunsTable lists runs as text, in the order given.
func RunsTable(w io.Writer, runs []RunRow, s Style) error {
	return runsTable(w, runs, make([]int, len(runs)), s)
}

// RunsTree lists runs with each fork below the run that it began from. A fork
// whose run is not in the list stands by itself.
func RunsTree(w io.Writer, runs []RunRow, s Style) error {
	known := map[string]bool{}
	for _, r := range runs {
		known[r.ID] = true
	}
	forks := map[string][]RunRow{}
	for _, r := range runs {
		of := r.ForkedFrom
		if !known[of] {
			of = ""
		}
		forks[of] = append(forks[of], r)
	}
	var out []RunRow
	var depths []int
	var add func(of string, depth int)
	add = func(of string, depth int) {
		for _, r := range forks[of] {
			if depth > 0 && r.ForkPoint != "" {
				r.Cause = strings.TrimSuffix(r.ForkPoint+"; "+r.Cause, "; ")
			}
			out, depths = append(out, r), append(depths, depth)
			add(r.ID, depth+1)
		}
	}
	add("", 0)
	return runsTable(w, out, depths, s)
}

func runsTable(w io.Writer, runs []RunRow, depths []int, s Style) error {
	s = s.withDefaults()
	if len(runs) == 0 {
		if _, err := fmt.Fprintln(w, "no runs yet; `flow run FILE` makes one"); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
		return nil
	}
	t := table{cols: []column{
		{head: "RUN"},
		{head: "WORKFLOW", keep: 5, least: 8},
		{head: "STATUS"},
		{head: "STARTED", keep: 4, right: true},
		{head: "TIME", keep: 3, right: true},
		{head: "STEPS", keep: 6, right: true},
		{head: "CAUSE", keep: 1, least: 12},
	}}
	branch := "└ "
	if s.ASCII {
		branch = "+ "
	}
	for i, r := range runs {
		lk := s.runLook(r.Status)
		id := clean(r.ID)
		if depths[i] > 0 {
			id = strings.Repeat("  ", depths[i]-1) + branch + id
		}
		t.rows = append(t.rows, []cell{
			{id, toneName},
			{clean(r.Workflow), toneNone},
			{lk.sign + " " + lk.word, lk.tone},
			{ago(r.Started, s.Now()), toneNone},
			{duration(time.Duration(r.Duration)), toneNone},
			{strconv.Itoa(r.StepsDone) + "/" + strconv.Itoa(r.StepsTotal), toneNone},
			{clean(r.Cause), toneDim},
		})
	}
	return t.write(w, s)
}

// ago is the age of a time, short enough to leave room for the cause. `show` has
// the exact time.
func ago(at, now time.Time) string {
	if at.IsZero() {
		return ""
	}
	switch d := now.Sub(at); {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s ago"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " m ago"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h ago"
	default:
		return strconv.Itoa(int(d/(24*time.Hour))) + " d ago"
	}
}
