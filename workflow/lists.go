package workflow

import (
	"fmt"
	"slices"

	"gopkg.in/yaml.v3"
)

// stepList is one list of steps of a file: `steps`, `on_failure`, `finally`, or
// the steps of a group. Its steps have the indexes base to base+n-1.
type stepList struct {
	what    string // for people
	base, n int
	graph   *graph
	holder  int  // the group's step, -1 at the top
	late    bool // on_failure and finally: one after the other
}

// standing is where a step stands.
type standing struct {
	list    int
	loop    string // foreach or repeat: its instances cannot be named from outside
	repeats bool
	// inItem and inRound: a group around it has foreach, or repeat.
	inItem, inRound bool
	// env and cwd of the groups around it, outermost first.
	env []*yaml.Node
	cwd *yaml.Node
}

// steps reads all lists. Ids are collected first, so that a reference can say
// whether its step exists at all. Lists are taken breadth first: each one's
// steps have neighbouring indexes.
func (p *fileParser) steps(steps, onFailure, finally, root *yaml.Node) {
	p.ids, p.lists, p.places = map[string]int{}, nil, nil
	if steps == nil {
		p.add("required", pos(root), 1, "the workflow has no steps")
		return
	}
	if x := real(steps); x.Kind == yaml.SequenceNode && len(x.Content) == 0 {
		p.at("required", steps, "steps is empty")
	}
	nodes := p.collect(steps, "steps", nil, -1, false)
	nodes = p.collect(onFailure, "on_failure", nodes, -1, true)
	nodes = p.collect(finally, "finally", nodes, -1, true)
	for i := 0; i < len(nodes); i++ {
		if g := valueOf(nodes[i], "steps"); g != nil {
			if x := real(g); x.Kind == yaml.SequenceNode && len(x.Content) == 0 {
				p.at("required", g, "the group is empty")
			}
			nodes = p.collect(g, "the group "+idOf(nodes[i]), nodes, i, false)
		}
		if len(nodes) > maxSteps {
			p.at("limit", nodes[maxSteps], "the file has more than %d steps", maxSteps)
			return
		}
	}
	p.total = len(nodes)
	for i, n := range nodes {
		p.id(n, i)
	}
	for i, n := range nodes {
		p.needs(n, i)
	}
	for k := range p.lists {
		p.lists[k].graph.close()
		p.cycles(&p.lists[k])
	}
	p.make(nodes, steps, onFailure, finally)
	p.continued()
}

// make reads the steps, list by list. The nodes are let go as they are read:
// those of 10,000 steps take 9 MB.
func (p *fileParser) make(nodes []*yaml.Node, tops ...*yaml.Node) {
	for _, n := range tops {
		if n != nil {
			real(n).Content = nil
		}
	}
	made := make([]*Step, len(nodes))
	for k := range p.lists {
		l := &p.lists[k]
		for i := l.base; i < l.base+l.n; i++ {
			made[i] = p.step(nodes[i], i)
			p.agents = p.agents || made[i].Agent != nil
			nodes[i] = nil
			switch {
			case l.holder >= 0:
				made[l.holder].Steps = append(made[l.holder].Steps, made[i])
			case k == 0:
				p.w.Steps = append(p.w.Steps, made[i])
			case l.what == "on_failure":
				p.w.OnFailure = append(p.w.OnFailure, made[i])
			default:
				p.w.Finally = append(p.w.Finally, made[i])
			}
		}
	}
}

// collect makes a list of n and appends its steps.
func (p *fileParser) collect(n *yaml.Node, what string, nodes []*yaml.Node, holder int, late bool) []*yaml.Node {
	if n == nil {
		return nodes
	}
	l := stepList{what: what, base: len(nodes), holder: holder, late: late}
	around := standing{list: len(p.lists)}
	if holder >= 0 {
		h, x := p.places[holder], nodes[holder]
		around.env = h.env
		if e := valueOf(x, "env"); e != nil {
			around.env = append(slices.Clip(h.env), e)
		}
		around.cwd = firstNode(valueOf(x, "cwd"), h.cwd)
		around.inItem = h.inItem || valueOf(x, "foreach") != nil
		around.inRound = h.inRound || valueOf(x, "repeat") != nil
	}
	label := what
	if holder >= 0 {
		label = "steps"
	}
	p.list(n, label, func(x *yaml.Node) {
		at := around
		if at.repeats = valueOf(x, "repeat") != nil; at.repeats {
			at.loop = "repeat"
		}
		if valueOf(x, "foreach") != nil {
			at.loop = "foreach"
		}
		nodes, p.places = append(nodes, x), append(p.places, at)
		l.n++
	})
	l.graph = newGraph(l.n)
	p.lists = append(p.lists, l)
	return nodes
}

