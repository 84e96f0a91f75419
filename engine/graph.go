package engine

import (
	"fmt"
	"strconv"
	"time"

	"flowrun.dev/flow/workflow"
)

// node is one node of a run's graph: a step of the file, or an instance of one.
// The first len(plan.Nodes) have the plan's indexes; what scopes open comes after
// them, in the order of the events that opened it.
type node struct {
	id   string
	step *workflow.Step // the file's, under the instance's id
	tmpl *workflow.Node
	role workflow.Role
	// frame is where it belongs.
	frame int
	needs []int
	// dependents is the reverse of needs.
	dependents []int
	// late: on_failure and finally, and what is inside them.
	late bool
	// inner: what a foreach or repeat opens for its own step. Its condition and
	// continue_on_error are those of the node around it.
	inner bool
	scope *scope // nil unless role opens something and did so
}

// tolerant: a failure of it counts as done for what follows.
func (n *node) tolerant() bool { return n.step.ContinueOnError && !n.inner }

// frame is a set of nodes that start and end within one opening of a scope: the
// run itself (frame 0), the steps of a group, one item of a foreach, one round of
// a repeat.
type frame struct {
	parent int    // the scope's node, -1 for the run
	up     int    // the scope's frame
	prefix string // of the ids of its nodes
	first  int    // its nodes are first to first+n-1
	n      int
	open   int // nodes that have not ended
	failed tally
	// loop is what expressions see as item, index and iteration.
	loop *workflow.LoopView
	// admitted: its nodes may start. A foreach admits item by item.
	admitted bool
	// called is set in the frame of a called workflow.
	called *called
}

// scope is the dynamic state of an open foreach, repeat or group. What a fold
// cannot know by itself - the items - is frozen in the event that opened it.
type scope struct {
	frames []int
	known  bool // expanded: frames are all that there will be (repeat: so far)
	keys   []string
	items  []any
	inputs map[string]any // of a call
	// again: a resume wants the items computed anew; frames of the same key stay.
	again bool

	next   int // foreach: the first frame that is not admitted
	limit  int // foreach: frames below it may be admitted (batch)
	active int // admitted frames that have not ended
	ended  int // frames that have ended
	bad    int // foreach: instances that did not end well
	// cut counts nodes that did not run, or not to their end, because something
	// stopped them from outside.
	cut     int
	lastEnd time.Time
	until   Truth // repeat: of the last round
	wrong   string
	since   time.Time // opened
	rest    bool      // its remaining instances were asked to stop
}

// expansion is what a resume carries over of a scope.
type expansion struct {
	keys   []string
	items  []any
	inputs map[string]any
	rounds int
	until  Truth
	again  bool
}

func (r *Run) expansionOf(i int) *expansion {
	s := r.graph[i].scope
	if s == nil {
		return nil
	}
	return &expansion{keys: s.keys, items: s.items, inputs: s.inputs, rounds: len(s.frames), until: s.until}
}

// past is what the graph before knew, by node id.
type past struct {
	states     map[string]NodeState
	expansions map[string]*expansion
	// attempts of nodes that are gone: should they come back, they go on counting.
	attempts map[string]NodeState
	// upstream names the step that Upstream is the index of.
	upstream map[string]string
}

// pastOf collects it. drop says which nodes are to be forgotten.
func (r *Run) pastOf(drop func(i int) bool) past {
	p := past{states: make(map[string]NodeState, len(r.graph)), expansions: map[string]*expansion{}, attempts: map[string]NodeState{}, upstream: map[string]string{}}
	for id, n := range r.gone {
		p.attempts[id] = n
	}
	for i := range r.graph {
		if drop != nil && drop(i) {
			if r.Nodes[i].Attempts > 0 {
				p.attempts[r.graph[i].id] = NodeState{Attempts: r.Nodes[i].Attempts, Last: r.Nodes[i].Last}
			}
			continue
		}
		p.states[r.graph[i].id] = r.Nodes[i]
		if up := r.Nodes[i].Upstream; up >= 0 {
			p.upstream[r.graph[i].id] = r.graph[up].id
		}
		if x := r.expansionOf(i); x != nil {
			p.expansions[r.graph[i].id] = x
		}
	}
	return p
}

