package steps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// A background step runs in the run's own sandbox and its process goes on there when
// the step has ended. While one lives, that sandbox is kept, later steps run in it
// beside the process and not on forks (they could not reach it there), and no result
// is taken from the cache: the process may change the workspace at any time.

const (
	// settleTime is how long a background step without `ready` is watched: a command
	// that cannot start fails the step.
	settleTime = 100 * time.Millisecond
	// endWithin is what a process has at the run's end, besides killGrace.
	endWithin = 5 * time.Second
)

var errRunEnds = errors.New("the run has ended")

// process is the living command of a background step. Its fields are set when done
// is closed.
type process struct {
	step    string
	attempt int
	kill    context.CancelCauseFunc
	done    chan struct{}

	res            sandbox.Result
	err            error
	log            string
	stdout, stderr engine.Excerpt
}

// how says in words how it ended, "" for exit code 0.
func (p *process) how() string {
	switch {
	case p.err != nil:
		return p.err.Error()
	case p.res.ExitCode != 0:
		return exitText(p.res)
	}
	return ""
}

func (p *process) event(early bool) engine.BackgroundEnded {
	b := engine.BackgroundEnded{Step: p.step, Attempt: p.attempt, Early: early, ExitCode: p.res.ExitCode, Log: p.log, Stdout: p.stdout, Stderr: p.stderr}
	if early {
		b.Error = p.how()
	}
	return b
}

// inBackground starts a background step's process and returns when it is ready. left
// ends its stay in the sandbox.
func (h *Host) inBackground(ctx context.Context, m *member, left func(), a engine.Attempt, emit func(engine.Body)) engine.Outcome {
	h.enter()
	defer h.leave()
	if a.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, a.Timeout,
			&engine.StopError{Status: engine.StepTimedOut, Reason: fmt.Sprintf("not ready after %s", a.Timeout)})
		defer cancel()
	}
	watch, err := newLineWatch(a.Step.Ready)
	if err != nil {
		left()
		return h.invalid(err)
	}
	c, err := h.newCapture(a, watch.see)
	if err != nil {
		left()
		return h.placeFailed(ctx, engine.Outcome{}, &sandbox.Error{Op: "open the step's log", Class: sandbox.ClassInfrastructure, Err: err})
	}
	giveUp := func(out engine.Outcome) engine.Outcome {
		c.drain()
		out.Log, _ = c.finish() // nothing was written that anybody misses
		left()
		return out
	}
	on, disconnect, err := h.connect(ctx, m.Sandbox, a, emit)
	if err != nil {
		return giveUp(h.placeFailed(ctx, engine.Outcome{}, err))
	}
	cmd, shown, cleanup, err := h.command(on, a, c)
	if err != nil {
		disconnect()
		return giveUp(h.invalid(err))
	}
	out := engine.Outcome{Command: h.cfg.Redact.String(shown), SandboxID: m.Info().ID}
	living, kill := context.WithCancelCause(context.WithoutCancel(ctx))
	p := &process{step: a.Step.ID, attempt: a.Attempt, kill: kill, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		defer kill(nil)
		p.res, p.err = on.Exec(living, cmd)
		cleanup()
		c.drain()
		disconnect()
		p.stdout, p.stderr = c.stdout.excerpt(), c.stderr.excerpt()
		ref, err := c.finish()
		p.log = ref
		if p.err = h.cfg.Redact.Error(errors.Join(p.err, err)); p.err != nil && p.res.ExitCode == 0 {
			p.res.ExitCode = -1
		}
		left()
	}()
	return h.untilReady(ctx, on, a, p, watch, cmd.Env, out, emit)
}

