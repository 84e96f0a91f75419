package engine

// settle applies rules 1, 3, 4, 6 and 7 until nothing more runs again: what runs
// again may leave a join without enough, and then what it cancelled runs again too.
func (p *resumePlan) settle() {
	for had := -1; ; {
		n := 0
		for _, why := range p.why {
			if why != "" {
				n++
			}
		}
		if n == had {
			return
		}
		had = n
		p.unfinished()
		p.spread()
	}
}

// joined: how the step ended is accepted by the joins that it leads into (rule 7).
func (p *resumePlan) joined(i int) bool {
	n, g := p.old[i], &p.x.graph[i]
	judged := g.tmpl.Judged && !g.inner
	switch {
	case g.late:
		return false
	case n.StopJoin != "" && (n.Status == StepCancelled || n.Status == StepFailed || n.Status == StepTimedOut):
		j, ok := p.x.find(n.StopJoin)
		return ok && p.hasEnough(j)
	case n.Status == StepFailed || n.Status == StepTimedOut:
		return judged && !limited(n) && n.Stop == "" && p.judgesHaveEnough(i)
	case n.Status == StepIsNotRun:
		return judged && n.Upstream >= 0 && !n.excluded && p.judgesHaveEnough(i)
	}
	return false
}

// judgesHaveEnough: all joins that the ways from the step lead into.
func (p *resumePlan) judgesHaveEnough(i int) bool {
	first := p.x.frames[p.x.graph[i].frame].first
	seen, todo := map[int]bool{}, []int{i}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, d := range p.x.graph[i].dependents {
			switch n := &p.x.graph[d]; {
			case seen[d], n.loose(first, i):
			case n.joins():
				if !p.hasEnough(d) {
					return false
				}
			default:
				todo = append(todo, d)
			}
			seen[d] = true
		}
	}
	return true
}

// hasEnough: a join has what it needs in the steps that stay done.
func (p *resumePlan) hasEnough(i int) bool {
	g := &p.x.graph[i]
	if !g.joins() {
		return false
	}
	have := 0
	for _, need := range g.needs {
		if o := p.old[need]; p.why[need] == "" && !p.dropped[need] && o != nil && o.Status == StepSucceeded && o.Upstream < 0 {
			have++
		}
	}
	return have >= g.step.Join.Count
}

// hasTooLittle: a join cannot have enough, whatever becomes of what runs again.
func (p *resumePlan) hasTooLittle(i int) bool {
	g := &p.x.graph[i]
	lost := 0
	for _, need := range g.needs {
		if o := p.old[need]; p.why[need] == "" && !p.dropped[need] && o != nil && o.Status.ended() && (o.Status != StepSucceeded || o.Upstream >= 0) {
			lost++
		}
	}
	return lost > len(g.needs)-g.step.Join.Count
}
