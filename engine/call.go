package engine

import (
	"encoding/json"
	"fmt"

	"flowrun.dev/flow/workflow"
)

// WorkflowCalled freezes the inputs of a called workflow; it follows the step's
// StepStarted. Error: they could not be computed, or do not fit the declarations;
// the step then fails with class invalid.
type WorkflowCalled struct {
	Step   string         `json:"step"`
	Inputs map[string]any `json:"inputs"`
	Error  string         `json:"error,omitempty"`
}

// Type of the event.
func (WorkflowCalled) Type() string { return "workflow_called" }

// called is what the steps of a called file see instead of the run's own.
type called struct {
	inputs map[string]any
	w      *workflow.Workflow
}

// calledIn finds the call that a frame belongs to, nil for the file that is run.
func (r *Run) calledIn(f int) *called {
	for ; f > 0; f = r.frames[f].up {
		if c := r.frames[f].called; c != nil {
			return c
		}
	}
	return nil
}

// enterCall makes the steps of a called file: their names follow that of the call.
func (r *Run) enterCall(i int, inputs map[string]any, states map[string]NodeState) {
	n := &r.graph[i]
	n.scope.known, n.scope.inputs = true, inputs
	f := r.addFrame(i, n.id+".", "", nil, states)
	r.frames[f].called = &called{inputs: inputs, w: r.graph[i].step.Call.Workflow}
}

// call: a running call without steps → with them.
func (r *Run) call(i int, b WorkflowCalled) bool {
	s := r.graph[i].scope
	if r.graph[i].role != workflow.RoleCall || r.Nodes[i].Status != StepRunning || s == nil || s.known {
		return false
	}
	if b.Error != "" {
		s.known, s.wrong = true, b.Error
	} else {
		inputs := b.Inputs
		if inputs == nil {
			inputs = map[string]any{}
		}
		r.enterCall(i, inputs, nil)
		f := r.graph[i].scope.frames[0]
		r.begun(f, true)
		r.classifyAll(f)
	}
	r.look(i)
	return true
}

// namedInFile is what a definition calls the step of a node (workflow.WalkNamed).
func (r *Run) namedInFile(i int) string {
	name := r.graph[i].tmpl.Step.ID
	for f := r.graph[i].frame; f > 0; f = r.frames[f].up {
		if up := r.frames[f].parent; r.graph[up].role == workflow.RoleCall {
			name = r.graph[up].tmpl.Step.ID + "." + name
		}
	}
	return name
}

// callEnv is the `env` of a called file.
func (r *Run) callEnv(c *called) (map[string]string, error) {
	if len(c.w.Env) == 0 {
		return nil, nil
	}
	env := make(map[string]string, len(c.w.Env))
	vars := workflow.Vars{Inputs: c.inputs, Env: env, Run: r.runView()}
	for _, e := range c.w.Env {
		value, err := e.Value.EvalString(vars)
		if err != nil {
			return nil, fmt.Errorf("evaluate env %s: %w", e.Name, err)
		}
		env[e.Name] = value
	}
	return env, nil
}

// callWorkflow computes the inputs of a call. As with items, they go through their
// stored form at once.
func (l *Loop) callWorkflow(i int, id string) Body {
	vars, err := l.vars(i, true)
	if err != nil {
		return WorkflowCalled{Step: id, Error: err.Error()}
	}
	call := l.Run.graph[i].step.Call
	inputs, err := call.Given(vars)
	if err != nil {
		return WorkflowCalled{Step: id, Error: fmt.Sprintf("call %s: %v", call.Path, err)}
	}
	b, err := json.Marshal(inputs)
	if err == nil {
		inputs = nil
		err = json.Unmarshal(b, &inputs)
	}
	if err != nil {
		return WorkflowCalled{Step: id, Error: fmt.Sprintf("store the inputs of the call: %v", err)}
	}
	return WorkflowCalled{Step: id, Inputs: inputs}
}
