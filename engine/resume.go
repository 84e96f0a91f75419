package engine

import (
	"fmt"
	"slices"

	"flowrun.dev/flow/workflow"
)

// ResumeOptions are what the call to resume chose.
type ResumeOptions struct {
	// From runs again this step, what needs it, and what ended after it began; ""
	// continues where the run stopped.
	From string
	// Changed are the steps whose definition, or whose input, is another one now,
	// with the reason in words (Drift). They are treated like From.
	Changed map[string]string
	// Point keeps what ended well as it is, whatever the new definition says of it:
	// a fork begins at the point that was asked for. Removed and changed steps then
	// do not bound what is restored.
	Point bool
	// Items are the steps whose foreach has another list now, and nothing else:
	// instances whose items stayed are kept.
	Items map[string]string
}

// NotResumableError is a run that has nothing to continue, or an option that
// does not fit it.
type NotResumableError struct {
	Run    string
	Status RunStatus
	Reason string
}

func (e *NotResumableError) Error() string {
	return fmt.Sprintf("resume run %s: %s", e.Run, e.Reason)
}

// PlanResume decides what a resume does; it changes nothing. plan is the one that
// the resumed run will follow: run.Plan(), or that of accepted changes (then set
// Text and Files of the answer, and call run.Redefine before applying it).
//
// What runs again:
//
//  1. A step that did not end well: failed, timed out, cancelled, interrupted,
//     not run, waiting for a retry, or in flight when the runner died. A failure
//     with continue_on_error counts as ended well; so does a skipped step.
//
//  2. The step of From, and the changed and new ones.
//
//  3. What needs, transitively, a step that runs again.
//
//  4. All `finally` steps.
//
//  5. A step whose work is not in the restored checkpoint.
//
//  6. A scope (foreach, repeat, group) with something inside that runs again goes
//     on with what it has. One that starts over by rule 2, 3 or 4 forgets it. The
//     rounds of a repeat after one that runs again are forgotten, and those that
//     `until` judged stay as they were; of a repeat that failed the last round
//     runs again.
//
//  7. Where a join (any, count) still has enough, the steps that it cancelled stay
//     so, and a failure that leads into joins only stays accepted; one without
//     cancel_rest does not run again because of what it does not need.
//
//  7. An approval that waits for a person goes on waiting. Of a run that ended as
//     waiting, what has ended stays as it did, also what failed: the run is not over.
//
// What is restored: the oldest checkpoint of the line that holds everything that
// stays done, or the newest there is when none holds all of it (rule 5 then names
// the rest). So after a step that failed on its own, the workspace is the one
// from before it; only where a step that stays done is stored together with a
// later, failed one (they overlapped and share the tree), does the failed one
// begin on what it left behind, as with a retry. With rule 2, only checkpoints
// from before the first start of the step of From, and of the changed and removed
// ones that ended well, count: their work would otherwise be done upon its own
// result. What ended after such a step began runs again then, by rule 5.
//
// An agent's step that was stopped (interrupted, timed out, rate limited, out of
// budget, or in flight when the runner died) goes on at its last complete turn: then
// the files of that turn are restored, if they hold all that stays done.
func PlanResume(plan *workflow.Plan, run *Run, opt ResumeOptions) (RunResumed, error) {
	if err := resumable(plan, run, opt); err != nil {
		return RunResumed{}, err
	}
	p := newResumePlan(plan, run)
	before := p.redo(opt)
	if opt.Point {
		before = 0
	}
	p.settle()
	position, id := p.restore(before)
	position, id = p.lastTurn(opt, before, position, id)
	p.uncovered(position)
	p.settle()
	p.backgrounds()
	out := RunResumed{Attempt: run.Attempt + 1, Checkpoint: id}
	for i, why := range p.why {
		if why != "" && !p.dropped[i] && p.old[i] != nil && (p.old[i].Status != StepPending || p.forget[i] || p.again[i]) {
			out.Reset = append(out.Reset, StepReset{Step: p.x.graph[i].id, Reason: why, Forget: p.forget[i], Again: p.again[i]})
		}
	}
	out.Removed = p.removed()
	return out, nil
}

