package workflow

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/optimizer"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
)

// scope is what an expression may name at its place.
type scope struct {
	file *fileParser
	step int // index of the step, -1 outside of steps
	kind scopeKind
	// hidden says why a step of the file cannot be read here, "" when it can. Nil:
	// none can.
	hidden func(id string) string
}

// with is a copy for another kind of place.
func (sc *scope) with(kind scopeKind) *scope {
	c := *sc
	c.kind = kind
	return &c
}

// scopeKind are the variables beside inputs, env, steps and run.
type scopeKind struct {
	self  bool // `self`, in outputs
	files bool // files.*
	// item (with index) and iteration: inside foreach and repeat.
	item, iteration bool
}

// Limits of one expression in bytes, and of the expressions of a file.
const (
	maxExpr  = 4000
	maxExprs = 100000
)

// exprError is a mistake inside an expression.
type exprError struct {
	msg        string
	at         int // byte offset in the expression
	width      int // characters
	suggestion string
	rule, hint string
}

func (e *exprError) Error() string { return e.msg }

// place turns expr's error into ours. source is the expression.
func place(err error, source string) error {
	var fe *file.Error
	if !errors.As(err, &fe) {
		e := &exprError{msg: firstLine(err).Error(), width: 1}
		if got, ok := strings.CutPrefix(e.msg, "expected bool, but got "); ok {
			e.msg, e.width = "the condition is of type "+got+", not true or false", utf8.RuneCountInString(source)
		}
		return e
	}
	runes := []rune(source)
	from := min(max(fe.From, 0), len(runes))
	to := min(max(fe.To, from), len(runes))
	e := &exprError{msg: fe.Message, at: len(string(runes[:from])), width: max(1, to-from)}
	switch {
	case fe.Message == `unexpected token Operator("=")`:
		e.msg, e.hint = "a single = compares nothing", "write == to compare"
	case strings.HasPrefix(fe.Message, "unexpected token"):
		if m := tokenForm().FindStringSubmatch(fe.Message); m != nil {
			e.msg = "unexpected " + m[1]
		}
	case fe.Message == "unexpected token EOF":
		e.msg = "the expression ends too early"
	}
	return e
}

var tokenForm = lazily(`^unexpected token \w+\("(.*)"\)`)

// untyped is the configuration of parseExpr, which works on copies of it.
var untyped = sync.OnceValue(func() *conf.Config {
	c := conf.CreateNew()
	c.MaxNodes = maxNodes
	return c
})

// parseExpr parses without types, for the checks that look at the tree.
func parseExpr(source string) (*parser.Tree, error) {
	c := *untyped()
	return parser.ParseWithConfig(source, &c)
}

// compile checks an expression against its scope. The error is an *exprError
// with the place inside the text. It goes through the stages of expr.Compile by
// hand, because that builds its configuration, some hundred functions and the
// types of all variables, anew for each expression: here a file has one for each
// kind of scope.
func compile(source string, sc *scope, asBool bool) (*Expr, error) {
	if strings.TrimSpace(source) == "" {
		return nil, &exprError{msg: "the expression is empty", width: 1}
	}
	// Also before parsing: expr's parser calls itself for each parenthesis.
	if len(source) > maxExpr {
		return nil, &exprError{msg: fmt.Sprintf("the expression has more than %d characters", maxExpr), width: 1, rule: "limit"}
	}
	if sc.file.compiled++; sc.file.compiled > maxExprs {
		return nil, &exprError{msg: fmt.Sprintf("the file has more than %d expressions", maxExprs), width: 1, rule: "limit"}
	}
	config := *sc.file.config(sc.kind)
	if asBool {
		config.Expect, config.ExpectAny = boolKind, true
	}
	tree, err := parser.ParseWithConfig(source, &config)
	if err != nil {
		return nil, place(err, source)
	}
	u := &uses{}
	ast.Walk(&tree.Node, u)
	if err := sc.known(u, source); err != nil {
		return nil, err
	}
	if _, err := checker.Check(tree, &config); err != nil {
		return nil, sc.unknownName(place(err, source))
	}
	if err := optimizer.Optimize(&tree.Node, &config); err != nil {
		return nil, place(err, source)
	}
	program, err := compiler.Compile(tree, &config)
	if err != nil {
		return nil, place(err, source)
	}
	return &Expr{source: source, program: program, refs: u.refs, usesFiles: u.files, usesStatus: u.status, usesItem: u.item}, nil
}

