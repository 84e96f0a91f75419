package loop

import (
	"errors"
	"fmt"
	"strings"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/tools"
	"flowrun.dev/flow/sandbox"
)

// Check says before anything starts whether the loop can honour a request: its
// rules parse, and every tool that they name exists here. The error is an
// *agent.Error of class invalid.
func Check(r agent.Request) error {
	_, _, err := prepare(r)
	return err
}

func prepare(r agent.Request) (*agent.Policy, []tools.Spec, error) {
	p, err := agent.NewPolicy(r.Allowed, r.Disallowed)
	if err != nil {
		return nil, nil, invalid(err, "")
	}
	specs, missing := tools.Specs(p.Offered())
	if len(missing) > 0 {
		return nil, nil, invalid(fmt.Errorf("offer the step's tools: this provider has no %s", strings.Join(missing, ", ")),
			"its tools are "+strings.Join(tools.Names(), ", "))
	}
	switch r.OnDenied {
	case "", "tell", "fail":
	default:
		return nil, nil, invalid(fmt.Errorf("on_denied is %q; expected tell or fail", r.OnDenied), "")
	}
	if r.MaxTurns < 0 {
		return nil, nil, invalid(fmt.Errorf("max_turns is %d; expected 1 or more", r.MaxTurns), "")
	}
	if r.Sandbox != nil && !r.Sandbox.Info().Tier.Strong() {
		p = p.WithHome(r.Sandbox.Home())
	}
	return p, specs, nil
}

func invalid(err error, hint string) *agent.Error {
	return &agent.Error{Class: agent.ClassInvalid, Hint: hint, Err: err}
}

func failed(err error, hint string) *agent.Error {
	return &agent.Error{Class: agent.ClassFailed, Hint: hint, Err: err}
}

// classify makes any error an *agent.Error.
func classify(err error) *agent.Error {
	var ae *agent.Error
	if errors.As(err, &ae) {
		return ae
	}
	class := agent.ClassInfrastructure
	var se *sandbox.Error
	if errors.As(err, &se) && se.Class == sandbox.ClassInvalid {
		class = agent.ClassInvalid
	}
	out := &agent.Error{Class: class, Err: err}
	if se != nil {
		out.Hint = se.Hint
	}
	return out
}
