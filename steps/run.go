package steps

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
)

// killGrace is the time between SIGTERM and SIGKILL for a step that is stopped
// or timed out.
const killGrace = 2 * time.Second

// maxScriptArg is the longest script passed as an argument; Linux allows 128 KiB
// for one (MAX_ARG_STRLEN). Longer ones go through a file.
const maxScriptArg = 96 << 10

// shells is the table of `shell:` words; the script follows the arguments.
var shells = map[string][]string{
	"bash": {"bash", "--noprofile", "--norc", "-eu", "-o", "pipefail"},
	"sh":   {"sh", "-eu"},
	// -c is python's word too; node's is added in argv.
	"python": {"python3"},
	"node":   {"node"},
}

// runScript executes one attempt of a `run:` step.
func (h *Host) runScript(ctx context.Context, sb sandbox.Sandbox, a engine.Attempt, c *capture, _ func(engine.Body)) engine.Outcome {
	cmd, shown, cleanup, err := h.command(sb, a, c)
	if err != nil {
		return h.invalid(err)
	}
	defer cleanup()
	out := engine.Outcome{Command: h.cfg.Redact.String(shown)}
	rights, err := rightsOf(sb, a)
	if err != nil {
		return h.placeFailed(ctx, out, err)
	}
	return h.boundedBy(ctx, sb, h.roomOf(a.Step).Capabilities, rights, func(enforced sandbox.Rights) engine.Outcome {
		cmd.Rights = enforced
		return h.execScript(ctx, sb, a, c, out, cmd)
	})
}

// command is what a `run:` step executes, and the text shown for it.
func (h *Host) command(sb sandbox.Sandbox, a engine.Attempt, c *capture) (cmd sandbox.Cmd, shown string, cleanup func(), err error) {
	env, err := h.environment(sb, a)
	if err != nil {
		return cmd, "", nil, err
	}
	dir, err := cwd(sb, a)
	if err != nil {
		return cmd, "", nil, err
	}
	argv, shown, cleanup, err := h.argv(sb, a)
	return sandbox.Cmd{Argv: argv, Env: env, Dir: dir, Stdout: c.stdout.w, Stderr: c.stderr.w, Grace: killGrace}, shown, cleanup, err
}

// cwd is the folder inside that the step starts in, "" for the workspace.
func cwd(sb sandbox.Sandbox, a engine.Attempt) (string, error) {
	if a.Step.Cwd == nil {
		return "", nil
	}
	dir, err := a.Step.Cwd.EvalString(a.Vars)
	if err != nil {
		return "", fmt.Errorf("evaluate cwd: %w", err)
	}
	if dir == "" || dir == "." {
		return "", nil
	}
	if !filepath.IsLocal(dir) {
		return "", fmt.Errorf("cwd %q: it has to lie in the workspace", dir)
	}
	return path.Join(homeInside(sb), workspaceInTar, filepath.ToSlash(dir)), nil
}

// execScript runs the command of a `run:` step to its end.
func (h *Host) execScript(ctx context.Context, sb sandbox.Sandbox, a engine.Attempt, c *capture, out engine.Outcome, cmd sandbox.Cmd) engine.Outcome {
	measured, m := h.measure(ctx, h.roomOf(a.Step), sb)
	res, err := sb.Exec(measured, cmd)
	c.drain()
	usage := m.stop()
	if err != nil {
		return h.placeFailed(ctx, out, err)
	}
	usage.CPU = res.UserTime + res.SystemTime
	usage.Hit = m.hit(res, usage)
	out.Usage = &usage
	out.ExitCode = res.ExitCode
	out.Leftover = res.Leftover
	out.MaxRSS = res.MaxRSS
	switch {
	case res.Killed && ctx.Err() == nil:
		// Not the run's wish but the meter's.
		out.Status, out.Class = engine.StepFailed, engine.ClassExitCode
		out.Error, usage.Hit = context.Cause(measured).Error(), "disk"
	case res.Killed:
		return stopped(ctx, out)
	case res.ExitCode != 0:
		out.Status, out.Class = engine.StepFailed, engine.ClassExitCode
		out.Error = exitText(res)
		if text := m.hitText(usage.Hit); text != "" {
			out.Error = text + " (" + exitText(res) + ")"
		}
	default:
		out.Status = engine.StepSucceeded
	}
	return h.takeChannels(sb, a, out)
}

