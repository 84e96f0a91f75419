package engine

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"flowrun.dev/flow/workflow"
)

// randomPlan is a small graph with everything in it that a decision depends on.
func randomPlan(rnd *rand.Rand) (*workflow.Plan, conditions) {
	w, ifs := &workflow.Workflow{MaxParallel: 1 + rnd.IntN(4)}, fakeIfs{}
	if rnd.IntN(4) == 0 {
		w.Timeout = time.Duration(1+rnd.IntN(60)) * time.Second
	}
	step := func(id string) *workflow.Step {
		s := &workflow.Step{ID: id, HasNeeds: true, ContinueOnError: rnd.IntN(6) == 0}
		if rnd.IntN(3) == 0 {
			names := []string{"true", "false", "error", "always", "success", "failure", "cancelled"}
			ifs[id] = namedIf(names[rnd.IntN(len(names))])
		}
		if rnd.IntN(3) == 0 {
			s.Retry = workflow.Retry{
				Written: true, MaxAttempts: 1 + rnd.IntN(3), Backoff: []string{"constant", "exponential", "fibonacci"}[rnd.IntN(3)],
				Initial: time.Second, Max: 5 * time.Second, Jitter: time.Duration(rnd.IntN(2)) * 300 * time.Millisecond,
			}
		}
		return s
	}
	for i := range 1 + rnd.IntN(9) {
		s := step(fmt.Sprintf("s%d", i))
		for j := range i {
			if rnd.IntN(3) == 0 {
				s.Needs = append(s.Needs, fmt.Sprintf("s%d", j))
			}
		}
		w.Steps = append(w.Steps, s)
	}
	for i := range rnd.IntN(3) {
		w.Finally = append(w.Finally, step(fmt.Sprintf("f%d", i)))
	}
	return planOf(w), ifs
}

func randomOutcome(rnd *rand.Rand, calm int) Outcome {
	if rnd.IntN(100) < calm {
		return Outcome{Status: StepSucceeded}
	}
	all := []Outcome{
		{Status: StepFailed, Class: ClassExitCode, ExitCode: 1}, {Status: StepFailed, Class: ClassExitCode, ExitCode: 2},
		{Status: StepTimedOut, Class: ClassTimeout}, {Status: StepFailed, Class: ClassInfrastructure},
		{Status: StepFailed, Class: ClassRateLimit, RetryAfter: 3 * time.Second}, {Status: StepFailed, Class: ClassBudget},
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

// law reads events without the engine and says which promise they break.
func law(plan *workflow.Plan, events []Event) error {
	state := map[string]string{} // "", running, waiting, ended
	running, cancelled := 0, false
	for _, e := range events {
		switch b := e.Body.(type) {
		case RunResumed:
			running, cancelled = 0, false
			for _, r := range b.Reset {
				state[r.Step] = ""
			}
			for id, st := range state {
				if st == "running" || st == "waiting" {
					return fmt.Errorf("event %d: %s was in flight and is not reset", e.Seq, id)
				}
			}
		case CancelRequested:
			cancelled = true
		case StepStarted:
			node := plan.Nodes[plan.ByID[b.Step]]
			if st := state[b.Step]; st != "" && st != "waiting" {
				return fmt.Errorf("event %d: %s starts although it is %s", e.Seq, b.Step, st)
			}
			for _, need := range node.Step.Needs {
				if state[need] != "ended" {
					return fmt.Errorf("event %d: %s starts before %s ended", e.Seq, b.Step, need)
				}
			}
			if node.Finally {
				for _, other := range plan.Nodes {
					if st := state[other.Step.ID]; !other.Finally && st != "ended" || st == "running" {
						return fmt.Errorf("event %d: %s starts before %s ended", e.Seq, b.Step, other.Step.ID)
					}
				}
			} else if cancelled {
				return fmt.Errorf("event %d: %s starts in a cancelled run", e.Seq, b.Step)
			}
			state[b.Step] = "running"
			if running++; running > plan.Workflow.MaxParallel {
				return fmt.Errorf("event %d: %d steps run, max_parallel is %d", e.Seq, running, plan.Workflow.MaxParallel)
			}
		case StepFinished:
			running--
			state[b.Step] = "ended"
			if b.Checkpoint != "" && running > 0 {
				return fmt.Errorf("event %d: a checkpoint while %d steps run", e.Seq, running)
			}
		case RetryScheduled:
			state[b.Step] = "waiting"
		case StepSkipped:
			state[b.Step] = "ended"
		case StepNotRun:
			state[b.Step] = "ended"
		case ConditionEvaluated:
			if b.Error != "" {
				state[b.Step] = "ended"
			}
		case RunFinished:
			for _, n := range plan.Nodes {
				if state[n.Step.ID] != "ended" {
					return fmt.Errorf("event %d: the run ends while %s is %q", e.Seq, n.Step.ID, state[n.Step.ID])
				}
			}
		}
	}
	return nil
}

// needsRedo: a step that, transitively, needs one that did not end well, or was
// not reached, has to run again with it.
func needsRedo(r *Run, i int) bool {
	if !r.ended(i) || !r.endedWell(i) || r.Nodes[i].Last != nil && limited(&r.Nodes[i]) {
		return true
	}
	return slices.ContainsFunc(r.plan.Nodes[i].Needs, func(n int) bool { return needsRedo(r, n) })
}

// checkResume compares what a resume resets with what the cut events promise.
func checkResume(before *Run, s *sim, b RunResumed, from string) error {
	reset := map[string]bool{}
	for _, r := range b.Reset {
		reset[r.Step] = true
	}
	for i := range before.finally {
		n, id := &before.Nodes[i], before.plan.Nodes[i].Step.ID
		if from == "" && before.Covered(i) && reset[id] && !needsRedo(before, i) {
			return fmt.Errorf("step %s is covered and runs again", id)
		}
		if n.Status == StepSucceeded && !reset[id] && writes(id) && !s.files[id+" done"] {
			return fmt.Errorf("step %s stays done, its work is not in the restored workspace %v", id, s.files)
		}
	}
	if from != "" && s.files[from+" began"] {
		return fmt.Errorf("step %s begins on what it did itself: %v", from, s.files)
	}
	return nil
}

// TestRandomRuns: every run ends, the law holds, replay gives the same Run, and a
// resume after a cut at every event ends, keeps what is covered, and restores
// what it keeps.
func TestRandomRuns(t *testing.T) {
	t.Parallel()
	rounds := 1000
	if testing.Short() {
		rounds = 100
	}
	seen := map[string]int{}
	for seed := range rounds {
		rnd := rand.New(rand.NewPCG(uint64(seed), 7))
		plan, conds := randomPlan(rnd)
		s := newSim(plan, conds)
		opt := Options{Grace: 10 * time.Second}
		if rnd.IntN(6) == 0 {
			opt.Until = plan.Workflow.Steps[rnd.IntN(len(plan.Workflow.Steps))].ID
		}
		if err := s.apply(RunStarted{RunID: fmt.Sprint("r", seed), Options: opt}); err != nil {
			t.Fatal(err)
		}
		if err := play(s, rnd, 70, true); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, dump(s.events))
		}
		if err := law(plan, s.events); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, dump(s.events))
		}
		checkReplay(t, seed, s)
		seen[string(s.run.Status)]++
		for _, e := range s.events {
			seen[e.Body.Type()]++
		}
		for cut := 1; cut <= len(s.events); cut++ {
			checkCut(t, seed, s, cut, rnd)
		}
	}
	t.Logf("%d runs: %v", rounds, seen)
	for _, want := range []string{
		"succeeded", "failed", "cancelled", "interrupted", "out_of_budget", "rate_limited",
		"condition_evaluated", "step_skipped", "step_not_run", "retry_scheduled",
	} {
		if seen[want] == 0 && !testing.Short() {
			t.Errorf("no run shows %s: the test looks away", want)
		}
	}
}

