package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/host"
	"flowrun.dev/flow/sandbox/local"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/steps"
	"flowrun.dev/flow/workflow"
)

type runFlags struct {
	inputs, envFile, output string
	resume                  string
	pairs                   []string
	options                 engine.Options
	dryRun                  bool
	record                  string
	reports                 reportFlags
	wait                    bool
}

func cmdRun(a *app) *cobra.Command {
	f := &runFlags{}
	c := &cobra.Command{
		Use:     "run FILE",
		Short:   "Run a workflow file",
		Long:    "Runs a workflow file: its steps in one sandbox, each recorded and checkpointed." + exitHelp(0, 1, 2, 3, 4, 5, 6, 7, 130, 143),
		Example: "  flow run ci.yaml\n  flow run ci.yaml -i mode=full --env-file .env",
		Args:    exactly(1, "one workflow file"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.runFile(cmd.Context(), args[0], f) },
	}
	fl := c.Flags()
	fl.StringArrayVarP(&f.pairs, "input", "i", nil, "an input, name=value; repeatable")
	fl.StringVar(&f.inputs, "inputs", "", "file of inputs, YAML or JSON")
	fl.StringVar(&f.envFile, "env-file", "", "file of NAME=value for the declared secrets")
	fl.StringVar(&f.options.Driver, "driver", "", "auto, local or host; overrides the file")
	fl.StringVar(&f.options.Provider, "provider", "", "who holds the agents' conversations; overrides the file")
	fl.StringVar(&f.options.Replay, "replay", "", "folder of cassettes that every agent step is played from")
	fl.StringVar(&f.record, "record", "", "folder that every agent step's conversation is recorded into, as a cassette")
	fl.StringVar(&f.options.Until, "until", "", "run this step and what it needs, then stop")
	fl.StringVar(&f.options.Apply, "apply", "", "never, on_success or always; overrides the file")
	fl.DurationVar(&f.options.Grace, "grace", 10*time.Second, "how long finally may take after Ctrl-C or SIGTERM")
	fl.StringVar(&f.output, "output", "", "tui, plain or json (default: tui on a terminal, else plain)")
	fl.StringVar(&f.resume, "resume", "", "auto: continue the newest unfinished run of the same file, inputs, source tree and CI run, if there is one")
	f.reports.add(c)
	fl.BoolVar(&f.wait, "wait", false, "wait here for the people that approvals ask, instead of ending with exit code 5")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print the plan and start nothing")
	return c
}