func resumable(plan *workflow.Plan, run *Run, opt ResumeOptions) error {
	no := func(format string, args ...any) error {
		return &NotResumableError{Run: run.ID, Status: run.Status, Reason: fmt.Sprintf(format, args...)}
	}
	if run.Status == "" {
		return no("it has not started; use `flow run`")
	}
	if opt.From != "" {
		if i, ok := plan.ByID[opt.From]; ok && plan.Nodes[i].Finally {
			return no("step %s is in `finally`, which always runs again; name one of `steps`", opt.From)
		} else if _, inside := run.byID[opt.From]; !ok && !inside {
			return no("the workflow has no step %q to start from", opt.From)
		}
		return nil
	}
	switch run.Status {
	case RunSucceeded:
		return no("it has succeeded, nothing is left to do; to run a part of it again name its first step with --from STEP")
	case RunCancelled:
		return no("it was cancelled on purpose; to run it nevertheless name the step to start with: --from STEP")
	}
	return nil
}

// ReasonGoesOn of a StepReset: a scope of a run that waited for a person goes on with
// what it has.
const ReasonGoesOn = "what is inside it waited for a person"

type resumePlan struct {
	plan *workflow.Plan
	run  *Run
	// x has the graph that the resumed run will have, with what is known of it.
	x       *Run
	why     []string     // by node of x; "" stays done
	old     []*NodeState // by node of x; nil for a step that is new
	forget  []bool       // a scope that starts over
	again   []bool       // a foreach that computes its list anew
	dropped []bool       // inside something that starts over
}

func newResumePlan(plan *workflow.Plan, run *Run) *resumePlan {
	p := &resumePlan{plan: plan, run: run, x: run}
	if plan != run.plan {
		p.x = &Run{conds: run.conds, Start: run.Start}
		p.x.construct(plan, run.pastOf(nil))
	}
	n := len(p.x.graph)
	p.why, p.old = make([]string, n), make([]*NodeState, n)
	p.forget, p.again, p.dropped = make([]bool, n), make([]bool, n), make([]bool, n)
	for i := range p.x.graph {
		p.old[i], _ = run.Node(p.x.graph[i].id)
	}
	return p
}

func (p *resumePlan) reset(i int, format string, args ...any) {
	if p.why[i] == "" {
		p.why[i] = fmt.Sprintf(format, args...)
	}
}

// startOver makes a scope forget what it opened.
func (p *resumePlan) startOver(i int) bool {
	s := p.x.graph[i].scope
	if s == nil || p.forget[i] {
		return false
	}
	p.forget[i] = true
	p.drop(s.frames)
	return true
}

func (p *resumePlan) drop(frames []int) {
	for _, f := range frames {
		for i := p.x.frames[f].first; i < p.x.frames[f].first+p.x.frames[f].n; i++ {
			p.dropped[i] = true
			if s := p.x.graph[i].scope; s != nil {
				p.drop(s.frames)
			}
		}
	}
}

// redo resets what is asked for (rule 2) and returns the event before which a
// checkpoint must have been taken, 0 for no such bound.
func (p *resumePlan) redo(opt ResumeOptions) (before int64) {
	bound := func(n *NodeState) {
		if n != nil && n.firstSeq > 0 && (before == 0 || n.firstSeq < before) {
			before = n.firstSeq
		}
	}
	boundWell := func(step string) {
		if i, ok := p.run.find(step); ok && p.run.endedWell(i) {
			bound(&p.run.Nodes[i])
		}
	}
	for i := range p.x.graph {
		g := &p.x.graph[i]
		file := p.x.namedInFile(i)
		switch {
		case g.late:
		case g.id == opt.From:
			p.reset(i, "asked for with --from %s", opt.From)
			p.startOver(i)
			bound(p.old[i])
		case opt.Changed[file] != "" && !g.inner:
			p.reset(i, "%s", opt.Changed[file])
			p.startOver(i)
			boundWell(g.id)
		case opt.Items[file] != "" && !g.inner && p.old[i] != nil && p.old[i].Status != StepPending:
			p.reset(i, "%s", opt.Items[file])
			p.again[i] = true
		case p.old[i] == nil:
			p.reset(i, "it is new")
		}
	}
	for i := range p.run.graph {
		if id := p.run.graph[i].id; !p.has(id) {
			boundWell(id)
		}
	}
	return before
}

