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