func idOf(n *yaml.Node) string {
	if v := valueOf(n, "id"); v != nil {
		return real(v).Value
	}
	return ""
}

func (p *fileParser) whereIs(i int) string { return p.lists[p.places[i].list].what }

// topScope is that of expressions outside of steps: no step has run.
func (p *fileParser) topScope() *scope { return &scope{file: p, step: -1} }

// stepScope of the expressions of a step.
func (p *fileParser) stepScope(i int) *scope {
	at := p.places[i]
	sc := &scope{file: p, step: i, kind: scopeKind{files: true, item: at.inItem || at.loop == "foreach", iteration: at.inRound || at.repeats}}
	var before func(id string) string
	sc.hidden = func(id string) string {
		if before == nil {
			before = p.before(i)
		}
		return before(id)
	}
	return sc
}

// outputScope: a group's outputs, and `until`, see its steps as well as itself.
func (p *fileParser) outputScope(i int, sc *scope) *scope {
	kind := sc.kind
	kind.self = true
	out := sc.with(kind)
	out.hidden = p.orInside(i, sc.hidden)
	return out
}

// endScope is that of the run's outputs: all steps have ended.
func (p *fileParser) endScope() *scope {
	sc := &scope{file: p, step: -1, kind: scopeKind{files: true}}
	sc.hidden = func(id string) string {
		why, j := p.climb(p.ids[id], -1)
		if why == "" && p.lists[p.places[j].list].late {
			why = fmt.Sprintf("step %q runs after the outputs are computed", id)
		}
		return why
	}
	return sc
}

// orInside also shows the steps within step i.
func (p *fileParser) orInside(i int, hidden func(string) string) func(string) string {
	return func(id string) string {
		why, j := p.climb(p.ids[id], i)
		if j == i && p.ids[id] != i {
			return why
		}
		return hidden(id)
	}
}

// climb goes from step j up through the groups that hold it, to the step of the
// top level or the one directly below `until`. It says why a reader there cannot
// name j: j is in a loop, where it stands for many.
func (p *fileParser) climb(j, until int) (why string, top int) {
	name := j
	for {
		h := p.lists[p.places[j].list].holder
		if h < 0 {
			return why, j
		}
		if h == until {
			return why, h
		}
		if p.places[h].loop != "" {
			why = fmt.Sprintf("step %q is inside the %s of step %q: from outside read steps.%s.outputs", p.nameOf(name), p.places[h].loop, p.nameOf(h), p.nameOf(h))
		}
		j = h
	}
}

func (p *fileParser) nameOf(i int) string {
	for id, at := range p.ids {
		if at == i {
			return id
		}
	}
	return ""
}

// before says which steps have ended when step i starts: those that its list's
// order puts first, those that the groups around it waited for, and what is
// inside of any of them.
func (p *fileParser) before(i int) func(id string) string {
	// chain: for each list around i, the member that is i or holds it.
	member := map[int]int{}
	ended := map[int]func(int) bool{}
	for at := i; at >= 0; at = p.lists[p.places[at].list].holder {
		k := p.places[at].list
		l := &p.lists[k]
		member[k] = at
		if l.late {
			ended[k] = func(j int) bool { return j < at-l.base }
		} else {
			ended[k] = func(j int) bool { return l.graph.before(at-l.base, j) }
		}
	}
	return func(id string) string {
		j := p.ids[id]
		why := ""
		for {
			k := p.places[j].list
			if m, ok := member[k]; ok {
				switch {
				case m == j && j != i:
					return fmt.Sprintf("step %q holds this step: it has not ended", id)
				case ended[k](j - p.lists[k].base), p.lists[k].graph.joins(m-p.lists[k].base, j-p.lists[k].base):
					return why
				}
				return fmt.Sprintf("step %q does not end before this one starts: name it in `needs`", id)
			}
			h := p.lists[k].holder
			if h < 0 {
				// Another list of the top: what comes earlier in a run has ended.
				if top := p.topOf(member); p.lists[top].late && k < top {
					return why
				}
				return fmt.Sprintf("step %q does not end before this one starts: it is in %s", id, p.lists[k].what)
			}
			if p.places[h].loop != "" {
				why = fmt.Sprintf("step %q is inside the %s of step %q: from outside read steps.%s.outputs", id, p.places[h].loop, p.nameOf(h), p.nameOf(h))
			}
			j = h
		}
	}
}

// topOf is the top list among those around a step.
func (p *fileParser) topOf(member map[int]int) int {
	for k := range member {
		if p.lists[k].holder < 0 {
			return k
		}
	}
	return 0
}

// inFinally: step i is in on_failure or finally, or in a group there.
func (p *fileParser) inFinally(i int) bool {
	l := p.lists[p.places[i].list]
	for l.holder >= 0 {
		l = p.lists[p.places[l.holder].list]
	}
	return l.late
}
