package workflow

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
)

// scope is what an expression may name at its place.
type scope struct {
	inputs []Input
	env    []string
	// visible says whether a step may be named here; ids are all steps of the file.
	visible func(id string) bool
	ids     map[string]int
	self    bool
	files   bool
}

// exprError is a mistake inside an expression.
type exprError struct {
	msg        string
	offset     int // characters from the start of the expression, on its first line
	width      int
	suggestion string
}

func (e *exprError) Error() string { return e.msg }

func place(err error) error {
	var fe *file.Error
	if errors.As(err, &fe) {
		off := fe.Column
		if fe.Line > 1 {
			off = 0
		}
		return &exprError{msg: fe.Message, offset: off, width: 1}
	}
	return &exprError{msg: firstLine(err).Error(), width: 1}
}

func parseExpr(source string) (*parser.Tree, error) {
	c := conf.CreateNew()
	c.MaxNodes = maxNodes
	return parser.ParseWithConfig(source, c)
}

// known checks the steps that are named before expr does: its message could not
// say which step comes later.
func (sc *scope) known(u *uses, source string) error {
	for step := range u.steps {
		at := max(0, strings.Index(source, "steps."+step)+len("steps."))
		at = len([]rune(source[:min(at, len(source))]))
		if _, ok := sc.ids[step]; !ok {
			return &exprError{msg: fmt.Sprintf("there is no step %q", step), offset: at, width: len(step), suggestion: nearest(step, keysOf(sc.ids))}
		}
		if sc.visible != nil && !sc.visible(step) {
			return &exprError{msg: fmt.Sprintf("step %q does not end before this one starts: name it in `needs`", step), offset: at, width: len(step)}
		}
	}
	return nil
}

func keysOf[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// inputTypes is the table from the words of `type:` to the checker's types.
var inputTypes = map[string]types.Type{
	"string": types.String, "number": types.Float, "integer": types.Int, "boolean": types.Bool,
	"array": types.Array(types.Any), "object": types.Any,
}

// stepType and runType are StepView and RunView for the checker.
var (
	stepType = types.Map{
		"status": types.String, "exit_code": types.Int, "outputs": types.Any, "stdout": types.String, "stderr": types.String,
		"duration": types.Float, "attempts": types.Int, "changed_files": types.Array(types.String), "cost_usd": types.Float,
	}
	runType = types.Map{"id": types.String, "workflow": types.String, "attempt": types.Int, "started_at": types.String}
)

func stepValue(v StepView) map[string]any {
	if v.Outputs == nil {
		v.Outputs = map[string]any{}
	}
	return map[string]any{"status": v.Status, "exit_code": v.ExitCode, "outputs": v.Outputs, "stdout": v.Stdout, "stderr": v.Stderr,
		"duration": v.Duration, "attempts": v.Attempts, "changed_files": v.ChangedFiles, "cost_usd": v.CostUSD}
}

func runValue(v RunView) map[string]any {
	return map[string]any{"id": v.ID, "workflow": v.Workflow, "attempt": v.Attempt, "started_at": v.StartedAt}
}

// types builds the typed variables. Only the steps that the expression names are
// in it: a file of 10,000 steps would otherwise cost 10,000 types an expression.
func (sc *scope) types(u *uses) types.Map {
	inputs := types.Map{}
	for _, in := range sc.inputs {
		inputs[in.Name] = inputTypes[in.Type]
	}
	env := types.Map{}
	for _, name := range sc.env {
		env[name] = types.String
	}
	steps := types.Map{}
	for id := range u.steps {
		steps[id] = stepType
	}
	boolean := types.TypeOf(func() bool { return false })
	out := types.Map{
		"inputs": inputs, "env": env, "steps": steps, "run": runType,
		"success": boolean, "failure": boolean, "always": boolean, "cancelled": boolean,
	}
	if sc.files {
		out["files"] = types.Map{
			"exists": types.TypeOf(func(string) (bool, error) { return false, nil }),
			"hash":   types.TypeOf(func(...string) (string, error) { return "", nil }),
			"read":   types.TypeOf(func(string) (string, error) { return "", nil }),
		}
	}
	if sc.self {
		out["self"] = stepType
	}
	return out
}

// values is the run-time counterpart of types.
func values(e *Expr, v Vars) map[string]any {
	steps := map[string]any{}
	for _, r := range e.refs {
		view, ok := v.Steps[r.Step]
		if !ok {
			view.Status = "not_run"
		}
		steps[r.Step] = stepValue(view)
	}
	env := make(map[string]any, len(v.Env))
	for k, s := range v.Env {
		env[k] = s
	}
	out := map[string]any{
		"inputs": v.Inputs, "env": env, "steps": steps, "run": runValue(v.Run),
		"success":   func() bool { return v.Success },
		"failure":   func() bool { return v.Failure },
		"always":    func() bool { return true },
		"cancelled": func() bool { return v.Cancelled },
	}
	if e.usesFiles {
		out["files"] = map[string]any{"exists": exists(v.Files), "hash": hash(v.Files), "read": read(v.Files)}
	}
	if v.Self != nil {
		out["self"] = stepValue(*v.Self)
	}
	return out
}

var errNoFiles = errors.New("files cannot be asked here")

func exists(f Files) func(string) (bool, error) {
	return func(pattern string) (bool, error) {
		if f == nil {
			return false, errNoFiles
		}
		names, err := f.Glob(pattern)
		return len(names) > 0, err
	}
}

// hash is the SHA-256 over names and contents of all files that match, as hex;
// "" when none does, as GitHub's hashFiles has it.
func hash(f Files) func(...string) (string, error) {
	return func(patterns ...string) (string, error) {
		if f == nil {
			return "", errNoFiles
		}
		h := sha256.New()
		any := false
		for _, p := range patterns {
			names, err := f.Glob(p)
			if err != nil {
				return "", err
			}
			for _, n := range names {
				b, err := f.ReadFile(n)
				if err != nil {
					return "", err
				}
				any = true
				fmt.Fprintf(h, "%d %s %d ", len(n), n, len(b))
				h.Write(b)
			}
		}
		if !any {
			return "", nil
		}
		return hex.EncodeToString(h.Sum(nil)), nil
	}
}

func read(f Files) func(string) (string, error) {
	return func(name string) (string, error) {
		if f == nil {
			return "", errNoFiles
		}
		b, err := f.ReadFile(name)
		return string(b), err
	}
}
