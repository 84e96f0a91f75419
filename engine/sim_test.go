package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"flowrun.dev/flow/workflow"
)

// sim plays the loop's part without goroutines: it folds events, asks Decide, and
// models the workspace as a set of marks, so that tests can say what a checkpoint
// holds.
type sim struct {
	run    *Run
	conds  conditions
	loop   *Loop // for what an action becomes
	now    time.Time
	events []Event
	live   []int
	// files are the marks in the workspace, stored by checkpoint id.
	files  map[string]bool
	stored map[string]map[string]bool
	// last are the actions without an event of the newest round.
	last []Action
	log  func(format string, args ...any)
}

func newSim(plan *workflow.Plan, conds conditions) *sim {
	s := &sim{
		run: newRun(plan, conds), conds: conds, now: epoch, files: map[string]bool{},
		stored: map[string]map[string]bool{"": {}}, log: func(string, ...any) {},
	}
	s.attach()
	return s
}

func (s *sim) attach() {
	s.loop = &Loop{Run: s.run, Runner: &fakeRunner{}}
	s.loop.once.Do(s.loop.setup)
}

func (s *sim) apply(b Body) error {
	e := Event{Seq: s.run.Seq + 1, At: s.now, Body: b}
	if err := s.run.Apply(e); err != nil {
		return err
	}
	s.events = append(s.events, e)
	return nil
}

// settle decides until only effects are left.
func (s *sim) settle() error {
	for rounds := 0; ; rounds++ {
		if rounds > 10*len(s.run.Nodes)+100 {
			return fmt.Errorf("decide does not come to rest: %v", s.last)
		}
		actions, err := decide(s.run.plan, s.run, s.now, nil)
		if err != nil {
			return err
		}
		changed := false
		s.last = s.last[:0]
		for _, a := range actions {
			s.loop.now = s.now
			b := s.loop.event(a)
			if b == nil {
				s.last = append(s.last, a)
				continue
			}
			changed = true
			s.log("%s", s.words(a))
			if c, ok := b.(ConditionEvaluated); ok {
				s.log("  = %v %s", c.Value, c.Error)
			}
			if err := s.apply(b); err != nil {
				return err
			}
			if st, ok := a.(StartStep); ok && s.run.graph[st.Node].role == workflow.RoleStep {
				s.live = append(s.live, st.Node)
				s.mark(st.Node, "began")
			}
		}
		if !changed {
			for _, a := range s.last {
				s.log("%s", s.words(a))
			}
			return nil
		}
	}
}

func (s *sim) id(i int) string { return s.run.graph[i].id }

// mark the workspace, unless the step is one of those that change nothing (their
// checkpoints have the id of the one before).
func (s *sim) mark(i int, what string) {
	if id := s.id(i); writes(id) {
		s.files[id+" "+what] = true
	}
}

func writes(id string) bool {
	id = strings.TrimRight(id, "]")
	return id[len(id)-1]%3 != 0
}

// finish ends a running attempt; with nothing else running the workspace is stored.
func (s *sim) finish(i int, o Outcome) error {
	s.live = slices.DeleteFunc(s.live, func(j int) bool { return j == i })
	f := StepFinished{Step: s.id(i), Attempt: s.run.Nodes[i].Attempts, Outcome: o}
	if o.Status == StepSucceeded {
		s.mark(i, "done")
	}
	if len(s.live) == 0 && !s.run.graph[i].late && !s.run.Hard {
		f.Checkpoint = s.store()
	}
	return s.apply(f)
}

// store gives equal contents one id, as a content-addressed store does.
func (s *sim) store() string {
	var marks []string
	for m := range s.files {
		marks = append(marks, m)
	}
	slices.Sort(marks)
	id := fmt.Sprintf("c%v", marks)
	kept := map[string]bool{}
	for _, m := range marks {
		kept[m] = true
	}
	s.stored[id] = kept
	return id
}

// resume continues from the events alone, as a new process does.
func (s *sim) resume(plan *workflow.Plan, events []Event, opt ResumeOptions) (*sim, RunResumed, error) {
	n := newSim(plan, s.conds)
	n.stored, n.now, n.log = s.stored, s.now.Add(time.Hour), s.log
	for _, e := range events {
		if err := n.run.Apply(e); err != nil {
			return nil, RunResumed{}, err
		}
	}
	n.events = slices.Clone(events)
	b, err := PlanResume(plan, n.run, opt)
	if err != nil {
		return nil, b, err
	}
	for m := range n.stored[b.Checkpoint] {
		n.files[m] = true
	}
	return n, b, n.apply(b)
}

// words of an action, for golden files.
func (s *sim) words(a Action) string {
	at := func(t time.Time) string { return "+" + t.Sub(epoch).String() }
	switch a := a.(type) {
	case EvaluateCondition:
		return "evaluate if of " + s.id(a.Node)
	case StartStep:
		return fmt.Sprintf("start %s attempt %d", s.id(a.Node), a.Attempt)
	case SkipStep:
		return "skip " + s.id(a.Node)
	case NotRun:
		return fmt.Sprintf("not run %s: %s", s.id(a.Node), a.Reason)
	case ScheduleRetry:
		return fmt.Sprintf("retry %s as attempt %d at %s: %s", s.id(a.Node), a.Attempt, at(a.At), a.Reason)
	case StopStep:
		return fmt.Sprintf("stop %s as %s: %s", s.id(a.Node), a.Cause.Status, a.Cause.Reason)
	case CancelRun:
		return "cancel run: " + a.Cause
	case Wake:
		return "wake at " + at(a.At)
	case RequestApproval:
		return "ask for " + s.id(a.Node)
	case CloseApproval:
		return "end the approval " + s.id(a.Node)
	case Await:
		return fmt.Sprintf("await people (%s) %s", a.Class, a.Cause)
	case FinishRun:
		return fmt.Sprintf("finish run %s (%s) %s", a.Status, a.Class, a.Cause)
	}
	return fmt.Sprintf("unknown action %T", a)
}
