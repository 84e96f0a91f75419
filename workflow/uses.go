package workflow

import (
	"reflect"

	"github.com/expr-lang/expr/ast"
)

const boolKind = reflect.Bool

// statusFunctions are the functions that look at what ran before.
var statusFunctions = map[string]bool{"success": true, "failure": true, "always": true, "cancelled": true}

// mention is a name in an expression, with its place in characters.
type mention struct {
	of   string // steps, inputs, env, or field (of a step)
	name string
	from int
}

// uses walks a parsed expression and notes what it reads.
type uses struct {
	refs     []Ref
	mentions []mention
	bare     []mention // steps, self or inputs without a literal field
	files    bool
	status   bool
	item     bool // item or index
}

// Visit is called for children before their parents.
func (u *uses) Visit(n *ast.Node) {
	switch x := (*n).(type) {
	case *ast.IdentifierNode:
		u.status = u.status || statusFunctions[x.Value]
		u.files = u.files || x.Value == "files"
		u.item = u.item || x.Value == "item" || x.Value == "index"
		switch x.Value {
		case "steps", "self", "inputs":
			u.bare = append(u.bare, mention{name: x.Value, from: x.Location().From})
		}
	case *ast.MemberNode:
		u.member(x)
	}
}

func (u *uses) member(x *ast.MemberNode) {
	property, ok := x.Property.(*ast.StringNode)
	if !ok {
		return
	}
	m := mention{name: property.Value, from: property.Location().From}
	switch base := x.Node.(type) {
	case *ast.IdentifierNode:
		switch base.Value {
		case "self":
			u.named(base)
			u.add(Ref{"self", m.name})
			m.of = "field"
		case "inputs":
			u.named(base)
			m.of = "inputs"
		case "env":
			m.of = "env"
		default:
			return
		}
	case *ast.MemberNode:
		id, isID := base.Node.(*ast.IdentifierNode)
		step, isName := base.Property.(*ast.StringNode)
		if !isID || !isName || id.Value != "steps" {
			return
		}
		u.named(id)
		u.add(Ref{step.Value, m.name})
		u.mentions = append(u.mentions, mention{of: "steps", name: step.Value, from: step.Location().From})
		m.of = "field"
	default:
		return
	}
	u.mentions = append(u.mentions, m)
}

// named takes an identifier back that turned out to have a field.
func (u *uses) named(id *ast.IdentifierNode) {
	for i, m := range u.bare {
		if m.from == id.Location().From {
			u.bare = append(u.bare[:i], u.bare[i+1:]...)
			return
		}
	}
}

func (u *uses) add(r Ref) {
	for _, have := range u.refs {
		if have == r {
			return
		}
	}
	u.refs = append(u.refs, r)
}
