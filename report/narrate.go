package report

import (
	"fmt"
	"strconv"
	"time"

	"flowrun.dev/flow/engine"
)

// narrator turns events into lines for people; plain prints all of them, tui
// those that stay above its live picture.
type narrator struct {
	Style
	t *tally
	// starts: a line for the start of each step as well.
	starts bool
}

// lines appends what an event has to say. The tally has seen the event.
func (n *narrator) lines(dst []string, ev engine.Event) []string {
	g := n.glyphs()
	switch b := ev.Body.(type) {
	case engine.RunStarted:
		return append(dst, n.head(""))
	case engine.RunResumed:
		dst = append(dst, n.head("resumed, attempt "+strconv.Itoa(b.Attempt)))
		for _, r := range b.Reset {
			if r.Reason == engine.ReasonGoesOn {
				continue // it does not run again
			}
			dst = append(dst, n.signed(g.again, toneWarn, r.Step, "runs again: "+clean(r.Reason)))
		}
		return dst
	case engine.SandboxCreated:
		if b.Size > 0 {
			what := "pool"
			if b.Name != "" {
				what = "pool " + clean(b.Name)
			}
			return append(dst, n.paint(toneDim, "flow: "+what+": "+strconv.Itoa(b.Ready)+" of "+strconv.Itoa(b.Size)+" sandboxes are ready"))
		}
		if b.Driver == n.t.sandbox.Driver && b.Tier == n.t.sandbox.Tier {
			break // the first line said so
		}
		if b.Name != "" {
			return append(dst, n.paint(toneDim, "flow: sandbox "+clean(b.Name)+": "+placeOf(b)))
		}
		return append(dst, n.paint(toneDim, "flow: "+placeOf(b)))
	case engine.ConditionEvaluated:
		if b.Error != "" {
			return append(dst, n.signed(g.failed, toneBad, b.Step, "condition: "+clean(b.Error)))
		}
	case engine.StepSkipped:
		return append(dst, n.signed(g.skipped, toneDim, b.Step, "skipped: "+skipWords(b)))
	case engine.StepNotRun:
		if b.Cancelled {
			return append(dst, n.signed(g.notRun, toneDim, b.Step, "cancelled before it started: "+clean(b.Reason)))
		}
		return append(dst, n.signed(g.notRun, toneDim, b.Step, "not run: "+clean(b.Reason)))
	case engine.StepStarted:
		if !n.starts {
			break
		}
		what := ""
		if b.Attempt > 1 {
			what = "attempt " + strconv.Itoa(b.Attempt)
		}
		return append(dst, n.signed(g.running, toneLive, b.Step, what))
	case engine.ForeachExpanded:
		if b.Error == "" {
			return append(dst, n.signed(g.running, toneDim, b.Step, count(len(b.Keys), "item")))
		}
	case engine.ApprovalRequested:
		if b.Error == "" {
			return n.asks(dst, AskedView(n.t.run, b, ev.At))
		}
	case engine.ApprovalAnswered:
		return append(dst, n.signed(waitSign, toneDim, b.Step, answerWords(AnswerView{b.Choice, b.By, b.Note, b.At})))
	case engine.StepSlow:
		return append(dst, n.signed(g.running, toneWarn, b.Step, "still running after "+duration(b.After)))
	case engine.StopRequested:
		step := b.Step
		if step == "" {
			step = "flow"
		}
		return append(dst, n.signed(g.again, toneWarn, step, "stopping: "+clean(b.Reason)))
	case engine.StepFinished:
		return n.finished(dst, b)
	case engine.RetryScheduled:
		when := "attempt " + strconv.Itoa(b.Attempt) + " at " + b.At.UTC().Format("15:04:05Z") +
			" (in " + duration(b.At.Sub(ev.At)) + ")"
		return append(dst, n.signed(g.again, toneWarn, b.Step, when+": "+clean(b.Reason)))
	case engine.Egress:
		if b.Verdict == "allowed" || b.Count > 1 { // the first of its kind is enough
			break
		}
		what := "network: " + clean(destination(b)) + " " + clean(b.Verdict) + ": " + clean(b.Reason)
		return append(dst, n.signed(g.cancelled, toneWarn, b.Step, what))
	case engine.BackgroundEnded:
		switch {
		case b.Early && b.Error != "":
			return append(dst, n.signed(g.failed, toneBad, b.Step, "its background process ended early: "+clean(b.Error)))
		case b.Early:
			return append(dst, n.signed(g.running, toneWarn, b.Step, "its background process has ended: exit code 0"))
		}
	case engine.RunFinished:
		return n.artifacts(dst, b.Artifacts)
	case engine.SourceChanged:
		what := "flow: workspace.from was changed while the run used it: "
		for i, p := range b.Paths[:min(len(b.Paths), shownSource)] {
			if i > 0 {
				what += ", "
			}
			what += clean(p)
		}
		if more := b.Count - min(len(b.Paths), shownSource); more > 0 {
			what += fmt.Sprintf(" and %d more", more)
		}
		return append(dst, n.paint(toneWarn, what+"; steps that ran meanwhile may have seen that, the next ones see what was imported"))
	case engine.CancelRequested:
		return append(dst, n.paint(toneWarn, "flow: stopping ("+clean(b.Cause)+")"))
	}
	return dst
}

// shownSource bounds the changed paths that are named.
const shownSource = 5

