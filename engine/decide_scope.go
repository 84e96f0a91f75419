package engine

import "flowrun.dev/flow/workflow"

// scope is the next thing to do with an open scope that has something to decide.
// slots is nil while the run stops: then it only ends what is there.
func (d *decider) scope(i int, slots *int) {
	r := d.r
	g := &r.graph[i]
	s := g.scope
	stopping := slots == nil || r.Nodes[i].Stop != ""
	switch g.role {
	case workflow.RoleForeach:
		d.foreach(i, s, stopping, slots)
	case workflow.RoleRepeat:
		d.repeat(i, s, stopping)
	case workflow.RoleCall:
		last, ok := s.last()
		switch {
		case !s.known && !stopping:
			d.add(ExpandScope{Node: i})
		case !ok || r.frames[last].open == 0:
			d.add(CloseScope{Node: i})
		}
	default:
		if last, ok := s.last(); ok && r.frames[last].open == 0 {
			d.add(CloseScope{Node: i})
		}
	}
}

func (d *decider) foreach(i int, s *scope, stopping bool, slots *int) {
	r := d.r
	switch {
	case !s.known && stopping, s.again && stopping:
		d.add(CloseScope{Node: i})
		return
	case !s.known, s.again:
		d.add(ExpandScope{Node: i})
		return
	case s.ended == len(s.frames):
		d.add(CloseScope{Node: i})
		return
	case stopping || s.rest:
		return // what is left is settled one by one
	}
	for k, left := s.next, r.room(i); left > 0 && k < s.limit && *slots > 0; k++ {
		f := &r.frames[s.frames[k]]
		node := f.first
		if f.admitted || r.ended(node) {
			continue
		}
		left--
		if d.next(node) {
			*slots--
		}
	}
	if s.ended >= s.limit {
		f := r.graph[i].step.Foreach
		if due := s.lastEnd.Add(f.BatchPause); d.now.Before(due) {
			d.goesOnAt(due)
		} else {
			d.add(StartBatch{Node: i, N: s.limit/f.BatchSize + 1})
		}
	}
}

func (d *decider) repeat(i int, s *scope, stopping bool) {
	r := d.r
	last, begun := s.last()
	switch {
	case begun && r.frames[last].open > 0:
	case stopping:
		d.add(CloseScope{Node: i})
	case !begun:
		d.add(StartRound{Node: i, N: 1})
	case s.until == TruthUnknown && r.judgeable(last):
		d.add(EvaluateUntil{Node: i, N: len(s.frames)})
	case s.until == TruthFalse && s.wrong == "" && len(s.frames) < r.graph[i].step.Repeat.Max:
		d.add(StartRound{Node: i, N: len(s.frames) + 1})
	default:
		d.add(CloseScope{Node: i})
	}
}
