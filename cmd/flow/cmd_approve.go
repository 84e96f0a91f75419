package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/workflow"
)

// takenWithin is how long an answer waits to be seen by the process of its run, which
// looks every 100 ms.
const takenWithin = 5 * time.Second

// maxNote bounds what a person says to a question, in bytes.
const maxNote = 10_000

type answerFlags struct {
	choice, note string
	goOn         bool
	resumeFlags
}

func cmdApprove(a *app) *cobra.Command {
	f := &answerFlags{}
	c := &cobra.Command{
		Use: "approve RUN STEP", Short: "Answer a step that waits for a person",
		Long: "Answers an `approve` step with one of its choices. The process of the run goes on\n" +
			"at once; where none is left the answer is stored, and `flow resume` goes on with it,\n" +
			"or --resume does so here. A question is answered once. RUN is an id, a prefix of one,\n" +
			"or latest." + exitHelp(0, 1, 2, 3, 4, 5, 6, 7, 130, 143),
		Example: "  flow approve k7m2 deploy\n  flow approve latest deploy --choice hold --note 'after the fair'\n  flow approve k7m2 deploy --resume",
		Args:    exactly(2, "a run and one of its steps"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.answer(cmd.Context(), args[0], args[1], f) },
	}
	c.Flags().StringVar(&f.choice, "choice", "", "one of the step's choices (default: approve, or the only one)")
	f.add(c)
	_ = c.RegisterFlagCompletionFunc("choice", a.completeChoice) // the flag is there
	return c
}

func cmdReject(a *app) *cobra.Command {
	f := &answerFlags{choice: workflow.ChoiceReject}
	c := &cobra.Command{
		Use: "reject RUN STEP", Short: "Refuse what a step waits for",
		Long: "Answers an `approve` step with no: it fails, and so does the run, unless the step has\n" +
			"continue_on_error. Else as `flow approve`." + exitHelp(0, 1, 2, 3, 4, 5, 6, 7, 130, 143),
		Example: "  flow reject k7m2 deploy --note 'the migration is missing'",
		Args:    exactly(2, "a run and one of its steps"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.answer(cmd.Context(), args[0], args[1], f) },
	}
	f.add(c)
	return c
}

func (f *answerFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.note, "note", "", "why, for the record and for steps.ID.outputs.note")
	fl.BoolVar(&f.goOn, "resume", false, "continue the run here, when no process runs it")
	fl.StringVar(&f.envFile, "env-file", "", "with --resume: file of NAME=value for the declared secrets")
	fl.StringVar(&f.output, "output", "", "with --resume: tui, plain or json")
	fl.BoolVar(&f.wait, "wait", false, "with --resume: wait here for further approvals")
	fl.DurationVar(&f.grace, "grace", 10*time.Second, "with --resume: how long finally may take after Ctrl-C or SIGTERM")
}

// answer stores a person's answer, and says what becomes of the run.
func (a *app) answer(ctx context.Context, word, step string, f *answerFlags) error {
	store, id, err := a.foundToWrite(ctx, word)
	if err != nil {
		return err
	}
	defer store.Close()
	past, err := replay(ctx, store, id)
	if err != nil {
		return err
	}
	b, err := answerTo(past.run, step, f, time.Now().UTC())
	if err == nil {
		err = store.PutAnswer(ctx, id, b)
	}
	var first *state.AnsweredError
	switch {
	case errors.As(err, &first):
		return answeredBefore(id, first.First)
	case err != nil:
		return err
	}
	taken, err := taken(ctx, store, id, b)
	if err != nil {
		return err
	}
	if !taken && f.goOn {
		store.Close()
		return a.resume(ctx, id, &f.resumeFlags)
	}
	return a.printAnswer(id, b, taken)
}

func (a *app) printAnswer(run string, b engine.ApprovalAnswered, taken bool) error {
	next := "flow resume " + run
	if a.json {
		v := map[string]any{"run": run, "step": b.Step, "choice": b.Choice, "by": b.By, "note": b.Note, "at": b.At, "taken": taken}
		if !taken {
			v["continue"] = next
		}
		return report.WriteJSON(a.out, v)
	}
	text := fmt.Sprintf("run %s, step %s: %s, by %s\n", run, b.Step, b.Choice, b.By)
	if taken {
		text += "the run goes on\n"
	} else {
		text += "no process runs it now; continue with: " + next + "\n"
	}
	_, err := fmt.Fprint(a.out, text)
	return err
}

// answerTo makes the answer to a question that is open; else the error says what
// became of it.
func answerTo(run *engine.Run, step string, f *answerFlags, now time.Time) (engine.ApprovalAnswered, error) {
	b := engine.ApprovalAnswered{Step: step, Choice: f.choice, By: whoami(), Note: f.note, At: now}
	n, ok := run.Node(step)
	if !ok {
		return b, &usageError{msg: fmt.Sprintf("run %s has no step %q", run.ID, step), hint: waitsFor(run)}
	}
	if len(f.note) > maxNote {
		return b, &usageError{msg: fmt.Sprintf("the note has %d bytes, at most %d are kept", len(f.note), maxNote)}
	}
	q := n.Approval
	switch {
	case q != nil && q.Answer != nil:
		return b, answeredBefore(run.ID, *q.Answer)
	case n.Status != engine.StepWaiting:
		return b, &usageError{msg: fmt.Sprintf("step %s of run %s does not wait for a person: it is %s", step, run.ID, n.Status), hint: waitsFor(run)}
	case q.Expired(now):
		return b, &usageError{msg: fmt.Sprintf("step %s of run %s: the answer comes too late, it was expected until %s", step, run.ID, q.Expires.Format(time.RFC3339)),
			hint: "`flow resume " + run.ID + "` goes on: the step timed out"}
	}
	b.Request = q.Request
	yes := slices.DeleteFunc(slices.Clone(q.Choices), func(c string) bool { return c == workflow.ChoiceReject })
	switch {
	case b.Choice == "" && (len(yes) == 1 || slices.Contains(yes, workflow.ChoiceApprove)):
		b.Choice = yes[0]
		if slices.Contains(yes, workflow.ChoiceApprove) {
			b.Choice = workflow.ChoiceApprove
		}
	case b.Choice == "":
		return b, &usageError{msg: fmt.Sprintf("step %s asks for a choice: %s", step, strings.Join(yes, ", ")), hint: "give it with --choice, or say no with `flow reject`"}
	case !slices.Contains(q.Answers(), b.Choice):
		return b, &usageError{msg: fmt.Sprintf("step %s has no choice %q", step, b.Choice), hint: "its choices are " + strings.Join(q.Answers(), ", ")}
	}
	return b, nil
}

