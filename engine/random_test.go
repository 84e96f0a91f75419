package engine

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
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

// law reads events without the engine and says which promise they break.
func law(plan *workflow.Plan, conds conditions, events []Event) error {
	state := map[string]string{} // "", running, waiting, ended
	succeeded := map[string]bool{}
	running, cancelled := 0, false
	scopes := map[string]bool{}
	for _, e := range events {
		switch b := e.Body.(type) {
		case RunResumed:
			running, cancelled = 0, false
			for _, id := range b.Removed {
				delete(state, id)
			}
			for _, r := range b.Reset {
				state[r.Step], succeeded[r.Step] = "", false
			}
			for id, st := range state {
				if st == "running" || st == "waiting" {
					return fmt.Errorf("event %d: %s was in flight and is not reset", e.Seq, id)
				}
			}
		case CancelRequested:
			cancelled = true
		case StepStarted:
			node, top := topNode(plan, b.Step)
			if st := state[b.Step]; st != "" && st != "waiting" {
				return fmt.Errorf("event %d: %s starts although it is %s", e.Seq, b.Step, st)
			}
			if top && !node.Finally {
				if err := lawOfNeeds(plan, conds, node, state, succeeded); err != nil {
					return fmt.Errorf("event %d: %w", e.Seq, err)
				}
			}
			if top && node.Finally {
				for _, other := range plan.Nodes {
					if st := state[other.Step.ID]; !other.Finally && st != "ended" || st == "running" {
						return fmt.Errorf("event %d: %s starts before %s ended", e.Seq, b.Step, other.Step.ID)
					}
				}
			} else if cancelled && !lateID(b.Step) {
				return fmt.Errorf("event %d: %s starts in a cancelled run", e.Seq, b.Step)
			}
			state[b.Step] = "running"
			if isScope(plan, b) || isApproval(plan, b) {
				scopes[b.Step] = true
				break
			}
			if running++; running > plan.Workflow.MaxParallel {
				return fmt.Errorf("event %d: %d steps run, max_parallel is %d", e.Seq, running, plan.Workflow.MaxParallel)
			}
		case StepFinished:
			if !scopes[b.Step] {
				running--
			}
			state[b.Step], succeeded[b.Step] = "ended", b.Outcome.Status == StepSucceeded
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
		case ApprovalRequested:
			state[b.Step] = "asked"
		case RunFinished:
			if b.Status == RunWaiting {
				if running > 0 {
					return fmt.Errorf("event %d: the run waits while %d steps run", e.Seq, running)
				}
				break
			}
			for _, n := range plan.Nodes {
				if state[n.Step.ID] != "ended" {
					return fmt.Errorf("event %d: the run ends while %s is %q", e.Seq, n.Step.ID, state[n.Step.ID])
				}
			}
		}
	}
	return nil
}

// lawOfNeeds: what a step waits for has ended, and a join has enough that succeeded,
// unless its condition asks about that.
func lawOfNeeds(plan *workflow.Plan, conds conditions, node *workflow.Node, state map[string]string, succeeded map[string]bool) error {
	s, have, open := node.Step, 0, 0
	for _, need := range s.Needs {
		switch {
		case state[need] != "ended":
			open++
		case succeeded[need]:
			have++
		}
	}
	for i := 0; !s.HasNeeds && plan.Nodes[i].Step != s; i++ {
		if above := plan.Nodes[i].Step.ID; state[above] != "ended" {
			return fmt.Errorf("%s starts before %s above it ended", s.ID, above)
		}
	}
	switch j := s.Join; {
	case j == nil && open > 0, j != nil && j.CancelRest && open > 0:
		return fmt.Errorf("%s starts before %d of its needs ended", s.ID, open)
	case j != nil && have < j.Count && (conds.of(s) == nil || !conds.of(s).UsesStatus()):
		return fmt.Errorf("%s starts with %d of %d", s.ID, have, j.Count)
	}
	return nil
}

func topNode(plan *workflow.Plan, id string) (*workflow.Node, bool) {
	i, ok := plan.ByID[id]
	if !ok {
		return nil, false
	}
	return &plan.Nodes[i], true
}

func lateID(id string) bool { return id[0] == 'f' || id[0] == 'o' }

func isApproval(plan *workflow.Plan, b StepStarted) bool {
	if n, ok := topNode(plan, b.Step); ok {
		return n.Role == workflow.RoleApprove
	}
	return b.Kind == "approve"
}

func isScope(plan *workflow.Plan, b StepStarted) bool {
	if n, ok := topNode(plan, b.Step); ok {
		return n.Role != workflow.RoleStep
	}
	return b.Kind == "foreach" || b.Kind == "repeat" || b.Kind == "group" || b.Kind == "workflow"
}

// needsRedo: a step that, transitively, needs one that did not end well, or was
// not reached, has to run again with it.
func needsRedo(r *Run, i int) bool {
	if !r.ended(i) || !r.endedWell(i) || r.Nodes[i].Last != nil && limited(&r.Nodes[i]) {
		return true
	}
	g := &r.graph[i]
	if g.joins() {
		have := 0
		for _, n := range g.needs {
			switch redo := needsRedo(r, n); {
			case r.joinable(n) && !redo:
				have++
			case redo && g.step.Join.CancelRest && (r.Nodes[n].StopJoin == "" || slices.ContainsFunc(r.graph[n].needs, func(m int) bool { return needsRedo(r, m) })):
				return true // it waits for all of them
			}
		}
		return have < g.step.Join.Count
	}
	return slices.ContainsFunc(g.needs, func(n int) bool { return needsRedo(r, n) })
}

