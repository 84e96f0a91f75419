package workflow

import "slices"

// Plan is the graph of a workflow's steps. Node indexes are stable: steps first,
// in file order, then on_failure, then finally. What a scope holds (a group, an
// item of foreach, a round of repeat) is its Body: a run makes nodes of it when
// the scope opens, so that a plan is as large as its file.
type Plan struct {
	Workflow *Workflow
	Nodes    []Node
	// ByID finds the index of a node of the top level.
	ByID map[string]int
}

// Role says what a node is in the graph.
type Role uint8

const (
	RoleStep    Role = iota // runs something itself
	RoleGroup               // opens its Body once
	RoleForeach             // opens its Body (one node) for each item
	RoleRepeat              // opens its Body (one node) round after round
	RoleApprove             // asks a person
	RoleCall                // opens its Body once: the steps of another file, with values of their own
)

// Node is one step in the graph.
type Node struct {
	Step *Step
	Role Role
	// Body are the nodes that a scope opens; their indexes count within Body.
	Body []Node
	// Finally marks the nodes that run at the end of the run, in order; OnFailure
	// those of them that do so only when it failed.
	Finally, OnFailure bool
	// Needs are the indexes that must have ended before it starts. An absent
	// `needs` is reduced to those steps above that no later step already waits
	// for, so that 10,000 steps in a row have one edge each.
	Needs []int
	// Loose are those of Needs of which only the end is waited for, however it was: a
	// join above the node judges them.
	Loose []int
	// Judged: what comes of the node leads into joins alone, which judge it. That it
	// did not succeed matters where a join can no longer be met.
	Judged bool
	// Alone: no other node of its list can run at the same time.
	Alone bool
	// Dependents is the reverse of Needs.
	Dependents []int
}

// role is that of the step itself, below foreach and repeat.
func (s *Step) role() Role {
	switch s.Kind {
	case KindGroup:
		return RoleGroup
	case KindApprove:
		return RoleApprove
	case KindCall:
		return RoleCall
	}
	return RoleStep
}

// KindWord says what a node is in plans and records: foreach, repeat, or the
// step's kind.
func (n *Node) KindWord() string {
	switch n.Role {
	case RoleForeach:
		return "foreach"
	case RoleRepeat:
		return "repeat"
	}
	return string(n.Step.Kind)
}

// Refs are the step fields that the expressions of a step read, not those of the
// steps inside it.
func (s *Step) Refs() []Ref {
	var refs []Ref
	expr := func(e *Expr) {
		if e != nil {
			refs = append(refs, e.Refs()...)
		}
	}
	tmpl := func(t *Template) {
		if t != nil {
			refs = append(refs, t.Refs()...)
		}
	}
	expr(s.If)
	tmpl(s.Cwd)
	for _, e := range s.Env {
		tmpl(e.Value)
	}
	for _, o := range s.Outputs {
		tmpl(o.Expr)
	}
	if s.Cache != nil {
		for _, k := range s.Cache.Key {
			tmpl(k.Value)
		}
	}
	if s.Ready != nil {
		tmpl(s.Ready.Run)
	}
	if s.Run != nil {
		tmpl(s.Run.Script)
		for _, a := range s.Run.Argv {
			tmpl(a)
		}
	}
	if a := s.Agent; a != nil {
		tmpl(a.Prompt)
		tmpl(a.SystemPrompt)
		tmpl(a.AppendSystemPrompt)
		for _, m := range a.MCPServers {
			for _, e := range slices.Concat(m.Env, m.Headers) {
				tmpl(e.Value)
			}
		}
	}
	if a := s.Approve; a != nil {
		tmpl(a.Message)
	}
	if c := s.Call; c != nil {
		for _, w := range c.With {
			refs = append(refs, w.Value.Refs()...)
		}
	}
	if f := s.Foreach; f != nil {
		expr(f.Expr)
		for _, v := range []*Value{f.List, f.Include, f.Exclude} {
			refs = append(refs, v.Refs()...)
		}
		for _, a := range f.Matrix {
			expr(a.Expr)
			refs = append(refs, a.Values.Refs()...)
		}
	}
	if s.Repeat != nil {
		expr(s.Repeat.Until)
	}
	return refs
}
