package workflow

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Template is a string with `${{ EXPR }}` parts; `$${{` writes a literal `${{`.
type Template struct {
	source string
	parts  []part
}

// part is literal text or an expression.
type part struct {
	text string
	expr *Expr
}

// Literal is a template without expressions.
func Literal(s string) *Template { return &Template{source: s, parts: []part{{text: s}}} }

// Source is the text as written.
func (t *Template) Source() string { return t.source }

// Refs are the step fields that its expressions read.
func (t *Template) Refs() []Ref {
	var out []Ref
	for _, p := range t.parts {
		if p.expr != nil {
			out = append(out, p.expr.Refs()...)
		}
	}
	return out
}

// hasExpr: it is no mere text.
func (t *Template) hasExpr() bool {
	for _, p := range t.parts {
		if p.expr != nil {
			return true
		}
	}
	return false
}

// UsesFiles reports whether one of its expressions calls files.*.
func (t *Template) UsesFiles() bool {
	for _, p := range t.parts {
		if p.expr != nil && p.expr.UsesFiles() {
			return true
		}
	}
	return false
}

// Eval computes the template. One that is a single `${{ }}` keeps its type.
func (t *Template) Eval(v Vars) (any, error) {
	if len(t.parts) == 1 && t.parts[0].expr != nil {
		return t.parts[0].expr.Eval(v)
	}
	return t.EvalString(v)
}

// EvalString computes the template as text: strings as they are, whole numbers
// without a fraction, null as nothing, lists and maps as JSON.
func (t *Template) EvalString(v Vars) (string, error) {
	var b strings.Builder
	for _, p := range t.parts {
		if p.expr == nil {
			b.WriteString(p.text)
			continue
		}
		val, err := p.expr.Eval(v)
		if err != nil {
			return "", err
		}
		s, err := text(val)
		if err != nil {
			return "", fmt.Errorf("evaluate `%s`: %w", p.expr.source, err)
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

func text(v any) (string, error) {
	switch x := v.(type) {
	case nil:
		return "", nil
	case string:
		return x, nil
	case bool:
		return strconv.FormatBool(x), nil
	case int:
		return strconv.Itoa(x), nil
	case float64:
		if x == math.Trunc(x) && math.Abs(x) < 1e15 {
			return strconv.FormatInt(int64(x), 10), nil
		}
		return strconv.FormatFloat(x, 'g', -1, 64), nil
	default:
		b, err := json.Marshal(x)
		return string(b), err
	}
}

// split finds the parts. offsets are where each expression starts, in bytes; an
// unclosed `${{` is an error at its offset.
func split(s string) (texts []string, exprs []string, offsets []int, badAt int) {
	var lit strings.Builder
	for i := 0; i < len(s); {
		if strings.HasPrefix(s[i:], "$${{") {
			lit.WriteString("${{")
			i += 4
			continue
		}
		if !strings.HasPrefix(s[i:], "${{") {
			lit.WriteByte(s[i])
			i++
			continue
		}
		end := closeOf(s[i+3:])
		if end < 0 {
			return nil, nil, nil, i
		}
		texts = append(texts, lit.String())
		lit.Reset()
		exprs = append(exprs, s[i+3:i+3+end])
		offsets = append(offsets, i+3)
		i += 3 + end + 2
	}
	return append(texts, lit.String()), exprs, offsets, -1
}

// closeOf finds `}}` outside of quotes and braces of the expression.
func closeOf(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"', '\'', '`':
			for i++; i < len(s) && s[i] != c; i++ {
				if s[i] == '\\' && c != '`' {
					i++
				}
			}
		case '{':
			depth++
		case '}':
			if depth > 0 {
				depth--
			} else if i+1 < len(s) && s[i+1] == '}' {
				return i
			}
		}
	}
	return -1
}
