package report

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/workflow"
)

// ApprovalView is a question to a person.
type ApprovalView struct {
	Step    string    `json:"step"`
	Message string    `json:"message"`
	Choices []string  `json:"choices"`
	Since   time.Time `json:"since"`
	// Expires is when an answer comes too late, zero for never.
	Expires time.Time `json:"expires,omitzero"`
	// Commands are those that answer, one for each choice.
	Commands []string `json:"commands"`
	// Answer was given, and the run has not gone on since; nil for none.
	Answer *AnswerView `json:"answer,omitempty"`
}

// AnswerView is what a person said.
type AnswerView struct {
	Choice string    `json:"choice"`
	By     string    `json:"by"`
	Note   string    `json:"note,omitempty"`
	At     time.Time `json:"at"`
}

// AskedView is the view of a question that was asked at that time.
func AskedView(run string, b engine.ApprovalRequested, at time.Time) ApprovalView {
	v := ApprovalView{Step: b.Step, Message: b.Message, Choices: b.Choices, Since: at.UTC(), Expires: b.Expires}
	for _, c := range b.Choices {
		if c != workflow.ChoiceReject {
			v.Commands = append(v.Commands, approveCommand(run, b.Step, c, len(b.Choices)))
		}
	}
	v.Commands = append(v.Commands, "flow reject "+shellWord(run)+" "+shellWord(b.Step))
	return v
}

func approveCommand(run, step, choice string, choices int) string {
	c := "flow approve " + shellWord(run) + " " + shellWord(step)
	if choice != workflow.ChoiceApprove || choices > 2 {
		c += " --choice " + choice
	}
	return c
}

// shellWord quotes a word that a shell would read otherwise: the id of an instance
// has brackets.
func shellWord(s string) string {
	s = clean(s)
	plain := func(r rune) bool {
		return r == '_' || r == '-' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	if s != "" && !slices.ContainsFunc([]rune(s), func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// asks tells of a question, and how it is answered. The commands are never cut: they
// are there to be copied.
func (n *narrator) asks(dst []string, a ApprovalView) []string {
	dst = append(dst, n.signed(waitSign, toneWarn, a.Step, "waits for a person: "+clean(a.Message)+until(a)))
	return n.commands(dst, a)
}

func (n *narrator) commands(dst []string, a ApprovalView) []string {
	for _, c := range a.Commands {
		dst = append(dst, "  "+n.paint(toneName, c))
	}
	return dst
}

func until(a ApprovalView) string {
	if a.Expires.IsZero() {
		return ""
	}
	return " (until " + moment(a.Expires) + ")"
}

func answerWords(a AnswerView) string {
	text := clean(a.Choice)
	switch a.Choice {
	case workflow.ChoiceApprove:
		text = "approved"
	case workflow.ChoiceReject:
		text = "rejected"
	}
	text += " by " + clean(a.By)
	if a.Note != "" {
		text += ": " + clean(a.Note)
	}
	return text
}

// showQuestion writes what a person is asked, or was and what they said.
func showQuestion(b *bytes.Buffer, r *StepRow, s Style) {
	a := r.Approval
	if a == nil {
		return
	}
	lk := s.stepLook(r.Status)
	fmt.Fprintln(b)
	fmt.Fprintln(b, s.clip(s.paint(lk.tone, lk.sign)+" "+s.paint(toneName, clean(r.ID))+s.glyphs().sep+"asked "+moment(a.Since)+until(*a), s.Width))
	paragraph(b, s, "asks: ", toneDim, a.Message)
	if a.Answer != nil {
		paragraph(b, s, "answered: ", toneGood, answerWords(*a.Answer)+", "+moment(a.Answer.At)+"; the run has not gone on since")
		return
	}
	for _, c := range a.Commands {
		fmt.Fprintln(b, "  "+s.paint(toneName, c))
	}
}