func (p *resumePlan) has(step string) bool {
	_, ok := p.x.find(step)
	return ok
}

// unfinished is rules 1 and 4.
func (p *resumePlan) unfinished() {
	for i, n := range p.old {
		g := &p.x.graph[i]
		switch {
		case n == nil || p.dropped[i]:
		case !g.late && p.settledAbove(g.frame):
			// How what is inside ended is part of a result that is accepted.
		case g.late:
			p.reset(i, "`finally` runs at the end of every attempt")
			p.startOver(i)
		case n.Status == StepWaiting, p.run.Status == RunWaiting && n.Status.ended():
			// Rule 7.
		case n.Settled:
			p.lastRound(i)
		case p.joined(i):
		case n.Status == StepSucceeded || n.Status == StepIsSkipped || n.Status == StepPending:
		case n.Status == StepRunning && p.run.Status == RunWaiting:
			p.reset(i, ReasonGoesOn)
		case n.Status == StepRunning:
			p.reset(i, "it was running when the run ended without a word")
		case n.Status == StepRetrying:
			p.reset(i, "it was waiting for its next attempt")
		case n.Status == StepIsNotRun:
			p.reset(i, "it was not run")
		case p.accepted(i):
		case n.Status == StepTimedOut:
			p.reset(i, "it timed out")
		case n.Status == StepFailed:
			p.reset(i, "it failed")
		default:
			p.reset(i, "it was %s", n.Status)
		}
	}
}

// accepted: a failure that continue_on_error takes as a result.
func (p *resumePlan) accepted(i int) bool {
	n := p.old[i]
	return (n.Status == StepFailed || n.Status == StepTimedOut) && p.x.graph[i].tolerant() && !limited(n)
}

// settledAbove: a scope around the frame succeeded, or how it ended is accepted.
func (p *resumePlan) settledAbove(f int) bool {
	for ; f > 0; f = p.x.frames[f].up {
		if i := p.x.frames[f].parent; p.why[i] == "" && p.old[i] != nil && (p.old[i].Status == StepSucceeded || p.old[i].Status == StepIsSkipped || p.accepted(i) || p.joined(i)) {
			return true
		}
	}
	return false
}

// lastRound: a repeat that failed after its last round was judged does that one
// again.
func (p *resumePlan) lastRound(i int) {
	g := &p.x.graph[i]
	parent := p.x.frames[g.frame].parent
	if parent < 0 || p.x.graph[parent].role != workflow.RoleRepeat || p.old[parent] == nil {
		return
	}
	last, _ := p.x.graph[parent].scope.last()
	if o := p.old[parent]; last == g.frame && (o.Status == StepFailed || o.Status == StepTimedOut) && !o.Settled && !(p.x.graph[parent].tolerant() && !limited(o)) {
		p.reset(i, "it was the last round of %s, which failed", p.x.graph[parent].id)
		p.startOver(i)
	}
}

// limited: a rate limit or a spent budget is no result that continue_on_error
// could accept.
func limited(n *NodeState) bool {
	return n.Last != nil && (n.Last.Class == ClassRateLimit || n.Last.Class == ClassBudget)
}