// config of the expressions of one kind of scope, made once a file. Which steps
// may be named is checked by known, so that the types do not depend on the step.
func (p *fileParser) config(kind scopeKind) *conf.Config {
	if c := p.configs[kind]; c != nil {
		return c
	}
	inputs, env := types.Map{}, types.Map{}
	for _, in := range p.w.Inputs {
		inputs[in.Name] = inputTypes[in.Type]
	}
	for _, e := range p.w.Env {
		env[e.Name] = types.String
	}
	boolean := types.TypeOf(func() bool { return false })
	vars := types.Map{
		"inputs": inputs, "env": env, "steps": types.Map{types.Extra: stepType}, "run": runType,
		"success": boolean, "failure": boolean, "always": boolean, "cancelled": boolean,
	}
	if kind.files {
		vars["files"] = types.Map{
			"exists": types.TypeOf(func(string) (bool, error) { return false, nil }),
			"hash":   types.TypeOf(func(...string) (string, error) { return "", nil }),
			"read":   types.TypeOf(func(string) (string, error) { return "", nil }),
		}
	}
	if kind.self {
		vars["self"] = stepType
	}
	if kind.item {
		vars["item"], vars["index"] = types.Any, types.Int
	}
	if kind.iteration {
		vars["iteration"] = types.Int
	}
	c := conf.New(vars)
	c.MaxNodes = maxNodes
	if p.configs == nil {
		p.configs = map[scopeKind]*conf.Config{}
	}
	p.configs[kind] = c
	return c
}

// known checks the names before expr does: its message could not say which step
// comes later, nor which name is the nearest.
func (sc *scope) known(u *uses, source string) error {
	p := sc.file
	for _, m := range u.mentions {
		e := &exprError{at: byteAt(source, m.from), width: utf8.RuneCountInString(m.name)}
		var names []string
		switch m.of {
		case "steps":
			j, ok := p.ids[m.name]
			switch {
			case sc.hidden == nil:
				e.msg = "steps cannot be named here: none has run"
			case !ok:
				e.msg, names = fmt.Sprintf("there is no step %q", m.name), p.idNames()
			case sc.step == j:
				e.msg = fmt.Sprintf("step %q cannot read itself here; its own `outputs` can, as self", m.name)
			default:
				if e.msg = sc.hidden(m.name); e.msg == "" {
					continue
				}
			}
		case "inputs":
			p.used[m.name] = true
			names = inputNames(p.w.Inputs)
			if contains(names, m.name) {
				continue
			}
			e.msg = fmt.Sprintf("there is no input %q", m.name)
		case "env":
			if sc.hidden == nil {
				e.msg = "env cannot be read here; inputs and run can"
				return e
			}
			for _, v := range p.w.Env {
				names = append(names, v.Name)
			}
			if contains(names, m.name) {
				continue
			}
			e.msg = fmt.Sprintf("there is no %q in the file's `env`", m.name)
		case "field":
			if _, ok := stepType[m.name]; ok {
				continue
			}
			e.msg, names = fmt.Sprintf("a step has no %q", m.name), keysOf(stepType)
			if len(names) > 0 {
				e.hint = "a step has " + strings.Join(names, ", ")
			}
		}
		e.suggestion = p.nearest(m.name, names)
		return e
	}
	for _, m := range u.bare {
		if m.name == "inputs" { // all of them, or one with a computed name
			for _, in := range p.w.Inputs {
				p.used[in.Name] = true
			}
			continue
		}
		return &exprError{msg: m.name + " is named without a field", at: byteAt(source, m.from), width: utf8.RuneCountInString(m.name),
			hint: "name what is meant, with the step's id as it is: steps.build.status, self.stdout"}
	}
	return nil
}

var unknownForm = lazily(`^unknown (name|field) (\w+)`)

// unknownName adds the nearest name to what expr says of names that it does not know.
func (sc *scope) unknownName(err error) error {
	var e *exprError
	if !errors.As(err, &e) {
		return err
	}
	m := unknownForm().FindStringSubmatch(e.msg)
	if m == nil {
		return err
	}
	names := append(keysOf(runType), "exists", "hash", "read")
	if m[1] == "name" {
		names = sc.variables()
		for _, f := range builtin.Builtins {
			names = append(names, f.Name)
		}
	}
	e.msg, e.suggestion = fmt.Sprintf("unknown %s %q", m[1], m[2]), sc.file.nearest(m[2], names)
	if m[1] == "name" && e.suggestion == "" {
		e.hint = "an expression knows " + strings.Join(sc.variables(), ", ") + "; text stands in quotes"
	}
	return e
}

// variables lists the names of a scope.
func (sc *scope) variables() []string {
	names := []string{"inputs", "env", "steps", "run", "success", "failure", "always", "cancelled"}
	if sc.kind.files {
		names = append(names, "files")
	}
	if sc.kind.self {
		names = append(names, "self")
	}
	if sc.kind.item {
		names = append(names, "item", "index")
	}
	if sc.kind.iteration {
		names = append(names, "iteration")
	}
	return names
}

func inputNames(list []Input) []string {
	out := make([]string, 0, len(list))
	for _, in := range list {
		out = append(out, in.Name)
	}
	return out
}

// byteAt is the byte offset of the n-th character.
func byteAt(s string, n int) int {
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}
