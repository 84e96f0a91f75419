package report

import (
	"fmt"
	"io"
	"strconv"
	"time"
)

// CacheRow is one stored result of a step.
type CacheRow struct {
	Key      string    `json:"key"`
	Workflow string    `json:"workflow"`
	Step     string    `json:"step"`
	Run      string    `json:"run"`
	At       time.Time `json:"at"`
	Scope    string    `json:"scope"`
	Files    int       `json:"files"` // changed ones, deletions included
	Bytes    int64     `json:"bytes"`
}

// CacheTable lists stored results as text, in the order given.
func CacheTable(w io.Writer, rows []CacheRow, s Style) error {
	s = s.withDefaults()
	if len(rows) == 0 {
		if _, err := fmt.Fprintln(w, "no results are stored; steps with `cache: true` store theirs"); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
		return nil
	}
	t := table{cols: []column{{head: "KEY"}, {head: "STEP", least: 8}, {head: "WORKFLOW", keep: 5, least: 8}, {head: "RUN", keep: 4},
		{head: "STORED", keep: 6, right: true}, {head: "FILES", keep: 3, right: true}, {head: "SIZE", keep: 3, right: true}, {head: "SCOPE", keep: 1}}}
	for _, r := range rows {
		t.rows = append(t.rows, []cell{
			{clean(r.Key[:min(12, len(r.Key))]), toneName}, {clean(r.Step), toneNone}, {clean(r.Workflow), toneNone}, {clean(r.Run), toneNone},
			{ago(r.At, s.Now()), toneNone}, {strconv.Itoa(r.Files), toneNone}, {bytesText(r.Bytes), toneNone}, {clean(r.Scope), toneDim},
		})
	}
	return t.write(w, s)
}
