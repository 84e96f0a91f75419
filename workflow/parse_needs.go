package workflow

import (
	"slices"

	"gopkg.in/yaml.v3"
)

// needs reads the order of step i. It is read for all steps before anything
// else, because an expression may name only what ends before its step.
func (p *fileParser) needs(step *yaml.Node, i int) {
	n := valueOf(step, "needs")
	if n == nil {
		return
	}
	l := &p.lists[p.places[i].list]
	if real(n).Kind == yaml.MappingNode {
		p.join(n, i)
		return
	}
	names, on := p.stepNames(n, "needs", i)
	p.needed[i] = names
	l.graph.set(i-l.base, on, pos(n))
}

// stepNames reads a list of ids of the list that step i stands in.
func (p *fileParser) stepNames(n *yaml.Node, what string, i int) (names []string, on []int) {
	names = []string{}
	list := p.places[i].list
	l := &p.lists[list]
	p.list(n, what, func(x *yaml.Node) {
		id, ok := p.name(x, what)
		if !ok {
			return
		}
		at, ok := p.ids[id]
		switch {
		case !ok:
			d := p.at("unknown-step", real(x), "there is no step %q", id)
			d.Suggestion = p.nearest(id, p.idNames())
		case at == i:
			p.at("cycle", real(x), "step %s needs itself", id)
		case p.places[at].list != list:
			p.at("unknown-step", real(x), "needs stays within its list: %q is in %s", id, p.whereIs(at))
		case l.late:
			p.at("unknown-step", real(x), "the steps of %s run one after the other: needs says nothing there", l.what)
		case slices.Contains(names, id) && what != "needs":
			p.at("duplicate-id", real(x), "step %s is listed twice; it counts once", id)
		case slices.Contains(names, id):
		default:
			names = append(names, id)
			on = append(on, at-l.base)
		}
	})
	return names, on
}

// join reads `needs: {any: …}` and `needs: {count: …, of: …}`.
func (p *fileParser) join(n *yaml.Node, i int) {
	var anyOf, of, count, rest *yaml.Node
	j := &Join{Count: 1}
	ok := p.mapping(n, ctxNeeds, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "any":
			anyOf = v
		case "of":
			of = v
		case "count":
			count, j.Count = v, p.integer(ctxNeeds, k, v)
		case "cancel_rest":
			rest, j.CancelRest = v, p.boolean(v, "cancel_rest")
		default:
			return false
		}
		return true
	})
	l := &p.lists[p.places[i].list]
	p.needed[i] = []string{}
	l.graph.set(i-l.base, nil, pos(n))
	switch {
	case !ok:
		return
	case anyOf != nil && (of != nil || count != nil):
		p.at("exclusive", firstNode(count, of), "needs has any, which means one of them; it is either any, or count with of")
		return
	case anyOf == nil && of == nil && count == nil:
		d := p.at("required", n, "needs as a map says of which steps how many have to succeed")
		d.Expected = []string{"{any: [a, b]}", "{count: 2, of: [a, b, c]}"}
		return
	case anyOf == nil && of == nil:
		p.at("required", count, "count is given without of: how many of which steps?")
		return
	case anyOf == nil && count == nil:
		p.at("required", of, "of is given without count: how many of them have to succeed?")
		return
	}
	what, list := "any", anyOf
	if list == nil {
		what, list = "of", of
	}
	names, on := p.stepNames(list, what, i)
	p.needed[i], p.joins[i] = names, j
	l.graph.join(i-l.base, on, pos(n), j.CancelRest)
	switch all := len(real(list).Content); {
	case real(list).Kind != yaml.SequenceNode:
	case all == 0:
		p.at("required", list, "%s lists no step", what)
	case j.Count > all:
		p.at("join", count, "count is %d, and of lists %d", j.Count, all)
	case j.CancelRest && j.Count == all:
		p.at("join", rest, "cancel_rest has nothing to cancel: every step of the list is needed")
	}
}
