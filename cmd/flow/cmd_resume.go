package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/steps"
	"flowrun.dev/flow/workflow"
)

type resumeFlags struct {
	from, envFile, output string
	accept, keepSource    bool
	wait                  bool
	cancel                bool // see flow cancel
	grace                 time.Duration
	reports               reportFlags
}

func cmdResume(a *app) *cobra.Command {
	f := &resumeFlags{}
	c := &cobra.Command{
		Use:   "resume [RUN]",
		Short: "Continue a failed, interrupted or waiting run",
		Long: "Restores the newest checkpoint, skips what succeeded, and continues at what\n" +
			"failed or was in flight. RUN is an id, a prefix of one, latest (the default) or\nlatest-failed." + exitHelp(0, 1, 2, 3, 4, 5, 6, 7, 130, 143),
		Example: "  flow resume\n  flow resume k7m2 --from test\n  flow resume --accept-changes",
		Args:    atMost(1, "one run"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.resume(cmd.Context(), first(append(args, "latest")...), f)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.from, "from", "", "run this step again, and all that comes after it")
	fl.BoolVar(&f.accept, "accept-changes", false, "the file changed since: run the changed steps again, and what needs them")
	fl.BoolVar(&f.keepSource, "keep-source", false, "workspace.from changed since: go on with it as it was imported")
	fl.BoolVar(&f.wait, "wait", false, "wait here for the people that approvals ask, instead of ending with exit code 5")
	fl.StringVar(&f.envFile, "env-file", "", "file of NAME=value for the declared secrets")
	fl.StringVar(&f.output, "output", "", "tui, plain or json")
	f.reports.add(c)
	fl.DurationVar(&f.grace, "grace", 10*time.Second, "how long finally may take after Ctrl-C or SIGTERM")
	return c
}

func (a *app) resume(ctx context.Context, word string, f *resumeFlags) error {
	if err := f.reports.check(); err != nil {
		return err
	}
	if store, err := a.readState(); err != nil {
		return err
	} else if store == nil {
		return &usageError{msg: "there is no run to resume here", hint: "start one with `flow run FILE`"}
	} else {
		store.Close()
	}
	store, root, err := a.openState(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	id, err := store.Resolve(ctx, word)
	if err != nil {
		return err
	}
	// The lock first: what is read after it cannot change any more.
	owner, err := store.Acquire(ctx, id)
	if err != nil {
		return err
	}
	defer owner.Close()
	past, err := replay(ctx, store, id)
	if err != nil {
		return err
	}
	run, started := past.run, past.started
	plan, text, err := a.today(root, run, started, f)
	if err != nil {
		return err
	}
	if err := inPlaceResume(run.Plan().Workflow, plan.Workflow, id, f); err != nil {
		return err
	}
	drift, items := map[string]string{}, map[string]string{}
	if text != nil {
		for _, d := range engine.Drift(run.Plan().Workflow, plan.Workflow) {
			switch d.Change {
			case "removed":
			case "items":
				items[d.Step] = "the list of its foreach was changed"
			default:
				drift[d.Step] = "its definition was " + d.Change
			}
		}
	}
	resumed, err := engine.PlanResume(plan, run, engine.ResumeOptions{From: f.from, Changed: drift, Items: items})
	if err != nil {
		return err
	}
	if err := a.sourceDrift(ctx, store, past, root, f, &resumed); err != nil {
		return err
	}
	return a.goOn(ctx, store, owner, &continuation{past: past, plan: plan, text: text, resumed: resumed}, f)
}

// inPlaceResume refuses what would have to restore a tree that no checkpoint holds. A
// plain resume goes on in the tree as it is.
func inPlaceResume(was, now *workflow.Workflow, id string, f *resumeFlags) error {
	switch {
	case was.Workspace.InPlace != now.Workspace.InPlace:
		return &usageError{msg: "workspace.in_place of run " + id + " was changed: its files are in another place", hint: "start a new run with `flow run`"}
	case was.Workspace.InPlace && f.from != "":
		return &usageError{msg: fmt.Sprintf("run %s works in place (workspace.in_place): its files cannot go back to before step %s", id, f.from),
			hint: "`flow resume " + id + "` goes on with them as they are; a new run begins with `flow run`"}
	}
	return nil
}

// continuation is a run with what PlanResume decided about it.
type continuation struct {
	*past
	plan    *workflow.Plan
	text    []byte // of the new definition, nil for the frozen one
	resumed engine.RunResumed
}

// goOn runs what is left of a run that this process owns.
func (a *app) goOn(ctx context.Context, store *state.Store, owner *state.Owner, c *continuation, f *resumeFlags) error {
	run, plan, resumed := c.run, c.plan, c.resumed
	if c.text != nil {
		resumed.Text, resumed.Files = c.text, plan.Workflow.Files
		run.Redefine(plan)
	}
	secrets, set, err := a.loadSecrets(plan.Workflow, f.envFile, filepath.Dir(plan.Workflow.Path))
	if err != nil {
		return err
	}
	options := c.started.Options
	options.Grace = f.grace
	if err := a.agentsReady(plan, options, ""); err != nil {
		return err
	}
	driver, err := a.choose(ctx, options, plan.Workflow)
	if err != nil {
		return err
	}
	group, err := a.takeGroup(ctx, store, plan.Workflow, c.started.Inputs, run.ID)
	if err != nil {
		return err
	}
	defer group.Close()
	owner.SetKinds(kindsOf(plan))
	s := &session{a: a, store: store, owner: owner, plan: plan, run: run, driver: driver, opening: resumed, options: options, project: c.root,
		past: c.events, secrets: secrets, redact: set, output: f.output, reports: f.reports, restore: first(resumed.Merged, resumed.Checkpoint), base: first(resumed.Source, c.base()), spent: steps.Spent(c.events), wait: f.wait, cancel: f.cancel}
	return s.drive(ctx)
}

// today compares the file with the frozen definition. A changed one is refused,
// with what changed, unless the call accepts it; text is then the new one.
func (a *app) today(root string, run *engine.Run, started engine.RunStarted, f *resumeFlags) (*workflow.Plan, []byte, error) {
	path := run.Plan().Workflow.Path
	now, err := os.ReadFile(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) || f.accept {
			return nil, nil, &usageError{msg: fmt.Sprintf("read the workflow: %v", err)}
		}
		return run.Plan(), nil, nil // gone: the frozen definition is all there is
	}
	if bytes.Equal(now, started.Text) && sameFiles(filepath.Dir(path), started.Files) {
		return run.Plan(), nil, nil // the same text needs no second parse
	}
	w, err := workflow.Load(path)
	if err != nil {
		if string(now) == string(started.Text) {
			return nil, nil, a.printDiagnostics(err)
		}
		if err := a.printDiagnostics(err); err != nil {
			return nil, nil, err
		}
	}
	drift := engine.Drift(run.Plan().Workflow, w)
	if len(drift) == 0 {
		if f.accept && string(now) != string(started.Text) {
			return workflow.BuildPlan(w), w.Text, nil // what no step depends on: a raised budget, a comment
		}
		return run.Plan(), nil, nil
	}
	if f.accept {
		return workflow.BuildPlan(w), w.Text, nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s changed since run %s started:", relative(root, path), run.ID)
	for _, d := range drift {
		if d.Change == "items" {
			fmt.Fprintf(&b, "\n    step %s: the list of its foreach was changed", d.Step)
			continue
		}
		fmt.Fprintf(&b, "\n    step %s was %s", d.Step, d.Change)
	}
	return nil, nil, &usageError{msg: b.String(), hint: "`flow resume " + run.ID + " --accept-changes` runs these steps again, and what needs them"}
}

// sameFiles reports whether the files that a definition includes are as they were.
func sameFiles(dir string, files map[string][]byte) bool {
	for name, text := range files {
		now, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(now, text) {
			return false
		}
	}
	return true
}

// stepRows are the steps of a run for people, from its execution records.
func stepRows(ctx context.Context, store *state.Store, id string) ([]report.StepRow, error) {
	infos, err := store.Steps(ctx, id)
	if err != nil {
		return nil, err
	}
	records, err := store.Records(ctx, id)
	if err != nil {
		return nil, err
	}
	rows := make([]report.StepRow, 0, len(infos))
	index := map[string]int{}
	asked, err := questions(ctx, store, id, infos)
	if err != nil {
		return nil, err
	}
	for _, i := range infos {
		index[i.Step] = len(rows)
		rows = append(rows, report.StepRow{ID: i.Step, Status: i.Status, Attempts: i.Attempt, Reason: i.Reason, Approval: asked[i.Step]})
	}
	for _, r := range records {
		i, ok := index[r.Step]
		if !ok {
			continue
		}
		row := &rows[i]
		status := row.Status
		row.FromOutcome(r.Outcome)
		row.Status, row.Kind = status, r.Kind
		row.Records = append(row.Records, report.RecordView{Attempt: r.Attempt, Status: r.Outcome.Status, Class: r.Outcome.Class,
			ExitCode: r.Outcome.ExitCode, Error: r.Outcome.Error, Started: r.Outcome.Started, Duration: report.Seconds(r.Outcome.Duration), Sandbox: r.Outcome.SandboxID})
	}
	return rows, nil
}
