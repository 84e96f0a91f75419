package engine

import "fmt"

// BackgroundEnded: the process of a background step has ended: by itself (Early), or
// with the run. It comes once for each that was started and became ready, and names
// its whole output.
type BackgroundEnded struct {
	Step     string `json:"step"`
	Attempt  int    `json:"attempt"`
	Early    bool   `json:"early,omitempty"`
	ExitCode int    `json:"exit_code"`
	// Error in words when it ended early and not well.
	Error  string  `json:"error,omitempty"`
	Log    string  `json:"log,omitempty"`
	Stdout Excerpt `json:"stdout"`
	Stderr Excerpt `json:"stderr"`
}

// Type of the event.
func (BackgroundEnded) Type() string { return "background_ended" }

// backgroundEnded: what waits for the step and has not started does not run any more,
// and that is a failure of the step. Where nothing is left to wait for it, its end is
// only told of.
func (r *Run) backgroundEnded(b BackgroundEnded) bool {
	i, ok := r.plan.ByID[b.Step]
	if !ok || r.Status == "" || b.Attempt > r.Nodes[i].Attempts {
		return false
	}
	n := &r.Nodes[i]
	if n.Last != nil && b.Attempt == n.Attempts && b.Log != "" {
		last := *n.Last
		last.Log = b.Log
		n.Last = &last
	}
	if !b.Early || b.Error == "" || r.Status != RunRunning || b.Attempt != n.Attempts || n.Status != StepSucceeded || n.Died != "" {
		return true
	}
	waits := false
	for j := range r.finally {
		if r.Nodes[j].Status == StepPending && !r.Nodes[j].excluded && r.comesAfter(j, i) {
			waits = true
		}
	}
	if !waits {
		return true
	}
	r.count(i, -1)
	n.Died = b.Error
	r.count(i, 1)
	r.lost++
	for j := range r.ready.all() {
		if r.graph[j].frame == 0 && j < r.finally {
			r.ready.remove(j)
			r.classify(j)
		}
	}
	return true
}

// lostAbove is a background step that a node of the top level comes after and whose
// process died, -1 for none.
func (r *Run) lostAbove(node int) int {
	if r.lost == 0 || r.graph[node].frame != 0 || node >= r.finally {
		return -1
	}
	for i := range r.finally {
		if r.Nodes[i].Died != "" && !r.graph[i].tolerant() && r.comesAfter(node, i) {
			return i
		}
	}
	return -1
}

// comesAfter: the node waits for another one of the top level, directly or through
// others.
func (r *Run) comesAfter(node, other int) bool {
	seen := newNodeSet(len(r.graph))
	todo := []int{node}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, need := range r.graph[i].needs {
			if need == other {
				return true
			}
			if !seen.has(need) {
				seen.add(need)
				todo = append(todo, need)
			}
		}
	}
	return false
}

// backgrounds resets the background steps whose process is gone and that something
// which runs again comes after. What stays done stays done: it had the process.
func (p *resumePlan) backgrounds() {
	for i := range p.x.plan.Nodes {
		g := &p.x.graph[i]
		if !g.step.Background || g.late || p.why[i] != "" || p.old[i] == nil || p.old[i].Status != StepSucceeded {
			continue
		}
		for j := range p.x.plan.Nodes {
			runs := p.why[j] != "" || p.old[j] == nil || !p.x.graph[j].late && p.old[j].Status == StepPending
			if runs && !p.x.graph[j].late && p.x.comesAfter(j, i) {
				p.reset(i, "its process ended with the run, and step %s comes after it", p.x.graph[j].id)
				break
			}
		}
	}
}

func diedWords(n *NodeState) string { return fmt.Sprintf("its process ended early: %s", n.Died) }

// backgroundEnds records the ends of background processes, once their steps have ended.
func (l *Loop) backgroundEnds(ends []Body) error {
	for _, b := range ends {
		if i, ok := l.Run.find(b.(BackgroundEnded).Step); ok && l.live[i] != nil {
			l.mu.Lock()
			l.emitted = append(l.emitted, b)
			l.mu.Unlock()
			continue // its result wakes the loop
		}
		if err := l.record(b); err != nil {
			return err
		}
	}
	return nil
}

// onlyEnds are the ends that came after the run's own.
func onlyEnds(bodies []Body) (out []Body) {
	for _, b := range bodies {
		if _, ok := b.(BackgroundEnded); ok {
			out = append(out, b)
		}
	}
	return out
}
