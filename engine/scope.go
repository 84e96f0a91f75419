package engine

import (
	"time"

	"flowrun.dev/flow/workflow"
)

// badFrame: something in it counts as a failure.
func (r *Run) badFrame(f int) bool {
	_, bad := r.frames[f].failed.worst()
	return bad
}

// frameMoved: a node of the frame ended.
func (r *Run) frameMoved(f int) {
	fr := &r.frames[f]
	s := r.graph[fr.parent].scope
	if fr.open == 0 {
		if fr.admitted {
			s.active--
		}
		s.ended++
		if r.badFrame(f) {
			s.bad++
		}
		s.lastEnd = r.at
		r.advance(s)
	}
	r.look(fr.parent)
}

// advance moves a foreach's cursor over the frames that are admitted or ended.
func (r *Run) advance(s *scope) {
	for s.next < len(s.frames) && (r.frames[s.frames[s.next]].admitted || r.frames[s.frames[s.next]].open == 0) {
		s.next++
	}
}

// look keeps `attention`: whether a scope has something to decide.
func (r *Run) look(i int) {
	if !opens(r.graph[i].role) {
		return
	}
	if r.Nodes[i].Status == StepRunning && r.unsettled(i) {
		r.attention.add(i)
	} else {
		r.attention.remove(i)
	}
}

func (r *Run) unsettled(i int) bool {
	n := &r.graph[i]
	s := n.scope
	if s == nil || !s.known || s.again {
		return true
	}
	switch n.role {
	case workflow.RoleForeach:
		f := n.step.Foreach
		return s.ended == len(s.frames) || s.bad > 0 && f.FailFast && !s.rest ||
			s.next < s.limit && r.room(i) > 0 || s.ended >= s.limit
	default:
		last, ok := s.last()
		return !ok || r.frames[last].open == 0
	}
}

// room is how many more items of a foreach may be in work.
func (r *Run) room(i int) int {
	s := r.graph[i].scope
	n := s.limit - s.next
	if most := r.graph[i].step.Foreach.MaxParallel; most > 0 {
		n = min(n, most-s.active)
	}
	return n
}

// admissible: the node is the first of an item of its foreach that may begin now:
// one of the next items, as many as there is room for. One decision may let
// several begin; each event that does so takes its room.
func (r *Run) admissible(i int) bool {
	g := &r.graph[i]
	if g.frame == 0 {
		return false
	}
	f := &r.frames[g.frame]
	if f.admitted || r.graph[f.parent].role != workflow.RoleForeach {
		return false
	}
	s := r.graph[f.parent].scope
	if s.again || s.rest || r.Nodes[f.parent].Status != StepRunning || r.Nodes[f.parent].Stop != "" {
		return false
	}
	for k, left := s.next, r.room(f.parent); k < s.limit && left > 0; k++ {
		switch next := r.frames[s.frames[k]]; {
		case s.frames[k] == g.frame:
			return true
		case !next.admitted && next.open > 0:
			left--
		}
	}
	return false
}

// admit lets the item that a node belongs to begin: with the node's first event.
func (r *Run) admit(i int) {
	f := &r.frames[r.graph[i].frame]
	if f.admitted {
		return
	}
	f.admitted = true
	s := r.graph[f.parent].scope
	s.active++
	r.advance(s)
	r.classify(i)
	r.look(f.parent)
}

// opened: a scope's StepStarted. A group knows all there is to know at once.
func (r *Run) opened(i int, at time.Time) {
	g := &r.graph[i]
	if g.scope == nil {
		r.openScope(i)
	}
	if g.role == workflow.RoleGroup || g.role == workflow.RoleCall {
		if !g.scope.known && g.role == workflow.RoleGroup {
			r.enter(i, nil)
			g = &r.graph[i] // enter made the graph grow
			r.begun(g.scope.frames[0], true)
		}
		if g.step.Timeout > 0 {
			r.timed.add(i)
		}
	}
	g.scope.since, g.scope.rest = at, false
	r.recountFrames(i) // a resume kept what is inside
	for _, f := range g.scope.frames {
		r.classifyAll(f)
	}
	r.look(i)
}

