// Package screen renders a conversation as plain lines, the same for all providers.
//
// Imports of this module: none.
package screen

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Screen renders a conversation as plain lines, for people and for the step's log:
//
//	› the prompt
//	● Write main.go
//	  ✗ Exit code 1
//	✗ denied Bash curl x: the reason
//	the model's words
//
// It drops what it cannot write: the log is not the conversation.
type Screen struct{ w io.Writer }

// Lines and characters that are shown of one thing; the transcript has it all.
const (
	shownChars = 200
	shownLines = 6
)

// New renders to w; nil for nowhere.
func New(w io.Writer) *Screen {
	if w == nil {
		w = io.Discard
	}
	return &Screen{w}
}

func (s *Screen) line(format string, a ...any) { _, _ = fmt.Fprintf(s.w, format+"\n", a...) }

// Prompt shows what was asked.
func (s *Screen) Prompt(text string) { s.line("› %s", oneLine(text)) }

// Note shows what flow itself has to say.
func (s *Screen) Note(text string) { s.line("· %s", oneLine(text)) }

// Text shows the model's words.
func (s *Screen) Text(text string) { s.line("%s", clean(strings.TrimSpace(text))) }

// Call shows a call that is executed.
func (s *Screen) Call(tool string, input json.RawMessage) { s.line("● %s", subject(tool, input)) }

// Denied shows a call that was refused.
func (s *Screen) Denied(tool string, input json.RawMessage, reason string) {
	s.line("✗ denied %s: %s", subject(tool, input), oneLine(reason))
}

// Failed shows a call's error; of what succeeded nothing is shown.
func (s *Screen) Failed(text string) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
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
func subject(tool string, input json.RawMessage) string {
	var in map[string]any
	if json.Unmarshal(input, &in) != nil {
		return clean(tool)
	}
	for _, key := range []string{"command", "file_path", "pattern", "url", "path"} {
		if v, ok := in[key].(string); ok && v != "" {
			return clean(tool) + " " + oneLine(v)
		}
	}
	return clean(tool)
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
