package engine

import (
	"fmt"
	"math/rand/v2"
	"time"

	"flowrun.dev/flow/workflow"
)

// randomPlan is a small graph with everything in it that a decision depends on.
func randomPlan(rnd *rand.Rand) (*workflow.Plan, conditions) {
	w, ifs := &workflow.Workflow{MaxParallel: 1 + rnd.IntN(4)}, fakeIfs{}
	if rnd.IntN(4) == 0 {
		w.Timeout = time.Duration(1+rnd.IntN(60)) * time.Second
	}
	w.FailFast = rnd.IntN(6) == 0
	g := &randomSteps{rnd: rnd, ifs: ifs}
	w.Steps = g.list("s", 1+rnd.IntN(7), 0)
	w.OnFailure = g.list("o", rnd.IntN(2), 1)
	w.Finally = g.list("f", rnd.IntN(3), 1)
	return workflow.BuildPlan(w), ifs
}

// randomSteps makes steps, some of them scopes.
type randomSteps struct {
	rnd *rand.Rand
	ifs fakeIfs
}

func (g *randomSteps) list(prefix string, n, depth int) []*workflow.Step {
	var out []*workflow.Step
	for i := range n {
		s := g.step(fmt.Sprintf("%s%d", prefix, i), depth)
		for j := range i {
			if g.rnd.IntN(3) == 0 {
				s.Needs = append(s.Needs, fmt.Sprintf("%s%d", prefix, j))
			}
		}
		switch n := len(s.Needs); {
		case g.rnd.IntN(5) == 0:
			s.Needs, s.HasNeeds = nil, false
		case n > 0 && g.rnd.IntN(2) == 0:
			s.Join = &workflow.Join{Count: 1 + g.rnd.IntN(n)}
			s.Join.CancelRest = s.Join.Count < n && g.rnd.IntN(2) == 0
		}
		out = append(out, s)
	}
	return out
}

func (g *randomSteps) step(id string, depth int) *workflow.Step {
	rnd := g.rnd
	s := &workflow.Step{ID: id, Kind: workflow.KindRun, HasNeeds: true, ContinueOnError: rnd.IntN(6) == 0}
	if rnd.IntN(3) == 0 {
		names := []string{"true", "false", "error", "always", "success", "failure", "cancelled"}
		g.ifs[id] = namedIf(names[rnd.IntN(len(names))])
	}
	if rnd.IntN(4) == 0 {
		s.Foreach = &workflow.Foreach{List: workflow.Plain([]any{"a", "b", "c", 4.0}[:rnd.IntN(5)]), MaxParallel: rnd.IntN(3), FailFast: rnd.IntN(3) == 0}
		if rnd.IntN(2) == 0 {
			s.Foreach.BatchSize, s.Foreach.BatchPause = 1+rnd.IntN(2), time.Second
		}
	}
	if rnd.IntN(5) == 0 {
		s.Repeat = &workflow.Repeat{Until: untils[rnd.IntN(len(untils))], Max: 1 + rnd.IntN(3)}
	}
	if id[0] == 's' && rnd.IntN(6) == 0 {
		s.Kind, s.Approve = workflow.KindApprove, approvals[rnd.IntN(len(approvals))]
	} else if depth < 2 && rnd.IntN(8) == 0 {
		s.Kind, s.Call = workflow.KindCall, &workflow.CallStep{Path: "c.yaml", Workflow: &workflow.Workflow{Steps: g.list(id+"c", 1+rnd.IntN(3), depth+1)}}
		if rnd.IntN(6) == 0 {
			s.Call.With = []workflow.With{{Name: "unknown", Value: workflow.Plain(1)}}
		}
	} else if depth < 2 && rnd.IntN(4) == 0 {
		s.Kind, s.Steps = workflow.KindGroup, g.list(id+"x", 1+rnd.IntN(3), depth+1)
		if rnd.IntN(4) == 0 {
			s.Timeout = time.Duration(1+rnd.IntN(5)) * time.Second
		}
	} else if rnd.IntN(3) == 0 {
		s.Retry = workflow.Retry{
			Written: true, MaxAttempts: 1 + rnd.IntN(3), Backoff: []string{"constant", "exponential", "fibonacci"}[rnd.IntN(3)],
			Initial: time.Second, Max: 5 * time.Second, Jitter: time.Duration(rnd.IntN(2)) * 300 * time.Millisecond,
		}
	}
	return s
}

