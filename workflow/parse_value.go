package workflow

import (
	"errors"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// isMissing: the key is absent, or has an empty text.
func isMissing(n *yaml.Node) bool {
	return n == nil || real(n).Kind == yaml.ScalarNode && real(n).Value == "" && real(n).Tag == "!!str"
}

// valueOf finds a key's value in a map, nil when it has none.
func valueOf(n *yaml.Node, name string) *yaml.Node {
	n = real(n)
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

func firstNode(nodes ...*yaml.Node) *yaml.Node {
	for _, n := range nodes {
		if n != nil {
			return n
		}
	}
	return nil
}

// condition reads a bare expression that is true or false.
func (p *fileParser) condition(n *yaml.Node, what string, sc *scope) *Expr {
	return p.bare(n, what, sc, true)
}

// bare reads an expression that stands without `${{ }}`.
func (p *fileParser) bare(n *yaml.Node, what string, sc *scope, asBool bool) *Expr {
	n = real(n)
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		d := p.at("condition", n, "an unquoted ! is a tag in YAML")
		d.Hint = fmt.Sprintf("write  %[1]s: '%[2]s%[3]s'  or  %[1]s: not (…)", what, n.Tag, n.Value)
		return nil
	}
	if n.Kind == yaml.MappingNode && n.Style&yaml.FlowStyle != 0 {
		d := p.at("condition", n, "%s is a map; expected an expression", what)
		d.Hint = "write it bare, without braces:  " + what + ": success()"
		return nil
	}
	src, ok := p.str(n, what)
	if !ok {
		return nil
	}
	if t := strings.TrimSpace(src); strings.HasPrefix(t, "${{") {
		d := p.at("condition", n, "%s takes a bare expression", what)
		d.Hint = "write  " + what + ": " + strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(t, "${{"), "}}"))
		return nil
	}
	e, err := compile(src, sc, asBool)
	if err != nil {
		p.inside(n, 0, err)
		return nil
	}
	return e
}

// template compiles the `${{ }}` parts of a string. check may refuse one.
func (p *fileParser) template(n *yaml.Node, what string, sc *scope, check func(*Expr) error) *Template {
	src, ok := p.str(n, what)
	if !ok {
		return nil
	}
	if !strings.Contains(src, "${{") {
		return Literal(src)
	}
	texts, exprs, offsets, bad := split(src)
	if bad >= 0 {
		p.inside(real(n), bad, &exprError{msg: "${{ is never closed by }}", width: 3})
		return nil
	}
	t := &Template{source: src}
	for i, text := range texts {
		if text != "" {
			t.parts = append(t.parts, part{text: text})
		}
		if i == len(exprs) {
			break
		}
		e, err := compile(exprs[i], sc, false)
		if err == nil && check != nil {
			err = check(e)
		}
		if err != nil {
			p.inside(real(n), offsets[i], err)
			continue
		}
		t.parts = append(t.parts, part{expr: e})
	}
	return t
}

// inside reports a mistake at its place within a string: offset is where the
// expression starts in the value.
func (p *fileParser) inside(n *yaml.Node, offset int, err error) *Diagnostic {
	var ee *exprError
	if !errors.As(err, &ee) {
		ee = &exprError{msg: err.Error(), width: 1}
	}
	if p.full() {
		p.dropped++
		return &Diagnostic{}
	}
	d := p.add("expression", p.placeIn(n, offset+ee.at), ee.width, "%s", ee.msg)
	d.Suggestion, d.Hint = ee.suggestion, ee.hint
	if ee.rule != "" {
		d.Rule = ee.rule
	}
	return d
}

func (p *fileParser) env(n *yaml.Node, what string, sc *scope) []EnvVar {
	var out []EnvVar
	p.pairs(n, what, func(k, v *yaml.Node) {
		if !envName().MatchString(k.Value) {
			p.at("name", k, "a variable's name has letters, digits and underscores")
			return
		}
		if reservedName().MatchString(k.Value) {
			p.at("name", k, "variables that start with FLOW_ are set by flow")
			return
		}
		if t := p.template(v, k.Value, sc, nil); t != nil {
			out = append(out, EnvVar{Name: k.Value, Value: t, Pos: pos(k)})
		}
	})
	return out
}

func (p *fileParser) outputs(n *yaml.Node, sc *scope) []Output {
	var out []Output
	p.pairs(n, "outputs", func(k, v *yaml.Node) {
		if !envName().MatchString(k.Value) {
			p.at("name", k, "an output's name has letters, digits and underscores, as it is used in expressions")
			return
		}
		if t := p.template(v, k.Value, sc, nil); t != nil {
			out = append(out, Output{Name: k.Value, Expr: t, Pos: pos(k)})
		}
	})
	return out
}
