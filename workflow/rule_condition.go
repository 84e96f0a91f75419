package workflow

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
)

// ruleConstantCondition: the condition cannot vary.
func ruleConstantCondition(p *fileParser, l *stepLint) {
	if l.s.If == nil || l.nodes.cond == nil {
		return
	}
	tree, err := parseExpr(l.s.If.source)
	if err != nil {
		return
	}
	v := &varies{p: p, s: l.s}
	ast.Walk(&tree.Node, v)
	if c := v.never; c != nil {
		at := p.placeIn(real(l.nodes.cond), byteAt(l.s.If.source, c.from))
		d := p.found("constant-condition", at, utf8.RuneCountInString(c.word)+2, "%s is never %q", c.of, c.word)
		if !slices.Contains(c.words, c.word) {
			d.Expected, d.Suggestion = c.words, p.nearest(c.word, c.words)
		}
		return
	}
	if v.any {
		return
	}
	word := "always the same"
	if ok, err := l.s.If.EvalBool(Vars{}); err == nil {
		word = fmt.Sprintf("always %v", ok)
	}
	p.foundAt("constant-condition", real(l.nodes.cond), "the condition is %s: it names nothing that can vary", word)
}

// varies looks for something in an expression that can vary, and for comparisons
// with a word that never comes.
type varies struct {
	p     *fileParser
	s     *Step
	any   bool
	never *comparison
}

type comparison struct {
	of, word string
	words    []string
	from     int
}

func (v *varies) Visit(n *ast.Node) {
	switch x := (*n).(type) {
	case *ast.IdentifierNode:
		v.any = true // also the status functions: the steps before decide
	case *ast.BuiltinNode:
		v.any = v.any || x.Name == "now"
	case *ast.BinaryNode:
		if x.Operator != "==" && x.Operator != "!=" {
			return
		}
		v.compare(x.Left, x.Right)
		v.compare(x.Right, x.Left)
	}
}

func (v *varies) compare(name, word ast.Node) {
	w, ok := word.(*ast.StringNode)
	if !ok {
		return
	}
	path := dotted(name)
	var words []string
	switch {
	case len(path) == 3 && path[0] == "steps" && path[2] == "status":
		words = Statuses()
		if v.s.Join != nil && slices.Contains(v.s.Needs, path[1]) {
			words = append(words, "running")
		}
	case len(path) == 2 && path[0] == "inputs":
		for _, in := range v.p.w.Inputs {
			if in.Name == path[1] && in.Type == "string" {
				for _, e := range in.Enum {
					words = append(words, fmt.Sprint(e))
				}
			}
		}
	}
	if len(words) == 0 || slices.Contains(words, w.Value) || v.never != nil {
		return
	}
	of := path[0]
	for _, p := range path[1:] {
		of += "." + p
	}
	v.never = &comparison{of: of, word: w.Value, words: words, from: w.Location().From}
}

// ruleUnreachableStep: it waits for the failure of nothing.
func ruleUnreachableStep(p *fileParser, l *stepLint) {
	if l.s.If == nil || l.nodes.cond == nil {
		return
	}
	i, ok := p.ids[l.s.ID]
	if l := &p.lists[0]; !ok || i >= l.n || l.graph.edge(i, 0) >= 0 {
		return
	}
	if s := l.s.If.source; s == "failure()" || s == "cancelled()" {
		p.foundAt("unreachable-step", real(l.nodes.cond), "step %s never runs: nothing ends before it that could fail", l.s.ID)
	}
}
