package engine

import (
	"context"
	"fmt"
	"time"

	"flowrun.dev/flow/workflow"
)

// Sources is where VarsFor finds what the events do not hold.
type Sources struct {
	Inputs map[string]any
	Env    map[string]string
	Files  workflow.Files // nil: files.* is an error
	// Output is Runner.Output; nil: stdout and stderr are "".
	Output func(ctx context.Context, step string, attempt int, log string, stderr bool) (string, error)
}

// RefsOf collects the step fields that a step's expressions read: those of its
// `if`, env, script or prompt, loops and outputs.
func RefsOf(step *workflow.Step) []workflow.Ref {
	refs := step.Refs()
	seen := make(map[workflow.Ref]bool, len(refs))
	out := refs[:0]
	for _, r := range refs {
		if !seen[r] && r.Step != "self" {
			seen[r] = true
			out = append(out, r)
		}
	}
	return out
}

// EnvOf evaluates the file's `env` for expressions. It depends on the inputs and
// the run alone, so once a Drive is enough.
func EnvOf(run *Run) (map[string]string, error) {
	list := run.plan.Workflow.Env
	if len(list) == 0 {
		return nil, nil
	}
	env := make(map[string]string, len(list))
	vars := workflow.Vars{Inputs: run.Start.Inputs, Env: env, Run: run.runView()}
	for _, e := range list {
		value, err := e.Value.EvalString(vars)
		if err != nil {
			return nil, fmt.Errorf("evaluate env %s: %w", e.Name, err)
		}
		env[e.Name] = value
	}
	return env, nil
}

func (r *Run) runView() workflow.RunView {
	return workflow.RunView{
		ID: r.ID, Workflow: r.Start.Workflow, Attempt: r.Attempt,
		StartedAt: r.StartedAt.UTC().Format(time.RFC3339),
	}
}

// VarsFor builds the values that a node's expressions see. Only the steps in refs
// (RefsOf, found once a step) are looked at: with 10,000 steps in a row, a view of
// all earlier ones would make the run quadratic.
func VarsFor(ctx context.Context, run *Run, node int, refs []workflow.Ref, src Sources) (workflow.Vars, error) {
	vars, err := varsIn(ctx, run, run.graph[node].frame, refs, src)
	vars.Success, vars.Failure = run.outlook(node)
	return vars, err
}

// varsIn are the values that expressions of a frame see.
func varsIn(ctx context.Context, run *Run, f int, refs []workflow.Ref, src Sources) (workflow.Vars, error) {
	vars := workflow.Vars{
		Inputs:    src.Inputs,
		Env:       src.Env,
		Files:     src.Files,
		Run:       run.runView(),
		Loop:      run.frames[f].loop,
		Cancelled: run.CancelCause != "" && run.CancelCause != "timeout",
	}
	if c := run.calledIn(f); c != nil {
		env, err := run.callEnv(c)
		if err != nil {
			return vars, err
		}
		vars.Inputs, vars.Env = c.inputs, env
	}
	if len(refs) == 0 {
		return vars, nil
	}
	vars.Steps = make(map[string]workflow.StepView, len(refs))
	for _, ref := range refs {
		i, ok := run.resolve(f, ref.Step)
		if !ok {
			continue
		}
		if !run.ended(i) { // one of a join's
			vars.Steps[ref.Step] = workflow.StepView{Status: string(StepRunning)}
			continue
		}
		view, ok := vars.Steps[ref.Step]
		if !ok {
			view = run.view(i)
		}
		if err := fetch(ctx, run, i, ref, src, &view); err != nil {
			return vars, err
		}
		vars.Steps[ref.Step] = view
	}
	return vars, nil
}

// outlook is success() and failure(): for a step about all that it needs, for a
// finally node about the run's steps.
func (r *Run) outlook(node int) (success, failure bool) {
	if r.graph[node].late && r.graph[node].frame == 0 {
		status, _ := r.verdict()
		_, bad := r.failed.worst()
		return status == RunSucceeded, bad || status == RunFailed
	}
	up := r.Nodes[node].Upstream
	if up < 0 {
		return !r.Nodes[node].unmet, false
	}
	s := r.Nodes[up].Status
	return false, s == StepFailed || s == StepTimedOut || r.Nodes[up].Died != ""
}

// view is a finished step as expressions see it, without its streams.
func (r *Run) view(i int) workflow.StepView {
	n := &r.Nodes[i]
	v := workflow.StepView{Status: string(n.Status), Attempts: n.Attempts}
	if n.Last == nil {
		return v
	}
	v.ExitCode, v.Outputs, v.Duration = n.Last.ExitCode, n.Last.Outputs, n.Last.Duration.Seconds()
	for _, c := range n.Last.Changed {
		v.ChangedFiles = append(v.ChangedFiles, c.Path)
	}
	if n.Last.Agent != nil {
		v.CostUSD = n.Last.Agent.CostUSD
	}
	return v
}

func fetch(ctx context.Context, run *Run, i int, ref workflow.Ref, src Sources, view *workflow.StepView) error {
	n := &run.Nodes[i]
	stderr := ref.Field == "stderr"
	if !stderr && ref.Field != "stdout" || src.Output == nil || n.Last == nil || n.Last.Log == "" {
		return nil
	}
	text, err := src.Output(ctx, run.graph[i].id, n.Attempts, n.Last.Log, stderr)
	if err != nil {
		return fmt.Errorf("read %s of step %s: %w", ref.Field, ref.Step, err)
	}
	if stderr {
		view.Stderr = text
	} else {
		view.Stdout = text
	}
	return nil
}
