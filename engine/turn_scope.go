package engine

import (
	"encoding/json"
	"fmt"

	"flowrun.dev/flow/workflow"
)

// expand computes the items of a foreach. They go through their stored form at
// once: a resume sees the very same values.
func (l *Loop) expand(i int, id string) Body {
	vars, err := l.vars(i, true)
	if err != nil {
		return ForeachExpanded{Step: id, Error: err.Error()}
	}
	items, keys, err := l.Run.graph[i].step.Foreach.Items(vars)
	if err != nil {
		return ForeachExpanded{Step: id, Error: err.Error()}
	}
	b, err := json.Marshal(items)
	if err == nil {
		items = nil
		err = json.Unmarshal(b, &items)
	}
	if err != nil {
		return ForeachExpanded{Step: id, Error: fmt.Sprintf("store the items of foreach: %v", err)}
	}
	return ForeachExpanded{Step: id, Keys: keys, Items: items}
}

// until judges the last round of a repeat.
func (l *Loop) until(i, n int, id string) Body {
	r := l.Run
	step := r.graph[i].step
	round := r.graph[i].scope.frames[n-1]
	self := r.view(r.frames[round].first)
	refs := step.Repeat.Until.Refs()
	vars, err := l.varsIn(l.inside(r.frames[round].first, round), refs, step.Repeat.Until.UsesFiles())
	if err != nil {
		return UntilEvaluated{Step: id, N: n, Error: err.Error()}
	}
	if err := l.streams(r.frames[round].first, refs, &self); err != nil {
		return UntilEvaluated{Step: id, N: n, Error: err.Error()}
	}
	vars.Self, vars.Success = &self, true
	value, err := step.Repeat.Until.EvalBool(vars)
	if err != nil {
		return UntilEvaluated{Step: id, N: n, Error: fmt.Sprintf("evaluate `until`: %v", err)}
	}
	return UntilEvaluated{Step: id, N: n, Value: value}
}

// inside is the frame with the steps of a group node, the one around it for any
// other node.
func (l *Loop) inside(i, otherwise int) int {
	if g := &l.Run.graph[i]; g.role == workflow.RoleGroup && g.scope != nil && len(g.scope.frames) > 0 {
		return g.scope.frames[0]
	}
	return otherwise
}

// streams reads the output of a step where `self` asks for it.
func (l *Loop) streams(i int, refs []workflow.Ref, self *workflow.StepView) error {
	for _, ref := range refs {
		if ref.Step == "self" {
			if err := fetch(l.ctx, l.Run, i, ref, Sources{Output: l.Runner.Output}, self); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Loop) varsIn(f int, refs []workflow.Ref, files bool) (workflow.Vars, error) {
	env, err := l.env()
	if err != nil {
		return workflow.Vars{}, err
	}
	src := Sources{Inputs: l.Run.Start.Inputs, Env: env, Output: l.Runner.Output}
	if files {
		src.Files = l.Runner.Files()
	}
	return varsIn(l.ctx, l.Run, f, refs, src)
}

// close ends a scope: its outcome follows from what is inside, its `outputs` are
// computed when it succeeded.
func (l *Loop) close(i int, id string) Body {
	r := l.Run
	r.at = l.now
	f := StepFinished{Step: id, Attempt: r.Nodes[i].Attempts, Outcome: r.closing(i)}
	g := &r.graph[i]
	outputs := g.step.Outputs
	if g.role == workflow.RoleCall {
		outputs = g.step.Call.Workflow.Outputs
	}
	if g.role != workflow.RoleGroup && g.role != workflow.RoleCall || f.Outcome.Status != StepSucceeded || len(outputs) == 0 {
		return f
	}
	values, err := l.compute(g.scope.frames[0], outputs, &workflow.StepView{Status: string(StepSucceeded), Attempts: r.Nodes[i].Attempts})
	if err != nil {
		f.Outcome.Status, f.Outcome.Class, f.Outcome.ExitCode, f.Outcome.Error = StepFailed, ClassInvalid, 1, err.Error()
		return f
	}
	f.Outcome.Outputs = values
	return f
}

// compute evaluates outputs that belong to no process.
func (l *Loop) compute(frame int, outputs []workflow.Output, self *workflow.StepView) (map[string]any, error) {
	var refs []workflow.Ref
	files := false
	for _, o := range outputs {
		refs = append(refs, o.Expr.Refs()...)
		files = files || o.Expr.UsesFiles()
	}
	vars, err := l.varsIn(frame, refs, files)
	if err != nil {
		return nil, err
	}
	vars.Self, vars.Success = self, true
	return l.Runner.Compute(outputs, vars)
}

// finishRun computes the outputs of a run that succeeded.
func (l *Loop) finishRun(a FinishRun) RunFinished {
	b := RunFinished{Status: a.Status, Class: a.Class, Cause: a.Cause}
	outputs := l.Run.plan.Workflow.Outputs
	if a.Status != RunSucceeded || len(outputs) == 0 || l.Run.Start.Options.Until != "" {
		return b
	}
	values, err := l.compute(0, outputs, nil)
	if err != nil {
		return RunFinished{Status: RunFailed, Class: ClassInvalid, Cause: fmt.Sprintf("compute the run's outputs: %v", err)}
	}
	b.Outputs = values
	return b
}

// kind is what StepStarted says of a node that the file's kinds do not name.
func (l *Loop) kind(i int) string {
	if l.Run.graph[i].frame == 0 {
		return ""
	}
	return l.Run.graph[i].kindWord()
}
