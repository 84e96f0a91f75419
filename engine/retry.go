package engine

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sethvargo/go-retry"

	"flowrun.dev/flow/workflow"
)

// Without `retry`, what is not the step's own fault is tried 3 times (practice 7,
// language: Steps).
const (
	defaultTries   = 3
	defaultInitial = 2 * time.Second
	defaultMax     = 10 * time.Second
)

// retried are the classes that a policy tries again: as written, all of the four
// that can be retried, or only the last two where no `retry` is written.
func retried(p workflow.Retry, c Class) bool {
	switch {
	case !p.Written:
		return c == ClassInfrastructure || c == ClassRateLimit
	case p.On != nil:
		return slices.Contains(p.On, string(c))
	default:
		return c == ClassExitCode || c == ClassTimeout || c == ClassInfrastructure || c == ClassRateLimit
	}
}

// triedAgainClean: an attempt that ends like this will be tried again, with the tree
// that it started with. Where a limit of the run then keeps it from that, the step has
// failed with its changes taken back.
func (r *Run) triedAgainClean(i int, o *Outcome, now time.Time) bool {
	g := &r.graph[i]
	if !g.step.Retry.Restore || g.late || r.Hard || r.CancelCause != "" || r.Nodes[i].Stop != "" ||
		o.Status != StepFailed && o.Status != StepTimedOut {
		return false
	}
	n := r.Nodes[i]
	n.Last = o
	_, again := retryAfter(g.step, r.ID, i, &n, now)
	return again
}

// retryOf says when a step that has just failed is tried again.
func retryOf(step *workflow.Step, r *Run, i int, now time.Time) (ScheduleRetry, bool) {
	return retryAfter(step, r.ID, i, &r.Nodes[i], now)
}

func retryAfter(step *workflow.Step, runID string, i int, n *NodeState, now time.Time) (ScheduleRetry, bool) {
	p := step.Retry
	if n.Last == nil || n.Tries == 0 || !retried(p, n.Last.Class) {
		return ScheduleRetry{}, false
	}
	most := p.MaxAttempts
	if most <= 0 {
		most = defaultTries
	}
	if n.Tries >= most {
		return ScheduleRetry{}, false
	}
	wait := delay(p, n.Tries, fmt.Sprintf("%s/%s/%d", runID, step.ID, n.Attempts))
	wait = max(wait, n.Last.RetryAfter)
	at := now.Add(wait)
	if p.MaxElapsed > 0 && at.Sub(n.FirstStart) > p.MaxElapsed {
		return ScheduleRetry{}, false
	}
	reason := fmt.Sprintf("attempt %d of %d failed (%s)", n.Tries, most, n.Last.Class)
	if n.Last.Discarded {
		reason += "; what it changed was taken back"
	}
	return ScheduleRetry{Node: i, Attempt: n.Attempts + 1, At: at, Reason: reason}, true
}

// delay before the next try, after `tries` of them. Jitter comes from key and not
// from go-retry's WithJitter, whose random source would make Decide impure.
func delay(p workflow.Retry, tries int, key string) time.Duration {
	initial, most := p.Initial, p.Max
	if initial <= 0 {
		initial = defaultInitial
	}
	if most <= 0 {
		most = max(defaultMax, initial)
	}
	var b retry.Backoff
	switch p.Backoff {
	case "constant":
		b = retry.NewConstant(initial)
	case "fibonacci":
		b = retry.NewFibonacci(initial)
	default:
		b = retry.NewExponential(initial)
	}
	b = withJitter(p.Jitter, key, b)
	b = retry.WithCappedDuration(most, b)
	var wait time.Duration
	for range tries {
		next, _ := b.Next()
		if wait = next; wait == most && p.Jitter <= 0 {
			break // it stays there; tries may be a large number
		}
	}
	return wait
}

// withJitter adds a value of ±j that depends on key alone.
func withJitter(j time.Duration, key string, next retry.Backoff) retry.Backoff {
	if j <= 0 {
		return next
	}
	h := fnv.New64a()
	h.Write([]byte(key))
	random := rand.New(rand.NewPCG(h.Sum64(), 0))
	shift := time.Duration(random.Int64N(2*min(int64(j), math.MaxInt64/4)+1)) - min(j, math.MaxInt64/4)
	return retry.BackoffFunc(func() (time.Duration, bool) {
		val, stop := next.Next()
		return max(0, min(val, math.MaxInt64/2)+shift), stop
	})
}
