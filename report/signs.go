package report

import "flowrun.dev/flow/engine"

// glyphs are the characters that are not letters.
type glyphs struct {
	sep, ellipsis, bar            string
	full, empty                   string // progress
	ok, failed, skipped, notRun   string
	cancelled, interrupted, again string
	running, pending              string
}

// waitSign stands for a question to a person.
const waitSign = "?"

func (s Style) glyphs() glyphs {
	if s.ASCII {
		return glyphs{sep: " - ", ellipsis: "...", bar: "|", full: "#", empty: "-",
			ok: "+", failed: "x", skipped: "o", notRun: ".", cancelled: "c", interrupted: "!", again: "~",
			running: ">", pending: "."}
	}
	return glyphs{sep: " · ", ellipsis: "…", bar: "│", full: "█", empty: "░",
		ok: "✓", failed: "✗", skipped: "○", notRun: "·", cancelled: "⊘", interrupted: "‖", again: "↻",
		running: "▸", pending: "·"}
}

// tone is the role of a colour; the table below says which one it is.
type tone uint8

const (
	toneNone tone = iota
	toneGood
	toneBad
	toneWarn
	toneDim
	toneName
	toneLive
)

func (t tone) sgr() string {
	switch t {
	case toneGood:
		return "32"
	case toneBad:
		return "31"
	case toneWarn:
		return "33"
	case toneDim:
		return "2"
	case toneName:
		return "1"
	case toneLive:
		return "36"
	}
	return ""
}

// paint colours text; nothing when colour is off.
func (s Style) paint(t tone, text string) string {
	if !s.Color || t == toneNone || text == "" {
		return text
	}
	return "\x1b[" + t.sgr() + "m" + text + "\x1b[0m"
}

// look is how a status is shown.
type look struct {
	sign string
	tone tone
	word string
}

// stepLook is the table of step statuses; an unknown one is shown as its word.
func (s Style) stepLook(st engine.StepStatus) look {
	g := s.glyphs()
	switch st {
	case engine.StepSucceeded:
		return look{g.ok, toneGood, "succeeded"}
	case engine.StepFailed:
		return look{g.failed, toneBad, "failed"}
	case engine.StepTimedOut:
		return look{g.failed, toneBad, "timed out"}
	case engine.StepIsSkipped:
		return look{g.skipped, toneDim, "skipped"}
	case engine.StepIsNotRun:
		return look{g.notRun, toneDim, "not run"}
	case engine.StepCancelled:
		return look{g.cancelled, toneWarn, "cancelled"}
	case engine.StepInterrupted:
		return look{g.interrupted, toneWarn, "interrupted"}
	case engine.StepRetrying:
		return look{g.again, toneWarn, "retrying"}
	case engine.StepWaiting:
		return look{waitSign, toneWarn, "waiting"}
	case engine.StepRunning:
		return look{g.running, toneLive, "running"}
	case engine.StepPending:
		return look{g.pending, toneDim, "pending"}
	}
	return look{"?", toneNone, clean(string(st))}
}

// runLook is the table of run statuses.
func (s Style) runLook(st engine.RunStatus) look {
	g := s.glyphs()
	switch st {
	case engine.RunSucceeded:
		return look{g.ok, toneGood, "succeeded"}
	case engine.RunFailed:
		return look{g.failed, toneBad, "failed"}
	case engine.RunCancelled:
		return look{g.cancelled, toneWarn, "cancelled"}
	case engine.RunInterrupted:
		return look{g.interrupted, toneWarn, "interrupted"}
	case engine.RunWaiting:
		return look{waitSign, toneWarn, "waiting"}
	case engine.RunOutOfBudget:
		return look{g.failed, toneBad, "out of budget"}
	case engine.RunRateLimited:
		return look{g.again, toneWarn, "rate limited"}
	case engine.RunRunning:
		return look{g.running, toneLive, "running"}
	}
	return look{"?", toneNone, clean(string(st))}
}

// advice says what a person does about a class of error, "" when the error says
// all there is.
func advice(c engine.Class) string {
	switch c {
	case engine.ClassTimeout:
		return "give the step a longer `timeout`, or find what it waits for in its output"
	case engine.ClassInfrastructure:
		return "run `flow doctor`, then continue the run"
	case engine.ClassRateLimit:
		return "wait, then continue the run"
	case engine.ClassBudget:
		return "raise the limit in the file, then continue the run"
	case engine.ClassDenied:
		return "add the tool to the step's `allowed_tools`, or set `on_denied: tell`"
	case engine.ClassInvalid:
		return "mend the file; `flow validate` shows all mistakes"
	}
	return ""
}
