package report

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// column of a table. Columns with a lower Keep go first when the width is small.
type column struct {
	head  string
	keep  int  // 0 is never dropped
	right bool // numbers
	least int  // may be cut to this many columns; 0 means never cut
}

// cell is clean text and its colour.
type cell struct {
	text string
	tone tone
}

// table lays cells out in the width of the style: columns as wide as their
// longest cell; when that is too wide, those that may be cut are cut, then those
// of the least worth are left out. The last column is not padded.
type table struct {
	cols []column
	rows [][]cell
}

func (t *table) write(w io.Writer, s Style) error {
	widths := make([]int, len(t.cols))
	for i, c := range t.cols {
		widths[i] = ansi.StringWidth(c.head)
		for _, r := range t.rows {
			widths[i] = max(widths[i], ansi.StringWidth(r[i].text))
		}
	}
	show := t.fit(widths, s.Width)
	b := bufio.NewWriter(w)
	head := make([]cell, len(t.cols))
	for i, c := range t.cols {
		head[i] = cell{c.head, toneDim}
	}
	t.line(b, s, head, widths, show)
	for _, r := range t.rows {
		t.line(b, s, r, widths, show)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// fit chooses the columns to show and narrows widths.
func (t *table) fit(widths []int, room int) []bool {
	show, full := make([]bool, len(t.cols)), slices.Clone(widths)
	for i := range t.cols {
		// A column in which nothing is written says nothing.
		for _, r := range t.rows {
			show[i] = show[i] || r[i].text != ""
		}
		show[i] = show[i] || t.cols[i].keep == 0
	}
	for {
		total, cut, at := -2, 0, -1
		for i, c := range t.cols {
			if !show[i] {
				continue
			}
			total += widths[i] + 2
			if c.least > 0 && widths[i] > c.least && (at < 0 || widths[i]-c.least > cut) {
				cut, at = widths[i]-c.least, i
			}
		}
		switch over := total - room; {
		case over <= 0:
			return show
		case at >= 0:
			widths[at] -= min(over, cut)
		case !t.drop(show):
			return show
		default:
			copy(widths, full) // what was cut for the column that went may be whole again
		}
	}
}

// drop leaves out the shown column of the least worth; false when there is none.
func (t *table) drop(show []bool) bool {
	worst := -1
	for i, c := range t.cols {
		if show[i] && c.keep > 0 && (worst < 0 || c.keep < t.cols[worst].keep) {
			worst = i
		}
	}
	if worst >= 0 {
		show[worst] = false
	}
	return worst >= 0
}

func (t *table) line(b *bufio.Writer, s Style, row []cell, widths []int, show []bool) {
	last := -1
	for i := range show {
		if show[i] {
			last = i
		}
	}
	var line strings.Builder
	for i, c := range row {
		if !show[i] {
			continue
		}
		text := s.clip(c.text, widths[i])
		fill := strings.Repeat(" ", max(widths[i]-ansi.StringWidth(text), 0))
		switch {
		case t.cols[i].right:
			line.WriteString(fill + s.paint(c.tone, text))
		case i == last:
			line.WriteString(s.paint(c.tone, text))
		default:
			line.WriteString(s.paint(c.tone, text) + fill)
		}
		if i != last {
			line.WriteString("  ")
		}
	}
	_, _ = b.WriteString(strings.TrimRight(line.String(), " ")) // Flush has the error
	_ = b.WriteByte('\n')
}
