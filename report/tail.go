package report

import "bytes"

const (
	tailKept  = 10   // lines of a step that are kept for the picture
	tailBytes = 4096 // of a write, and of a line: more cannot be seen
)

// tail keeps the last lines of a step's output, clean.
type tail struct {
	sc    scrubber
	lines []string
	open  []byte // the begun line
}

// write takes output cut anywhere. Of a large write only the end is looked at.
func (t *tail) write(p []byte) {
	if len(p) > tailBytes {
		p = p[len(p)-tailBytes:]
		t.sc, t.open = scrubber{}, t.open[:0]
		// What the cut left of its first line, and perhaps of an escape sequence.
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			p = p[i+1:]
		}
	}
	t.open = t.sc.write(t.open, p)
	for {
		i := bytes.IndexByte(t.open, '\n')
		if i < 0 {
			break
		}
		t.keep(t.open[:i])
		t.open = append(t.open[:0], t.open[i+1:]...)
	}
	if len(t.open) > tailBytes {
		t.open = append(t.open[:0], t.open[len(t.open)-tailBytes:]...)
	}
}

// keep one line; empty ones would waste the few lines that there are.
func (t *tail) keep(line []byte) {
	line = bytes.ReplaceAll(bytes.TrimRight(line, " \t"), []byte("\t"), []byte("    "))
	if len(line) == 0 {
		return
	}
	if len(t.lines) == tailKept {
		copy(t.lines, t.lines[1:])
		t.lines = t.lines[:tailKept-1]
	}
	t.lines = append(t.lines, string(line))
}

// last appends the n last lines, the begun one included, behind a prefix.
func (t *tail) last(dst []string, prefix string, n int) []string {
	lines := t.lines
	if open := bytes.TrimSpace(t.open); len(open) > 0 {
		lines = append(lines[:len(lines):len(lines)], string(bytes.ReplaceAll(open, []byte("\t"), []byte("    "))))
	}
	for _, l := range lines[max(0, len(lines)-n):] {
		dst = append(dst, prefix+l)
	}
	return dst
}
