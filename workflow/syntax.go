package workflow

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// This file gives errors of YAML itself their place: yaml.v3 says at most the
// line in which a construct began.

var (
	yamlLine = lazily(`^line (\d+): (.*)`)
	// tagged finds the commonest reason for a tag: a condition that starts with !.
	tagged   = lazily(`(?m)^\s*(?:- )?(?:if|until):\s*(!)`)
	noAnchor = lazily(`^unknown anchor '(.*)' referenced`)
)

// slow hands a text out one byte at a time, so that the parser has read hardly
// more than it needed to see the mistake.
type slow struct {
	text []byte
	at   int
}

func (s *slow) Read(p []byte) (int, error) {
	if s.at >= len(s.text) {
		return 0, io.EOF
	}
	p[0] = s.text[s.at]
	s.at++
	return 1, nil
}

func (p *fileParser) syntax(err error) {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if m := yamlLine().FindStringSubmatch(msg); m != nil {
		_, _ = fmt.Sscan(m[1], &line)
		msg = m[2]
	}
	at, width, hint := p.syntaxPlace(msg, line)
	d := p.add("yaml", posOf(p.text, at), width, "this is not YAML: %s", msg)
	d.Hint = hint
}

// syntaxPlace finds the byte at which the mistake shows, and what to do about it.
func (p *fileParser) syntaxPlace(msg string, line int) (at, width int, hint string) {
	if m := noAnchor().FindStringSubmatch(msg); m != nil {
		i := bytes.Index(p.text, []byte("*"+m[1]))
		return max(i, 0), len(m[1]) + 1, "an alias stands below the value that it names with &" + m[1]
	}
	if m := tagged().FindSubmatchIndex(p.text); m != nil {
		return m[2], 1, "an unquoted ! is a tag in YAML: quote the condition, or write  if: not (…)"
	}
	if strings.HasPrefix(msg, "found unexpected end of stream") && line > 0 {
		return p.openQuote(line), 1, "the quote that begins here is never closed"
	}
	at = p.failsAt()
	switch {
	case strings.HasPrefix(msg, "found character that cannot start any token"):
		for i := at; i >= max(0, at-4); i-- {
			if strings.IndexByte("@`%\t", p.text[i]) < 0 {
				continue
			}
			if p.text[i] == '\t' {
				return i, 1, "indent with spaces: YAML takes no tabs there"
			}
			return i, 1, fmt.Sprintf("a value that begins with %c needs quotes", p.text[i])
		}
	case strings.HasPrefix(msg, "mapping values are not allowed"):
		start := bytes.LastIndexByte(p.text[:at], '\n') + 1
		if i := bytes.LastIndex(p.text[start:min(len(p.text), at+2)], []byte(":")); i >= 0 {
			at = start + i
		}
		return at, 1, "a text with `: ` in it needs quotes, or a block: run: |"
	case strings.HasPrefix(msg, "did not find expected ','"):
		// A question in a map or list on one line: the parser ends the text there.
		if i := bytes.LastIndexByte(p.text[:min(len(p.text), at+1)], '?'); i >= 0 && bytes.Count(p.text[i:at], []byte("\n")) <= 1 {
			return i, 1, "a text with a ? needs quotes inside of { } and [ ]"
		}
	case strings.HasPrefix(msg, "did not find expected key"), strings.HasPrefix(msg, "did not find expected '-'"):
		start := bytes.LastIndexByte(p.text[:at], '\n') + 1
		for start < at && p.text[start] == ' ' {
			start++
		}
		return start, 1, "its indentation, or a missing quote above, does not fit to the lines above"
	}
	return at, 1, ""
}

// failsAt is the last character that the parser had read when it gave up.
func (p *fileParser) failsAt() int {
	s := &slow{text: p.text}
	dec := yaml.NewDecoder(s)
	for {
		var n yaml.Node
		if err := dec.Decode(&n); err != nil {
			break
		}
	}
	at := min(s.at, len(p.text)) - 1
	for at > 0 && strings.IndexByte(" \r\n", p.text[at]) >= 0 {
		at--
	}
	for at > 0 && !utf8.RuneStart(p.text[at]) {
		at--
	}
	return max(at, 0)
}

// openQuote is the last quote of a line that may open a text.
func (p *fileParser) openQuote(line int) int {
	start := 0
	for ; line > 1; line-- {
		i := bytes.IndexByte(p.text[start:], '\n')
		if i < 0 {
			break
		}
		start += i + 1
	}
	end := len(p.text)
	if i := bytes.IndexByte(p.text[start:], '\n'); i >= 0 {
		end = start + i
	}
	for i := start; i < end; i++ {
		if c := p.text[i]; (c == '"' || c == '\'') && (i == start || strings.IndexByte(" [{,:-\t", p.text[i-1]) >= 0) {
			j := bytes.IndexByte(p.text[i+1:end], c)
			if j < 0 {
				return i
			}
			i += j + 1
		}
	}
	return start
}
