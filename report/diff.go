package report

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// DiffRow is how much of one path changed.
type DiffRow struct {
	Path             string
	Op               string // added, modified, deleted
	Mode             string // both modes where they differ, "" otherwise
	Binary           bool
	Added, Deleted   int   // lines
	OldSize, NewSize int64 // bytes, for a binary file
}

const mostMarks = 20 // + and - signs of the longest bar

// DiffStat lists changed paths with the number of their lines, as git does.
func DiffStat(w io.Writer, rows []DiffRow, s Style) error {
	s = s.withDefaults()
	most, added, deleted := 1, 0, 0
	for _, r := range rows {
		most = max(most, r.Added+r.Deleted)
		added, deleted = added+r.Added, deleted+r.Deleted
	}
	t := table{cols: []column{{head: "PATH", least: 12}, {head: "", keep: 5}, {head: "LINES", keep: 6, right: true}, {head: "", keep: 1}}}
	for _, r := range rows {
		plus, minus := marks(r.Added, most), marks(r.Deleted, most)
		bar, lines, tn := strings.Repeat("+", plus)+strings.Repeat("-", minus), strconv.Itoa(r.Added+r.Deleted), toneNone
		switch {
		case r.Binary:
			lines, bar = "-", "binary "+bytesText(r.OldSize)+" → "+bytesText(r.NewSize)
		case r.Deleted == 0 && r.Added > 0:
			tn = toneGood
		case r.Added == 0 && r.Deleted > 0:
			tn = toneBad
		}
		if s.ASCII {
			bar = strings.ReplaceAll(bar, "→", "->")
		}
		what := r.Op
		if r.Mode != "" {
			what = strings.TrimPrefix(what+" "+r.Mode, "modified ")
			if s.ASCII {
				what = strings.ReplaceAll(what, "→", "->")
			}
		}
		t.rows = append(t.rows, []cell{{clean(r.Path), toneName}, {what, toneDim}, {lines, toneNone}, {bar, tn}})
	}
	if len(rows) > 0 {
		if err := t.write(w, s); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(w, "%s changed, %s, %s\n", count(len(rows), "file"), count(added, "line")+" added", count(deleted, "line")+" deleted"); err != nil {
		return fmt.Errorf("write changes: %w", err)
	}
	return nil
}

// marks scales a number of lines; what is there is seen.
func marks(n, most int) int {
	if n == 0 {
		return 0
	}
	return max(1, n*mostMarks/max(most, mostMarks))
}

// PatchWriter shows a patch to people: coloured where the style says so, and with
// what could act on a terminal made harmless. Flush ends it.
type PatchWriter struct {
	w      io.Writer
	s      Style
	line   []byte
	inHunk bool
	err    error
}

// NewPatchWriter returns a writer of one patch.
func NewPatchWriter(w io.Writer, s Style) *PatchWriter { return &PatchWriter{w: w, s: s} }

// Write takes a patch cut anywhere.
func (p *PatchWriter) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0 && p.err == nil; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			p.line = append(p.line, rest...)
			break
		}
		p.line = append(p.line, rest[:i]...)
		rest = rest[i+1:]
		p.emit()
	}
	return len(b), p.err
}

// Flush writes a begun line.
func (p *PatchWriter) Flush() error {
	if len(p.line) > 0 && p.err == nil {
		p.emit()
	}
	return p.err
}

func (p *PatchWriter) emit() {
	text := string(p.line)
	p.line = p.line[:0]
	t := p.toneOf(text)
	sc := scrubber{}
	safe := strings.TrimRight(string(sc.flush(sc.write(nil, []byte(text)), true)), "\n")
	if _, err := fmt.Fprintln(p.w, p.s.paint(t, safe)); err != nil {
		p.err = fmt.Errorf("write patch: %w", err)
	}
}

// toneOf colours a line by its place: "--- a" is a header above the first hunk of a
// file and a deleted line in it.
func (p *PatchWriter) toneOf(line string) tone {
	if strings.HasPrefix(line, "diff ") {
		p.inHunk = false
	}
	if strings.HasPrefix(line, "@@ ") {
		p.inHunk = true
		return toneLive
	}
	switch {
	case !p.inHunk:
		return toneName
	case strings.HasPrefix(line, "+"):
		return toneGood
	case strings.HasPrefix(line, "-"):
		return toneBad
	}
	return toneNone
}
