package engine

import "fmt"

// rank orders failures as the exit codes do (cli: "Of several exit codes the
// first of 130/143, 3, 4, 6, 7, 1, 5 is taken").
type rank int

const (
	rankInfrastructure rank = iota // 3
	rankBudget                     // 4
	rankTimeout                    // 4
	rankRateLimit                  // 6
	rankDenied                     // 7
	rankStep                       // 1
	ranks
)

// rankOf a failed step's class.
func rankOf(c Class) rank {
	switch c {
	case ClassInfrastructure:
		return rankInfrastructure
	case ClassBudget:
		return rankBudget
	case ClassTimeout:
		return rankTimeout
	case ClassRateLimit:
		return rankRateLimit
	case ClassDenied:
		return rankDenied
	default:
		return rankStep
	}
}

// tally counts the nodes that did not end well, by rank.
type tally [ranks]int

// counts says whether, and as what, an ended node makes the run not succeed: by how
// it ended, or as a join that had too little.
func (r *Run) counts(i int) (rank, bool) {
	n := &r.Nodes[i]
	if n.Stop == StepCancelled && n.Status != StepSucceeded {
		return 0, false // its end was wanted
	}
	k, bad := r.endCounts(i)
	if n.fault > 0 && !r.graph[i].tolerant() && !r.graph[i].tmpl.Judged && (!bad || n.fault-1 < k) {
		return n.fault - 1, true
	}
	return k, bad
}

func (r *Run) endCounts(i int) (rank, bool) {
	n := &r.Nodes[i]
	if n.Died != "" && n.Status == StepSucceeded {
		return rankStep, !r.graph[i].tolerant()
	}
	switch n.Status {
	case StepFailed, StepTimedOut:
		k := rankStep
		if n.Last != nil {
			k = rankOf(n.Last.Class)
		}
		// A spent budget or a rate limit concerns the run, so neither continue_on_error
		// nor a join tolerates it.
		if (r.graph[i].tolerant() || r.graph[i].tmpl.Judged) && k != rankBudget && k != rankRateLimit {
			return 0, false
		}
		return k, true
	case StepCancelled, StepInterrupted:
		// In a run that was asked to stop, the run's own cause goes first (verdict);
		// in any other one something stopped the step that is not its fault: a limit
		// that another step ran into, or what is under the run.
		if n.Last != nil && (n.Last.Class == ClassBudget || n.Last.Class == ClassRateLimit) {
			return rankOf(n.Last.Class), true
		}
		return rankInfrastructure, true
	}
	return 0, false
}

func (t *tally) worst() (rank, bool) {
	for k, n := range t {
		if n > 0 {
			return rank(k), true
		}
	}
	return 0, false
}

// verdict is how the run would end now, from its steps alone.
func (r *Run) verdict() (RunStatus, Class) {
	switch r.CancelCause {
	case "sigint", "sigterm":
		return RunInterrupted, ClassCancelled
	case "user", CauseSuperseded:
		return RunCancelled, ClassCancelled
	}
	k, bad := r.failed.worst()
	if r.CancelCause == "timeout" && (!bad || k > rankInfrastructure) {
		return RunFailed, ClassTimeout
	}
	if !bad {
		return RunSucceeded, ClassNone
	}
	switch k {
	case rankInfrastructure:
		return RunFailed, ClassInfrastructure
	case rankBudget:
		return RunOutOfBudget, ClassBudget
	case rankTimeout:
		return RunFailed, ClassTimeout
	case rankRateLimit:
		return RunRateLimited, ClassRateLimit
	case rankDenied:
		return RunFailed, ClassDenied
	default:
		return RunFailed, ClassExitCode
	}
}

// finallyRuns: each time the run reaches succeeded, failed or cancelled, and
// within the grace time after a signal; not while rate-limited or out of budget.
func (r *Run) finallyRuns() bool {
	status, _ := r.verdict()
	return !r.Hard && status != RunRateLimited && status != RunOutOfBudget
}

// finish is the end of a run whose nodes have all ended.
func (r *Run) finish() FinishRun {
	status, class := r.verdict()
	f := FinishRun{Status: status, Class: class}
	counted, from, to := &r.failed, 0, r.finally
	if status == RunSucceeded {
		if k, bad := r.failedFin.worst(); bad {
			f.Status, f.Class = RunFailed, classOf(k)
			counted, from, to = &r.failedFin, r.finally, len(r.plan.Nodes)
		}
	}
	switch {
	case f.Status == RunSucceeded:
	case r.CancelCause == "timeout" && class == ClassTimeout:
		f.Cause = fmt.Sprintf("the run did not end within its timeout of %s", r.plan.Workflow.Timeout)
	case f.Status == RunInterrupted || f.Status == RunCancelled:
		f.Cause = causeInWords(r.CancelCause)
	default:
		k, _ := counted.worst()
		f.Cause = r.firstOf(k, from, to)
	}
	return f
}

func classOf(k rank) Class {
	return [ranks]Class{ClassInfrastructure, ClassBudget, ClassTimeout, ClassRateLimit, ClassDenied, ClassExitCode}[k]
}

// firstOf words the first failure of a rank in file order.
func (r *Run) firstOf(k rank, from, to int) string {
	for i := from; i < to; i++ {
		got, ok := r.counts(i)
		if !ok || got != k {
			continue
		}
		n := &r.Nodes[i]
		why := n.Reason
		if n.Died != "" {
			return fmt.Sprintf("step %s: %s", r.graph[i].id, diedWords(n))
		}
		if n.Last != nil && n.Last.Error != "" {
			why = n.Last.Error
		}
		id := r.graph[i].id
		if own, bad := r.endCounts(i); n.fault > 0 && (!bad || own != k) {
			why = r.unmetReason(i)
		}
		if why == "" {
			return fmt.Sprintf("step %s: %s", id, n.Status)
		}
		return fmt.Sprintf("step %s: %s", id, why)
	}
	return ""
}

func causeInWords(cause string) string {
	switch cause {
	case "sigint":
		return "interrupted (SIGINT)"
	case "sigterm":
		return "interrupted (SIGTERM)"
	case "timeout":
		return "the run's timeout was reached"
	case CauseSuperseded:
		return "cancelled by a newer run of its concurrency group"
	default:
		return "cancelled by a person"
	}
}