func (r *Run) classifyAll(f int) {
	fr := &r.frames[f]
	for i := fr.first; fr.admitted && i < fr.first+fr.n; i++ {
		r.classify(i)
	}
}

// begun: a new frame's nodes are there.
func (r *Run) begun(f int, admitted bool) {
	fr := &r.frames[f]
	fr.open, fr.admitted = fr.n, admitted
	for i := fr.first; i < fr.first+fr.n; i++ {
		r.Nodes[i].needs = len(r.graph[i].needs)
	}
}

// expanded: a running foreach without items → with them.
func (r *Run) expanded(i int, seq int64, b ForeachExpanded) bool {
	s := r.graph[i].scope
	if r.graph[i].role != workflow.RoleForeach || r.Nodes[i].Status != StepRunning || s == nil || s.known && !s.again || len(b.Keys) != len(b.Items) {
		return false
	}
	switch {
	case b.Error != "":
		s.known, s.again, s.wrong = true, false, b.Error
	case s.again:
		r.expandAgain(i, b)
	default:
		r.expand(i, b.Keys, b.Items, nil)
		for _, f := range r.graph[i].scope.frames {
			r.begun(f, false)
		}
	}
	r.look(i)
	return true
}

// expandAgain: frames of items that stayed keep their state and get their new
// place, those of items that left are no part of the run any more.
func (r *Run) expandAgain(i int, b ForeachExpanded) {
	s := r.graph[i].scope
	had := make(map[string]int, len(s.keys))
	for k, key := range s.keys {
		had[key] = s.frames[k]
	}
	id, up := r.graph[i].id, r.frames[r.graph[i].frame]
	s.keys, s.items, s.frames, s.again = b.Keys, b.Items, nil, false
	for k, key := range b.Keys {
		loop := loopOf(up.loop, b.Items[k], k)
		f, ok := had[key]
		if !ok {
			r.begun(r.addFrame(i, up.prefix, id+"["+key+"]", loop, nil), false)
			continue
		}
		delete(had, key)
		s.frames = append(s.frames, f)
		r.reloop(f, loop)
	}
	var left []int
	for _, f := range had {
		left = append(left, f)
	}
	r.detach(left, "the list of step "+id+" has this item no more")
	r.recountFrames(i)
	for _, f := range s.frames {
		r.classifyAll(f)
	}
}

// reloop gives a frame, and the groups in it, another place in the list.
func (r *Run) reloop(f int, loop *workflow.LoopView) {
	fr := &r.frames[f]
	old := fr.loop
	fr.loop = loop
	for i := fr.first; i < fr.first+fr.n; i++ {
		s := r.graph[i].scope
		if s == nil || r.graph[i].role == workflow.RoleForeach || r.graph[i].role == workflow.RoleCall {
			continue
		}
		for _, in := range s.frames {
			l := *loop
			if r.frames[in].loop != nil && r.frames[in].loop != old {
				l.Iteration = r.frames[in].loop.Iteration
			}
			r.reloop(in, &l)
		}
	}
}

// detach takes what has not ended in frames out of the run.
func (r *Run) detach(frames []int, reason string) {
	for _, f := range frames {
		for i := r.frames[f].first; i < r.frames[f].first+r.frames[f].n; i++ {
			n := &r.Nodes[i]
			if s := r.graph[i].scope; s != nil {
				r.detach(s.frames, reason)
			}
			if r.ended(i) {
				continue
			}
			for _, set := range []*nodeSet{&r.ready, &r.doomed, &r.retrying, &r.attention, &r.asking, &r.asked, &r.timed, &r.met} {
				set.remove(i)
			}
			n.Status, n.Reason, n.endSeq = StepIsNotRun, reason, r.Seq+1
		}
	}
}

// within: the node is inside one of the frames.
func (r *Run) within(i int, frames map[int]bool) bool {
	for f := r.graph[i].frame; f > 0; f = r.frames[f].up {
		if frames[f] {
			return true
		}
	}
	return false
}