// checkResume compares what a resume resets with what the cut events promise.
func checkResume(before *Run, s *sim, b RunResumed, from string) error {
	reset := map[string]bool{}
	for _, r := range b.Reset {
		reset[r.Step] = true
	}
	gone := map[string]bool{}
	for _, id := range b.Removed {
		gone[id] = true
	}
	for i := range before.graph {
		n, id := &before.Nodes[i], before.graph[i].id
		if before.graph[i].late || before.graph[i].role != workflow.RoleStep {
			continue
		}
		if from == "" && before.graph[i].frame == 0 && before.Covered(i) && reset[id] && !needsRedo(before, i) {
			return fmt.Errorf("step %s is covered and runs again", id)
		}
		if n.Status == StepSucceeded && !reset[id] && !gone[id] && writes(id) && !s.files[id+" done"] {
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
	rounds := 250
	switch {
	case testing.Short():
		rounds = 50
	case os.Getenv("FLOW_LONG") != "":
		rounds = 5000
	}
	seen := map[string]int{}
	for seed := range rounds {
		rnd := rand.New(rand.NewPCG(uint64(seed), 9))
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
		if err := law(plan, conds, s.events); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, dump(s.events))
		}
		checkReplay(t, seed, s)
		seen[string(s.run.Status)]++
		if s.run.Status == RunWaiting {
			checkWaiting(t, seed, s, rnd)
		}
		for _, e := range s.events {
			seen[e.Body.Type()]++
			switch b := e.Body.(type) {
			case StopRequested:
				if b.Join != "" {
					seen["cancelled by a join"]++
				}
			case StepSkipped:
				if b.Reason != "" {
					seen["nothing to join"]++
				}
			}
		}
		for i := range s.run.Nodes {
			if n := &s.run.Nodes[i]; n.fault > 0 && n.Status == StepIsNotRun {
				seen["unmet join"]++
			} else if k, bad := s.run.counts(i); n.Status == StepFailed && s.run.graph[i].tmpl.Judged && !bad && k == 0 {
				seen["failure that a join judges"]++
			}
		}
		for cut := 1; cut <= len(s.events); cut++ {
			checkCut(t, seed, s, cut, rnd)
		}
	}
	t.Logf("%d runs: %v", rounds, seen)
	for _, want := range []string{
		"succeeded", "failed", "cancelled", "interrupted", "out_of_budget", "rate_limited", "waiting",
		"condition_evaluated", "step_skipped", "step_not_run", "retry_scheduled",
		"foreach_expanded", "batch_started", "iteration_started", "until_evaluated", "stop_requested", "approval_requested", "approval_answered",
		"workflow_called", "cancelled by a join", "nothing to join", "unmet join", "failure that a join judges",
	} {
		if seen[want] == 0 && !testing.Short() {
			t.Errorf("no run shows %s: the test looks away", want)
		}
	}
}

// checkWaiting: a run that waits goes on with what waited, and what had ended stays.
func checkWaiting(t *testing.T, seed int, s *sim, rnd *rand.Rand) {
	t.Helper()
	if len(s.run.AskedFor()) == 0 {
		t.Fatalf("seed %d: the run waits for nobody\n%s", seed, dump(s.events))
	}
	n, b, err := s.resume(s.run.plan, s.events, ResumeOptions{})
	if err != nil {
		t.Fatalf("seed %d: resume of a waiting run: %v\n%s", seed, err, dump(s.events))
	}
	for _, r := range b.Reset {
		i, _ := s.run.find(r.Step)
		if s.run.ended(i) && s.run.graph[i].role != workflow.RoleStep {
			t.Fatalf("seed %d: %s had ended as %s and runs again: %s\n%s", seed, r.Step, s.run.Nodes[i].Status, r.Reason, dump(s.events))
		}
	}
	got, want := n.run.AskedFor(), s.run.AskedFor()
	slices.Sort(got) // a resume numbers what is in scopes anew
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("seed %d: after the resume %v waits, before it %v", seed, got, want)
	}
	for n.run.Status == RunRunning || n.run.Status == RunWaiting {
		if n.run.Status == RunWaiting {
			if n, _, err = n.resume(n.run.plan, n.events, ResumeOptions{}); err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, err, dump(n.events))
			}
			if _, err := answerOne(n, rnd); err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, err, dump(n.events))
			}
		}
		if err := play(n, rnd, 90, false); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, dump(n.events))
		}
	}
	if err := law(n.run.plan, n.conds, n.events); err != nil {
		t.Fatalf("seed %d: %v\n%s", seed, err, dump(n.events))
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
	if err := law(n.run.plan, n.conds, n.events); err != nil {
		return n, err
	}
	if n.run.Status != RunSucceeded {
		return n, nil
	}
	for i := range n.run.graph {
		if id := n.id(i); !n.run.graph[i].late && n.run.graph[i].role == workflow.RoleStep && n.run.Nodes[i].Status == StepSucceeded && writes(id) && !n.files[id+" done"] {
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
