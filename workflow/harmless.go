package workflow

import (
	"strings"

	"github.com/expr-lang/expr/ast"
)

// harmless says whether an expression can only yield text that is no code:
// numbers, booleans, statuses, run.*, and inputs of another type than free text.
func harmless(e *Expr, inputs []Input) bool {
	tree, err := parseExpr(e.source)
	if err != nil {
		return false
	}
	safe := &safety{inputs: inputs, ok: true}
	ast.Walk(&tree.Node, safe)
	return safe.ok
}

type safety struct {
	inputs []Input
	ok     bool
}

// Visit finds sources of free text; constants and operators on them are the
// author's own words.
func (s *safety) Visit(n *ast.Node) {
	m, ok := (*n).(*ast.MemberNode)
	if !ok {
		if id, isName := (*n).(*ast.IdentifierNode); isName && (id.Value == "files" || id.Value == "self" || id.Value == "item") {
			s.ok = false
		}
		return
	}
	switch path := dotted(m); {
	case len(path) >= 2 && path[0] == "inputs":
		s.ok = s.ok && s.input(path[1])
	case len(path) >= 2 && path[0] == "env":
		s.ok = false
	case len(path) >= 3 && path[0] == "steps":
		switch path[2] {
		case "status", "exit_code", "duration", "attempts", "cost_usd":
		default:
			s.ok = false
		}
	}
}

func (s *safety) input(name string) bool {
	for _, in := range s.inputs {
		if in.Name == name {
			return len(in.Enum) > 0 || in.Type == "number" || in.Type == "integer" || in.Type == "boolean"
		}
	}
	return false
}

// dotted is a.b.c as its names; nil where a part is computed.
func dotted(n ast.Node) []string {
	switch x := n.(type) {
	case *ast.IdentifierNode:
		return []string{x.Value}
	case *ast.MemberNode:
		base := dotted(x.Node)
		if name, ok := x.Property.(*ast.StringNode); ok && base != nil {
			return append(base, name.Value)
		}
		// A computed member of a free-text source is free text: name it so.
		if base != nil && strings.HasPrefix(base[0], "steps") {
			return append(base, "?", "?")
		}
	}
	return nil
}
