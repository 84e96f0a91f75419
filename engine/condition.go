package engine

import "flowrun.dev/flow/workflow"

// condition is what the engine asks of a step's compiled `if`.
type condition interface {
	EvalBool(workflow.Vars) (bool, error)
	UsesStatus() bool
	UsesFiles() bool
	Refs() []workflow.Ref
}

// conditions finds a step's `if`; nil means that none is written. It is a seam
// for tests, which describe conditions without the language.
type conditions interface {
	of(step *workflow.Step) condition
}

// compiled are the conditions of a parsed workflow.
type compiled struct{}

func (compiled) of(step *workflow.Step) condition {
	if step.If == nil {
		return nil // not a nil pointer in an interface
	}
	return step.If
}
