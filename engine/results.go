package engine

import "flowrun.dev/flow/workflow"

// Result is how one step of a run stands, for reports.
type Result struct {
	ID string
	// Step of the file, under the instance's id.
	Step *workflow.Step
	Kind string
	// State is read-only.
	State *NodeState
	// Accepted: it did not end well, and its continue_on_error or that of a step
	// around it takes that as a result.
	Accepted bool
}

// Results are the steps that did something of their own, each once, in the order of
// the file. A foreach and a group are told of by what is inside them, a repeat by
// itself: how its earlier rounds ended is no result. One that has nothing inside, or
// that failed although nothing inside did, stands for itself.
func (r *Run) Results() []Result {
	w := resultWalk{r: r}
	for i := range r.plan.Nodes {
		w.node(i, false)
	}
	return w.out
}

type resultWalk struct {
	r   *Run
	out []Result
}

// node reports whether anything in it counts as bad.
func (w *resultWalk) node(i int, accepted bool) (bad bool) {
	r := w.r
	g, n := &r.graph[i], &r.Nodes[i]
	own := n.Status == StepFailed || n.Status == StepTimedOut || n.Status == StepCancelled || n.Status == StepInterrupted
	accepted = accepted || g.tolerant() && (n.Status == StepFailed || n.Status == StepTimedOut) && !limited(n)
	open := g.scope != nil && len(g.scope.frames) > 0 && n.Tries > 0 && g.role != workflow.RoleRepeat
	if open {
		inside := false
		for _, f := range g.scope.frames {
			for j := r.frames[f].first; j < r.frames[f].first+r.frames[f].n; j++ {
				inside = w.node(j, accepted) || inside
			}
		}
		if inside || !own {
			return inside
		}
	}
	w.out = append(w.out, Result{ID: g.id, Step: g.step, Kind: g.kindWord(), State: n, Accepted: accepted && own})
	return own
}
