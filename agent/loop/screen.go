package loop

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"flowrun.dev/flow/agent/tools"
)

// screen renders a conversation as plain lines, for people and for the step's log:
//
//	› the prompt
//	● Write main.go
//	  ✗ Exit code 1
//	✗ denied Bash curl x: the reason
//	the model's words
//
// It drops what it cannot write: the log is not the conversation.
type screen struct{ w io.Writer }

// Lines and characters that are shown of one thing; the transcript has it all.
const (
	shownChars = 200
	shownLines = 6
)

func newScreen(w io.Writer) *screen {
	if w == nil {
		w = io.Discard
	}
	return &screen{w}
}

func (s *screen) line(format string, a ...any) { _, _ = fmt.Fprintf(s.w, format+"\n", a...) }

func (s *screen) prompt(text string) { s.line("› %s", oneLine(text)) }

func (s *screen) text(text string) { s.line("%s", clean(strings.TrimSpace(text))) }

func (s *screen) call(b block) { s.line("● %s", subject(b)) }

func (s *screen) denied(b block, reason string) {
	s.line("✗ denied %s: %s", subject(b), oneLine(reason))
}

// result shows errors, and nothing of what succeeded.
func (s *screen) result(r tools.Result) {
	if !r.IsError {
		return
	}
	lines := strings.Split(strings.TrimSpace(r.Text), "\n")
	for i, l := range lines {
		if i == shownLines && len(lines) > shownLines+1 {
			s.line("    … %d more lines", len(lines)-i)
			return
		}
		mark := "    "
		if i == 0 {
			mark = "  ✗ "
		}
		s.line("%s%s", mark, oneLine(l))
	}
}

// subject is a call in a few words: the tool and what it is about.
func subject(b block) string {
	var in map[string]any
	if json.Unmarshal(b.Input, &in) != nil {
		return clean(b.Name)
	}
	for _, key := range []string{"command", "file_path", "pattern", "url", "path"} {
		if v, ok := in[key].(string); ok && v != "" {
			return clean(b.Name) + " " + oneLine(v)
		}
	}
	return clean(b.Name)
}

func oneLine(text string) string {
	text = clean(strings.Join(strings.Fields(text), " "))
	if r := []rune(text); len(r) > shownChars {
		return string(r[:shownChars]) + "…"
	}
	return text
}

// clean takes control characters out: a model's words must not steer a terminal.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '\uFFFD'
		}
		return r
	}, text)
}
