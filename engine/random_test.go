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
