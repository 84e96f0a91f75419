package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"flowrun.dev/flow/workflow"
)

// maxQuestion bounds a message, in characters.
const maxQuestion = 10_000

// ApprovalRequested freezes what a person is asked; it follows the step's StepStarted.
// Error: the question could not be made, the step then fails with class invalid.
type ApprovalRequested struct {
	Step    string   `json:"step"`
	Message string   `json:"message"`
	Choices []string `json:"choices"`
	// Expires is when an answer comes too late, zero for never.
	Expires time.Time `json:"expires,omitzero"`
	Error   string    `json:"error,omitempty"`
}

// ApprovalAnswered is what a person said. It comes from another process, through the
// inbox; At is when they said it, Request the Seq of the ApprovalRequested that it is
// the answer to.
type ApprovalAnswered struct {
	Step    string    `json:"step"`
	Request int64     `json:"request"`
	Choice  string    `json:"choice"`
	By      string    `json:"by"`
	Note    string    `json:"note,omitempty"`
	At      time.Time `json:"at"`
}

// Type of the event.
func (ApprovalRequested) Type() string { return "approval_requested" }

// Type of the event.
func (ApprovalAnswered) Type() string { return "approval_answered" }

// Approval is a question to a person and its answer.
type Approval struct {
	Request int64 // Seq of the ApprovalRequested
	Since   time.Time
	ApprovalRequested
	Answer *ApprovalAnswered // nil while there is none
}

// Expired says whether an answer at that time comes too late.
func (a *Approval) Expired(at time.Time) bool { return !a.Expires.IsZero() && !at.Before(a.Expires) }

// Answers are the choices that it takes: those of the file, and the rejection that is
// always there.
func (a *Approval) Answers() []string {
	if slices.Contains(a.Choices, workflow.ChoiceReject) {
		return a.Choices
	}
	return append(slices.Clip(a.Choices), workflow.ChoiceReject)
}

// AskedFor are the ids of the approvals that wait for a person, in the order of the
// graph.
func (r *Run) AskedFor() []string {
	var ids []string
	for i := range r.asking.all() {
		if a := r.Nodes[i].Approval; a != nil && a.Error == "" && a.Answer == nil {
			ids = append(ids, r.graph[i].id)
		}
	}
	return ids
}

// Expects says whether an answer fits a question that is open.
func (r *Run) Expects(b ApprovalAnswered) bool {
	i, ok := r.find(b.Step)
	if !ok || r.Status != RunRunning || r.Nodes[i].Status != StepWaiting {
		return false
	}
	a := r.Nodes[i].Approval
	return a.Answer == nil && a.Error == "" && a.Request == b.Request && !a.Expired(b.At) && slices.Contains(a.Answers(), b.Choice)
}

// askPerson: an approval that has begun → waiting.
func (r *Run) askPerson(i int, e Event, b ApprovalRequested) bool {
	n := &r.Nodes[i]
	if r.graph[i].role != workflow.RoleApprove || n.Status != StepRunning {
		return false
	}
	n.Status, n.Approval = StepWaiting, &Approval{Request: e.Seq, Since: e.At, ApprovalRequested: b}
	return true
}

// answer: waiting → waiting, with the answer.
func (r *Run) answer(i int, b ApprovalAnswered) bool {
	if !r.Expects(b) {
		return false
	}
	r.Nodes[i].Approval.Answer = &b
	return true
}

// approvals asks, and ends what was answered, is too late or is to stop.
func (d *decider) approvals(stopping bool) {
	r := d.r
	for i := range r.asking.all() {
		n := &r.Nodes[i]
		if !r.insideOpen(i) {
			continue // the scope around it goes on first
		}
		switch a := n.Approval; {
		case stopping, n.Stop != "":
			d.add(CloseApproval{Node: i})
		case a == nil:
			d.add(RequestApproval{Node: i})
		case a.Answer != nil, a.Error != "", a.Expired(d.now):
			d.add(CloseApproval{Node: i})
		case !a.Expires.IsZero():
			d.wakeAt(a.Expires)
		}
	}
}

// unanswered is the first approval that waits, -1 for none.
func (r *Run) unanswered() int {
	for i := range r.asking.all() {
		if r.Nodes[i].Approval != nil {
			return i
		}
	}
	return -1
}

