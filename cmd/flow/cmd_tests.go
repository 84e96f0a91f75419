package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/redact"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/workflow"
)

func cmdTest(a *app) *cobra.Command {
	driver, only := "", ""
	c := &cobra.Command{
		Use: "test FILE...", Short: "Run a workflow's own tests",
		Long:    "Runs the tests of *.test.yaml files: each is a run of the workflow with given inputs,\nin which some steps are stubbed, in a state directory that is removed afterwards. No\nmodel is asked, and no declared secret has its value. See docs/testing.md." + exitHelp(0, 1, 2, 3),
		Example: "  flow test ci.test.yaml\n  flow test *.test.yaml --only 'the slow path'",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{msg: "flow test takes at least one file", hint: "usage: " + cmd.UseLine()}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.test(cmd.Context(), args, driver, only) },
	}
	c.Flags().StringVar(&driver, "driver", "", "where the steps run: auto, local or host; overrides the file")
	c.Flags().StringVar(&only, "only", "", "only the tests whose name holds this text")
	return c
}

// testResult is one test that ran.
type testResult struct {
	File     string         `json:"file"`
	Name     string         `json:"name"`
	OK       bool           `json:"ok"`
	Failures []string       `json:"failures,omitempty"`
	Duration report.Seconds `json:"duration_seconds"`
}

// testsFailedError: some expectations did not hold.
type testsFailedError struct{ failed, all int }

func (e *testsFailedError) Error() string {
	return fmt.Sprintf("%d of %d tests failed", e.failed, e.all)
}

