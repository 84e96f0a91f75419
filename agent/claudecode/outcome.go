package claudecode

import (
	"fmt"
	"strings"
	"syscall"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/anthropic"
	"flowrun.dev/flow/agent/loop"
	"flowrun.dev/flow/sandbox"
)

// ending is everything that is known about how the CLI ended by itself.
type ending struct {
	exit   sandbox.Result
	result *resultEvent // the last of them, nil when there was none
	stderr string
	// api is the failure of the last request to the API, nil when it was answered.
	api      *agent.Error
	stop     string // why the last answer ended
	maxTurns int
}

// failure is nil for success: exit code 0, no is_error, and an answer that ended by
// itself. The CLI's exit code alone says little: SIGINT exits with 0, and an API
// error has the subtype "success" (measured).
func (e ending) failure() *agent.Error {
	if e.result == nil {
		return e.silent()
	}
	switch sub := e.result.Subtype; {
	case sub == "error_max_turns":
		return maxTurns(e.maxTurns)
	case sub == "error_max_budget_usd":
		return &agent.Error{Class: agent.ClassBudget, Err: fmt.Errorf("the CLI's budget is spent: %s", e.words())}
	case sub == "error_max_structured_output_retries":
		return failed("give the step a simpler output_schema", "the model gave no output that its schema accepts")
	case sub == "error_during_execution":
		return e.broken()
	case sub != "success":
		return failed("a newer flow may know it", "the CLI ended with an unknown result: %s: %s", sub, e.words())
	case e.result.IsError:
		return e.refused()
	case e.exit.ExitCode != 0:
		return e.silent()
	}
	if e.stop == loop.StopToolUse && e.result.Structured != nil {
		return nil // the call that gives the result of output_schema ends the conversation
	}
	if err := loop.StopError(e.stop); err != nil {
		return failure(err)
	}
	return nil
}

// silent: no result event.
func (e ending) silent() *agent.Error {
	infra := func(format string, a ...any) *agent.Error {
		return &agent.Error{Class: agent.ClassInfrastructure, Err: fmt.Errorf(format, a...)}
	}
	code, sig := e.exit.ExitCode, e.exit.Signal
	if sig == 0 && code > 128 && code < 128+65 {
		sig = code - 128 // it ends so after SIGTERM and SIGHUP
	}
	switch {
	case sig != 0:
		return infra("the CLI was ended by a signal: %s", syscall.Signal(sig))
	case code == 126 || code == 127:
		return invalid("flow doctor says which CLI is used", "start the CLI: exit code %d: %s", code, e.stderr)
	case code == 0:
		return infra("the CLI ended without a result: it was interrupted")
	case e.stderr != "":
		return invalid("", "the CLI refused to start (exit code %d): %s", code, e.stderr)
	}
	return infra("the CLI ended with exit code %d and without a result", code)
}

// broken: error_during_execution.
func (e ending) broken() *agent.Error {
	words := e.words()
	if strings.Contains(words, "No conversation found") {
		return invalid("", "continue the conversation: %s", words)
	}
	return &agent.Error{Class: agent.ClassInfrastructure, Err: fmt.Errorf("the CLI broke off: %s", words)}
}

// refused: is_error, where the subtype says "success".
func (e ending) refused() *agent.Error {
	if e.result.TerminalReason == "prompt_too_long" {
		return failure(loop.StopError(loop.StopWindow))
	}
	if e.api != nil {
		return e.api
	}
	if e.result.TerminalReason == "image_error" {
		return failed("", "the model did not accept an image: %s", e.words())
	}
	if e.result.StopReason == loop.StopRefusal || e.stop == loop.StopRefusal {
		return failure(loop.StopError(loop.StopRefusal))
	}
	if status := e.result.APIErrorStatus; status != 0 {
		return anthropic.HTTPError(status, nil, nil)
	}
	return &agent.Error{Class: agent.ClassInfrastructure, Err: fmt.Errorf("ask the model: %s", e.words())}
}

func (e ending) words() string {
	text := e.result.Result
	if text == "" {
		text = strings.Join(e.result.Errors, "; ")
	}
	if text == "" {
		text = e.result.TerminalReason
	}
	const shown = 500
	if r := []rune(text); len(r) > shown {
		text = string(r[:shown]) + "…"
	}
	return text
}

func maxTurns(n int) *agent.Error {
	return failed("raise max_turns, or give the step a smaller task", "the conversation did not end within max_turns: %d", n)
}

func failed(hint, format string, a ...any) *agent.Error {
	return &agent.Error{Class: agent.ClassFailed, Hint: hint, Err: fmt.Errorf(format, a...)}
}