// approvals are parsed questions.
var approvals = func() []*workflow.ApproveStep {
	var out []*workflow.ApproveStep
	for _, text := range []string{"go on", "{message: which, choices: [ship, hold]}", "{message: soon, timeout: 3s}"} {
		w, err := workflow.Parse("t.yaml", []byte("name: t\nsteps: [{id: a, approve: "+text+"}]\n"), workflow.ParseOptions{})
		if err != nil {
			panic(err)
		}
		out = append(out, w.Steps[0].Approve)
	}
	return out
}()

// answerOne answers one of the open questions, if there is one.
func answerOne(s *sim, rnd *rand.Rand) (bool, error) {
	open := s.run.AskedFor()
	if len(open) == 0 {
		return false, nil
	}
	n, _ := s.run.Node(open[rnd.IntN(len(open))])
	choices := n.Approval.Answers()
	b := ApprovalAnswered{Step: n.Approval.Step, Request: n.Approval.Request, Choice: choices[rnd.IntN(len(choices))], By: "somebody", At: s.now}
	if !s.run.Expects(b) {
		return false, nil // too late
	}
	return true, s.apply(b)
}

// untils are compiled conditions of a repeat.
var untils = func() []*workflow.Expr {
	var out []*workflow.Expr
	for _, text := range []string{"true", "iteration >= 2", "self.status == 'succeeded'", "int(self.stdout) > 0"} {
		w, err := workflow.Parse("t.yaml", []byte("name: t\nsteps: [{id: a, run: x, repeat: {until: \""+text+"\"}}]\n"), workflow.ParseOptions{})
		if err != nil {
			panic(err)
		}
		out = append(out, w.Steps[0].Repeat.Until)
	}
	return out
}()

func randomOutcome(rnd *rand.Rand, calm int) Outcome {
	if rnd.IntN(100) < calm {
		return Outcome{Status: StepSucceeded}
	}
	all := []Outcome{
		{Status: StepFailed, Class: ClassExitCode, ExitCode: 1}, {Status: StepFailed, Class: ClassExitCode, ExitCode: 2},
		{Status: StepTimedOut, Class: ClassTimeout}, {Status: StepFailed, Class: ClassInfrastructure},
		{Status: StepFailed, Class: ClassRateLimit, RetryAfter: 3 * time.Second}, {Status: StepFailed, Class: ClassRateLimit}, {Status: StepFailed, Class: ClassBudget},
		{Status: StepFailed, Class: ClassDenied}, {Status: StepFailed, Class: ClassInvalid},
	}
	return all[rnd.IntN(len(all))]
}

// play drives a sim to the end with random outcomes; disturb adds cancellations.
func play(s *sim, rnd *rand.Rand, calm int, disturb bool) error {
	for steps := 0; ; steps++ {
		if steps > 2000 {
			return fmt.Errorf("the run does not end")
		}
		if err := s.settle(); err != nil {
			return err
		}
		if s.run.Status != RunRunning {
			return nil
		}
		if disturb && rnd.IntN(25) == 0 {
			causes := []string{"sigint", "sigterm", "user"}
			if err := s.apply(CancelRequested{Cause: causes[rnd.IntN(3)]}); err != nil {
				return err
			}
			continue
		}
		if rnd.IntN(3) == 0 {
			if answered, err := answerOne(s, rnd); err != nil {
				return err
			} else if answered {
				continue
			}
		}
		var stop *StopStep
		var wake *Wake
		for _, a := range s.last {
			switch a := a.(type) {
			case StopStep:
				stop = &a
			case Wake:
				wake = &a
			}
		}
		switch {
		case stop != nil && rnd.IntN(4) > 0:
			o := Outcome{Status: stop.Cause.Status, Class: ClassCancelled}
			if o.Status == StepTimedOut {
				o.Class = ClassTimeout
			}
			if err := s.finish(stop.Node, o); err != nil {
				return err
			}
		case len(s.live) > 0 && rnd.IntN(5) > 0:
			s.now = s.now.Add(time.Duration(rnd.IntN(2000)) * time.Millisecond)
			i := s.live[rnd.IntN(len(s.live))]
			if err := s.finish(i, randomOutcome(rnd, calm)); err != nil {
				return err
			}
		case wake != nil:
			s.now = wake.At
		case len(s.live) == 0:
			return fmt.Errorf("nothing runs and nobody wakes the run: %v", s.last)
		}
	}
}
