package engine

import "flowrun.dev/flow/workflow"

// Exports are what a step gives the environment of later ones ($FLOW_ENV, $FLOW_PATH).
type Exports struct {
	// Env in the order of setting: of one name the last one counts.
	Env []EnvSet `json:"env,omitempty"`
	// Path are folders for the front of PATH, in the order of adding: the last one
	// comes first.
	Path []string `json:"path,omitempty"`
}

// EnvSet is one variable.
type EnvSet struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Empty: there is nothing to give.
func (e Exports) Empty() bool { return len(e.Env) == 0 && len(e.Path) == 0 }

func (e *Exports) add(o *Exports) {
	e.Env = append(e.Env, o.Env...)
	e.Path = append(e.Path, o.Path...)
}

// exported is what a node is given by those that ended before it and that it waits
// for, directly or through others: steps beside it give nothing, so that a run does
// not depend on who was faster. Where two of them are in no order, the later in the
// file wins, of a foreach the later item, of a repeat the later round.
func (r *Run) exported(node int) Exports {
	var out Exports
	if r.exporters == 0 {
		return out
	}
	w := exportWalk{r: r, out: &out, seen: newNodeSet(len(r.graph))}
	w.before(node)
	return out
}

// ExportsFor is what a step is given, for who looks at it later.
func (r *Run) ExportsFor(step string) Exports {
	i, ok := r.find(step)
	if !ok {
		return Exports{}
	}
	return r.exported(i)
}

type exportWalk struct {
	r    *Run
	out  *Exports
	seen nodeSet
}

// before visits all that comes before a node, outermost first.
func (w *exportWalk) before(i int) {
	g := &w.r.graph[i]
	if f := w.r.frames[g.frame]; g.frame > 0 {
		w.before(f.parent)
		if w.r.graph[f.parent].role == workflow.RoleRepeat {
			for _, round := range w.r.graph[f.parent].scope.frames {
				if round == g.frame {
					break
				}
				w.inside(round)
			}
		}
	}
	if g.late && g.frame == 0 { // all steps, and those of its kind above it
		for j := range i {
			w.visit(j)
		}
		return
	}
	for _, need := range g.needs {
		w.visit(need)
	}
}

// visit takes a node after what it waited for.
func (w *exportWalk) visit(i int) {
	if w.seen.has(i) {
		return
	}
	w.seen.add(i)
	g, n := &w.r.graph[i], &w.r.Nodes[i]
	if !g.late {
		for _, need := range g.needs {
			w.visit(need)
		}
	}
	if g.scope != nil {
		for _, f := range g.scope.frames {
			w.inside(f)
		}
	}
	// Last may be of an attempt from before a reset.
	if g.role == workflow.RoleStep && w.r.ended(i) && n.Tries > 0 && n.Last != nil && n.Last.Exports != nil {
		w.out.add(n.Last.Exports)
	}
}

func (w *exportWalk) inside(f int) {
	fr := &w.r.frames[f]
	for i := fr.first; i < fr.first+fr.n; i++ {
		w.visit(i)
	}
}