// construct makes the graph of a plan, with what is known of it.
func (r *Run) construct(plan *workflow.Plan, p past) {
	r.plan = plan
	n := len(plan.Nodes)
	r.graph, r.Nodes = make([]node, 0, n), make([]NodeState, 0, n)
	r.frames, r.byID, r.gone = nil, map[string]int{}, p.attempts
	r.running, r.ready, r.doomed, r.retrying, r.fresh = nodeSet{}, nodeSet{}, nodeSet{}, nodeSet{}, nodeSet{}
	r.attention, r.asking, r.asked, r.timed, r.met = nodeSet{}, nodeSet{}, nodeSet{}, nodeSet{}, nodeSet{}
	r.since = nil
	r.frames = append(r.frames, frame{parent: -1, up: -1, n: n, admitted: true})
	r.finally = n
	for i := range plan.Nodes {
		t := &plan.Nodes[i]
		r.addNode(node{id: t.Step.ID, step: t.Step, tmpl: t, role: t.Role, needs: t.Needs, dependents: t.Dependents, late: t.Finally}, p.states)
		if t.Finally && i < r.finally {
			r.finally = i
		}
	}
	for i := 0; i < len(r.graph); i++ { // grows
		x := p.expansions[r.graph[i].id]
		if x == nil || !opens(r.graph[i].role) {
			continue
		}
		r.reopen(i, x, p.states)
	}
	for id, up := range p.upstream {
		i, ok := r.find(id)
		if !ok {
			continue
		}
		if r.Nodes[i].Upstream, ok = r.find(up); !ok {
			r.Nodes[i].Upstream = i // what it waited for is gone
		}
	}
}

// opens: nodes of this role hold other nodes.
func opens(role workflow.Role) bool { return role != workflow.RoleStep && role != workflow.RoleApprove }

// reopen gives a scope its frames back.
func (r *Run) reopen(i int, x *expansion, states map[string]NodeState) {
	s := r.openScope(i)
	switch r.graph[i].role {
	case workflow.RoleForeach:
		if x.keys != nil {
			r.expand(i, x.keys, x.items, states)
		}
	case workflow.RoleRepeat:
		for range x.rounds {
			r.round(i, states)
		}
		s.until = x.until
	case workflow.RoleCall:
		if x.inputs != nil {
			r.enterCall(i, x.inputs, states)
		}
	default:
		r.enter(i, states)
	}
	s.again = x.again
}

func (r *Run) openScope(i int) *scope {
	s := &scope{}
	r.graph[i].scope = s
	return s
}

// addNode appends a node with the state that is known of it.
func (r *Run) addNode(n node, states map[string]NodeState) {
	i := len(r.graph)
	s, ok := states[n.id]
	if !ok {
		old := r.gone[n.id]
		s = NodeState{Status: StepPending, Upstream: -1, Attempts: old.Attempts, Last: old.Last}
	}
	c := r.conditionOf(&n)
	s.condition, s.statusIf = c != nil, c != nil && c.UsesStatus()
	r.graph, r.Nodes = append(r.graph, n), append(r.Nodes, s)
	if n.frame > 0 {
		r.byID[n.id] = i
	}
	for _, set := range []*nodeSet{&r.running, &r.ready, &r.doomed, &r.retrying, &r.fresh, &r.attention, &r.asking, &r.asked, &r.timed, &r.met} {
		set.grow(i + 1)
	}
}

// conditionOf is the `if` that a node itself is judged by: that of a step with
// foreach or repeat belongs to the outermost node, unless it names the item.
func (r *Run) conditionOf(n *node) condition {
	c := r.conds.of(n.tmpl.Step)
	byItem := n.step.Foreach != nil && n.step.If != nil && n.step.If.UsesItem()
	switch {
	case !n.inner && byItem:
		return nil
	case n.inner && !(byItem && r.graph[r.frames[n.frame].parent].role == workflow.RoleForeach):
		return nil
	}
	return c
}

