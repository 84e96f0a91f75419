package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/workflow"
)

// ciRun names the run of the CI system that this call belongs to, "" outside of one.
// A repeated job of the same CI run continues what the job before left.
func (a *app) ciRun() string {
	for _, name := range []string{"FLOW_CI_RUN", "GITHUB_RUN_ID", "CI_PIPELINE_ID", "BUILDKITE_BUILD_ID", "CIRCLE_WORKFLOW_ID"} {
		if v := a.env(name); v != "" {
			return name + "=" + v
		}
	}
	return ""
}

// continued finds the run that `flow run --resume=auto` goes on with: the newest of
// the same file and CI run, if it is unfinished and has the same definition, inputs,
// options and source tree. "" for none, with the reason in words.
func (a *app) continued(ctx context.Context, plan *workflow.Plan, started engine.RunStarted) (id, why string, err error) {
	store, err := a.readState()
	if err != nil || store == nil {
		return "", "nothing ran here yet", err
	}
	defer store.Close()
	infos, err := store.Runs(ctx, state.Filter{Workflow: plan.Workflow.Name})
	if err != nil {
		return "", "", err
	}
	for _, i := range infos {
		if i.Path != started.Path {
			continue
		}
		past, err := replay(ctx, store, i.ID)
		if err != nil {
			return "", "", err
		}
		if past.started.CIRun != started.CIRun {
			continue
		}
		why, err := a.cannotContinue(ctx, store, i, past, started)
		if err != nil || why != "" {
			return "", fmt.Sprintf("run %s %s", i.ID, why), err
		}
		return i.ID, "", nil
	}
	return "", "no run of this file is here", nil
}

// resumeInstead is `flow run --resume=auto`: done says that a run was continued.
func (a *app) resumeInstead(ctx context.Context, plan *workflow.Plan, path string, inputs map[string]any, f *runFlags) (done bool, err error) {
	if f.resume != "auto" {
		return false, &usageError{msg: fmt.Sprintf("--resume takes auto, got %q", f.resume), hint: "a certain run is continued by `flow resume RUN`"}
	}
	dir, err := a.stateDirFor()
	if err != nil {
		return false, err
	}
	root, err := project(dir)
	if err != nil {
		return false, err
	}
	id, why, err := a.continued(ctx, plan, engine.RunStarted{Path: relative(root, path), Text: plan.Workflow.Text, Files: plan.Workflow.Files,
		Inputs: inputs, Options: f.options, CIRun: a.ciRun()})
	if err != nil {
		return false, err
	}
	if id == "" {
		fmt.Fprintf(a.err, "flow: --resume=auto: a new run: %s\n", why)
		return false, nil
	}
	fmt.Fprintf(a.err, "flow: --resume=auto: continuing run %s\n", id)
	return true, a.resume(ctx, id, &resumeFlags{envFile: f.envFile, output: f.output, grace: f.options.Grace, reports: f.reports, wait: f.wait})
}

func (a *app) cannotContinue(ctx context.Context, store *state.Store, info state.RunInfo, past *past, started engine.RunStarted) (string, error) {
	was := past.started
	was.Options.Grace, started.Options.Grace = 0, 0
	switch info.Status {
	case engine.RunSucceeded, engine.RunCancelled, engine.RunRunning:
		return "is " + string(info.Status), nil
	}
	switch {
	case !bytes.Equal(was.Text, started.Text) || !maps.EqualFunc(was.Files, started.Files, bytes.Equal):
		return "had another definition", nil
	case !sameJSON(was.Inputs, started.Inputs):
		return "had other inputs", nil
	case !sameJSON(was.Options, started.Options):
		return "had other options", nil
	}
	w, base := past.run.Plan().Workflow, past.base()
	if w.Workspace.From == "" || w.Workspace.InPlace || base == "" {
		return "", nil
	}
	before, err := treeAt(ctx, store, base, sourceInHome(w))
	if err != nil {
		return "", err
	}
	result, err := treeAt(ctx, store, past.run.NewestCheckpoint(), sourceInHome(w))
	if err != nil {
		return "", err
	}
	now, err := checkpoint.SourceNow(ctx, filepath.Join(past.root, w.Workspace.From), before, checkpoint.ImportOptions{Exclude: w.Workspace.Exclude})
	if err != nil {
		return "", fmt.Errorf("compare workspace.from: %w", err)
	}
	if drift := checkpoint.Drifted(before, result, now); len(drift) > 0 {
		return fmt.Sprintf("had another source tree (%q)", drift[0].Path), nil
	}
	return "", nil
}

func sameJSON(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}