func exitText(res sandbox.Result) string {
	if res.Signal != 0 {
		return fmt.Sprintf("ended by signal %d (exit code %d)", res.Signal, res.ExitCode)
	}
	return fmt.Sprintf("exit code %d", res.ExitCode)
}

// argv is the command line of the step and the text shown for it.
func (h *Host) argv(sb sandbox.Sandbox, a engine.Attempt) (argv []string, shown string, cleanup func(), err error) {
	cleanup = func() {}
	rs := a.Step.Run
	if rs.Script == nil {
		for _, t := range rs.Argv {
			s, err := t.EvalString(a.Vars)
			if err != nil {
				return nil, "", cleanup, err
			}
			argv = append(argv, s)
			shown += s + " "
		}
		return argv, shown, cleanup, nil
	}
	script, err := rs.Script.EvalString(a.Vars)
	if err != nil {
		return nil, "", cleanup, err
	}
	argv = append(argv, shells[rs.Shell]...)
	if len(script) <= maxScriptArg {
		inline := "-c"
		if rs.Shell == "node" {
			inline = "-e"
		}
		return append(argv, inline, script), script, cleanup, nil
	}
	if sb.Home() == "" {
		return nil, "", cleanup, fmt.Errorf("the script has %d bytes; driver %s takes at most %d", len(script), sb.Info().Driver, maxScriptArg)
	}
	name := fmt.Sprintf("script-%s-%d", fileName(a.Step.ID), a.Attempt)
	onHost := filepath.Join(sb.Home(), stepDirName, name)
	if err := os.WriteFile(onHost, []byte(script), 0o644); err != nil {
		return nil, "", cleanup, fmt.Errorf("write the script: %w", err)
	}
	return append(argv, stepDirInside(sb)+"/"+name), script, func() { os.Remove(onHost) }, nil
}

// stopped classifies an attempt whose context ended.
func stopped(ctx context.Context, out engine.Outcome) engine.Outcome {
	var se *engine.StopError
	cause := context.Cause(ctx)
	if !errors.As(cause, &se) {
		se = &engine.StopError{Status: engine.StepInterrupted, Reason: fmt.Sprint(cause)}
	}
	out.Status, out.Error = se.Status, se.Reason
	switch se.Status {
	case engine.StepTimedOut:
		out.Class = engine.ClassTimeout
	default:
		out.Class = engine.ClassCancelled
	}
	return out
}

// invalid is the outcome of an attempt that could not start: the definition or
// its values are wrong, another try would be the same.
func (h *Host) invalid(err error) engine.Outcome {
	return engine.Outcome{Status: engine.StepFailed, Class: engine.ClassInvalid, ExitCode: -1, Error: h.cfg.Redact.String(err.Error())}
}

// placeFailed is the outcome of an attempt whose sandbox failed, not its command.
func (h *Host) placeFailed(ctx context.Context, out engine.Outcome, err error) engine.Outcome {
	if ctx.Err() != nil {
		return stopped(ctx, out)
	}
	out.Status, out.Class, out.ExitCode = engine.StepFailed, engine.ClassInvalid, -1
	text := err.Error()
	var se *sandbox.Error
	if errors.As(err, &se) {
		if se.Class == sandbox.ClassInfrastructure {
			out.Class = engine.ClassInfrastructure
		}
		if se.Hint != "" {
			text += "; " + se.Hint
		}
	} else {
		out.Class = engine.ClassInfrastructure
	}
	out.Error = h.cfg.Redact.String(text)
	return out
}
