package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/workflow"
)

type forkFlags struct {
	resumeFlags
	at, before, file string
	inputs           string
	pairs            []string
	provider, replay string
}

func cmdFork(a *app) *cobra.Command {
	f := &forkFlags{}
	c := &cobra.Command{
		Use: "fork RUN", Short: "Start a new run from a point of an old one",
		Long: "Starts a new run with the history of another one up to a point: after a step (--at)\n" +
			"or before one (--before). What had ended well by then stays done; the rest runs,\n" +
			"with another definition (--file) or other inputs where they are given. The old run\n" +
			"is not changed; the two share what they store, and either can be removed." + exitHelp(0, 1, 2, 3, 4, 5, 6, 7, 130, 143),
		Example: "  flow fork latest --before implement --file other-prompt.yaml\n  flow fork k7m2 --at build -i mode=full\n  flow runs --tree",
		Args:    exactly(1, "one run"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.fork(cmd.Context(), args[0], f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.at, "at", "", "begin after this step")
	fl.StringVar(&f.before, "before", "", "begin before this step: it is the first to run")
	fl.StringVar(&f.file, "file", "", "the definition of the new run (default: the old run's, as it was frozen)")
	fl.StringArrayVarP(&f.pairs, "input", "i", nil, "an input that differs, name=value; repeatable")
	fl.StringVar(&f.inputs, "inputs", "", "file of inputs that differ, YAML or JSON")
	fl.StringVar(&f.provider, "provider", "", "who holds the agents' conversations; overrides the file")
	fl.StringVar(&f.replay, "replay", "", "folder of cassettes that every agent step is played from")
	fl.StringVar(&f.envFile, "env-file", "", "file of NAME=value for the declared secrets")
	fl.StringVar(&f.output, "output", "", "tui, plain or json")
	fl.DurationVar(&f.grace, "grace", 10*time.Second, "how long finally may take after Ctrl-C or SIGTERM")
	return c
}

func (a *app) fork(ctx context.Context, word string, f *forkFlags) error {
	if (f.at == "") == (f.before == "") {
		return &usageError{msg: "flow fork takes one of --at STEP (begin after it) and --before STEP (begin with it)"}
	}
	store, id, err := a.foundToWrite(ctx, word)
	if err != nil {
		return err
	}
	defer store.Close()
	before, err := replay(ctx, store, id)
	if err != nil {
		return err
	}
	root, old, started := before.root, before.run, before.started
	if err := inPlace(old.Plan().Workflow); err != nil {
		return err
	}
	plan, text, err := a.forkDefinition(root, old, f)
	if err != nil {
		return err
	}
	upto, point, err := forkPoint(ctx, store, id, f)
	if err != nil {
		return err
	}
	if started.Inputs, err = forkInputs(plan.Workflow, started.Inputs, f); err != nil {
		return err
	}
	started.RunID, started.ForkOf, started.FlowVersion = state.NewRunID(), id, version
	started.Options.Until = ""
	if f.file != "" {
		started.Path = relative(root, f.file)
	}
	started.Options.Provider, started.Options.Replay = first(f.provider, started.Options.Provider), first(f.replay, started.Options.Replay)
	if err := a.agentsReady(plan, started.Options, ""); err != nil {
		return err
	}
	// The first event's text is the one that the history before the point follows.
	frozen := before.events[0].Body.(engine.RunStarted) // replay has seen it
	if text == nil {
		text = old.Plan().Workflow.Text
	}
	started.Text, started.Files = frozen.Text, frozen.Files
	owner, err := store.CreateFork(ctx, state.Fork{From: id, Upto: upto, Point: point, Started: started})
	if err != nil {
		return err
	}
	defer owner.Close()
	fmt.Fprintf(a.err, "flow: run %s is a fork of %s, %s\n", started.RunID, id, point)
	forked, err := replay(ctx, store, started.RunID)
	if err != nil {
		return err
	}
	resumed, err := engine.PlanResume(plan, forked.run, engine.ResumeOptions{Point: true})
	if err != nil {
		return err
	}
	return a.goOn(ctx, store, owner, &continuation{past: forked, plan: plan, text: text, resumed: resumed}, &f.resumeFlags)
}

// forkDefinition is the new run's plan; text is nil for the old run's own.
func (a *app) forkDefinition(root string, old *engine.Run, f *forkFlags) (*workflow.Plan, []byte, error) {
	if f.file != "" {
		plan, err := a.load(f.file)
		if err != nil {
			return nil, nil, err
		}
		return plan, plan.Workflow.Text, nil
	}
	path := old.Plan().Workflow.Path
	if now, err := os.ReadFile(path); err == nil && !slices.Equal(now, old.Plan().Workflow.Text) {
		fmt.Fprintf(a.err, "flow: %s changed since; the fork follows it as it was then (--file %s takes it as it is)\n", relative(root, path), relative(root, path))
	}
	return old.Plan(), nil, nil
}

// forkPoint finds the last event that the new run has.
func forkPoint(ctx context.Context, store *state.Store, id string, f *forkFlags) (int64, string, error) {
	line, err := store.Timeline(ctx, id)
	if err != nil {
		return 0, "", err
	}
	if f.at != "" {
		p, err := line.At(f.at)
		if err != nil {
			return 0, "", stepHint(err)
		}
		return p.Seq, "after step " + f.at, nil
	}
	seq, err := line.Start(f.before)
	if err != nil {
		return 0, "", stepHint(err)
	}
	return seq - 1, "before step " + f.before, nil
}

// forkInputs are the old run's inputs, as far as the definition has them, with
// those that were given.
func forkInputs(w *workflow.Workflow, old map[string]any, f *forkFlags) (map[string]any, error) {
	given, err := givenInputs(f.inputs, f.pairs)
	if err != nil {
		return nil, err
	}
	for _, in := range w.Inputs {
		if _, ok := given[in.Name]; ok {
			continue
		}
		if v, ok := old[in.Name]; ok {
			given[in.Name] = v
		}
	}
	out, err := workflow.ResolveInputs(w, given)
	if err != nil {
		return nil, &usageError{msg: err.Error()}
	}
	return out, nil
}
