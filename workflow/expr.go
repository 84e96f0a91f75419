package workflow

// Expr is one compiled expression; Template a string with ${{ }} parts. Their
// fields are private to this package; what callers use is:
//
//	(*Expr) Source() string
//	(*Expr) Refs() []Ref                     the step fields that it reads
//	(*Expr) UsesFiles() bool                 it calls files.*
//	(*Expr) UsesStatus() bool                it calls success/failure/always/cancelled
//	(*Expr) Eval(Vars) (any, error)          side-effect free; bounded
//	(*Expr) EvalBool(Vars) (bool, error)
//	(*Template) Source, Refs, UsesFiles, Eval (typed), EvalString
//
// A Ref names a step's field, so that a caller fetches only what is used
// (stdout and stderr lie in blobs).
type Ref struct {
	Step  string
	Field string // status exit_code outputs stdout stderr duration attempts changed_files cost_usd
}

// Vars are the values that an expression sees.
type Vars struct {
	Inputs map[string]any
	Env    map[string]string
	Steps  map[string]StepView // only finished steps; the others are absent
	Run    RunView
	Self   *StepView // in `outputs`
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

type exprPlaceholder struct{}

// Expr and Template: see above.
type Expr struct{ _ exprPlaceholder }

// Template is a string with ${{ }} parts.
type Template struct{ _ exprPlaceholder }
