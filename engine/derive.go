package engine

import (
	"flowrun.dev/flow/workflow"
)

// adopt makes plan the run's plan; states are carried over by id.
func (r *Run) adopt(plan *workflow.Plan) {
	r.construct(plan, r.pastOf(nil))
	r.rebuild()
}

// rebuild computes what is derived from the nodes' states. Cost: the whole graph,
// so only at the start and at a resume.
func (r *Run) rebuild() {
	for _, set := range []*nodeSet{&r.ready, &r.doomed, &r.retrying, &r.fresh, &r.running, &r.attention, &r.asking, &r.asked, &r.timed, &r.met} {
		set.clear()
	}
	r.open, r.failed, r.failedFin, r.limits = 0, tally{}, tally{}, tally{}
	r.lost = 0
	for i := range r.plan.Nodes {
		if r.Nodes[i].Died != "" {
			r.lost++
		}
	}
	r.exclude()
	for f := range r.frames {
		r.frames[f].open, r.frames[f].failed = r.frames[f].n, tally{}
	}
	for i := len(r.graph) - 1; i >= 0; i-- { // inner frames first
		n := &r.Nodes[i]
		n.needs = 0
		if i >= len(r.plan.Nodes) || !r.graph[i].late {
			for _, need := range r.graph[i].needs {
				if !r.ended(need) {
					n.needs++
				}
			}
		}
		r.recount(i)
	}
	for f := range r.frames {
		for i := r.frames[f].first; r.frames[f].admitted && i < r.frames[f].first+r.frames[f].n; i++ {
			if f > 0 || i < r.finally {
				r.classify(i)
			}
		}
	}
	for i := range r.graph {
		r.look(i)
	}
	r.finallyNext = r.finally
	r.skipEndedFinally()
}

// recount puts a node where its status belongs.
func (r *Run) recount(i int) {
	n, g := &r.Nodes[i], &r.graph[i]
	top := g.frame == 0
	switch {
	case r.ended(i):
		r.count(i, 1)
		r.frames[g.frame].open--
	case n.Status == StepRunning && g.role == workflow.RoleStep:
		r.running.add(i)
	case n.Status == StepWaiting, n.Status == StepRunning && g.role == workflow.RoleApprove:
		r.asking.add(i)
	case n.Status == StepRetrying:
		r.retrying.add(i)
	}
	if top && i < r.finally && !r.ended(i) {
		r.open++
	}
	if g.scope != nil {
		r.recountFrames(i)
	}
}

// recountFrames: what the frames of a scope add up to.
func (r *Run) recountFrames(i int) {
	s := r.graph[i].scope
	s.active, s.ended, s.bad, s.next = 0, 0, 0, 0
	role, running := r.graph[i].role, r.Nodes[i].Status == StepRunning
	for k, f := range s.frames {
		fr := &r.frames[f]
		switch role {
		case workflow.RoleForeach:
			first := &r.Nodes[fr.first]
			fr.admitted = running && (first.Status != StepPending || first.Condition != TruthUnknown)
		case workflow.RoleRepeat:
			fr.admitted = running && k == len(s.frames)-1
		default:
			fr.admitted = running
		}
		if fr.admitted && fr.open > 0 {
			s.active++
		}
		if fr.open == 0 {
			s.ended++
			if r.badFrame(f) {
				s.bad++
			}
		}
	}
	if role == workflow.RoleForeach {
		r.advance(s)
		size := max(1, r.graph[i].step.Foreach.BatchSize)
		s.limit = r.batchLimit(i, max(1, (s.next+size-1)/size))
	}
}

// exclude marks the nodes that Options.Until leaves out: all that are neither the
// named step nor needed by it.
func (r *Run) exclude() {
	until, ok := r.plan.ByID[r.Start.Options.Until]
	for i := range r.plan.Nodes {
		r.Nodes[i].excluded = ok && i < r.finally
	}
	if !ok {
		return
	}
	todo := []int{until}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !r.Nodes[i].excluded {
			continue
		}
		r.Nodes[i].excluded = false
		todo = append(todo, r.graph[i].needs...)
	}
}

func (r *Run) skipEndedFinally() {
	for r.finallyNext < len(r.plan.Nodes) && r.ended(r.finallyNext) {
		r.finallyNext++
	}
}

