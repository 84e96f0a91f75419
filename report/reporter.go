package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/workflow"
)

// Reporter follows one run.
//
// Observe is called from one goroutine, in order, and does not block. Output may
// be called from several goroutines, also for the same step; it keeps nothing of
// p. Final, at most once and before Close, says what the process will return.
// Close writes what is left, with the summary, and is idempotent; its error is
// the first one that writing met.
type Reporter interface {
	engine.Observer
	// Output is live output of a step, redacted already, cut anywhere.
	Output(step string, stderr bool, p []byte)
	Final(Final)
	Close() error
}

// Final is the end as the caller knows it; without it the reporter has only what
// RunFinished said.
type Final struct {
	Status   engine.RunStatus
	ExitCode int
	Class    string // the word of the exit table (docs/cli.md)
	Cause    string // in words, "" on success
	Continue string // the exact command that continues the run, "" when none does
}

// Config of a reporter. Only Out is required.
type Config struct {
	Out io.Writer
	Style
	// RunID, Workflow and Attempt are needed for a resume, whose first event
	// (RunResumed) does not say them; else RunStarted does.
	RunID    string
	Workflow string
	Attempt  int
	// Plan gives the steps in order and their number; nil when unknown.
	Plan *workflow.Plan
	// Past are the events before this attempt (a resume): what steps became, what was
	// denied and what it cost count in the summary.
	Past []engine.Event
	// Sandbox is what the run is going to use, as the preflight chose it (without an
	// ID); the first line names it. Zero when unknown.
	Sandbox engine.SandboxCreated
	// Terminal that Out is; tui needs one.
	Terminal Terminal
}

// Kind names a reporter.
type Kind string

// The reporters.
const (
	Plain Kind = "plain" // lines, for pipes and CI
	JSON  Kind = "json"  // one object a line
	TUI   Kind = "tui"   // a live view, on a terminal only
)

// KindRow is one row of the table of reporters.
type KindRow struct {
	Kind  Kind
	Means string
	new   func(Config) (Reporter, error)
}

// Kinds is the table of reporters.
func Kinds() []KindRow {
	return []KindRow{
		{TUI, "a live view; on a terminal only", newTUI},
		{Plain, "lines; for pipes and CI", newPlain},
		{JSON, "one JSON object a line", newJSON},
	}
}

// DefaultKind for a terminal: tui where it can be shown.
func DefaultKind(t Terminal) Kind {
	if t.Is && !t.Dumb {
		return TUI
	}
	return Plain
}

// New makes a reporter. An unknown kind is the caller's mistake, and so is tui
// without a terminal that can show it: nothing falls back silently.
func New(kind Kind, cfg Config) (Reporter, error) {
	var names []string
	for _, row := range Kinds() {
		if row.Kind == kind {
			return row.new(cfg.withDefaults())
		}
		names = append(names, string(row.Kind))
	}
	return nil, fmt.Errorf("choose output %q: not one of %s", kind, strings.Join(names, ", "))
}

func (c Config) withDefaults() Config {
	c.Style = c.Style.withDefaults()
	if c.Attempt == 0 {
		c.Attempt = 1
	}
	return c
}

// Style says how text may look. The zero value is 80 columns, no colour, UTF-8.
type Style struct {
	Width int // columns, default 80
	Color bool
	ASCII bool // the locale is not UTF-8
	// Now for relative times; default time.Now.
	Now func() time.Time
}

func (s Style) withDefaults() Style {
	if s.Width <= 0 {
		s.Width = 80
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	return s
}
