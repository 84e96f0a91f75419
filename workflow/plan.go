package workflow

// Plan is the graph of a workflow's steps. Node indexes are stable: steps first,
// in file order, then finally.
type Plan struct {
	Workflow *Workflow
	Nodes    []Node
	// ByID finds a node's index.
	ByID map[string]int
}

// Node is one step in the graph.
type Node struct {
	Step *Step
	// Finally marks the nodes that run at the end of the run, in order.
	Finally bool
	// Needs are the indexes that must have ended before it starts. An absent
	// `needs` is reduced to those steps above that no later step already waits
	// for, so that 10,000 steps in a row have one edge each.
	Needs []int
	// Dependents is the reverse of Needs.
	Dependents []int
}

// Overlaps finds a step that may run at the same time as node i: neither waits for
// the other. -1 for none. Cost: the graph, once.
func (p *Plan) Overlaps(i int) int {
	if p.Nodes[i].Finally {
		return -1
	}
	ordered := make([]bool, len(p.Nodes))
	ordered[i] = true
	for _, edges := range []func(*Node) []int{func(n *Node) []int { return n.Needs }, func(n *Node) []int { return n.Dependents }} {
		todo, seen := []int{i}, map[int]bool{}
		for len(todo) > 0 {
			at := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			for _, next := range edges(&p.Nodes[at]) {
				if !seen[next] {
					seen[next], ordered[next] = true, true
					todo = append(todo, next)
				}
			}
		}
	}
	for j := range p.Nodes {
		if !ordered[j] && !p.Nodes[j].Finally {
			return j
		}
	}
	return -1
}
