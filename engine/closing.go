package engine

import (
	"fmt"
	"slices"

	"flowrun.dev/flow/workflow"
)

// closing is the outcome of a scope whose nodes have all ended, without the
// outputs that it has to compute.
func (r *Run) closing(i int) Outcome {
	g, n := &r.graph[i], &r.Nodes[i]
	s := g.scope
	out := Outcome{Status: StepSucceeded}
	if !s.since.IsZero() {
		out.Started, out.Duration = s.since.UTC(), max(0, r.at.Sub(s.since))
	}
	out.Outputs = r.passOn(i) // of a foreach that failed in part as well
	fail := func(status StepStatus, class Class, format string, args ...any) Outcome {
		out.Status, out.Class, out.Error = status, class, fmt.Sprintf(format, args...)
		if status == StepFailed {
			out.ExitCode = 1
		}
		return out
	}
	unfinished := s.cut > 0 || !s.known || s.again || r.unjudged(i)
	switch {
	case n.Stop != "" && unfinished:
		class := ClassCancelled
		if n.Stop == StepTimedOut {
			class = ClassTimeout
		}
		return fail(n.Stop, class, "%s", n.StopReason)
	case s.wrong != "":
		return fail(StepFailed, ClassInvalid, "%s", s.wrong)
	case cancelled(r.CancelCause) && unfinished:
		return fail(StepCancelled, ClassCancelled, "%s", causeInWords(r.CancelCause))
	case signalled(r.CancelCause) && unfinished:
		return fail(StepInterrupted, ClassCancelled, "%s", causeInWords(r.CancelCause))
	}
	switch g.role {
	case workflow.RoleForeach:
		if s.bad > 0 {
			k, why := r.firstBad(s.frames)
			return fail(StepFailed, classOf(k), "%d of %d items failed: %s", s.bad, len(s.frames), why)
		}
	case workflow.RoleRepeat:
		if o, bad := r.roundsOver(s); bad {
			return fail(o.Status, o.Class, "%s", o.Error)
		}
	default:
		if len(s.frames) > 0 && r.badFrame(s.frames[0]) {
			k, why := r.firstBad(s.frames)
			return fail(StepFailed, classOf(k), "%s", why)
		}
	}
	if unfinished { // the run stopped for a reason that lies elsewhere
		return fail(StepInterrupted, r.limitClass(), "%s", r.stopWords())
	}
	return out
}

// unjudged: a repeat that stops between two rounds.
func (r *Run) unjudged(i int) bool {
	if r.graph[i].role != workflow.RoleRepeat {
		return false
	}
	s := r.graph[i].scope
	last, ok := s.last()
	switch {
	case !ok:
		return true
	case s.until == TruthTrue || s.wrong != "":
		return false
	case s.until == TruthUnknown:
		return r.judgeable(last)
	}
	return len(s.frames) < r.graph[i].step.Repeat.Max
}

// judgeable: `until` says whether the round was good enough. That is so after a
// success, and after a failure that is a result of its own: an exit code, a time
// limit, a person's no.
func (r *Run) judgeable(f int) bool {
	i := r.frames[f].first
	switch n := &r.Nodes[i]; n.Status {
	case StepSucceeded, StepIsSkipped:
		return true
	case StepFailed, StepTimedOut:
		return n.Stop == "" && n.Last != nil && slices.Contains([]Class{ClassExitCode, ClassTimeout, ClassRejected}, n.Last.Class) && r.CancelCause == ""
	}
	return false
}

// roundsOver says how the rounds of a repeat failed, if they did.
func (r *Run) roundsOver(s *scope) (Outcome, bool) {
	last, ok := s.last()
	if !ok || s.until == TruthTrue {
		return Outcome{}, false
	}
	i := r.frames[last].first
	n := &r.Nodes[i]
	if s.until == TruthFalse {
		words := fmt.Sprintf("`until` did not become true in %d rounds", len(s.frames))
		if n.Last != nil && n.Last.Error != "" {
			words += "; the last one: " + n.Last.Error
		}
		return Outcome{Status: StepFailed, Class: ClassExitCode, Error: words}, true
	}
	if k, bad := r.counts(i); bad {
		_, why := r.firstBad([]int{last})
		return Outcome{Status: StepFailed, Class: classOf(k), Error: why}, true
	}
	return Outcome{}, false
}

// firstBad words the first failure of the worst rank in frames.
func (r *Run) firstBad(frames []int) (rank, string) {
	var sum tally
	for _, f := range frames {
		for k, n := range r.frames[f].failed {
			sum[k] += n
		}
	}
	k, _ := sum.worst()
	for _, f := range frames {
		if r.frames[f].failed[k] > 0 {
			return k, r.firstOf(k, r.frames[f].first, r.frames[f].first+r.frames[f].n)
		}
	}
	return k, ""
}

func (r *Run) limitClass() Class {
	switch {
	case r.failed[rankBudget]+r.limits[rankBudget] > 0:
		return ClassBudget
	case r.failed[rankRateLimit]+r.limits[rankRateLimit] > 0:
		return ClassRateLimit
	case r.CancelCause == "timeout":
		return ClassTimeout
	}
	return ClassCancelled
}

func (r *Run) stopWords() string {
	d := decider{plan: r.plan, r: r}
	return d.stopReason()
}

// passOn are the outputs that come from inside without an expression: those of
// the last round, and one list for each name of a foreach, in item order, with
// nothing where an item failed or has none.
func (r *Run) passOn(i int) map[string]any {
	g := &r.graph[i]
	switch g.role {
	case workflow.RoleRepeat:
		if last, ok := g.scope.last(); ok && r.Nodes[r.frames[last].first].Last != nil {
			return r.Nodes[r.frames[last].first].Last.Outputs
		}
	case workflow.RoleForeach:
		return r.collected(g.scope)
	}
	return nil
}

func (r *Run) collected(s *scope) map[string]any {
	var names []string
	for _, o := range s.frames {
		if n := &r.Nodes[r.frames[o].first]; n.Last != nil && n.Status == StepSucceeded {
			for name := range n.Last.Outputs {
				if !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	out := make(map[string]any, len(names))
	for _, name := range names {
		list := make([]any, len(s.frames))
		for k, f := range s.frames {
			if n := &r.Nodes[r.frames[f].first]; n.Last != nil && n.Status == StepSucceeded {
				list[k] = n.Last.Outputs[name]
			}
		}
		out[name] = list
	}
	return out
}
