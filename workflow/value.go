package workflow

import "fmt"

// Value is a YAML value whose strings may hold `${{ EXPR }}`: a list of foreach,
// the inputs of a called workflow.
type Value struct {
	source string // canonical JSON of what is written, for hashes
	node   any    // *Template, []*Value, map[string]*Value, or a plain scalar
}

// Eval computes the value: strings, numbers, booleans, nil, []any, map[string]any.
func (v *Value) Eval(vars Vars) (any, error) {
	switch n := v.node.(type) {
	case *Template:
		return n.Eval(vars)
	case []*Value:
		out := make([]any, len(n))
		for i, x := range n {
			var err error
			if out[i], err = x.Eval(vars); err != nil {
				return nil, fmt.Errorf("item %d: %w", i+1, err)
			}
		}
		return out, nil
	case map[string]*Value:
		out := make(map[string]any, len(n))
		for _, k := range keysOf(n) {
			var err error
			if out[k], err = n[k].Eval(vars); err != nil {
				return nil, fmt.Errorf("%s: %w", k, err)
			}
		}
		return out, nil
	default:
		return n, nil
	}
}

// templates calls f for every string of the value.
func (v *Value) templates(f func(*Template)) {
	if v == nil {
		return
	}
	switch n := v.node.(type) {
	case *Template:
		f(n)
	case []*Value:
		for _, x := range n {
			x.templates(f)
		}
	case map[string]*Value:
		for _, k := range keysOf(n) {
			n[k].templates(f)
		}
	}
}

// literal is a value without expressions.
func (v *Value) literal() any {
	out, _ := v.Eval(Vars{})
	return out
}

// Refs are the step fields that its expressions read.
func (v *Value) Refs() []Ref {
	var out []Ref
	v.templates(func(t *Template) { out = append(out, t.Refs()...) })
	return out
}

// Len is the number of items of a list as written, 0 for anything else.
func (v *Value) Len() int {
	if v == nil {
		return 0
	}
	n, _ := v.node.([]*Value)
	return len(n)
}

// Plain is a value without expressions, for workflows that are made by a program.
func Plain(v any) *Value {
	switch x := v.(type) {
	case []any:
		list := make([]*Value, len(x))
		for i := range x {
			list[i] = Plain(x[i])
		}
		return &Value{node: list}
	case map[string]any:
		m := make(map[string]*Value, len(x))
		for k := range x {
			m[k] = Plain(x[k])
		}
		return &Value{node: m}
	}
	return &Value{node: v}
}
