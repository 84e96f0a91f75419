package workflow

import "slices"

// BuildPlan makes the graph of a checked workflow, in linear time.
func BuildPlan(w *Workflow) *Plan {
	p := &Plan{Workflow: w, ByID: make(map[string]int, len(w.Steps)+len(w.Finally))}
	for _, s := range w.Steps {
		p.ByID[s.ID] = len(p.Nodes)
		p.Nodes = append(p.Nodes, Node{Step: s})
	}
	p.link()
	for i, s := range w.Finally {
		p.ByID[s.ID] = len(p.Nodes)
		n := Node{Step: s, Finally: true}
		if i > 0 {
			n.Needs = []int{len(p.Nodes) - 1}
			last := &p.Nodes[len(p.Nodes)-1]
			last.Dependents = append(last.Dependents, len(p.Nodes))
		}
		p.Nodes = append(p.Nodes, n)
	}
	return p
}

// link sets the edges of the steps. frontier holds the steps so far that no
// other step waits for: who waits for all of them waits for all steps above.
func (p *Plan) link() {
	frontier := map[int]bool{}
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if n.Step.HasNeeds {
			for _, id := range n.Step.Needs {
				n.Needs = append(n.Needs, p.ByID[id])
			}
		} else {
			for j := range frontier {
				n.Needs = append(n.Needs, j)
			}
			slices.Sort(n.Needs)
		}
		for _, j := range n.Needs {
			p.Nodes[j].Dependents = append(p.Nodes[j].Dependents, i)
			delete(frontier, j)
		}
		frontier[i] = true
	}
}
