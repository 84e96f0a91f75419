package engine

import (
	"fmt"
	"slices"
	"strings"
)

// A join (needs: any, count) starts when enough of what it lists succeeded. What
// succeeded in spite of a failure before it (always()), what was skipped and what
// failed with continue_on_error does not count.

// joins: some of its needs are enough.
func (n *node) joins() bool {
	return n.step.Join != nil && !n.inner && len(n.needs) > 0
}

// loose: only the end of a need is waited for; first is the first node of the frame.
func (n *node) loose(first, need int) bool {
	return len(n.tmpl.Loose) > 0 && slices.Contains(n.tmpl.Loose, need-first)
}

// joinable: the node counts for a join that lists it.
func (r *Run) joinable(i int) bool {
	return r.Nodes[i].Status == StepSucceeded && r.Nodes[i].Upstream < 0
}

// classifyJoin puts a pending join where Decide looks for it, as soon as that is
// known: what it lists may still run then.
func (r *Run) classifyJoin(i int) {
	n, g := &r.Nodes[i], &r.graph[i]
	if n.Status != StepPending {
		return
	}
	n.Upstream, n.unmet, n.fault = -1, false, 0
	have, open, why := 0, 0, -1
	for _, need := range g.needs {
		switch {
		case !r.ended(need):
			open++
		case r.joinable(need):
			have++
		case why >= 0:
		default:
			why = r.blame(need)
			if status := r.Nodes[need].Status; why < 0 && status != StepIsSkipped && status != StepSucceeded {
				why = need // continue_on_error
			}
		}
	}
	join := g.step.Join
	met := have >= join.Count
	r.met.remove(i)
	switch {
	case open > 0 && join.CancelRest:
		if met {
			r.met.add(i)
		}
		return
	case !met && have+open >= join.Count:
		return
	case !met:
		fault := r.faultOf(i)
		if fault == 0 && open > 0 {
			return // what still runs may fail, and nobody else would judge that
		}
		n.Upstream, n.unmet, n.fault = why, true, fault
	}
	if n.excluded || n.unmet && !n.statusIf {
		r.doomed.add(i)
	} else {
		r.ready.add(i)
	}
}

// nothingToJoin: a join that has too little because of what was skipped, and of
// nothing else: it is skipped as well.
func (r *Run) nothingToJoin(i int) bool {
	n := &r.Nodes[i]
	return n.unmet && n.Upstream < 0 && !n.excluded && r.doomed.has(i)
}

// faultOf is what an unmet join counts as, +1: the worst of the failures that it
// judges, 0 when there is none.
func (r *Run) faultOf(i int) rank {
	worst := ranks
	for _, need := range r.graph[i].needs {
		if !r.ended(need) || r.joinable(need) {
			continue
		}
		j := r.blame(need)
		if j < 0 || !r.graph[j].tmpl.Judged || r.Nodes[j].Stop == StepCancelled {
			continue
		}
		switch n := &r.Nodes[j]; n.Status {
		case StepFailed, StepTimedOut:
			if n.Last != nil {
				worst = min(worst, rankOf(n.Last.Class))
			} else {
				worst = min(worst, rankStep)
			}
		case StepIsNotRun:
			if n.fault > 0 {
				worst = min(worst, n.fault-1)
			}
		}
	}
	if worst == ranks {
		return 0
	}
	return worst + 1
}

// unmetReason says why a join has too little.
func (r *Run) unmetReason(i int) string {
	g := &r.graph[i]
	have := 0
	var words []string
	for _, need := range g.needs {
		n, id := &r.Nodes[need], r.graph[need].id
		switch {
		case r.joinable(need):
			have++
		case !r.ended(need):
		case n.Status == StepSucceeded:
			words = append(words, id+" ran in spite of a failure before it")
		case n.Status == StepTimedOut:
			words = append(words, id+" timed out")
		case n.Status == StepIsNotRun:
			words = append(words, id+" was not run")
		default:
			words = append(words, id+" "+verb(n.Status))
		}
	}
	const named = 8
	if more := len(words) - named; more > 0 {
		words = append(words[:named], fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("it needs %d of %d steps, and %d succeeded: %s", g.step.Join.Count, len(g.needs), have, strings.Join(words, ", "))
}

// cancelRest asks what joins need no more to stop.
func (d *decider) cancelRest() {
	r := d.r
	for i := range r.met.all() {
		if r.Nodes[i].Stop != "" {
			continue
		}
		g := &r.graph[i]
		reason := fmt.Sprintf("step %s has what it needs", g.id)
		for _, j := range r.rest(i) {
			if r.Nodes[j].Stop == "" {
				d.add(RequestStop{Node: j, Status: StepCancelled, Reason: reason, Join: g.id})
			}
		}
	}
}

// rest are the nodes that a met join waits for in vain: those that it lists and that
// have not ended, and what only they need.
func (r *Run) rest(i int) []int {
	g := &r.graph[i]
	first := r.frames[g.frame].first
	var out []int
	in := map[int]bool{}
	for _, need := range g.needs {
		if !r.ended(need) {
			in[need] = true
			out = append(out, need)
		}
	}
	for k := 0; k < len(out); k++ { // grows
		for _, need := range r.graph[out[k]].needs {
			if in[need] || r.ended(need) || r.graph[out[k]].loose(first, need) {
				continue
			}
			if !slices.ContainsFunc(r.graph[need].dependents, func(d int) bool { return !in[d] && !r.ended(d) }) {
				in[need] = true
				out = append(out, need)
			}
		}
	}
	return out
}
