package workflow

import (
	"bytes"
	"fmt"
	"io"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/go-multierror"
)

// Severity of a Diagnostic.
type Severity string

const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// Diagnostic is one mistake, as data; Render draws it.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	// Rule is its stable name: "unknown-key", "duplicate-key", …
	Rule    string `json:"rule"`
	Pos     Pos    `json:"pos"`
	EndCol  int    `json:"end_col,omitempty"` // column after the last character, 0 for one
	Message string `json:"message"`
	// Expected lists what could stand there.
	Expected []string `json:"expected,omitempty"`
	// Suggestion is the nearest name, "" for none.
	Suggestion string `json:"suggestion,omitempty"`
	// Hint is what to do, in a sentence.
	Hint string `json:"hint,omitempty"`
	// source is its line where that is in another file than the one that is rendered.
	source string
}

func (d Diagnostic) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s: %s [%s]", d.Pos.File, d.Pos.Line, d.Pos.Col, d.Severity, d.Message, d.Rule)
}

// Diagnostics is the error that Parse returns: every mistake of a file, sorted
// by position.
type Diagnostics struct {
	List []Diagnostic
	text []byte
}

func (d *Diagnostics) Error() string {
	var errs *multierror.Error
	for _, x := range d.List {
		errs = multierror.Append(errs, x)
	}
	errs.ErrorFormat = func(es []error) string {
		var s []string
		for _, e := range es {
			s = append(s, e.Error())
		}
		return strings.Join(s, "\n")
	}
	return errs.Error()
}

// Render draws the diagnostics with their source lines.
func (d *Diagnostics) Render(w io.Writer, color bool) error { return Render(w, d.List, d.text, color) }

// maxShown mistakes of a file are reported, maxKept are collected before they are
// sorted, and for maxNearest of them a name is suggested: a file that is wrong in
// every line is not answered with more than it held, nor in more than linear time.
const (
	maxShown   = 100
	maxKept    = 1000
	maxNearest = 50
)

// bag collects diagnostics of one file.
type bag struct {
	file      string
	list      []Diagnostic
	dropped   int // errors beyond maxKept
	suggested int
}

// full: no more mistakes are kept, only counted.
func (b *bag) full() bool { return len(b.list) >= maxKept }

// nearest is nearest with a bound on how often it is asked.
func (b *bag) nearest(word string, names []string) string {
	if b.suggested++; b.suggested > maxNearest {
		return ""
	}
	return nearest(word, names)
}

func (b *bag) add(rule string, p Pos, width int, format string, args ...any) *Diagnostic {
	if b.full() {
		b.dropped++
		return &Diagnostic{}
	}
	p.File = b.file
	d := Diagnostic{Severity: SeverityError, Rule: rule, Pos: p, Message: fmt.Sprintf(format, args...)}
	if width > 1 {
		d.EndCol = p.Col + width
	}
	b.list = append(b.list, d)
	return &b.list[len(b.list)-1]
}

// finish sorts, drops repeats, and splits errors from warnings.
func (b *bag) finish(text []byte) (warnings []Diagnostic, err *Diagnostics) {
	sort.SliceStable(b.list, func(i, j int) bool {
		p, q := b.list[i].Pos, b.list[j].Pos
		if p.File != q.File {
			return q.File != b.file && (p.File == b.file || p.File < q.File)
		}
		if p.Line != q.Line {
			return p.Line < q.Line
		}
		return p.Col < q.Col
	})
	var errs []Diagnostic
	seen := map[string]bool{}
	for _, d := range b.list {
		if key := d.Error(); seen[key] {
			continue
		} else {
			seen[key] = true
		}
		if d.Severity == SeverityError {
			errs = append(errs, d)
		} else {
			warnings = append(warnings, d)
		}
	}
	if len(warnings) > maxShown {
		warnings = warnings[:maxShown]
	}
	if len(errs) == 0 {
		return warnings, nil
	}
	if more := len(errs) + b.dropped - maxShown; more > 0 {
		last := errs[maxShown-1]
		last.Rule, last.Expected, last.Suggestion, last.EndCol = "limit", nil, "", 0
		last.Message, last.Hint = fmt.Sprintf("and %d more mistakes from here on", more+1), "mend those above first: many follow from them"
		errs = append(errs[:maxShown-1], last)
	}
	return warnings, &Diagnostics{List: append(errs, warnings...), text: text}
}

