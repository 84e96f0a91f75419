package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flowrun.dev/flow/workflow"
)

// finish records ended attempts, with the checkpoints that cover them (cover).
func (l *Loop) finish(outcomes []result) error {
	if len(outcomes) == 0 {
		return nil
	}
	for _, o := range outcomes {
		delete(l.live, o.node)
	}
	ids, broken := l.cover(outcomes)
	for k, o := range outcomes {
		f := StepFinished{Step: l.Run.graph[o.node].id, Attempt: o.attempt, Outcome: o.outcome}
		f.Checkpoint = ids[k]
		if err := l.record(f); err != nil {
			return err
		}
	}
	if broken == nil {
		return nil
	}
	// The steps ended, but what they did is not stored: no later step may build on
	// it. A resume runs them again.
	if err := l.record(RunFinished{Status: RunFailed, Class: ClassInfrastructure, Cause: broken.Error()}); err != nil {
		return err
	}
	return errors.Join(broken, l.flush())
}

// toCover are the steps whose changes a checkpoint taken now would hold; none
// while a step runs (they share the tree), in finally, and after a hard stop.
func (l *Loop) toCover(outcomes []result) []string {
	if len(l.live) > 0 || l.Run.Hard || l.Run.graph[outcomes[0].node].late {
		return nil
	}
	var steps []string
	for _, i := range l.Run.since {
		steps = append(steps, l.Run.graph[i].id)
	}
	for _, o := range outcomes {
		steps = append(steps, l.Run.graph[o.node].id)
	}
	return steps
}

func (l *Loop) checkpoint(steps []string) (string, []FileChange, int, error) {
	ctx, cancel := l.bounded("store checkpoint")
	defer cancel()
	id, changed, count, err := l.Runner.Checkpoint(ctx, steps)
	if err != nil {
		err = fmt.Errorf("store checkpoint after step %s: %w", steps[len(steps)-1], err)
	}
	return id, changed, count, err
}

// decide asks until only effects are left. It ends: each round settles a node,
// starts one, schedules a retry, or finishes the run.
func (l *Loop) decide() error {
	for {
		var err error
		if l.actions, err = decide(l.Run.plan, l.Run, l.now, l.actions); err != nil {
			return err
		}
		changed := false
		for _, a := range l.actions {
			b := l.event(a)
			if b == nil {
				continue
			}
			changed = true
			if err := l.record(b); err != nil {
				return err
			}
			if s, ok := a.(StartStep); ok && l.Run.graph[s.Node].role == workflow.RoleStep {
				l.starts = append(l.starts, s)
			}
		}
		if !changed {
			return nil
		}
	}
}

// event is what an action becomes in the journal; nil for StopStep and Wake.
func (l *Loop) event(a Action) Body {
	id := ""
	if i := a.about(); i >= 0 {
		id = l.Run.graph[i].id
	}
	switch a := a.(type) {
	case EvaluateCondition:
		return l.evaluate(a.Node, id)
	case StartStep:
		return StepStarted{Step: id, Attempt: a.Attempt, Kind: l.kind(a.Node)}
	case RequestApproval:
		return l.ask(a.Node, id)
	case CloseApproval:
		return l.closeApproval(a.Node, id)
	case Await:
		if l.Wait {
			return nil
		}
		return RunFinished{Status: RunWaiting, Class: a.Class, Cause: a.Cause}
	case ExpandScope:
		if l.Run.graph[a.Node].role == workflow.RoleCall {
			return l.callWorkflow(a.Node, id)
		}
		return l.expand(a.Node, id)
	case StartBatch:
		return BatchStarted{Step: id, N: a.N}
	case StartRound:
		return IterationStarted{Step: id, N: a.N}
	case EvaluateUntil:
		return l.until(a.Node, a.N, id)
	case CloseScope:
		return l.close(a.Node, id)
	case RequestStop:
		return StopRequested{Step: id, Rest: a.Rest, Status: a.Status, Reason: a.Reason, Join: a.Join}
	case SkipStep:
		return StepSkipped{Step: id, Reason: a.Reason}
	case NotRun:
		return StepNotRun{Step: id, Reason: a.Reason, Cancelled: a.Cancelled}
	case ScheduleRetry:
		return RetryScheduled{Step: id, Attempt: a.Attempt, At: a.At.UTC(), Reason: a.Reason}
	case CancelRun:
		return CancelRequested(a)
	case FinishRun:
		return l.handOn(l.finishRun(a))
	default:
		return nil
	}
}

// evaluate a step's `if`, on the workspace where it asks for files.
func (l *Loop) evaluate(i int, id string) Body {
	c := l.Run.conditionOf(&l.Run.graph[i])
	vars, err := l.vars(i, c.UsesFiles())
	if err != nil {
		return ConditionEvaluated{Step: id, Error: err.Error()}
	}
	value, err := c.EvalBool(vars)
	if err != nil {
		return ConditionEvaluated{Step: id, Error: fmt.Sprintf("evaluate `if`: %v", err)}
	}
	return ConditionEvaluated{Step: id, Value: value}
}

func (l *Loop) vars(i int, files bool) (workflow.Vars, error) {
	key := l.Run.graph[i].tmpl.Step
	refs, ok := l.refs[key]
	if !ok {
		refs = RefsOf(key)
		l.refs[key] = refs
	}
	env, err := l.env()
	if err != nil {
		return workflow.Vars{}, err
	}
	src := Sources{Inputs: l.Run.Start.Inputs, Env: env, Output: l.Runner.Output}
	if files {
		src.Files = l.Runner.Files()
	}
	return VarsFor(l.ctx, l.Run, i, refs, src)
}

// act carries out what the durable batch announced, and what needs no event.
func (l *Loop) act() {
	for _, s := range l.starts {
		l.start(s)
	}
	l.starts = l.starts[:0]
	wake := time.Time{}
	for _, a := range l.actions {
		switch a := a.(type) {
		case StopStep:
			if stop, ok := l.live[a.Node]; ok {
				stop(&a.Cause) // the first cause stands
			}
		case Wake:
			wake = a.At
		}
	}
	l.arm(&l.wake, wake)
}

// start runs one attempt in a goroutine whose end is its result.
func (l *Loop) start(s StartStep) {
	step := l.Run.graph[s.Node].step
	ctx, cancel := context.WithCancelCause(l.ctx)
	l.live[s.Node] = cancel
	vars, err := l.vars(s.Node, true)
	a := Attempt{RunID: l.Run.ID, Step: step, Attempt: s.Attempt, Vars: vars, Exports: l.Run.exported(s.Node), Timeout: step.Timeout, Alone: l.Run.alone(s.Node), Options: l.Run.Start.Options, Continue: l.Run.Nodes[s.Node].Turn}
	if name := sessionOf(step); name != "" {
		if i, ok := l.Run.resolve(l.Run.graph[s.Node].frame, name); ok {
			a.SessionStep, a.Session = l.Run.graph[i].id, l.Run.Nodes[i].Said
		}
	}
	started := l.now.UTC()
	go func() {
		defer cancel(nil)
		r := result{node: s.Node, attempt: s.Attempt}
		if err != nil {
			r.outcome = Outcome{Status: StepFailed, Class: ClassInfrastructure, Error: err.Error(), Started: started}
		} else {
			r.outcome = l.Runner.Run(ctx, a, l.emit)
		}
		l.results <- r
	}()
}
