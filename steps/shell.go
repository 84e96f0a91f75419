package steps

import (
	"context"
	"fmt"
	"os"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// Shell is a command that a person runs in a restored sandbox.
type Shell struct {
	// Step whose settings and rights it gets, nil for none: then it may do what the
	// sandbox may.
	Step *workflow.Step
	Vars workflow.Vars
	// Exports of the steps before it.
	Exports engine.Exports
	Argv    []string
	// Env is added to the environment, "K=V".
	Env                   []string
	Stdin, Stdout, Stderr *os.File
	// Terminal: Stdin is one, and becomes the command's controlling terminal.
	Terminal bool
}

// RunShell executes a shell in a sandbox like the step's, which is made and restored
// first. What it changes is not stored. Its output goes to the caller's descriptors as
// it is.
func (h *Host) RunShell(ctx context.Context, s Shell) (sandbox.Result, error) {
	quiet := func(engine.Body) {}
	r, apart := h.rooms[""], false
	if s.Step != nil {
		r = h.roomOf(s.Step)
		apart = s.Step.Sandbox == workflow.Fresh || r.apart()
	}
	sb, err := h.acquire(ctx, r, useFresh, 0, quiet)
	if err != nil {
		return sandbox.Result{}, err
	}
	defer h.release(ctx, sb, useFresh)
	if _, _, err := h.fill(ctx, sb, apart, quiet); err != nil {
		return sandbox.Result{}, err
	}
	env, rights := sb.BaseEnv(), sandbox.Rights{}
	if s.Step != nil {
		a := engine.Attempt{RunID: h.cfg.RunID, Step: s.Step, Attempt: 1, Vars: s.Vars, Exports: s.Exports}
		if env, err = h.environment(sb, a); err != nil {
			return sandbox.Result{}, fmt.Errorf("make the environment of step %s: %w", s.Step.ID, err)
		}
		if rights, err = shellRights(sb, a, r.Capabilities); err != nil {
			return sandbox.Result{}, fmt.Errorf("find the rights of step %s: %w", s.Step.ID, err)
		}
	}
	return sb.Exec(ctx, sandbox.Cmd{Argv: s.Argv, Env: append(env, s.Env...), Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr,
		Terminal: s.Terminal, Rights: rights, Grace: killGrace})
}

// shellRights are the step's, as far as the driver enforces them: the files are a
// copy that nobody keeps, so there is nothing to put back where it does not. An
// agent's allowlist names tools, not commands: a shell at such a step may do what
// the sandbox may.
func shellRights(sb sandbox.Sandbox, a engine.Attempt, caps sandbox.Capabilities) (sandbox.Rights, error) {
	r, err := rightsOf(sb, a)
	if !caps.PathRights {
		r.ReadOnly, r.Write = false, nil
	}
	return r, err
}
