package engine

import (
	"time"

	"flowrun.dev/flow/workflow"
)

// resume: any state but not started → running. A run that is still "running"
// here has lost its owner; only a new owner appends this event.
func (r *Run) resume(e Event, b RunResumed) bool {
	if r.Status == "" || b.Attempt != r.Attempt+1 || (b.Text != nil) != (r.next != nil) {
		return false
	}
	if r.next != nil {
		r.Start.Text, r.Start.Files = b.Text, b.Files
		r.construct(r.next, r.pastOf(nil))
		r.next = nil
	}
	if !r.forget(b.Reset) {
		return false
	}
	resets := newNodeSet(len(r.Nodes))
	for _, s := range b.Reset {
		i, ok := r.find(s.Step)
		if !ok {
			return false
		}
		resets.add(i)
	}
	kept := int64(0) // the newest end of a step that stays done
	for i := range r.Nodes {
		n := &r.Nodes[i]
		switch {
		case resets.has(i):
		case n.Status == StepRunning || n.Status == StepRetrying:
			return false // in flight when the owner died: has to be reset
		case r.worked(i):
			kept = max(kept, n.endSeq)
		}
	}
	restored, ok := r.cutLine(b.Checkpoint, kept)
	if !ok {
		return false // a step would count as done without its files
	}
	for i := range resets.all() {
		turn := r.Nodes[i].Turn
		r.reset(i, restored)
		r.Nodes[i].Turn = turn
	}
	for i := range r.Nodes {
		n := &r.Nodes[i]
		n.Died = ""      // its process would have ended with the run
		if !r.ended(i) { // who asked it to stop asked in another attempt
			n.Stop, n.StopReason = "", ""
		}
		// A conversation goes on only with the files of its turn.
		if n.Turn != nil && (b.Checkpoint == "" || n.Turn.Checkpoint != b.Checkpoint) {
			n.Turn = nil
		}
	}
	if b.Merged != "" {
		r.Line = append(r.Line, CheckpointAt{ID: b.Merged, Seq: e.Seq})
		for i := range r.Nodes {
			r.Nodes[i].Turn = nil // its files are no longer those of the workspace
		}
	}
	if b.Source != "" {
		r.Base = b.Source
	}
	r.Status, r.Class, r.Cause, r.Attempt = RunRunning, ClassNone, "", b.Attempt
	r.ActiveSince, r.FinishedAt = e.At, time.Time{}
	r.CancelCause, r.CancelAt, r.Hard, r.stopped = "", time.Time{}, false, ""
	r.Sandbox, r.since = "", nil
	r.rebuild()
	return true
}

// worked: the step ended and may have left something in the workspace.
func (r *Run) worked(i int) bool {
	n, g := &r.Nodes[i], &r.graph[i]
	return g.role == workflow.RoleStep && !g.late && n.Tries > 0 && n.endSeq > 0 && !n.gaveUp()
}

// gaveUp: it ended without a result, so that no checkpoint has to hold what it did.
func (n *NodeState) gaveUp() bool {
	return n.Status == StepCancelled || n.Status == StepIsNotRun
}

// forget makes the graph anew without what a resume drops: the instances of
// scopes that start over, and the rounds after one that runs again.
func (r *Run) forget(resets []StepReset) bool {
	out, again := map[int]bool{}, map[string]bool{}
	cut := map[string]int{} // repeat → rounds that stay
	for _, s := range resets {
		i, ok := r.find(s.Step)
		if !ok {
			return false
		}
		g := &r.graph[i]
		if s.Forget && g.scope != nil {
			for _, f := range g.scope.frames {
				out[f] = true
			}
			cut[g.id] = 0
		}
		if s.Again {
			again[g.id] = true
		}
		if f := r.frames[g.frame]; g.frame > 0 && r.graph[f.parent].role == workflow.RoleRepeat {
			for k, other := range r.graph[f.parent].scope.frames {
				if other == g.frame {
					if had, ok := cut[r.graph[f.parent].id]; !ok || k+1 < had {
						cut[r.graph[f.parent].id] = k + 1
					}
				} else if other > g.frame {
					out[other] = true
				}
			}
		}
	}
	if len(out) == 0 && len(cut) == 0 && len(again) == 0 {
		return true
	}
	p := r.pastOf(func(i int) bool { return r.within(i, out) })
	for id, rounds := range cut {
		x := p.expansions[id]
		switch {
		case x == nil:
		case rounds == 0:
			delete(p.expansions, id)
		default:
			x.rounds, x.until = rounds, TruthUnknown
		}
	}
	for id := range again {
		if x := p.expansions[id]; x != nil {
			x.again = true
		}
	}
	r.construct(r.plan, p)
	return true
}

// cutLine drops the checkpoints after the restored one; they are no longer part
// of the run's line. Steps that change nothing give checkpoints with one and the
// same id, so the restored one is the first of that id that holds all that is
// kept. It returns its position, 0 for the source.
func (r *Run) cutLine(id string, kept int64) (seq int64, ok bool) {
	for k, c := range r.Line {
		if c.ID == id && c.Seq >= kept {
			r.Line = r.Line[:k+1]
			return c.Seq, true
		}
	}
	if kept > 0 || id != "" && id != r.Base {
		return 0, false
	}
	if id == "" {
		r.Base = r.Start.SourceManifest
	}
	r.Line = r.Line[:0]
	return 0, true
}

// reset: any state → pending. Attempts go on counting over all resumes.
func (r *Run) reset(i int, restored int64) {
	n := &r.Nodes[i]
	first := n.firstSeq
	if first > restored {
		first = 0 // its traces are gone with the old workspace
	}
	*n = NodeState{
		Status: StepPending, Attempts: n.Attempts, Last: n.Last, Upstream: -1,
		firstSeq: first, statusIf: n.statusIf, condition: n.condition,
	}
}