// ended: the node takes no further part in this attempt of the run.
func (r *Run) ended(i int) bool { return r.Nodes[i].Status.ended() }

func (s StepStatus) ended() bool {
	switch s {
	case StepPending, StepRunning, StepRetrying, StepWaiting:
		return false
	}
	return true
}

// endedWell: it counts as done for what follows. A failure with
// continue_on_error does (language: Steps); an interruption never does.
func (r *Run) endedWell(i int) bool {
	switch r.Nodes[i].Status {
	case StepSucceeded, StepIsSkipped:
		return true
	case StepFailed, StepTimedOut:
		return r.graph[i].tolerant()
	}
	return false
}

// blame is the step that a dependent of i has to name, -1 when all is well.
// Success is transitive: a step that ran on in spite of a failure (always()) does
// not hide it from what needs the step.
func (r *Run) blame(i int) int {
	switch n := &r.Nodes[i]; {
	case n.Upstream >= 0:
		return n.Upstream
	case r.endedWell(i):
		return -1
	default:
		return i
	}
}

// classify puts a pending step whose needs have all ended where Decide looks for it.
func (r *Run) classify(i int) {
	n, g := &r.Nodes[i], &r.graph[i]
	if g.joins() {
		r.classifyJoin(i)
		return
	}
	if n.Status != StepPending || n.needs > 0 {
		return
	}
	n.Upstream = -1
	for _, need := range g.needs {
		if b := r.blame(need); b >= 0 && !g.loose(r.frames[g.frame].first, need) {
			n.Upstream = b
			break
		}
	}
	if n.Upstream < 0 {
		n.Upstream = r.lostAbove(i)
	}
	if n.excluded || n.Upstream >= 0 && !n.statusIf {
		r.doomed.add(i)
	} else {
		r.ready.add(i)
	}
}

// count adds a node's end to the tallies, or takes it back.
func (r *Run) count(i, by int) {
	g := &r.graph[i]
	k, bad := r.counts(i)
	if !bad {
		return
	}
	switch {
	case g.frame > 0:
		r.frames[g.frame].failed[k] += by
		if !g.late && g.role == workflow.RoleStep && (k == rankBudget || k == rankRateLimit) {
			r.limits[k] += by
		}
	case g.late:
		r.failedFin[k] += by
	default:
		r.failed[k] += by
	}
}

// end settles a node: what needs it may go on, and so may the scope around it.
func (r *Run) end(i int, seq int64) {
	n, g := &r.Nodes[i], &r.graph[i]
	n.endSeq = seq
	if g.scope != nil && (n.Status == StepIsSkipped || n.Status == StepIsNotRun) {
		r.detach(g.scope.frames, "step "+g.id+", which holds it, was not run again")
	}
	r.count(i, 1)
	r.attention.remove(i)
	r.asking.remove(i)
	r.asked.remove(i)
	r.timed.remove(i)
	r.met.remove(i)
	r.frames[g.frame].open--
	switch {
	case g.frame > 0:
		r.frameMoved(g.frame)
	case i >= r.finally:
		r.skipEndedFinally()
		return
	default:
		r.open--
	}
	for _, d := range g.dependents {
		if g.frame == 0 && d >= r.finally {
			continue // finally nodes wait for all steps
		}
		if dep := &r.Nodes[d]; dep.needs > 0 {
			dep.needs--
			r.classify(d)
		}
	}
}

// unend takes an end back: a retry was scheduled, before anything followed from it.
func (r *Run) unend(i int) {
	g := &r.graph[i]
	wasBad := r.badFrame(g.frame)
	r.count(i, -1)
	r.Nodes[i].endSeq = 0
	if f := &r.frames[g.frame]; g.frame > 0 {
		if f.open++; f.open == 1 {
			s := r.graph[f.parent].scope
			s.ended--
			s.active++
			if wasBad {
				s.bad--
			}
			r.look(f.parent)
		}
	} else {
		f.open++
		if i >= r.finally {
			r.finallyNext = min(r.finallyNext, i)
			return
		}
		r.open++
	}
	for _, d := range g.dependents {
		if g.frame > 0 || d < r.finally {
			r.Nodes[d].needs++
			r.ready.remove(d)
			r.doomed.remove(d)
		}
	}
}