func (a *app) test(ctx context.Context, files []string, driver, only string) error {
	var results []testResult
	failed := 0
	for _, f := range files {
		t, err := readTests(f)
		if err != nil {
			return err
		}
		if err := t.mistakes(); err != nil {
			return err
		}
		for i, c := range t.Tests {
			name := first(c.Name, fmt.Sprintf("test %d", i+1))
			if !strings.Contains(name, only) {
				continue
			}
			start := time.Now()
			bad, output, err := a.testCase(ctx, t.Workflow, c, driver)
			if err != nil {
				return fmt.Errorf("test %q: %w", name, err)
			}
			r := testResult{File: f, Name: name, OK: len(bad) == 0, Failures: bad, Duration: report.Seconds(time.Since(start))}
			results = append(results, r)
			if !r.OK {
				failed++
			}
			if !a.json {
				a.printTest(r, output)
			}
		}
	}
	if a.json {
		if err := report.WriteJSON(a.out, map[string]any{"tests": orEmpty(results), "failed": failed}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(a.out, "%d tests, %d failed\n", len(results), failed)
	}
	if len(results) == 0 {
		return &usageError{msg: fmt.Sprintf("no test has %q in its name", only)}
	}
	if failed > 0 {
		return printed{&testsFailedError{failed, len(results)}}
	}
	return nil
}

func (a *app) printTest(r testResult, output string) {
	word := "ok  "
	if !r.OK {
		word = "FAIL"
	}
	fmt.Fprintf(a.out, "%s  %s  (%.2f s)\n", word, r.Name, time.Duration(r.Duration).Seconds())
	for _, f := range r.Failures {
		fmt.Fprintf(a.out, "      %s\n", f)
	}
	if !r.OK {
		fmt.Fprintf(a.out, "      output of the run:\n")
		for line := range strings.Lines(output) {
			fmt.Fprintf(a.out, "        %s\n", strings.TrimRight(line, "\n"))
		}
	}
}

// testCase runs a workflow once with its stubs, in a state directory of its own,
// and returns what did not hold.
func (a *app) testCase(ctx context.Context, path string, c testCase, driver string) (bad []string, output string, err error) {
	plan, err := a.testPlan(path, c)
	if err != nil {
		return nil, "", err
	}
	inputs, err := workflow.ResolveInputs(plan.Workflow, c.Inputs)
	if err != nil {
		return nil, "", &usageError{msg: err.Error()}
	}
	stateDir, err := a.stateDirFor()
	if err != nil {
		return nil, "", err
	}
	root, err := project(stateDir)
	if err != nil {
		return nil, "", err
	}
	tmp, err := os.MkdirTemp("", "flow-test-")
	if err != nil {
		return nil, "", fmt.Errorf("make a state directory: %w", err)
	}
	defer os.RemoveAll(tmp)
	var out bytes.Buffer
	b := *a // the same program with another state and a quiet output
	b.stateDir, b.out, b.err, b.json = filepath.Join(tmp, "state"), &out, &out, false
	run, err := b.testRun(ctx, plan, root, inputs, driver)
	if err != nil {
		return nil, "", err
	}
	dir := filepath.Join(tmp, "workspace")
	if len(c.Expect.Files) > 0 {
		if err := b.export(ctx, run.ID, dir, "", true); err != nil {
			var use *usageError
			if !errors.As(err, &use) { // a run without a sandbox has no workspace: no file is there
				return nil, "", err
			}
		}
	}
	steps, outputs := map[string]string{}, map[string]map[string]any{}
	for i := range run.Nodes {
		id := run.Plan().Nodes[i].Step.ID
		steps[id] = string(run.Nodes[i].Status)
		if last := run.Nodes[i].Last; last != nil {
			outputs[id] = last.Outputs
		}
	}
	return c.Expect.check(string(run.Status), dir, steps, outputs), out.String(), nil
}

// testPlan is the workflow with the stubs in it. What is left must not ask a model.
func (a *app) testPlan(path string, c testCase) (*workflow.Plan, error) {
	w, err := workflow.Load(path)
	if err := a.printDiagnostics(err); err != nil {
		return nil, err
	}
	if err := choicesFit(w, c.Stub); err != nil {
		return nil, err
	}
	text, err := stubbed(w.Text, c.Stub)
	if err != nil {
		return nil, err
	}
	files := w.Files
	w, err = workflow.Parse(path, text, workflow.ParseOptions{ReadFile: func(name string) ([]byte, error) {
		if b, ok := files[name]; ok {
			return b, nil
		}
		return nil, fmt.Errorf("%s was not read before", name)
	}})
	if err := a.printDiagnostics(err); err != nil {
		return nil, err
	}
	live := ""
	w.Walk(func(s *workflow.Step) {
		if s.Agent != nil && s.Agent.Provider != "replay" {
			live = first(live, s.ID)
		}
	})
	if live != "" {
		return nil, &usageError{msg: fmt.Sprintf("agent step %s is neither stubbed nor played from a cassette", live),
			hint: "a test asks no model: add it to `stub`, or give the step provider replay"}
	}
	return workflow.BuildPlan(w), nil
}

func (a *app) testRun(ctx context.Context, plan *workflow.Plan, root string, inputs map[string]any, driver string) (*engine.Run, error) {
	w := plan.Workflow
	if w.Workspace.InPlace {
		return nil, &usageError{msg: "a workflow with workspace.in_place cannot be tested: it would change the files of the project", hint: "take a copy (without in_place) and `workspace.apply`"}
	}
	options := engine.Options{Driver: driver, Apply: "never"}
	chosen, err := a.choose(ctx, options, w)
	if err != nil {
		return nil, err
	}
	store, err := state.Open(a.stateDir, state.Options{})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	started := engine.RunStarted{RunID: state.NewRunID(), Workflow: w.Name, Path: w.Path, Text: w.Text, Files: w.Files, Inputs: inputs, Options: options, FlowVersion: version}
	owner, run, err := begin(ctx, store, plan, started)
	if err != nil {
		return nil, err
	}
	defer owner.Close()
	secrets := map[string]string{}
	for _, s := range w.Secrets {
		secrets[s.Name] = "test-value-of-" + s.Name
	}
	set, err := redact.New()
	if err != nil {
		return nil, err
	}
	s := &session{a: a, store: store, owner: owner, plan: plan, run: run, driver: chosen, options: options, project: root, secrets: secrets, redact: set, output: "plain"}
	var ended *runError
	if err := s.drive(ctx); err != nil && !errors.As(err, &ended) {
		return nil, err
	}
	return run, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
