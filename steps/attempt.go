package steps

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// Run executes one attempt; see engine.Runner.
func (h *Host) Run(ctx context.Context, a engine.Attempt, emit func(engine.Body)) engine.Outcome {
	started := time.Now()
	out := h.attempt(ctx, a, emit)
	if err := h.brought(); err != nil && out.Status != engine.StepInterrupted && out.Status != engine.StepCancelled {
		out = h.placeFailed(ctx, out, err)
	}
	h.ended(ctx, a.Step.ID, out)
	out.Started = started.UTC()
	out.Duration = time.Since(started)
	return out
}

func (h *Host) attempt(ctx context.Context, a engine.Attempt, emit func(engine.Body)) (out engine.Outcome) {
	kind, ok := kinds[a.Step.Kind]
	if !ok {
		return h.invalid(fmt.Errorf("run step %s: unknown kind %q", a.Step.ID, a.Step.Kind))
	}
	m, left, err := h.placeFor(ctx, a, emit)
	if err != nil {
		return h.placeFailed(ctx, engine.Outcome{}, err)
	}
	if a.Step.Background {
		return h.inBackground(ctx, m, left, a, emit)
	}
	defer left()
	sb := m.Sandbox
	ctx, over, cancel := live(ctx, m)
	defer cancel()
	defer func() { out = over(out) }()
	h.enter()
	defer h.leave()
	if a.Timeout > 0 {
		// Creation is not the step's time: the clock starts with the sandbox there.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, a.Timeout,
			&engine.StopError{Status: engine.StepTimedOut, Reason: fmt.Sprintf("timed out after %s", a.Timeout)})
		defer cancel()
	}
	c, err := h.newCapture(a)
	if err != nil {
		return h.placeFailed(ctx, engine.Outcome{}, &sandbox.Error{Op: "open the step's log", Class: sandbox.ClassInfrastructure, Err: err})
	}
	hit, miss, err := h.consult(ctx, sb, a, c)
	switch {
	case err != nil:
		out = h.placeFailed(ctx, out, err)
	case hit != nil:
		out = *hit
	default:
		on, disconnect, err := h.connect(ctx, sb, a, emit)
		if err != nil {
			out = h.placeFailed(ctx, out, err)
			break
		}
		quiet := warnSlow(a, emit)
		out = kind(h, ctx, on, a, c, emit)
		quiet()
		disconnect()
		out.CacheMiss = miss
	}
	c.drain()
	out.SandboxID = sb.Info().ID
	out.Stdout, out.Stderr = c.stdout.excerpt(), c.stderr.excerpt()
	ref, err := c.finish()
	if err != nil && out.Status == engine.StepSucceeded {
		// The command succeeded but its output is not durable: a resume could
		// not show or use it, so the attempt must not count as done.
		out.Status, out.Class = engine.StepFailed, engine.ClassInfrastructure
		out.Error = h.cfg.Redact.String(fmt.Sprintf("store the step's output: %v", err))
	}
	out.Log = ref
	if out.Status == engine.StepSucceeded && hit == nil {
		out = h.evalOutputs(sb, a, out, ref)
	}
	out = h.keepArtifacts(ctx, sb, a, out)
	h.keepResult(ctx, a, out)
	return out
}

// warnSlow tells once of an attempt that runs for longer than warn_after. After
// quiet has returned nothing is told any more.
func warnSlow(a engine.Attempt, emit func(engine.Body)) (quiet func()) {
	if a.Step.WarnAfter <= 0 {
		return func() {}
	}
	var mu sync.Mutex
	over := false
	t := time.AfterFunc(a.Step.WarnAfter, func() {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			emit(engine.StepSlow{Step: a.Step.ID, Attempt: a.Attempt, After: a.Step.WarnAfter})
		}
	})
	return func() {
		t.Stop()
		mu.Lock()
		over = true
		mu.Unlock()
	}
}

// evalOutputs computes `outputs:` of a step that succeeded.
func (h *Host) evalOutputs(sb sandbox.Sandbox, a engine.Attempt, out engine.Outcome, ref string) engine.Outcome {
	if len(a.Step.Outputs) == 0 {
		return out
	}
	self, err := h.selfView(a, out, ref)
	if err != nil {
		return failInvalid(out, h.cfg.Redact.String(err.Error()))
	}
	vars := a.Vars
	vars.Self = self
	vars.Files = sb.Files()
	values, err := h.Compute(a.Step.Outputs, vars)
	if err != nil {
		return failInvalid(out, err.Error())
	}
	for k, v := range out.Outputs {
		if _, written := values[k]; !written {
			values[k] = v
		}
	}
	out.Outputs = values
	return out
}

// Compute evaluates outputs; see engine.Runner.
func (h *Host) Compute(outputs []workflow.Output, vars workflow.Vars) (map[string]any, error) {
	values := make(map[string]any, len(outputs))
	var errs *multierror.Error
	for _, o := range outputs {
		v, err := o.Expr.Eval(vars)
		if err == nil {
			err = h.holdsSecret(o.Name, v)
		} else {
			err = fmt.Errorf("evaluate output %s: %w", o.Name, err)
		}
		errs = multierror.Append(errs, err)
		values[o.Name] = v
	}
	if err := errs.ErrorOrNil(); err != nil {
		if len(errs.Errors) == 1 { // a list of one needs no head
			err = errs.Errors[0]
		}
		return nil, h.cfg.Redact.Error(err)
	}
	return values, nil
}

func failInvalid(out engine.Outcome, text string) engine.Outcome {
	out.Status, out.Class, out.Error = engine.StepFailed, engine.ClassInvalid, text
	return out
}