// words are the flags that take one of a few words.
func (f *runFlags) check(plan *workflow.Plan) error {
	for _, w := range []struct {
		flag, got string
		words     []string
	}{
		{"--driver", f.options.Driver, []string{"auto", "local", "host"}},
		{"--apply", f.options.Apply, []string{"never", "on_success", "always"}},
	} {
		if w.got != "" && !contains(w.words, w.got) {
			return &usageError{msg: fmt.Sprintf("%s takes one of %v, got %q", w.flag, w.words, w.got)}
		}
	}
	if f.record != "" && f.options.Replay != "" {
		return &usageError{msg: "--record and --replay do not go together: what is played is recorded already"}
	}
	if err := f.reports.check(); err != nil {
		return err
	}
	if _, ok := plan.ByID[f.options.Until]; f.options.Until != "" && !ok {
		return &usageError{msg: fmt.Sprintf("--until: there is no step %q", f.options.Until)}
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func (a *app) runFile(ctx context.Context, path string, f *runFlags) error {
	plan, err := a.load(path)
	if err != nil {
		return err
	}
	w := plan.Workflow
	if err := f.check(plan); err != nil {
		return err
	}
	given, err := givenInputs(f.inputs, f.pairs)
	if err != nil {
		return err
	}
	inputs, err := workflow.ResolveInputs(w, given)
	if err != nil {
		return &usageError{msg: err.Error()}
	}
	if f.dryRun {
		return a.printPlan(plan, inputs)
	}
	if f.resume != "" {
		if done, err := a.resumeInstead(ctx, plan, path, inputs, f); done || err != nil {
			return err
		}
	}
	if err := a.agentsReady(plan, f.options, f.record); err != nil {
		return err
	}
	secrets, set, err := a.loadSecrets(w, f.envFile, filepath.Dir(path))
	if err != nil {
		return err
	}
	// The preflight: nothing is recorded for a machine that cannot run it.
	driver, err := a.choose(ctx, f.options, w)
	if err != nil {
		return err
	}
	store, root, err := a.openState(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	started := engine.RunStarted{RunID: state.NewRunID(), Workflow: w.Name, Path: relative(root, path), Text: w.Text, Files: w.Files,
		Inputs: inputs, Options: f.options, FlowVersion: version, CIRun: a.ciRun()}
	group, err := a.takeGroup(ctx, store, w, inputs, started.RunID)
	if err != nil {
		return err
	}
	defer group.Close()
	owner, run, err := begin(ctx, store, plan, started)
	if err != nil {
		return err
	}
	defer owner.Close()
	s := &session{a: a, store: store, owner: owner, plan: plan, run: run, driver: driver, options: f.options, project: root,
		secrets: secrets, redact: set, output: f.output, record: f.record, reports: f.reports, wait: f.wait}
	return s.drive(ctx)
}

// begin stores a run's first event and folds it. The caller closes the owner.
func begin(ctx context.Context, store *state.Store, plan *workflow.Plan, started engine.RunStarted) (*state.Owner, *engine.Run, error) {
	now := time.Now().UTC()
	owner, err := store.CreateRun(ctx, started, state.RunExtra{At: now, Kinds: kindsOf(plan)})
	if err != nil {
		return nil, nil, err
	}
	run := engine.NewRun(plan)
	if err := run.Apply(engine.Event{Seq: 1, At: now, Body: started}); err != nil {
		owner.Close()
		return nil, nil, err
	}
	return owner, run, nil
}

// load parses a file and prints its mistakes.
func (a *app) load(path string) (*workflow.Plan, error) {
	w, err := workflow.Load(path)
	if err := a.printDiagnostics(err); err != nil {
		return nil, err
	}
	return workflow.BuildPlan(w), nil
}

func (a *app) printDiagnostics(err error) error {
	var bad *workflow.Diagnostics
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &bad):
		return &usageError{msg: err.Error()}
	case a.json:
		if err := report.WriteJSON(a.out, map[string]any{"exit_code": codeInvalid, "class": "invalid", "diagnostics": bad.List}); err != nil {
			return err
		}
	default:
		if err := bad.Render(a.err, false); err != nil {
			return err
		}
	}
	return printed{bad}
}

// choose probes the drivers of a run: each once, because a probe starts a sandbox.
// It then refuses what the file asks for and this machine cannot do.
func (a *app) choose(ctx context.Context, o engine.Options, w *workflow.Workflow) (chosen, error) {
	if w.Workspace.InPlace && o.Apply != "" && o.Apply != "never" {
		return chosen{}, &usageError{msg: "--apply: with workspace.in_place there is nothing to apply: what the steps change is changed"}
	}
	c := chosen{named: map[string]steps.Place{}}
	probed := map[string]steps.Place{} // by driver's word
	caps := map[string]sandbox.Capabilities{}
	for _, spec := range append([]*workflow.SandboxSpec{&w.Sandbox}, w.Sandboxes...) {
		word := first(o.Driver, spec.Driver)
		place, ok := probed[word]
		if !ok {
			var err error
			if place.Driver, place.Capabilities, err = steps.Choose(ctx, word, a.drivers()); err != nil {
				return c, err
			}
			probed[word] = place
		}
		caps[spec.Name] = place.Capabilities
		if spec.Name == "" {
			c.driver, c.caps = place.Driver, place.Capabilities
		} else {
			c.named[spec.Name] = place
		}
	}
	if err := steps.Preflight(w, caps); err != nil {
		return c, err
	}
	var err error
	c.mounts, err = a.hostMounts(w)
	return c, err
}

// hostMounts are what the file's sandboxes show of this machine, by their names.
func (a *app) hostMounts(w *workflow.Workflow) (map[string][]sandbox.Mount, error) {
	state, err := a.stateDirFor()
	if err != nil {
		return nil, err
	}
	out := map[string][]sandbox.Mount{}
	for _, spec := range append([]*workflow.SandboxSpec{&w.Sandbox}, w.Sandboxes...) {
		if out[spec.Name], err = steps.HostMounts(w.MountsOf(spec), filepath.Dir(w.Path), a.env("HOME"), state); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// chosen is the driver of a run and what it can do here, and those of its named
// sandboxes.
type chosen struct {
	driver sandbox.Driver
	caps   sandbox.Capabilities
	named  map[string]steps.Place
	mounts map[string][]sandbox.Mount // of the file, by the sandbox's name
}

// places adds to the named sandboxes what they show of the host.
func (c chosen) places(mounts func(sandbox.Tier) []sandbox.Mount) map[string]steps.Place {
	out := make(map[string]steps.Place, len(c.named))
	for name, p := range c.named {
		p.Mounts = append(mounts(p.Capabilities.Tier), c.mounts[name]...)
		out[name] = p
	}
	return out
}

// openState opens the state directory for writing and sweeps what dead runs left.
func (a *app) openState(ctx context.Context) (*state.Store, string, error) {
	dir, err := a.stateDirFor()
	if err != nil {
		return nil, "", err
	}
	root, err := project(dir)
	if err != nil {
		return nil, "", err
	}
	store, err := state.Open(dir, state.Options{})
	if err != nil {
		return nil, "", err
	}
	left, err := store.Leftovers(ctx)
	if len(left) > 0 {
		local.Sweep() // a killed flow leaves more than its folders
	}
	for _, l := range left {
		// Holding the run keeps a resume of it out while its old sandbox goes.
		owner, err := store.Acquire(ctx, l.Run)
		if err != nil {
			continue
		}
		endLeft(l.Path)
		_ = os.RemoveAll(l.Path)
		_ = owner.Close()
	}
	if err != nil {
		store.Close()
		return nil, "", err
	}
	return store, root, nil
}

// endLeft ends the processes of a killed flow's sandboxes. Those of driver local
// ended with it.
func endLeft(sandboxes string) {
	entries, err := os.ReadDir(sandboxes)
	if err != nil {
		return // the removal says more
	}
	for _, e := range entries {
		host.EndLeft(e.Name())
	}
}

// readState opens the state directory for a command that only looks. Nil where
// there is none yet.
func (a *app) readState() (*state.Store, error) {
	dir, err := a.stateDirFor()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "flow.db")); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	store, err := state.OpenReadOnly(dir, state.Options{})
	if err != nil {
		// A kill may have left a database without its schema, or an older flow an
		// older one: opening it for writing brings it up to date, or says what is wrong.
		return state.Open(dir, state.Options{})
	}
	return store, nil
}

func kindsOf(plan *workflow.Plan) map[string]string {
	out := make(map[string]string, len(plan.Nodes))
	for i := range plan.Nodes {
		out[plan.Nodes[i].Step.ID] = plan.Nodes[i].KindWord()
	}
	return out
}

func relative(root, path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(root, abs); err == nil {
		return rel
	}
	return abs
}
