package workflow

import (
	"encoding/json"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// defaultBatch are size and pause of a `batch` that does not say (practice 17).
const (
	defaultBatchSize  = 10
	defaultBatchPause = time.Second
)

// onlyForeach refuses the keys that only mean something with foreach.
func (p *fileParser) onlyForeach(s *Step, x stepNodes) {
	if x.foreach != nil {
		return
	}
	for _, k := range []struct {
		n    *yaml.Node
		name string
	}{{x.maxParallel, "max_parallel"}, {x.batch, "batch"}, {x.failFast, "fail_fast"}} {
		if k.n != nil {
			p.at("foreach", k.n, "%s says how a foreach goes; step %s has none", k.name, s.ID)
		}
	}
}

// loops reads foreach and repeat. The list is computed outside of the item.
func (p *fileParser) loops(s *Step, x stepNodes, i int, sc *scope) {
	if x.foreach != nil {
		kind := sc.kind
		kind.item, kind.iteration = p.places[i].inItem, p.places[i].inRound
		p.foreach(s, x, sc.with(kind))
	}
	if x.repeat != nil {
		p.repeat(s, x.repeat, p.outputScope(i, sc))
	}
}

// foreach reads a list, an expression of one, or a matrix.
func (p *fileParser) foreach(s *Step, x stepNodes, sc *scope) {
	f := &Foreach{Pos: pos(x.foreach)}
	s.Foreach = f
	switch n := real(x.foreach); n.Kind {
	case yaml.SequenceNode:
		f.List = p.value(n, "foreach", sc)
		if len(n.Content) == 0 {
			p.at("foreach", n, "foreach is an empty list")
		}
	case yaml.MappingNode:
		p.matrix(f, n, sc)
	default:
		f.Expr = p.listExpr(n, "foreach", sc)
	}
	if x.maxParallel != nil {
		f.MaxParallel = p.integer(ctxStep, x.maxParallelKey, x.maxParallel)
	}
	if x.failFast != nil {
		f.FailFast = p.boolean(x.failFast, "fail_fast")
	}
	if x.batch != nil {
		f.BatchSize, f.BatchPause = defaultBatchSize, defaultBatchPause
		p.mapping(x.batch, ctxBatch, func(k, v *yaml.Node) bool {
			switch k.Value {
			case "size":
				f.BatchSize = p.integer(ctxBatch, k, v)
			case "pause":
				f.BatchPause = p.duration(v, "pause")
			default:
				return false
			}
			return true
		})
	}
}

// listExpr reads an expression that yields a list; what it really yields shows when
// it is computed.
func (p *fileParser) listExpr(n *yaml.Node, what string, sc *scope) *Expr {
	if x := real(n); x.Kind == yaml.ScalarNode && x.Tag != "!!str" {
		p.at("type", n, "%s is %s; expected a list, or an expression of one", what, x.Value)
		return nil
	}
	return p.bare(n, what, sc, false)
}

func (p *fileParser) matrix(f *Foreach, n *yaml.Node, sc *scope) {
	p.pairs(n, "foreach", func(k, v *yaml.Node) {
		x := real(v)
		switch {
		case k.Value == "include" || k.Value == "exclude":
			val := p.value(v, k.Value, sc)
			if x.Kind != yaml.SequenceNode {
				p.at("type", v, "%s is %s; expected a list of maps", k.Value, kindWords[x.Kind])
				return
			}
			for _, e := range x.Content {
				if real(e).Kind != yaml.MappingNode {
					p.at("type", e, "an entry of %s is %s; expected a map", k.Value, kindWords[real(e).Kind])
				}
			}
			if k.Value == "include" {
				f.Include = val
			} else {
				f.Exclude = val
			}
		case !idName().MatchString(k.Value):
			p.at("name", k, "the name of a matrix' list has lower-case letters, digits and underscores, and starts with a letter")
		case x.Kind == yaml.SequenceNode:
			f.Matrix = append(f.Matrix, Axis{Name: k.Value, Values: p.value(v, k.Value, sc)})
		default:
			f.Matrix = append(f.Matrix, Axis{Name: k.Value, Expr: p.listExpr(v, k.Value, sc)})
		}
	})
	if len(f.Matrix) == 0 && f.Include == nil {
		p.at("foreach", n, "foreach is an empty map: name a list of which every entry is an item")
	}
}

func (p *fileParser) repeat(s *Step, n *yaml.Node, sc *scope) {
	r := &Repeat{Max: 5, Pos: pos(n)}
	s.Repeat = r
	var until *yaml.Node
	p.mapping(n, ctxRepeat, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "until":
			until = v
		case "max":
			r.Max = p.integer(ctxRepeat, k, v)
		default:
			return false
		}
		return true
	})
	if until == nil {
		if real(n).Kind == yaml.MappingNode {
			p.at("required", n, "repeat has no until")
		}
		return
	}
	r.Until = p.condition(until, "until", sc)
}

// value reads any YAML value; `${{ }}` works in its strings.
func (p *fileParser) value(n *yaml.Node, what string, sc *scope) *Value {
	n = real(n)
	v := &Value{}
	switch n.Kind {
	case yaml.SequenceNode:
		list := make([]*Value, 0, len(n.Content))
		for _, c := range n.Content {
			list = append(list, p.value(c, what, sc))
		}
		v.node = list
	case yaml.MappingNode:
		m := make(map[string]*Value, len(n.Content)/2)
		p.pairs(n, what, func(k, x *yaml.Node) { m[k.Value] = p.value(x, what, sc) })
		v.node = m
	default:
		if n.Tag == "!!str" {
			if !strings.Contains(n.Value, "${{") {
				v.node = n.Value
				break
			}
			if t := p.template(n, what, sc, nil); t != nil {
				v.node = t
			}
			break
		}
		_ = n.Decode(&v.node)
	}
	b, _ := json.Marshal(v.plain())
	v.source = string(b)
	return v
}

// plain is the value as written, for hashes.
func (v *Value) plain() any {
	switch n := v.node.(type) {
	case *Template:
		return n.source
	case []*Value:
		out := make([]any, len(n))
		for i, x := range n {
			out[i] = x.plain()
		}
		return out
	case map[string]*Value:
		out := make(map[string]any, len(n))
		for k, x := range n {
			out[k] = x.plain()
		}
		return out
	default:
		return n
	}
}