// Render draws each diagnostic: its line, the source line, a caret under the
// place, what was expected, and what to do. Tabs stay tabs, so that the caret is
// under its character in any terminal.
func Render(w io.Writer, list []Diagnostic, text []byte, color bool) error {
	var lines []string
	if len(list) > 0 {
		lines = sourceLines(string(bytes.TrimPrefix(text, bom)))
	}
	paint := func(code, s string) string {
		if !color {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	for _, d := range list {
		code := "1;31"
		if d.Severity == SeverityWarning {
			code = "1;33"
		}
		fmt.Fprintf(w, "%s:%d:%d: %s %s [%s]\n", d.Pos.File, d.Pos.Line, d.Pos.Col, paint(code, string(d.Severity)+":"), d.Message, d.Rule)
		source, known := d.source, d.source != ""
		if !known && d.Pos.Line >= 1 && d.Pos.Line <= len(lines) {
			source, known = lines[d.Pos.Line-1], true
		}
		if known {
			line, col, end := crop(mask(near(source, d.Pos.Col, d.EndCol)))
			fmt.Fprintf(w, "  %s\n  %s\n", printable(line), paint(code, caret(line, col, end)))
		}
		if len(d.Expected) > 0 {
			fmt.Fprintf(w, "  expected one of: %s\n", strings.Join(d.Expected, ", "))
		}
		if d.Suggestion != "" {
			fmt.Fprintf(w, "  did you mean %q?\n", d.Suggestion)
		}
		if d.Hint != "" {
			fmt.Fprintf(w, "  %s\n", strings.ReplaceAll(d.Hint, "\n", "\n  "))
		}
	}
	_, err := io.WriteString(w, "")
	return err
}

// A line is shown around its mistake: so many characters before it and in all.
const (
	shownBefore = 80
	shownLine   = 160
)

// near cuts a line of any length to what mask and crop have to look at.
func near(line string, col, end int) (string, int, int) {
	const around = 4096
	if len(line) <= 2*around {
		return line, col, end
	}
	at := byteAt(line, col-1)
	from, to := max(0, at-around), min(len(line), at+around)
	for from > 0 && !utf8.RuneStart(line[from]) {
		from--
	}
	for to < len(line) && !utf8.RuneStart(line[to]) {
		to++
	}
	before := utf8.RuneCountInString(line[:from])
	return line[from:to], col - before, max(0, end-before)
}

// crop cuts a long line around the columns of a mistake.
func crop(line string, col, end int) (string, int, int) {
	runes := []rune(line)
	if len(runes) <= shownLine {
		return line, col, end
	}
	from := max(0, min(col-1-shownBefore, len(runes)-shownLine))
	to := min(len(runes), from+shownLine)
	text := string(runes[from:to])
	if to < len(runes) {
		text += "…"
	}
	if from > 0 {
		text, from = "…"+text, from-1
	}
	return text, col - from, max(0, min(end-from, shownLine+2))
}

// mask hides what looks like a credential: the line is shown, the value never.
// It returns where the columns of a mistake went.
func mask(line string, col, end int) (string, int, int) {
	const word = "***REDACTED***"
	var b strings.Builder
	done, shift := 0, 0
	for _, m := range credentials().FindAllStringIndex(line, -1) {
		from, to := utf8.RuneCountInString(line[:m[0]]), utf8.RuneCountInString(line[:m[1]])
		switch {
		case col-1 >= to:
			shift += len(word) - (to - from)
		case col-1 >= from:
			shift, end = shift+from+1-col, 0
		}
		b.WriteString(line[done:m[0]] + word)
		done = m[1]
	}
	return b.String() + line[done:], col + shift, max(0, end+shift)
}

// printable replaces control characters, and those that turn or hide text: a file
// is not trusted with the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && (r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 ||
			r >= 0x200b && r <= 0x200f && r != 0x200d || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff) {
			return '\uFFFD'
		}
		return r
	}, s)
}

func caret(line string, col, end int) string {
	var b strings.Builder
	n := 1
	for _, r := range line {
		if n >= col {
			break
		}
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteString(strings.Repeat(" ", runeWidth(r)))
		}
		n++
	}
	b.WriteByte('^')
	for i := col + 1; i < end; i++ {
		b.WriteByte('~')
	}
	return b.String()
}

// runeWidth in a terminal: East Asian wide characters and emoji take two cells.
func runeWidth(r rune) int {
	switch {
	case r >= 0x300 && r <= 0x36f, r == 0x200d, r >= 0xfe00 && r <= 0xfe0f:
		return 0
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3,
		r >= 0xf900 && r <= 0xfaff, r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0x1f300 && r <= 0x1faff:
		return 2
	}
	return 1
}

// nearest finds the name within a third of its length in edits (one for a short
// word), "" for none.
func nearest(word string, names []string) string {
	best, at := "", (len(word)+2)/3+1
	for _, n := range names {
		if len(n) >= len(word)+at || len(word) >= len(n)+at {
			continue // the difference in length alone is too much
		}
		if d := distance(word, n); d < at {
			best, at = n, d
		}
	}
	return best
}

// distance counts insertions, deletions, replacements and swaps of neighbours.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur, up, upup := rows[(i+1)%3], rows[i%3], rows[(i+2)%3]
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(up[j]+1, cur[j-1]+1, up[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], upup[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}