func answeredBefore(run string, b engine.ApprovalAnswered) error {
	note := ""
	if b.Note != "" {
		note = fmt.Sprintf(" (%s)", b.Note)
	}
	return &usageError{msg: fmt.Sprintf("step %s of run %s was answered already: %s, by %s at %s%s", b.Step, run, b.Choice, b.By, b.At.UTC().Format(time.RFC3339), note),
		hint: "a question is answered once; see `flow show " + run + "`"}
}

func waitsFor(run *engine.Run) string {
	if ids := run.AskedFor(); len(ids) > 0 {
		return "what waits in this run: " + strings.Join(ids, ", ")
	}
	return "nothing in this run waits for a person; see `flow show " + run.ID + "`"
}

// whoami is who answers, as the system knows them.
func whoami() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "uid " + strconv.Itoa(os.Getuid())
}

// taken waits until the process of the run has the answer; false when there is none.
func taken(ctx context.Context, store *state.Store, run string, b engine.ApprovalAnswered) (bool, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(takenWithin); ; {
		// The holder first: one that ends after this look has taken what it took.
		_, held, err := store.Holder(run)
		if err != nil {
			return false, err
		}
		open, err := store.OpenAnswers(ctx, run)
		if err != nil {
			return false, err
		}
		switch {
		case !slices.ContainsFunc(open, func(o engine.ApprovalAnswered) bool { return o.Request == b.Request }):
			return true, nil
		case !held:
			return false, nil
		case time.Now().After(end):
			return true, nil // it is busy, and looks later
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// questions are what a run's waiting steps ask, by step.
func questions(ctx context.Context, store *state.Store, run string, infos []state.StepInfo) (map[string]*report.ApprovalView, error) {
	if !slices.ContainsFunc(infos, func(i state.StepInfo) bool { return i.Status == engine.StepWaiting }) {
		return nil, nil
	}
	events, err := store.Events(ctx, run, 0)
	if err != nil {
		return nil, err
	}
	answers, err := store.OpenAnswers(ctx, run)
	if err != nil {
		return nil, err
	}
	out := map[string]*report.ApprovalView{}
	for _, e := range events {
		switch b := e.Body.(type) {
		case engine.ApprovalRequested:
			v := report.AskedView(run, b, e.At)
			out[b.Step] = &v
			for _, a := range answers {
				if a.Request == e.Seq {
					v.Answer = &report.AnswerView{Choice: a.Choice, By: a.By, Note: a.Note, At: a.At}
				}
			}
		case engine.StepFinished:
			delete(out, b.Step)
		case engine.RunResumed:
			for _, r := range b.Reset {
				delete(out, r.Step)
			}
		}
	}
	return out, nil
}

// completeQuestion completes a run that waits, then the step that it waits with.
func (a *app) completeQuestion(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	store, err := a.readState()
	if err != nil || store == nil || len(args) > 1 {
		return nil, none
	}
	defer store.Close()
	var out []string
	if len(args) == 1 {
		for _, v := range a.openQuestions(cmd.Context(), store, args[0]) {
			out = append(out, cobra.CompletionWithDesc(v.Step, v.Message))
		}
		return out, none
	}
	infos, err := store.Runs(cmd.Context(), state.Filter{Limit: 50})
	if err != nil {
		return nil, none
	}
	for _, i := range infos {
		if i.Steps[engine.StepWaiting] > 0 {
			out = append(out, cobra.CompletionWithDesc(i.ID, i.Workflow+", "+string(i.Status)))
		}
	}
	return out, none
}

func (a *app) completeChoice(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	store, err := a.readState()
	if err != nil || store == nil || len(args) < 2 {
		return nil, none
	}
	defer store.Close()
	for _, v := range a.openQuestions(cmd.Context(), store, args[0]) {
		if v.Step == args[1] {
			return v.Choices, none
		}
	}
	return nil, none
}

// openQuestions of a run, for completion: errors complete nothing.
func (a *app) openQuestions(ctx context.Context, store *state.Store, word string) []*report.ApprovalView {
	id, err := store.Resolve(ctx, word)
	if err != nil {
		return nil
	}
	infos, err := store.Steps(ctx, id)
	if err != nil {
		return nil
	}
	asked, err := questions(ctx, store, id, infos)
	if err != nil {
		return nil
	}
	var out []*report.ApprovalView
	for _, step := range sortedKeys(asked) {
		if asked[step].Answer == nil {
			out = append(out, asked[step])
		}
	}
	return out
}
