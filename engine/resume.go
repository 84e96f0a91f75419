package engine

import (
	"fmt"

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
//  2. The step of From, and the changed and new ones.
//  3. What needs, transitively, a step that runs again.
//  4. All `finally` steps.
//  5. A step whose work is not in the restored checkpoint.
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
	p := &resumePlan{plan: plan, run: run, why: make([]string, len(plan.Nodes)), old: make([]*NodeState, len(plan.Nodes))}
	for i := range plan.Nodes {
		p.old[i], _ = run.Node(plan.Nodes[i].Step.ID)
	}
	before := p.redo(opt)
	if opt.Point {
		before = 0
	}
	p.unfinished()
	p.spread()
	position, id := p.restore(before)
	position, id = p.lastTurn(opt, before, position, id)
	p.uncovered(position)
	p.spread()
	out := RunResumed{Attempt: run.Attempt + 1, Checkpoint: id}
	for i, why := range p.why {
		if why != "" && p.old[i] != nil && p.old[i].Status != StepPending {
			out.Reset = append(out.Reset, StepReset{Step: plan.Nodes[i].Step.ID, Reason: why})
		}
	}
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
		i, ok := plan.ByID[opt.From]
		if !ok {
			return no("the workflow has no step %q to start from", opt.From)
		}
		if plan.Nodes[i].Finally {
			return no("step %s is in `finally`, which always runs again; name one of `steps`", opt.From)
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

type resumePlan struct {
	plan *workflow.Plan
	run  *Run
	why  []string     // by node; "" stays done
	old  []*NodeState // by node; nil for a step that is new
}

func (p *resumePlan) reset(i int, format string, args ...any) {
	if p.why[i] == "" {
		p.why[i] = fmt.Sprintf(format, args...)
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
		if i, ok := p.run.plan.ByID[step]; ok && p.run.endedWell(i) {
			bound(&p.run.Nodes[i])
		}
	}
	for i := range p.plan.Nodes {
		step := p.plan.Nodes[i].Step
		switch {
		case p.plan.Nodes[i].Finally:
		case step.ID == opt.From:
			p.reset(i, "asked for with --from %s", opt.From)
			bound(p.old[i])
		case opt.Changed[step.ID] != "":
			p.reset(i, "%s", opt.Changed[step.ID])
			boundWell(step.ID)
		case p.old[i] == nil:
			p.reset(i, "it is new")
		}
	}
	for i := range p.run.Nodes {
		if id := p.run.plan.Nodes[i].Step.ID; !p.has(id) {
			boundWell(id)
		}
	}
	return before
}

func (p *resumePlan) has(step string) bool {
	_, ok := p.plan.ByID[step]
	return ok
}

// unfinished is rules 1 and 4.
func (p *resumePlan) unfinished() {
	for i, n := range p.old {
		switch {
		case n == nil:
		case p.plan.Nodes[i].Finally:
			p.reset(i, "`finally` runs at the end of every attempt")
		case n.Status == StepSucceeded || n.Status == StepIsSkipped || n.Status == StepPending:
		case n.Status == StepRunning:
			p.reset(i, "it was running when the run ended without a word")
		case n.Status == StepRetrying:
			p.reset(i, "it was waiting for its next attempt")
		case n.Status == StepIsNotRun:
			p.reset(i, "it was not run")
		case (n.Status == StepFailed || n.Status == StepTimedOut) && p.plan.Nodes[i].Step.ContinueOnError && !limited(n):
		case n.Status == StepTimedOut:
			p.reset(i, "it timed out")
		case n.Status == StepFailed:
			p.reset(i, "it failed")
		default:
			p.reset(i, "it was %s", n.Status)
		}
	}
}

// limited: a rate limit or a spent budget is no result that continue_on_error
// could accept.
func limited(n *NodeState) bool {
	return n.Last != nil && (n.Last.Class == ClassRateLimit || n.Last.Class == ClassBudget)
}

// spread is rule 3.
func (p *resumePlan) spread() {
	var todo []int
	for i, why := range p.why {
		if why != "" && !p.plan.Nodes[i].Finally {
			todo = append(todo, i)
		}
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, d := range p.plan.Nodes[i].Dependents {
			if p.why[d] == "" {
				p.reset(d, "it needs step %s, which runs again", p.plan.Nodes[i].Step.ID)
				todo = append(todo, d)
			}
		}
	}
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
	n := p.old[i]
	return p.why[i] == "" && n != nil && n.Tries > 0 && n.endSeq > 0 && !p.plan.Nodes[i].Finally
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
	Change string // added, removed, changed
}

// Drift compares two definitions step by step, by Hash: first the steps of the
// new one in file order, then what was removed.
func Drift(old, current *workflow.Workflow) []StepDrift {
	before := map[string]*workflow.Step{}
	for _, s := range allSteps(old) {
		before[s.ID] = s
	}
	var out []StepDrift
	for _, s := range allSteps(current) {
		was, ok := before[s.ID]
		delete(before, s.ID)
		switch {
		case !ok:
			out = append(out, StepDrift{Step: s.ID, Change: "added"})
		case was.Hash != s.Hash:
			out = append(out, StepDrift{Step: s.ID, Change: "changed"})
		}
	}
	for _, s := range allSteps(old) {
		if before[s.ID] != nil {
			out = append(out, StepDrift{Step: s.ID, Change: "removed"})
		}
	}
	return out
}

func allSteps(w *workflow.Workflow) []*workflow.Step {
	return append(append([]*workflow.Step(nil), w.Steps...), w.Finally...)
}