// addFrame makes the nodes of one opening.
func (r *Run) addFrame(scope int, prefix, id string, loop *workflow.LoopView, states map[string]NodeState) int {
	f, first, body := len(r.frames), len(r.graph), r.graph[scope].tmpl.Body
	r.frames = append(r.frames, frame{parent: scope, up: r.graph[scope].frame, prefix: prefix, first: first, n: len(body), loop: loop})
	for k := range body {
		t := &body[k]
		n := node{id: id, tmpl: t, role: t.Role, frame: f, late: r.graph[scope].late, inner: t.Step == r.graph[scope].tmpl.Step}
		if n.id == "" {
			n.id = prefix + t.Step.ID
		}
		n.step = t.Step
		if n.id != t.Step.ID {
			step := *t.Step
			step.ID = n.id
			n.step = &step
		}
		for _, need := range t.Needs {
			n.needs = append(n.needs, first+need)
		}
		for _, d := range t.Dependents {
			n.dependents = append(n.dependents, first+d)
		}
		r.addNode(n, states)
	}
	s := r.graph[scope].scope
	s.frames = append(s.frames, f)
	return f
}

// expand makes the instances of a foreach.
func (r *Run) expand(i int, keys []string, items []any, states map[string]NodeState) {
	n := &r.graph[i]
	s, up := n.scope, r.frames[n.frame]
	s.known, s.again, s.keys, s.items, s.frames = true, false, keys, items, nil
	id := n.id
	for k, key := range keys {
		r.addFrame(i, up.prefix, id+"["+key+"]", loopOf(up.loop, items[k], k), states)
	}
	s.limit = r.batchLimit(i, 1)
}

func loopOf(up *workflow.LoopView, item any, index int) *workflow.LoopView {
	loop := &workflow.LoopView{Item: item, Index: index}
	if up != nil {
		loop.Iteration = up.Iteration
	}
	return loop
}

// batchLimit is how many items the first n batches have.
func (r *Run) batchLimit(i, n int) int {
	all, size := len(r.graph[i].scope.frames), r.graph[i].step.Foreach.BatchSize
	if size <= 0 {
		return all
	}
	return min(all, n*size)
}

// round makes the next iteration of a repeat.
func (r *Run) round(i int, states map[string]NodeState) {
	n := &r.graph[i]
	s, up := n.scope, r.frames[n.frame]
	s.known, s.until, s.wrong = true, TruthUnknown, ""
	loop := workflow.LoopView{}
	if up.loop != nil {
		loop = *up.loop
	}
	loop.Iteration = len(s.frames) + 1
	r.addFrame(i, up.prefix, roundID(n.id, loop.Iteration), &loop, states)
}

func roundID(repeat string, n int) string { return repeat + "#" + strconv.Itoa(n) }

// enter makes the steps of a group. Those of one that exists once keep the ids of
// the file.
func (r *Run) enter(i int, states map[string]NodeState) {
	n := &r.graph[i]
	up := r.frames[n.frame]
	prefix := n.id + "."
	if n.id == up.prefix+n.tmpl.Step.ID {
		prefix = up.prefix
	}
	n.scope.known = true
	r.addFrame(i, prefix, "", up.loop, states)
}

// find a node by its id.
func (r *Run) find(id string) (int, bool) {
	if i, ok := r.plan.ByID[id]; ok {
		return i, true
	}
	i, ok := r.byID[id]
	return i, ok
}

// resolve finds the node that an expression in a frame means by a step's name.
func (r *Run) resolve(f int, step string) (int, bool) {
	for f > 0 {
		if i, ok := r.byID[r.frames[f].prefix+step]; ok {
			return i, true
		}
		if r.frames[f].called != nil {
			return 0, false // what is outside has other names
		}
		f = r.frames[f].up
	}
	i, ok := r.find(step)
	return i, ok
}

// last is the newest frame of a scope.
func (s *scope) last() (int, bool) {
	if len(s.frames) == 0 {
		return 0, false
	}
	return s.frames[len(s.frames)-1], true
}

// kindWord says what a node is in records.
func (n *node) kindWord() string { return n.tmpl.KindWord() }

func (n *node) String() string { return fmt.Sprintf("%s (%s)", n.id, n.kindWord()) }

// alone: nothing can run beside the node, in its own list or around it.
func (r *Run) alone(i int) bool {
	if r.plan.Workflow.MaxParallel == 1 {
		return true
	}
	for {
		g := &r.graph[i]
		if !g.tmpl.Alone {
			return false
		}
		if g.frame == 0 {
			return true
		}
		i = r.frames[g.frame].parent
		if up := &r.graph[i]; up.role == workflow.RoleForeach && up.step.Foreach.MaxParallel != 1 && len(up.scope.frames) > 1 {
			return false
		}
	}
}
