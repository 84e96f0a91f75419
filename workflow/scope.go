package workflow

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"

	"github.com/expr-lang/expr/types"
)

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
	if v.Loop != nil {
		out["item"], out["index"], out["iteration"] = v.Loop.Item, v.Loop.Index, v.Loop.Iteration
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
