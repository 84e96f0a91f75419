package workflow

import "slices"

// BuildPlan makes the graph of a checked workflow, in linear time.
func BuildPlan(w *Workflow) *Plan {
	n := len(w.Steps) + len(w.OnFailure) + len(w.Finally)
	p := &Plan{Workflow: w, ByID: make(map[string]int, n), Nodes: make([]Node, 0, n)}
	for _, s := range w.Steps {
		p.Nodes = append(p.Nodes, nodeOf(s))
	}
	link(p.Nodes)
	for i, s := range append(slices.Clip(w.OnFailure), w.Finally...) {
		n := nodeOf(s)
		n.Finally, n.OnFailure, n.Alone = true, i < len(w.OnFailure), true
		if i > 0 {
			n.Needs = []int{len(p.Nodes) - 1}
			last := &p.Nodes[len(p.Nodes)-1]
			last.Dependents = append(last.Dependents, len(p.Nodes))
		}
		p.Nodes = append(p.Nodes, n)
	}
	for i := range p.Nodes {
		p.ByID[p.Nodes[i].Step.ID] = i
	}
	return p
}

// nodeOf wraps a step: foreach around repeat around the step itself.
func nodeOf(s *Step) Node {
	n := Node{Step: s, Role: s.role()}
	if n.Role == RoleGroup {
		for _, c := range s.Steps {
			n.Body = append(n.Body, nodeOf(c))
		}
		link(n.Body)
	}
	if n.Role == RoleCall {
		for _, c := range s.Call.Workflow.Steps {
			n.Body = append(n.Body, nodeOf(c))
		}
		link(n.Body)
	}
	if s.Repeat != nil {
		n.Alone = true
		n = Node{Step: s, Role: RoleRepeat, Body: []Node{n}}
	}
	if s.Foreach != nil {
		n.Alone = true
		n = Node{Step: s, Role: RoleForeach, Body: []Node{n}}
	}
	return n
}

// link sets the edges of a list of steps. frontier holds the steps so far that no
// other step waits for: who waits for all of them waits for all steps above. joined
// are those that a join above names.
func link(nodes []Node) {
	ids := make(map[string]int, len(nodes))
	for i := range nodes {
		ids[nodes[i].Step.ID] = i
	}
	frontier, joined := map[int]bool{}, map[int]bool{}
	for i := range nodes {
		n := &nodes[i]
		join := n.Step.Join
		switch {
		case n.Step.HasNeeds:
			for _, id := range n.Step.Needs {
				n.Needs = append(n.Needs, ids[id])
			}
		default:
			for j := range frontier {
				n.Needs = append(n.Needs, j)
				if joined[j] {
					n.Loose = append(n.Loose, j)
				}
			}
			slices.Sort(n.Needs)
			slices.Sort(n.Loose)
		}
		for _, j := range n.Needs {
			nodes[j].Dependents = append(nodes[j].Dependents, i)
			if join != nil {
				joined[j] = true
			}
			if !n.Opens() {
				delete(frontier, j)
			}
		}
		frontier[i] = true
	}
	order := inOrder(nodes)
	setAlone(nodes, order)
	if len(joined) > 0 {
		setJudged(nodes, order)
	}
}

// Opens: the node may start before all of its Needs have ended.
func (n *Node) Opens() bool { return n.Step.Join != nil && !n.Step.Join.CancelRest }

// inOrder is an order of the nodes that respects the edges.
func inOrder(nodes []Node) []int {
	waits := make([]int, len(nodes))
	order := make([]int, 0, len(nodes))
	for i := range nodes {
		if waits[i] = len(nodes[i].Needs); waits[i] == 0 {
			order = append(order, i)
		}
	}
	for k := 0; k < len(order); k++ { // grows
		for _, d := range nodes[order[k]].Dependents {
			if waits[d]--; waits[d] == 0 {
				order = append(order, d)
			}
		}
	}
	return order
}

// setJudged finds the nodes from which every way leads into a join.
func setJudged(nodes []Node, order []int) {
	for _, i := range slices.Backward(order) {
		led, elsewhere := false, false
		for _, d := range nodes[i].Dependents {
			n := &nodes[d]
			into := n.Step.Join != nil || n.Judged
			led = led || into
			elsewhere = elsewhere || !into && !slices.Contains(n.Loose, i)
		}
		nodes[i].Judged = led && !elsewhere
	}
}

// setAlone finds the nodes that every other one waits for, or that wait for it, in
// linear time: in an order that respects the edges, all nodes before such a one lead
// to it (it is the only one of them that nothing before it waits for), and all after
// it come from it. What a join need not wait for leads to nothing.
func setAlone(nodes []Node, order []int) {
	last := make([]bool, len(nodes)) // all before it lead to it
	ends := func(from, step int, edges func(i int) []int, found func(i int)) {
		open := map[int]bool{}
		for k := from; k >= 0 && k < len(order); k += step {
			for _, j := range edges(order[k]) {
				delete(open, j)
			}
			open[order[k]] = true
			if len(open) == 1 {
				found(order[k])
			}
		}
	}
	needs := func(i int) []int {
		if nodes[i].Opens() {
			return nil
		}
		return nodes[i].Needs
	}
	dependents := func(i int) []int {
		out := nodes[i].Dependents
		if slices.ContainsFunc(out, func(d int) bool { return nodes[d].Opens() }) {
			out = slices.DeleteFunc(slices.Clone(out), func(d int) bool { return nodes[d].Opens() })
		}
		return out
	}
	ends(0, 1, needs, func(i int) { last[i] = true })
	ends(len(order)-1, -1, dependents, func(i int) { nodes[i].Alone = last[i] })
}

// Walk calls f for every step of the workflow, also those in groups and in the files
// that it calls, in file order: steps, on_failure, finally.
func (w *Workflow) Walk(f func(*Step)) { w.walk("", func(_ string, s *Step) { f(s) }) }

// WalkNamed is Walk with the name that a step has in the whole: those of a called
// file follow the id of the step that calls it and a dot.
func (w *Workflow) WalkNamed(f func(name string, s *Step)) { w.walk("", f) }

func (w *Workflow) walk(prefix string, f func(name string, s *Step)) {
	w.own(func(s *Step) {
		f(prefix+s.ID, s)
		if s.Call != nil && s.Call.Workflow != nil {
			s.Call.Workflow.walk(prefix+s.ID+".", f)
		}
	})
}

// own calls f for the steps of the file itself.
func (w *Workflow) own(f func(*Step)) {
	var walk func(list []*Step)
	walk = func(list []*Step) {
		for _, s := range list {
			f(s)
			walk(s.Steps)
		}
	}
	walk(w.Steps)
	walk(w.OnFailure)
	walk(w.Finally)
}
