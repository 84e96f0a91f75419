package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/workflow"
)

// Exit codes (docs/cli.md). The help of every command prints this table.
const (
	codeOK             = 0
	codeFailed         = 1
	codeInvalid        = 2
	codeInfrastructure = 3
	codeLimit          = 4
	codeWaiting        = 5
	codeRateLimited    = 6
	codeDenied         = 7
	codeInterrupted    = 130
	codeTerminated     = 143
)

// exitRow is one row of the table: the code, the word that --json reports, and
// what it means.
type exitRow struct {
	Code  int
	Class string
	Means string
}

var exitTable = []exitRow{
	{codeOK, "succeeded", "succeeded"},
	{codeFailed, "failed", "a step failed"},
	{codeInvalid, "invalid", "the file or the call is wrong"},
	{codeInfrastructure, "infrastructure", "the sandbox, the provider or the database failed"},
	{codeLimit, "limit", "a budget or a limit was reached"},
	{codeWaiting, "waiting", "waiting for a person"},
	{codeRateLimited, "rate_limit", "rate limited, resumable later"},
	{codeDenied, "denied", "a tool call was denied and on_denied is fail"},
	{codeInterrupted, "interrupted", "Ctrl-C; the run can be resumed"},
	{codeTerminated, "terminated", "SIGTERM; the run can be resumed"},
}

// usageError is a call that is wrong.
type usageError struct {
	msg, hint string
}

func (e *usageError) Error() string { return e.msg }

// runError is a run that did not succeed; everything about it was printed.
type runError struct {
	run    string
	status engine.RunStatus
	class  engine.Class
	cause  string
}

func (e *runError) Error() string { return fmt.Sprintf("run %s %s: %s", e.run, e.status, e.cause) }

// printed marks an error whose text is on the screen already.
type printed struct{ error }

func (p printed) Unwrap() error { return p.error }

// hinted adds what to do to an error.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// codeOf is the one switch from an error to its exit code.
func codeOf(err error) int {
	var (
		tests *testsFailedError
		run   *runError
		use   *usageError
		diags *workflow.Diagnostics
		se    *sandbox.Error
		busy  *state.BusyError
		notOK *unhealthyError
		res   *engine.NotResumableError
		amb   *state.AmbiguousError
		both  *checkpoint.ConflictError
		sh    *shellError
		newer *supersededError
	)
	switch {
	case err == nil:
		return codeOK
	case errors.As(err, &tests):
		return codeFailed
	case errors.As(err, &run):
		return runCode(run.status, run.class, run.cause)
	case errors.As(err, &use), errors.As(err, &diags), errors.As(err, &busy), errors.As(err, &res):
		return codeInvalid
	case errors.As(err, &both), errors.As(err, &sh), errors.As(err, &newer):
		return codeFailed
	case errors.As(err, &notOK):
		return codeInfrastructure
	case errors.As(err, &se):
		return codeInfrastructure
	case errors.Is(err, state.ErrNotFound), errors.As(err, &amb):
		return codeInvalid
	case errors.Is(err, context.Canceled):
		return codeInterrupted
	default:
		return codeInfrastructure
	}
}

// runCode is the exit code of a run's end.
func runCode(status engine.RunStatus, class engine.Class, cause string) int {
	switch status {
	case engine.RunSucceeded:
		return codeOK
	case engine.RunInterrupted:
		if strings.Contains(cause, "SIGTERM") { // engine: causeInWords
			return codeTerminated
		}
		return codeInterrupted
	case engine.RunWaiting:
		if class == engine.ClassNone {
			return codeWaiting
		}
	case engine.RunOutOfBudget:
		return codeLimit
	case engine.RunRateLimited:
		return codeRateLimited
	}
	switch class {
	case engine.ClassInfrastructure:
		return codeInfrastructure
	case engine.ClassTimeout, engine.ClassBudget:
		return codeLimit
	case engine.ClassRateLimit:
		return codeRateLimited
	case engine.ClassDenied:
		return codeDenied
	default:
		return codeFailed
	}
}

func classOf(code int) string {
	for _, r := range exitTable {
		if r.Code == code {
			return r.Class
		}
	}
	return "infrastructure"
}

// hintOf is what to do about an error, "" when its text says it.
func hintOf(err error) string {
	var (
		use *usageError
		h   hinted
		se  *sandbox.Error
	)
	switch {
	case errors.As(err, &use) && use.hint != "":
		return use.hint
	case errors.As(err, &h):
		return h.hint
	case errors.As(err, &se):
		return se.Hint
	default:
		return state.Hint(err)
	}
}

// exit prints an error once, in the form that the call asked for, and returns its code.
func (a *app) exit(err error) int {
	code := codeOf(err)
	if err == nil {
		return code
	}
	var p printed
	if errors.As(err, &p) {
		return code
	}
	text, hint := a.redact(err.Error()), a.redact(hintOf(err))
	if a.json {
		b, _ := json.Marshal(map[string]any{"error": text, "hint": hint, "exit_code": code, "class": classOf(code)})
		fmt.Fprintf(a.out, "%s\n", b)
		return code
	}
	fmt.Fprintf(a.err, "flow: %s\n", text)
	if hint != "" {
		fmt.Fprintf(a.err, "  %s\n", hint)
	}
	return code
}

// exitHelp is the EXIT CODES paragraph of a command's help.
func exitHelp(codes ...int) string {
	var b strings.Builder
	b.WriteString("\n\nExit codes:")
	for _, r := range exitTable {
		for _, c := range codes {
			if c == r.Code {
				fmt.Fprintf(&b, "\n  %3d  %s", r.Code, r.Means)
			}
		}
	}
	return b.String()
}