// untilReady waits for what `ready` names, for the process's end, or for ctx.
func (h *Host) untilReady(ctx context.Context, on sandbox.Sandbox, a engine.Attempt, p *process, watch *lineWatch, env []string, out engine.Outcome, emit func(engine.Body)) engine.Outcome {
	wait, stop := context.WithCancel(ctx)
	defer stop()
	r := a.Step.Ready
	limit := settleTime
	if r != nil {
		limit = r.Timeout
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	ready := make(chan struct{})
	var probing sync.WaitGroup
	last := ""
	if r != nil && r.Log == "" {
		probing.Go(func() {
			if h.probe(wait, on, a, env, &last) {
				close(ready)
			}
		})
	}
	end := func(cause error) {
		stop()
		probing.Wait()
		p.kill(cause)
		<-p.done
		out.Log, out.Stdout, out.Stderr, out.ExitCode = p.log, p.stdout, p.stderr, p.res.ExitCode
	}
	select {
	case <-ready:
	case <-watch.seen:
	case <-timer.C:
		if r != nil {
			end(errRunEnds)
			out.Status, out.Class = engine.StepFailed, engine.ClassExitCode
			out.Error = h.cfg.Redact.String(notReady(r, last))
			return out
		}
	case <-p.done:
		end(nil)
		return h.endedEarly(ctx, out, a, p)
	case <-ctx.Done():
		end(context.Cause(ctx))
		return stopped(ctx, out)
	}
	stop()
	probing.Wait()
	out.Status = engine.StepSucceeded
	if out = h.takeChannels(on, a, out); out.Status != engine.StepSucceeded {
		text, class := out.Error, out.Class
		end(errRunEnds)
		out.Error, out.Class = text, class
		return out
	}
	h.keepProcess(p, emit)
	return out
}

// endedEarly is the outcome of a process that ended before it was ready.
func (h *Host) endedEarly(ctx context.Context, out engine.Outcome, a engine.Attempt, p *process) engine.Outcome {
	var se *sandbox.Error
	switch {
	case errors.As(p.err, &se):
		return h.placeFailed(ctx, out, p.err)
	case p.how() == "" && a.Step.Ready == nil:
		out.Status = engine.StepSucceeded
		return out
	}
	out.Status, out.Class = engine.StepFailed, engine.ClassExitCode
	how := p.how()
	if how == "" {
		how = "exit code 0"
	}
	out.Error = "it ended before it was ready: " + how
	return out
}

// keepProcess notes a living process until it ends or the run does.
func (h *Host) keepProcess(p *process, emit func(engine.Body)) {
	h.procsMu.Lock()
	defer h.procsMu.Unlock()
	if h.procs == nil {
		h.procs = map[string]*process{}
	}
	h.procs[p.step] = p
	h.watching.Go(func() {
		<-p.done
		h.procsMu.Lock()
		early := h.procs[p.step] == p
		if early {
			delete(h.procs, p.step)
		}
		h.procsMu.Unlock()
		if early {
			emit(p.event(true))
		}
	})
}

// beside says whether a background process lives.
func (h *Host) beside() bool {
	h.procsMu.Lock()
	defer h.procsMu.Unlock()
	return len(h.procs) > 0
}

// endProcesses ends what lives in the background: the whole tree of each, SIGTERM and
// then SIGKILL. It returns what there is to tell, in the order of the steps' names.
func (h *Host) endProcesses() (out []engine.Body) {
	h.procsMu.Lock()
	var list []*process
	for _, p := range h.procs {
		list = append(list, p)
	}
	h.procs = nil
	h.procsMu.Unlock()
	slices.SortFunc(list, func(a, b *process) int { return strings.Compare(a.step, b.step) })
	for _, p := range list {
		p.kill(errRunEnds)
	}
	timer := time.NewTimer(killGrace + endWithin)
	defer timer.Stop()
	for _, p := range list {
		select {
		case <-p.done:
			out = append(out, p.event(false))
		case <-timer.C:
			return out // closing the sandbox ends it
		}
	}
	h.watching.Wait()
	return out
}

// checkBackground: the tier landlock keeps a step from the network by refusing it all
// sockets but those of files, so that nothing could ever listen.
func checkBackground(v *wishes) error {
	for _, s := range v.steps {
		if s.Ready != nil && s.Ready.Port != 0 && v.caps.Tier == sandbox.TierLandlock && s.Network.Mode != workflow.NetworkFull {
			return fmt.Errorf("step %s waits for port %d, and in tier %s a step without `network: full` can open no socket: give it and the steps that call it `network: full`, or let it listen on a socket file", s.ID, s.Ready.Port, v.caps.Tier)
		}
	}
	return nil
}
