package engine

import "errors"

// cover stores the workspace after ended attempts and returns the checkpoint that
// each of them names. A step that worked on a fork has one of its own: its merge, in
// the order of ending, whoever else still runs. The others share one, named by the
// last, when no step runs. A merge that conflicts fails its step.
func (l *Loop) cover(outcomes []result) (ids []string, broken error) {
	ids = make([]string, len(outcomes))
	forked := false
	for k := range outcomes {
		step := l.stepID(outcomes[k].node)
		if l.takeBack(&outcomes[k]) {
			forked = true // no other has changed what this one shares
			continue
		}
		if l.Run.Hard || !l.Runner.Forked(step) {
			continue
		}
		forked = true
		o := &outcomes[k].outcome
		id, changed, count, err := l.checkpoint([]string{step})
		var conflict *ConflictError
		if errors.As(err, &conflict) {
			if o.Status == StepSucceeded {
				o.Status, o.Class = StepFailed, ClassConflict
			}
			if o.Error != "" {
				o.Error += "; "
			}
			o.Error += conflict.Text
			continue
		}
		if err != nil {
			return ids, err
		}
		ids[k], o.Changed, o.ChangedCount = id, changed, count
	}
	if steps := l.toCover(outcomes); len(steps) > 0 && !forked {
		k := len(outcomes) - 1
		last := &outcomes[k].outcome
		ids[k], last.Changed, last.ChangedCount, broken = l.checkpoint(steps)
	}
	return ids, broken
}

// takeBack drops the changes of an attempt that is tried again from where it started.
func (l *Loop) takeBack(o *result) bool {
	d, ok := l.Runner.(Discarder)
	if !ok || !l.Run.triedAgainClean(o.node, &o.outcome, l.now) {
		return false
	}
	ctx, cancel := l.bounded("take back what the attempt changed")
	defer cancel()
	d.Discard(ctx, l.stepID(o.node))
	o.outcome.Discarded = true
	return true
}

func (l *Loop) stepID(node int) string { return l.Run.graph[node].id }