func checkReplay(t *testing.T, seed int, s *sim) {
	t.Helper()
	again := newRun(s.run.plan, s.conds)
	for _, e := range s.events {
		typ, data, err := Encode(e.Body)
		if err != nil {
			t.Fatal(err)
		}
		if e.Body, err = Decode(typ, data); err != nil {
			t.Fatal(err)
		}
		if err := again.Apply(e); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	live := *s.run
	// Compared by content: an emptied slice is no other state than none.
	if len(live.since) == 0 && len(again.since) == 0 {
		live.since, again.since = nil, nil
	}
	if len(live.Line) == 0 && len(again.Line) == 0 {
		live.Line, again.Line = nil, nil
	}
	live.conds, again.conds = nil, nil // they hold functions
	if !reflect.DeepEqual(&live, again) {
		t.Fatalf("seed %d: replay differs:\nlive   %+v\nreplay %+v", seed, &live, again)
	}
}

// checkCut cuts the log, resumes, plays to the end, and now and then does the
// same to the longer log.
func checkCut(t *testing.T, seed int, s *sim, cut int, rnd *rand.Rand) {
	t.Helper()
	before := newRun(s.run.plan, s.conds)
	for _, e := range s.events[:cut] {
		if err := before.Apply(e); err != nil {
			t.Fatal(err)
		}
	}
	var opt ResumeOptions
	if before.Status == RunSucceeded || before.Status == RunCancelled || rnd.IntN(4) == 0 {
		opt.From = s.run.plan.Workflow.Steps[rnd.IntN(len(s.run.plan.Workflow.Steps))].ID
	}
	n, err := resumeAndCheck(before, s, cut, opt, rnd)
	if err != nil {
		events := s.events[:cut]
		if n != nil {
			events = n.events
		}
		t.Fatalf("seed %d, cut after event %d, from %q: %v\n%s", seed, cut, opt.From, err, dump(events))
	}
	if len(n.events) < 200 && rnd.IntN(3) == 0 {
		checkCut(t, seed, n, cut+1+rnd.IntN(len(n.events)-cut), rnd)
	}
}

func resumeAndCheck(before *Run, s *sim, cut int, opt ResumeOptions, rnd *rand.Rand) (*sim, error) {
	n, b, err := s.resume(s.run.plan, s.events[:cut], opt)
	if err != nil {
		return nil, err
	}
	if err := checkResume(before, n, b, opt.From); err != nil {
		return n, err
	}
	if err := play(n, rnd, 90, rnd.IntN(3) == 0); err != nil {
		return n, err
	}
	if err := law(n.run.plan, n.events); err != nil {
		return n, err
	}
	if n.run.Status != RunSucceeded {
		return n, nil
	}
	for i := range n.run.finally {
		if id := n.id(i); n.run.Nodes[i].Status == StepSucceeded && writes(id) && !n.files[id+" done"] {
			return n, fmt.Errorf("the run succeeded without the work of %s", id)
		}
	}
	return n, nil
}

func dump(events []Event) string {
	out := ""
	for _, e := range events {
		data, _ := json.Marshal(e.Body)
		out += fmt.Sprintf("%3d %s %s %s\n", e.Seq, e.At.Sub(epoch), e.Body.Type(), data)
	}
	return out
}
