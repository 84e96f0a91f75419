package workflow

import (
	"errors"
	"fmt"
	"strings"

	"github.com/expr-lang/expr/vm"
)

// Expr is one compiled expression (expr-lang/expr), checked against the typed
// variables of its place. Safe for concurrent use.
type Expr struct {
	source     string
	program    *vm.Program
	refs       []Ref
	usesFiles  bool
	usesStatus bool
	usesItem   bool
}

// Ref names a step's field that an expression reads, so that a caller fetches
// only what is used (stdout and stderr lie in blobs). Step is "self" for `self`.
type Ref struct {
	Step  string
	Field string // status exit_code outputs stdout stderr duration attempts changed_files cost_usd
}

// Vars are the values that an expression sees.
type Vars struct {
	Inputs map[string]any
	Env    map[string]string
	Steps  map[string]StepView // only finished steps; the others read as not_run
	Run    RunView
	Self   *StepView // in `outputs` and `until`
	Loop   *LoopView // inside foreach and repeat
	// Status functions.
	Success, Failure, Cancelled bool
	// Files serves files.*; nil makes their use an error.
	Files Files
}

// StepView is `steps.ID` in an expression.
type StepView struct {
	Status       string         `expr:"status"`
	ExitCode     int            `expr:"exit_code"`
	Outputs      map[string]any `expr:"outputs"`
	Stdout       string         `expr:"stdout"`   // the last 64 KiB
	Stderr       string         `expr:"stderr"`   // the last 64 KiB
	Duration     float64        `expr:"duration"` // seconds
	Attempts     int            `expr:"attempts"`
	ChangedFiles []string       `expr:"changed_files"`
	CostUSD      float64        `expr:"cost_usd"`
}

// LoopView is `item`, `index` and `iteration`: of the innermost foreach and of
// the innermost repeat.
type LoopView struct {
	Item      any
	Index     int // from 0
	Iteration int // from 1
}

// RunView is `run` in an expression.
type RunView struct {
	ID        string `expr:"id"`
	Workflow  string `expr:"workflow"`
	Attempt   int    `expr:"attempt"`    // 1 for the first, +1 with each resume
	StartedAt string `expr:"started_at"` // RFC 3339, UTC
}

// Files is what files.exists, files.hash and files.read ask. Implemented by the
// sandbox's workspace, or by the source tree while no sandbox exists.
type Files interface {
	// Glob lists matching regular files, sorted.
	Glob(pattern string) ([]string, error)
	// ReadFile reads at most 1 MiB; a larger file is an error.
	ReadFile(name string) ([]byte, error)
}

// Source is the text as written.
func (e *Expr) Source() string { return e.source }

// Refs are the step fields that it reads, each once.
func (e *Expr) Refs() []Ref { return e.refs }

// UsesFiles reports whether it calls files.*.
func (e *Expr) UsesFiles() bool { return e.usesFiles }

// UsesStatus reports whether it calls success, failure, always or cancelled. An
// `if` that does not means success() && (…).
func (e *Expr) UsesStatus() bool { return e.usesStatus }

// UsesItem reports whether it names `item` or `index`. An `if` that does is judged
// for each item of a foreach, any other one once.
func (e *Expr) UsesItem() bool { return e.usesItem }

// maxNodes bounds an expression; memoryBudget what one evaluation may build.
const (
	maxNodes     = 1000
	memoryBudget = 1 << 20
)

// Eval computes the expression. It has no side effect.
func (e *Expr) Eval(v Vars) (any, error) {
	machine := vm.VM{MemoryBudget: memoryBudget}
	out, err := machine.Run(e.program, values(e, v))
	if err != nil {
		return nil, fmt.Errorf("evaluate `%s`: %w", e.source, firstLine(err))
	}
	return out, nil
}

// EvalBool computes a condition.
func (e *Expr) EvalBool(v Vars) (bool, error) {
	out, err := e.Eval(v)
	if err != nil {
		return false, err
	}
	b, ok := out.(bool)
	if !ok {
		return false, fmt.Errorf("evaluate `%s`: the condition is %T, not a boolean", e.source, out)
	}
	return b, nil
}

// firstLine drops the source snippet that expr appends: our own has the position.
func firstLine(err error) error {
	s, _, cut := strings.Cut(err.Error(), "\n")
	if !cut {
		return err
	}
	return errors.New(s)
}
