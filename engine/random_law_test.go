package engine

import (
	"fmt"
	"slices"

	"flowrun.dev/flow/workflow"
)

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
