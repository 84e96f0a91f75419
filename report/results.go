package report

import (
	"sort"
	"time"

	"flowrun.dev/flow/engine"
)

// Extra is what the fold of a run does not keep of a step's last attempt.
type Extra struct {
	Stdout, Stderr engine.Excerpt
	Summary        string // Markdown
}

// ResultRows are the steps of a run as engine.Run.Results has them.
func ResultRows(run *engine.Run, extra map[string]Extra) []StepRow {
	results := run.Results()
	rows := make([]StepRow, 0, len(results))
	for _, r := range results {
		row := StepRow{ID: r.ID, Name: r.Step.Name, Kind: r.Kind, Status: r.State.Status, Attempts: r.State.Attempts, Reason: r.State.Reason, Accepted: r.Accepted}
		if o := r.State.Last; o != nil && r.State.Attempts > 0 {
			status := row.Status
			row.FromOutcome(*o)
			row.Status = status
			x := extra[r.ID]
			row.Stdout, row.Stderr, row.Summary = x.Stdout, x.Stderr, x.Summary
		} else if o != nil {
			row.Class, row.Error = o.Class, o.Error
		}
		if row.Status == engine.StepIsSkipped || row.Status == engine.StepIsNotRun || row.Status == engine.StepPending {
			// What is known is of an attempt before a reset.
			row.Duration, row.Error, row.Class = 0, "", ""
		}
		if q := r.State.Approval; q != nil && row.Status == engine.StepWaiting && q.Answer == nil {
			v := AskedView(run.ID, q.ApprovalRequested, q.Since)
			row.Approval, row.Reason = &v, q.Message
		}
		rows = append(rows, row)
	}
	return rows
}

// trouble: the step did not end well, and nothing accepts that.
func (r *StepRow) trouble() bool {
	switch r.Status {
	case engine.StepFailed, engine.StepTimedOut, engine.StepCancelled, engine.StepInterrupted:
		return !r.Accepted
	}
	return false
}

// untried: it has no result of its own.
func (r *StepRow) untried() bool {
	switch r.Status {
	case engine.StepSucceeded:
		return false
	case engine.StepFailed, engine.StepTimedOut, engine.StepCancelled, engine.StepInterrupted:
		return r.Accepted
	}
	return true
}

// whyShort says in a line why a step ended as it did, "" when there is nothing to say.
func whyShort(r *StepRow) string {
	text := why(r)
	if r.Cached != "" {
		text = "from the cache (run " + r.Cached + ")"
	}
	if r.Accepted {
		text = "accepted by continue_on_error: " + text
	}
	return clean(text)
}

// spent is the sum of the costs.
func spent(rows []StepRow) (usd float64) {
	for i := range rows {
		usd += rows[i].CostUSD
	}
	return usd
}

// worstFirst keeps at most n rows: those in trouble, then the others, in order.
func worstFirst(rows []StepRow, n int) []StepRow {
	if len(rows) <= n {
		return rows
	}
	index := make([]int, len(rows))
	for i := range index {
		index[i] = i
	}
	sort.SliceStable(index, func(a, b int) bool { return rows[index[a]].trouble() && !rows[index[b]].trouble() })
	index = index[:n]
	sort.Ints(index)
	out := make([]StepRow, n)
	for i, k := range index {
		out[i] = rows[k]
	}
	return out
}

func seconds(s Seconds) float64 { return time.Duration(s).Seconds() }
