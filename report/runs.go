package report

import (
	"fmt"
	"io"
	"strconv"
	"time"
)

// RunsTable lists runs as text, in the order given.
func RunsTable(w io.Writer, runs []RunRow, s Style) error {
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
		{head: "STARTED", keep: 4},
		{head: "TIME", keep: 3, right: true},
		{head: "STEPS", keep: 6, right: true},
		{head: "CAUSE", keep: 1, least: 12},
	}}
	for _, r := range runs {
		lk := s.runLook(r.Status)
		t.rows = append(t.rows, []cell{
			{clean(r.ID), toneName},
			{clean(r.Workflow), toneNone},
			{lk.sign + " " + lk.word, lk.tone},
			{started(r.Started, s.Now()), toneNone},
			{duration(time.Duration(r.Duration)), toneNone},
			{strconv.Itoa(r.StepsDone) + "/" + strconv.Itoa(r.StepsTotal), toneNone},
			{clean(r.Cause), toneDim},
		})
	}
	return t.write(w, s)
}

// started is a time as near as it needs to be: of this day the time alone. UTC,
// like all times in records.
func started(at, now time.Time) string {
	if at.IsZero() {
		return ""
	}
	at, now = at.UTC(), now.UTC()
	if at.Year() == now.Year() && at.YearDay() == now.YearDay() {
		return at.Format("15:04:05Z")
	}
	return at.Format("2006-01-02 15:04Z")
}
