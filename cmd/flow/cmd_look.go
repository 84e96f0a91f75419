package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/state"
)

func cmdRuns(a *app) *cobra.Command {
	var limit int
	var tree bool
	c := &cobra.Command{
		Use: "runs", Short: "List runs, the newest first", Long: "Lists the runs of this project, the newest first." + exitHelp(0, 2, 3),
		Example: "  flow runs\n  flow runs --tree\n  flow runs --json", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listRuns(cmd.Context(), limit, tree) },
	}
	c.Flags().BoolVar(&tree, "tree", false, "each fork below the run that it began from")
	c.Flags().IntVar(&limit, "limit", 50, "how many; 0 for all")
	return c
}

func (a *app) listRuns(ctx context.Context, limit int, tree bool) error {
	rows := []report.RunRow{}
	store, err := a.readState()
	if err != nil {
		return err
	}
	if store != nil {
		defer store.Close()
		infos, err := store.Runs(ctx, state.Filter{Limit: limit})
		if err != nil {
			return err
		}
		for _, i := range infos {
			rows = append(rows, runRow(i))
		}
	}
	if a.json {
		return report.WriteJSON(a.out, rows)
	}
	if tree {
		return report.RunsTree(a.out, rows, a.style())
	}
	return report.RunsTable(a.out, rows, a.style())
}

func runRow(i state.RunInfo) report.RunRow {
	end := i.Finished
	if end.IsZero() {
		end = i.Updated
		if i.Status == engine.RunRunning {
			end = time.Now()
		}
	}
	r := report.RunRow{ID: i.ID, Workflow: i.Workflow, Status: i.Status, Started: i.Created, Duration: report.Seconds(end.Sub(i.Created)), Cause: i.Cause,
		ForkedFrom: i.ForkedFrom, ForkPoint: i.ForkPoint, Pinned: i.Pinned}
	for status, n := range i.Steps {
		r.StepsTotal += n
		if status == engine.StepSucceeded || status == engine.StepIsSkipped {
			r.StepsDone += n
		}
	}
	r.StepsTotal = max(r.StepsTotal, i.Planned) // those that nothing happened to yet count too
	return r
}

func cmdShow(a *app) *cobra.Command {
	var summary bool
	var envFile string
	var turns int
	c := &cobra.Command{
		Use: "show [RUN] [STEP]", Short: "Show what happened in a run", Long: "Shows a run's steps, what they changed, why it stopped, and the command that continues it.\nWith STEP, that step alone; of an agent the conversation as it is stored, turn by turn:\nprompts, calls, results, tokens and cost. With --json as JSON lines, whole." + exitHelp(0, 2, 3),
		Example: "  flow show\n  flow show latest-failed --json\n  flow show latest implement\n  flow show --summary > run.md", Args: atMost(2, "a run and a step"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				if summary {
					return &usageError{msg: "flow show --summary is of a whole run"}
				}
				return a.showStep(cmd.Context(), args[0], args[1], envFile, turns)
			}
			word := first(append(args, "latest")...)
			if summary {
				return a.showSummary(cmd.Context(), word)
			}
			return a.show(cmd.Context(), word)
		},
	}
	c.Flags().StringVar(&envFile, "env-file", "", "where secrets are that are taken out of a conversation")
	c.Flags().IntVar(&turns, "turns", 50, "how many turns of a conversation, the last ones; 0 for all")
	c.Flags().BoolVar(&summary, "summary", false, "as Markdown, with what steps wrote to $FLOW_SUMMARY")
	return c
}

// showSummary prints what `flow run --summary` writes.
func (a *app) showSummary(ctx context.Context, word string) error {
	store, id, err := a.found(ctx, word)
	if err != nil {
		return err
	}
	defer store.Close()
	past, err := replay(ctx, store, id)
	if err != nil {
		return err
	}
	v, err := resultView(ctx, store, past.run)
	if err != nil {
		return err
	}
	if a.json {
		return report.WriteJSON(a.out, v)
	}
	return report.Summary(a.out, v)
}

// found opens the state for reading and resolves a run.
func (a *app) found(ctx context.Context, word string) (*state.Store, string, error) {
	store, err := a.readState()
	if err != nil {
		return nil, "", err
	}
	if store == nil {
		return nil, "", &usageError{msg: fmt.Sprintf("there is no run %q: nothing ran here yet", word), hint: "start one with `flow run FILE`"}
	}
	id, err := store.Resolve(ctx, word)
	if err != nil {
		store.Close()
		return nil, "", err
	}
	return store, id, nil
}

// foundToWrite is found for commands that change a run. Looked for first: a command
// that finds no run makes no state directory.
func (a *app) foundToWrite(ctx context.Context, word string) (*state.Store, string, error) {
	look, id, err := a.found(ctx, word)
	if err != nil {
		return nil, "", err
	}
	look.Close()
	store, _, err := a.openState(ctx)
	return store, id, err
}

func (a *app) show(ctx context.Context, word string) error {
	store, id, err := a.found(ctx, word)
	if err != nil {
		return err
	}
	defer store.Close()
	info, err := store.Run(ctx, id)
	if err != nil {
		return err
	}
	v := report.RunView{RunRow: runRow(info), Path: info.Path, Attempt: info.Attempt, Class: info.Class, Continue: report.ContinueCommand(id, info.Status)}
	if info.Holder != nil {
		v.Owner = info.Holder.String()
	}
	if v.Steps, err = stepRows(ctx, store, id); err != nil {
		return err
	}
	for _, s := range v.Steps {
		v.CostUSD += s.CostUSD
		v.Denied += s.Denied
	}
	events, err := store.Events(ctx, id, 0)
	if err != nil {
		return err
	}
	v.Artifacts = artifactRows(v.Steps, events)
	uses, ranIn := map[string]string{}, map[string]string{} // by sandbox, by step
	for _, e := range events {
		if b, ok := e.Body.(engine.SandboxCreated); ok {
			if b.Use == "" || v.Sandbox == "" {
				v.Sandbox = fmt.Sprintf("%s (%s)", b.Driver, b.Tier)
			}
			uses[b.ID] = report.UseOf(b) // a resume begins with the same ids
		}
		if b, ok := e.Body.(engine.StepFinished); ok {
			ranIn[b.Step] = uses[b.Outcome.SandboxID]
		}
		if b, ok := e.Body.(engine.Egress); ok {
			v.Egress = report.AddEgress(v.Egress, b)
		}
	}
	for i := range v.Steps {
		v.Steps[i].SandboxUse = ranIn[v.Steps[i].ID]
	}
	if a.json {
		return report.WriteJSON(a.out, v)
	}
	return report.ShowRun(a.out, v, a.style())
}

// artifactRows are a run's artifacts in the order of its steps, its own at the end.
func artifactRows(steps []report.StepRow, events []engine.Event) []report.ArtifactRow {
	var out []report.ArtifactRow
	all := engine.Collected(events)
	for _, id := range append(stepIDs(steps), "") {
		if a := all[id]; a != nil {
			for _, f := range a.Files {
				out = append(out, report.ArtifactRow{Step: id, Artifact: f})
			}
		}
	}
	return out
}

func stepIDs(steps []report.StepRow) []string {
	out := make([]string, len(steps))
	for i := range steps {
		out[i] = steps[i].ID
	}
	return out
}