// await: nothing can be done before somebody answers.
func (d *decider) await() {
	r := d.r
	if len(d.out) > 0 || d.due || r.running.len > 0 || r.open == 0 || r.stopping() || r.unanswered() < 0 {
		return
	}
	a := Await{Cause: "step " + strings.Join(r.AskedFor(), ", step ") + " waits for a person"}
	if _, class := r.verdict(); class != ClassNone {
		a.Class = class // exit codes: what failed goes first
		k, _ := r.failed.worst()
		a.Cause += "; " + r.firstOf(k, 0, r.finally)
	}
	d.add(a)
}

// decided is the outcome of an approval that ends now.
func (r *Run) decided(i int) Outcome {
	n := &r.Nodes[i]
	a := n.Approval
	out := Outcome{Status: StepSucceeded, Started: r.at.UTC()}
	if a != nil {
		out.Started, out.Duration, out.Command = a.Since.UTC(), max(0, r.at.Sub(a.Since)), a.Message
	}
	fail := func(status StepStatus, class Class, format string, args ...any) Outcome {
		out.Status, out.Class, out.Error = status, class, fmt.Sprintf(format, args...)
		return out
	}
	switch {
	case a != nil && a.Answer != nil:
		b := a.Answer
		out.Outputs = map[string]any{"choice": b.Choice, "by": b.By, "note": b.Note, "at": b.At.UTC().Format(time.RFC3339)}
		if b.Choice != workflow.ChoiceReject {
			return out
		}
		out.ExitCode = 1
		text := "rejected by " + b.By
		if b.Note != "" {
			text += ": " + b.Note
		}
		return fail(StepFailed, ClassRejected, "%s", text)
	case a != nil && a.Error != "":
		out.ExitCode = 1
		return fail(StepFailed, ClassInvalid, "%s", a.Error)
	case a != nil && a.Expired(r.at):
		return fail(StepTimedOut, ClassTimeout, "nobody answered within %s", r.graph[i].step.Approve.Timeout)
	case n.Stop == StepTimedOut:
		return fail(StepTimedOut, ClassTimeout, "%s", n.StopReason)
	case n.Stop != "":
		return fail(n.Stop, ClassCancelled, "%s", n.StopReason)
	case cancelled(r.CancelCause):
		return fail(StepCancelled, ClassCancelled, "%s", causeInWords(r.CancelCause))
	case r.CancelCause == "timeout":
		return fail(StepTimedOut, ClassTimeout, "%s", causeInWords(r.CancelCause))
	case r.CancelCause != "":
		return fail(StepInterrupted, ClassCancelled, "%s", causeInWords(r.CancelCause))
	}
	return fail(StepInterrupted, r.limitClass(), "%s", r.stopWords())
}

// ask computes the question. It is a text that is stored and shown, so it passes
// through the same gate as outputs: it cannot hold a secret.
func (l *Loop) ask(i int, id string) Body {
	a := l.Run.graph[i].step.Approve
	b := ApprovalRequested{Step: id, Choices: a.Choices}
	if a.Timeout > 0 {
		b.Expires = l.now.Add(a.Timeout).UTC()
	}
	vars, err := l.vars(i, a.Message.UsesFiles())
	if err == nil {
		_, err = l.Runner.Compute([]workflow.Output{{Name: "message", Expr: a.Message}}, vars)
	}
	if err == nil {
		b.Message, err = a.Message.EvalString(vars)
	}
	if n := utf8.RuneCountInString(b.Message); err == nil && n > maxQuestion {
		err = fmt.Errorf("it has %d characters, at most %d can be shown to a person", n, maxQuestion)
	}
	if err != nil {
		b.Message, b.Error = "", fmt.Sprintf("make the message of approve: %v", err)
	}
	return b
}

// closeApproval ends an approval. One that was answered has its outputs, beside those
// that the file computes.
func (l *Loop) closeApproval(i int, id string) Body {
	l.Run.at = l.now
	g := &l.Run.graph[i]
	f := StepFinished{Step: id, Attempt: l.Run.Nodes[i].Attempts, Outcome: l.Run.decided(i)}
	if f.Outcome.Status != StepSucceeded || len(g.step.Outputs) == 0 {
		return f
	}
	self := l.Run.view(i)
	self.Status, self.Outputs = string(StepSucceeded), f.Outcome.Outputs
	values, err := l.compute(g.frame, g.step.Outputs, &self)
	if err != nil {
		f.Outcome.Status, f.Outcome.Class, f.Outcome.ExitCode, f.Outcome.Error = StepFailed, ClassInvalid, 1, err.Error()
		return f
	}
	for name, v := range f.Outcome.Outputs {
		if _, own := values[name]; !own {
			values[name] = v
		}
	}
	f.Outcome.Outputs = values
	return f
}