func (n *narrator) head(what string) string {
	line := "flow: run " + clean(n.t.run)
	if n.t.workflow != "" {
		line += n.glyphs().sep + clean(n.t.workflow)
	}
	line = n.paint(toneName, line)
	if what != "" {
		line += n.glyphs().sep + what
	}
	if n.t.sandbox.Driver != "" {
		line += n.glyphs().sep + placeOf(n.t.sandbox)
	}
	return line
}

// placeOf is a sandbox's driver and tier in words, and why they are not stronger ones.
func placeOf(b engine.SandboxCreated) string {
	text := "sandbox " + clean(b.Driver)
	if b.Tier != "" {
		text += " (" + clean(b.Tier) + ")"
	}
	if b.Reason != "" {
		text += ": " + clean(b.Reason)
	}
	return text
}

// signed is a line about a step: sign, id, and what happened.
func (n *narrator) signed(sign string, t tone, step, what string) string {
	line := n.paint(t, sign) + " " + n.paint(toneName, clean(step))
	if what != "" {
		line += n.glyphs().sep + what
	}
	return line
}

// finished: the step's line, and for one that did not succeed why, and what to do.
func (n *narrator) finished(dst []string, b engine.StepFinished) []string {
	o, sep := b.Outcome, n.glyphs().sep
	lk := n.stepLook(o.Status)
	what := duration(o.Duration)
	if o.Status != engine.StepSucceeded {
		what = lk.word + sep + what
	}
	if o.Class == engine.ClassExitCode {
		what += sep + "exit code " + strconv.Itoa(o.ExitCode)
	}
	if o.Cached != "" {
		what += sep + "from the cache (run " + clean(o.Cached) + ")"
	}
	if o.ChangedCount > 0 {
		what += sep + count(o.ChangedCount, "file") + " changed"
	}
	if a := o.Artifacts; a != nil && len(a.Files) > 0 {
		what += sep + count(len(a.Files), "artifact")
	}
	if a := o.Agent; a != nil {
		what += sep + count(a.Turns, "turn")
		if m := money(a.CostUSD); m != "" {
			what += sep + m
		}
		if a.Denied > 0 {
			what += sep + n.paint(toneWarn, count(a.Denied, "denied call"))
		}
	}
	if o.Leftover > 0 {
		what += sep + "leftover processes ended: " + strconv.Itoa(o.Leftover)
	}
	dst = append(dst, n.signed(lk.sign, lk.tone, b.Step, what))
	if a := o.Agent; a != nil {
		for i, d := range a.Denials {
			if i == 10 {
				dst = append(dst, n.paint(toneDim, "  and "+strconv.Itoa(len(a.Denials)-i)+" more denials; see flow show "+clean(n.t.run)))
				break
			}
			dst = append(dst, "  "+n.paint(toneWarn, "denied:")+" "+clean(d.Tool)+": "+clean(d.Reason))
		}
	}
	if o.Status == engine.StepSucceeded || o.Artifacts != nil && len(o.Artifacts.LeftOut) > 0 {
		dst = n.artifacts(dst, o.Artifacts) // a step that failed may not have come so far
	}
	if o.CacheMiss != "" {
		dst = append(dst, "  "+n.paint(toneDim, "cache miss: "+clean(o.CacheMiss)))
	}
	if o.Error != "" {
		dst = append(dst, "  "+n.paint(toneBad, "error:")+" "+clean(o.Error))
	}
	if a := advice(o.Class); a != "" && o.Status != engine.StepSucceeded {
		dst = append(dst, "  "+n.paint(toneDim, "do:")+" "+a)
	}
	return dst
}

// tail is the end of a run: why, how it goes on, and last the summary.
func (n *narrator) tail(dst []string) []string {
	st, cause := n.t.status()
	if st != "" {
		lk := n.runLook(st)
		line := n.paint(lk.tone, lk.sign+" run "+lk.word)
		if cause != "" {
			line += ": " + clean(cause)
		}
		dst = append(dst, line)
	}
	word := "continue with: "
	if st == engine.RunWaiting && len(n.t.asked) > 0 {
		dst = append(dst, "answer with one of:")
		for _, a := range n.t.asked {
			dst = n.commands(dst, a)
		}
		word = "then " + word
	}
	if c := n.t.carryOn(); c != "" {
		dst = append(dst, word+n.paint(toneName, c))
	}
	return append(dst, n.t.summary(n.Style))
}

// elapsed of a step that runs.
func elapsed(st *stepTally, now time.Time) time.Duration {
	if st.status == engine.StepRunning && !st.started.IsZero() {
		return max(now.Sub(st.started), 0)
	}
	return st.duration
}

// artifacts warns of globs that matched nothing and of files that were left.
func (n *narrator) artifacts(dst []string, a *engine.Artifacts) []string {
	if a == nil {
		return dst
	}
	for _, glob := range a.Missing {
		dst = append(dst, "  "+n.paint(toneWarn, "artifacts:")+" nothing matches "+clean(glob))
	}
	for _, left := range a.LeftOut {
		dst = append(dst, "  "+n.paint(toneWarn, "artifacts:")+" left out: "+clean(left))
	}
	return dst
}

func skipWords(b engine.StepSkipped) string {
	if b.Reason != "" {
		return clean(b.Reason)
	}
	return "its condition is false"
}