// spread is rules 3 and 6.
func (p *resumePlan) spread() {
	var todo []int
	for i, why := range p.why {
		if why != "" && !p.x.graph[i].late {
			todo = append(todo, i)
		}
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if p.dropped[i] {
			continue
		}
		g := &p.x.graph[i]
		for _, d := range g.dependents {
			if j := p.x.graph[d].step.Join; p.x.graph[d].late || j != nil && !j.CancelRest && (p.hasEnough(d) || p.hasTooLittle(d)) {
				continue
			}
			fresh := p.why[d] == ""
			p.reset(d, "it needs step %s, which runs again", g.id)
			if p.startOver(d) || fresh {
				todo = append(todo, d)
			}
		}
		if g.frame == 0 {
			continue
		}
		up := p.x.frames[g.frame].parent
		if p.why[up] == "" {
			p.reset(up, "step %s, a part of it, runs again", g.id)
			todo = append(todo, up)
		}
		if p.x.graph[up].role == workflow.RoleRepeat {
			frames := p.x.graph[up].scope.frames
			for k, f := range frames {
				if f == g.frame {
					p.drop(frames[k+1:])
				}
			}
		}
	}
}

// removed are the nodes of today that the resumed run begins without.
func (p *resumePlan) removed() []string {
	var out []string
	for i := range p.run.graph {
		id := p.run.graph[i].id
		if j, ok := p.x.find(id); !ok || p.dropped[j] {
			out = append(out, id)
		}
	}
	return out
}

// restore chooses the checkpoint: its position and its id.
func (p *resumePlan) restore(before int64) (position int64, id string) {
	line := p.run.Line
	for before > 0 && len(line) > 0 && line[len(line)-1].Seq >= before {
		line = line[:len(line)-1]
	}
	if len(line) == 0 {
		return 0, p.run.Base
	}
	newest := line[len(line)-1].Seq
	most := int64(0) // the newest end that a checkpoint can hold
	for i, n := range p.old {
		if p.worked(i) && n.endSeq <= newest {
			most = max(most, n.endSeq)
		}
	}
	// What was merged from the source by an earlier resume stays in.
	for k, c := range slices.Backward(line) {
		if c.Step == "" {
			if line = line[k:]; most == 0 {
				return c.Seq, c.ID
			}
			break
		}
	}
	if most == 0 {
		return 0, p.run.Base
	}
	for _, c := range line {
		if c.Seq >= most {
			return c.Seq, c.ID
		}
	}
	return 0, p.run.Base // not reached: newest >= most
}

// worked: the step stays done and may have changed something.
func (p *resumePlan) worked(i int) bool {
	n, g := p.old[i], &p.x.graph[i]
	return p.why[i] == "" && !p.dropped[i] && n != nil && n.Tries > 0 && n.endSeq > 0 && !n.gaveUp() && !g.late && g.role == workflow.RoleStep
}

// uncovered is rule 5.
func (p *resumePlan) uncovered(position int64) {
	for i, n := range p.old {
		if p.worked(i) && n.endSeq > position {
			p.reset(i, "what it did is not in the checkpoint that is restored")
		}
	}
}

// StepDrift is a step that differs between two definitions.
type StepDrift struct {
	Step   string
	Change string // added, removed, changed, items (only the list of its foreach)
}

// Drift compares two definitions step by step, by Hash, those inside groups as
// well: first the steps of the new one in file order, then what was removed.
func Drift(old, current *workflow.Workflow) []StepDrift {
	before := map[string]*workflow.Step{}
	old.WalkNamed(func(name string, s *workflow.Step) { before[name] = s })
	var out []StepDrift
	current.WalkNamed(func(name string, s *workflow.Step) {
		was, ok := before[name]
		delete(before, name)
		switch {
		case !ok:
			out = append(out, StepDrift{Step: name, Change: "added"})
		case was.Hash != s.Hash:
			out = append(out, StepDrift{Step: name, Change: "changed"})
		case was.ItemsHash != s.ItemsHash:
			out = append(out, StepDrift{Step: name, Change: "items"})
		}
	})
	old.WalkNamed(func(name string, s *workflow.Step) {
		if before[name] != nil {
			out = append(out, StepDrift{Step: name, Change: "removed"})
		}
	})
	return out
}