// batch: a foreach whose batch has ended → the next one.
func (r *Run) batch(i int, b BatchStarted) bool {
	g := &r.graph[i]
	s := g.scope
	if g.role != workflow.RoleForeach || r.Nodes[i].Status != StepRunning || s == nil || s.ended < s.limit || s.limit >= len(s.frames) {
		return false
	}
	size := g.step.Foreach.BatchSize
	if size <= 0 || b.N != s.limit/size+1 {
		return false
	}
	s.limit = min(len(s.frames), s.limit+size)
	r.look(i)
	return true
}

// iterate: a repeat whose last round was judged, or that has none → a new round.
func (r *Run) iterate(i int, b IterationStarted) bool {
	g := &r.graph[i]
	s := g.scope
	if g.role != workflow.RoleRepeat || r.Nodes[i].Status != StepRunning || s == nil || b.N != len(s.frames)+1 {
		return false
	}
	if last, ok := s.last(); ok && (r.frames[last].open > 0 || s.until != TruthFalse) {
		return false
	}
	r.round(i, nil)
	s = r.graph[i].scope
	last, _ := s.last()
	r.begun(last, true)
	s.active++
	r.classifyAll(last)
	r.look(i)
	return true
}

// judged: a repeat whose last round has ended → with the result of `until`.
func (r *Run) judged(i int, b UntilEvaluated) bool {
	g := &r.graph[i]
	s := g.scope
	if g.role != workflow.RoleRepeat || r.Nodes[i].Status != StepRunning || s == nil || s.until != TruthUnknown || b.N != len(s.frames) {
		return false
	}
	last, ok := s.last()
	if !ok || r.frames[last].open > 0 {
		return false
	}
	r.fresh.clear()
	switch {
	case b.Error != "":
		s.until, s.wrong = TruthFalse, b.Error
	case b.Value:
		s.until = TruthTrue
	default:
		s.until = TruthFalse
	}
	if b.Error == "" {
		r.settle(last)
	}
	r.look(i)
	return true
}

// settle marks what a round did as judged.
func (r *Run) settle(f int) {
	for i := r.frames[f].first; i < r.frames[f].first+r.frames[f].n; i++ {
		r.Nodes[i].Settled = true
		if s := r.graph[i].scope; s != nil {
			for _, in := range s.frames {
				r.settle(in)
			}
		}
	}
}

// stopAsked: what is named and has not ended → asked to stop.
func (r *Run) stopAsked(i int, b StopRequested) bool {
	if b.Status != StepCancelled && b.Status != StepTimedOut {
		return false
	}
	r.fresh.clear()
	switch {
	case i < 0:
		if !b.Rest || r.stopped != "" || r.Status != RunRunning {
			return false
		}
		r.stopped = b.Reason
		for j := range r.finally {
			r.ask(j, b.Status, b.Reason)
		}
		return true
	case r.ended(i):
		return false
	case b.Rest:
		s := r.graph[i].scope
		if s == nil || s.rest || r.Nodes[i].Status != StepRunning {
			return false
		}
		s.rest = true
		r.asked.add(i)
		r.askInside(i, b.Status, b.Reason)
		r.look(i)
		return true
	default:
		if r.Nodes[i].Stop == "" {
			r.Nodes[i].StopJoin = b.Join
		}
		r.ask(i, b.Status, b.Reason)
		return true
	}
}

// ask marks a node and all that is open inside it.
func (r *Run) ask(i int, status StepStatus, reason string) {
	n := &r.Nodes[i]
	if r.ended(i) || n.Stop != "" {
		return
	}
	n.Stop, n.StopReason = status, reason
	r.asked.add(i)
	r.askInside(i, status, reason)
	r.look(i)
}

func (r *Run) askInside(i int, status StepStatus, reason string) {
	if r.graph[i].scope == nil {
		return
	}
	for _, f := range r.graph[i].scope.frames {
		for j := r.frames[f].first; j < r.frames[f].first+r.frames[f].n; j++ {
			r.ask(j, status, reason)
		}
	}
}
