package workflow

import (
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// This file finds the place in the text of a character of a value: behind
// anchors and tags, inside quotes with escapes, in folded lines and in block
// scalars. It is asked only where there is a mistake to show.

// sourceLines cuts a text where YAML 1.1 breaks lines, as yaml.v3 counts them.
func sourceLines(text string) []string {
	var out []string
	start := 0
	for i := 0; i < len(text); {
		n := breakAt(text, i)
		if n == 0 {
			i++
			continue
		}
		out = append(out, text[start:i])
		i += n
		start = i
	}
	return append(out, text[start:])
}

// breakAt is the length of the line break at i, 0 when there is none.
func breakAt(s string, i int) int {
	switch c := s[i]; {
	case c == '\r' && i+1 < len(s) && s[i+1] == '\n':
		return 2
	case c == '\n', c == '\r':
		return 1
	case c == 0xc2 && i+1 < len(s) && s[i+1] == 0x85: // NEL
		return 2
	case c == 0xe2 && i+2 < len(s) && s[i+1] == 0x80 && (s[i+2] == 0xa8 || s[i+2] == 0xa9): // LS, PS
		return 3
	}
	return 0
}

// cursor walks over the source, line by line.
type cursor struct {
	lines []string
	line  int // index
	col   int // bytes
}

func (c *cursor) rest() string {
	if c.line >= len(c.lines) || c.col > len(c.lines[c.line]) {
		return ""
	}
	return c.lines[c.line][c.col:]
}

func (c *cursor) next() bool {
	c.line, c.col = c.line+1, 0
	return c.line < len(c.lines)
}

func (c *cursor) pos() Pos {
	line := ""
	if c.line < len(c.lines) {
		line = c.lines[c.line]
	}
	return Pos{Line: c.line + 1, Col: utf8.RuneCountInString(line[:min(c.col, len(line))]) + 1}
}

// sourceLines are the lines of the text, cut when they are first asked for.
func (r *reader) sourceLines() []string {
	if r.lines == nil {
		r.lines = sourceLines(string(r.text))
	}
	return r.lines
}

// start is where a node's value begins, behind its anchor and tag.
func (r *reader) start(n *yaml.Node) *cursor {
	c := &cursor{lines: r.sourceLines(), line: n.Line - 1}
	if c.line < 0 || c.line >= len(c.lines) {
		return c
	}
	c.col = byteAt(c.lines[c.line], n.Column-1)
	for {
		rest := c.rest()
		trimmed := strings.TrimLeft(rest, " \t")
		switch {
		case n.Anchor == "" && n.Style&yaml.TaggedStyle == 0:
			return c
		case trimmed == "" || trimmed[0] == '#':
			if !c.next() {
				return c
			}
		case trimmed[0] == '&' || trimmed[0] == '!':
			c.col += len(rest) - len(trimmed)
			end := strings.IndexAny(trimmed, " \t")
			if end < 0 {
				end = len(trimmed)
			}
			c.col += end
		default:
			c.col += len(rest) - len(trimmed)
			return c
		}
	}
}

// placeIn is the place of the byte at offset of a scalar's value.
func (r *reader) placeIn(n *yaml.Node, offset int) Pos {
	c, done := r.start(n), 0
	if n.Kind != yaml.ScalarNode || c.line < 0 || c.line >= len(c.lines) {
		return pos(n)
	}
	var ok bool
	switch at := *c; {
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		ok = c.block(n, offset)
		if !ok {
			*c = at
		}
	default:
		quote := byte(0)
		if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
			quote = '\''
			if n.Style&yaml.DoubleQuotedStyle != 0 {
				quote = '"'
			}
			c.col++
		}
		if r.walked.n == n && r.walked.offset <= offset {
			*c, done = r.walked.c, r.walked.offset
		}
		if ok = c.flow(offset-done, quote); ok {
			r.walked.n, r.walked.c, r.walked.offset = n, *c, offset
		}
	}
	if !ok {
		return r.start(n).pos()
	}
	return c.pos()
}

// flow walks offset bytes of the value of a plain (quote 0) or quoted scalar.
func (c *cursor) flow(offset int, quote byte) bool {
	for offset > 0 {
		rest := c.rest()
		if strings.TrimRight(rest, " \t") == "" || quote == '"' && rest == `\` {
			escaped := rest == `\`
			// A fold: one break is a space, n breaks are n-1 line feeds.
			breaks := 0
			for strings.TrimSpace(c.rest()) == "" || escaped {
				escaped = false
				if !c.next() {
					return false
				}
				breaks++
			}
			c.col = len(c.rest()) - len(strings.TrimLeft(c.rest(), " \t"))
			if rest != `\` {
				offset -= max(1, breaks-1)
			}
			continue
		}
		size, width := 1, 1 // in the source, in the value
		switch {
		case quote == '\'' && strings.HasPrefix(rest, "''"):
			size = 2
		case quote == '"' && rest[0] == '\\':
			size, width = escape(rest)
		}
		c.col += size
		offset -= width
	}
	return true
}

// escape is the length of a double-quoted escape, and of what it stands for.
func escape(s string) (size, width int) {
	digits := 0
	switch s[1] {
	case 'x':
		digits = 2
	case 'u':
		digits = 4
	case 'U':
		digits = 8
	case 'N', '_':
		return 2, 2
	case 'L', 'P':
		return 2, 3
	default:
		return 2, 1
	}
	if len(s) < 2+digits {
		return len(s), 1
	}
	var code rune
	for _, d := range s[2 : 2+digits] {
		code *= 16
		switch {
		case d >= '0' && d <= '9':
			code += d - '0'
		case d >= 'a' && d <= 'f':
			code += d - 'a' + 10
		case d >= 'A' && d <= 'F':
			code += d - 'A' + 10
		}
	}
	return 2 + digits, max(1, utf8.RuneLen(code))
}

// block walks to the byte at offset of a literal or folded scalar.
func (c *cursor) block(n *yaml.Node, offset int) bool {
	header := c.rest()
	indent := -1
	parent := len(c.lines[c.line]) - len(strings.TrimLeft(c.lines[c.line], " "))
	if len(header) > 1 {
		for _, d := range header[1:min(len(header), 3)] {
			if d >= '1' && d <= '9' {
				indent = parent + int(d-'0')
			}
		}
	}
	at := 0 // in the value
	for c.next() {
		line := c.rest()
		if indent < 0 {
			text := strings.TrimLeft(line, " ")
			if text == "" {
				if offset == at {
					return true
				}
				at++
				continue
			}
			indent = len(line) - len(text)
		}
		body := ""
		if len(line) > indent {
			body = line[indent:]
		}
		if n.Style&yaml.FoldedStyle != 0 {
			for at < len(n.Value) && !strings.HasPrefix(n.Value[at:], body) && strings.ContainsRune(" \n", rune(n.Value[at])) {
				at++
			}
		}
		if !strings.HasPrefix(n.Value[min(at, len(n.Value)):], body) {
			return false
		}
		if offset >= at && offset <= at+len(body) {
			c.col = min(len(line), indent) + offset - at
			return true
		}
		at += len(body)
		if n.Style&yaml.LiteralStyle != 0 {
			at++
		}
	}
	return false
}
