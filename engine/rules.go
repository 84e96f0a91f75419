package engine

import (
	"fmt"
	"time"

	"flowrun.dev/flow/workflow"
)

// RuleError is a broken rule of Decide: a defect of this program.
type RuleError struct {
	Rule   int
	Detail string
}

func (e *RuleError) Error() string {
	return fmt.Sprintf("decide: rule %d broken: %s (a defect of flow; the run can be resumed)", e.Rule, e.Detail)
}

// checkRules asserts the rules above Decide. It looks at the actions only, so it
// costs nothing that grows with the workflow.
func checkRules(plan *workflow.Plan, r *Run, now time.Time, actions []Action) error {
	broken := func(rule int, format string, args ...any) error {
		return &RuleError{Rule: rule, Detail: fmt.Sprintf(format, args...)}
	}
	if r.Status != RunRunning {
		if len(actions) > 0 {
			return broken(1, "%d actions for a run that is %s", len(actions), stateOf(r.Status))
		}
		return nil
	}
	if len(actions) == 0 && r.running.len == 0 {
		return broken(7, "no action although nothing runs (%d steps open)", r.open)
	}
	slots := plan.Workflow.MaxParallel
	if slots <= 0 {
		slots = defaultMaxParallel
	}
	slots -= r.running.len
	retries, last, ordered := 0, -1, true
	for _, a := range actions {
		i := a.about()
		if i >= 0 {
			ordered = ordered && i > last
			last = i
		}
		switch a := a.(type) {
		case ScheduleRetry:
			retries++
			if !r.fresh.has(i) {
				return broken(3, "retry of step %s, which did not just fail", r.graph[i].id)
			}
		case StartStep:
			if r.graph[i].role == workflow.RoleStep {
				slots--
			}
			if slots < 0 || i >= r.finally && r.graph[i].frame == 0 && r.running.len > 0 {
				return broken(5, "step %s starts beside %d others", r.graph[i].id, r.running.len)
			}
			if !r.startable(i, now) {
				return broken(4, "step %s starts while it is %s", r.graph[i].id, r.Nodes[i].Status)
			}
		case EvaluateCondition:
			if !r.mayStart(i) {
				return broken(4, "condition of step %s, whose turn it is not", r.graph[i].id)
			}
		case CloseScope:
			if !r.attention.has(i) {
				return broken(8, "scope %s ends while something inside it has not", r.graph[i].id)
			}
		case CloseApproval:
			if !r.asking.has(i) {
				return broken(8, "approval %s ends while it is %s", r.graph[i].id, r.Nodes[i].Status)
			}
		case RequestApproval:
			if !r.asking.has(i) || r.stopping() || r.Nodes[i].Stop != "" {
				return broken(8, "approval %s is asked for while it is %s", r.graph[i].id, r.Nodes[i].Status)
			}
		case Await:
			if r.running.len > 0 || r.unanswered() < 0 || len(actions) > 2 {
				return broken(6, "the run waits beside %d running steps and %d actions", r.running.len, len(actions))
			}
		case ExpandScope, StartRound, StartBatch, EvaluateUntil:
			if !r.attention.has(i) || !r.graph[i].late && r.stopping() || r.Nodes[i].Stop != "" {
				return broken(8, "scope %s goes on while it is %s", r.graph[i].id, r.Nodes[i].Status)
			}
		case CancelRun, FinishRun:
			if len(actions) > 1 {
				return broken(6, "%T among %d actions", a, len(actions))
			}
			if _, finish := a.(FinishRun); finish && (r.open > 0 || r.finallyNext < len(plan.Nodes) || r.running.len > 0) {
				return broken(6, "the run ends with %d steps open", r.open)
			}
		}
	}
	if retries > 0 && retries < len(actions) {
		return broken(3, "%d retries among %d actions", retries, len(actions))
	}
	if !ordered {
		return checkOnce(plan, r, actions)
	}
	return nil
}

// startable repeats rule 4 from the node's state, not from how Decide found it.
func (r *Run) startable(i int, now time.Time) bool {
	n := &r.Nodes[i]
	if !r.graph[i].late && r.stopping() || r.Hard || n.Stop != "" {
		return false
	}
	switch n.Status {
	case StepPending:
		return r.mayStart(i) && (!n.condition || n.Condition == TruthTrue)
	case StepRetrying:
		return !now.Before(n.RetryAt)
	}
	return false
}

// checkOnce is rule 2 where the order of the actions does not show it already.
func checkOnce(plan *workflow.Plan, r *Run, actions []Action) error {
	seen := newNodeSet(len(r.Nodes))
	for _, a := range actions {
		i := a.about()
		if i < 0 {
			continue
		}
		if seen.has(i) {
			return &RuleError{Rule: 2, Detail: fmt.Sprintf("step %s is named twice", r.graph[i].id)}
		}
		seen.add(i)
	}
	return nil
}
