package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
)

// LogLine is one line of `flow logs`: with time and step where there are several.
type LogLine struct {
	Step    string    `json:"step"`
	Attempt int       `json:"attempt"`
	Stream  string    `json:"stream"` // stdout, stderr
	At      time.Time `json:"at,omitzero"`
	Text    string    `json:"text"` // without its line end
}

// Format of a log line. Width 0 leaves it whole; prefix puts the step before it.
func (l LogLine) Format(s Style, prefix bool) string {
	sc := scrubber{sgr: s.Color}
	text := strings.TrimRight(string(sc.flush(sc.write(nil, []byte(l.Text)), true)), "\n")
	head := ""
	if !l.At.IsZero() {
		head = s.paint(toneDim, l.At.UTC().Format("15:04:05.000Z")) + " "
	}
	if prefix {
		t := toneDim
		if l.Stream == "stderr" {
			t = toneWarn
		}
		head += s.paint(toneDim, clean(l.Step)) + " " + s.paint(t, "|") + " "
	}
	if s.Width > 0 {
		text = s.clip(strings.ReplaceAll(text, "\t", "    "), s.Width-ansi.StringWidth(head))
	}
	return head + text
}

// LogWriter writes a whole log as `flow logs` shows it on a terminal or a pipe:
// each line with the step before it when prefix is set, harmful sequences gone.
// Close ends a begun line.
type LogWriter struct {
	w   io.Writer
	sc  scrubber
	buf []byte
}

// NewLogWriter for one stream of one step; step "" means no prefix.
func NewLogWriter(w io.Writer, step string, s Style) *LogWriter {
	l := &LogWriter{w: w, sc: scrubber{sgr: s.Color}}
	if step != "" {
		l.sc.prefix = s.paint(toneDim, clean(step)+" |") + " "
	}
	return l
}

// Write takes output cut anywhere.
func (l *LogWriter) Write(p []byte) (int, error) {
	for n := 0; n < len(p); n += outputSlice {
		l.buf = l.sc.write(l.buf[:0], p[n:min(n+outputSlice, len(p))])
		if _, err := l.w.Write(l.buf); err != nil {
			return n, fmt.Errorf("write log: %w", err)
		}
	}
	return len(p), nil
}

// Close ends a begun line.
func (l *LogWriter) Close() error {
	if l.buf = l.sc.flush(l.buf[:0], true); len(l.buf) == 0 {
		return nil
	}
	if _, err := l.w.Write(l.buf); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}
