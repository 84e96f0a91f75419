package steps

import (
	"context"
	"fmt"
	"strings"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/workflow"
)

// Where an attempt works. A step that runs alone does so in the run's own sandbox.
// Others work on a fork: another sandbox, with the tree as it was when they started.
// Steps that may run at the same time do, and those whose sandbox is a named one, or
// stands apart (`sandbox: fresh`, `reuse: step` and `pool`): then only the workspace
// goes there and comes back. At its end, in the order in which the engine takes the
// ends, a fork is merged into the run's one line of checkpoints; the run's own sandbox
// follows when the next step needs it (catchUp).

// fork is the place of one attempt outside of the run's own sandbox.
type fork struct {
	m          *member
	use        string               // what becomes of m afterwards
	apart      bool                 // only the workspace is handed over
	from       string               // the checkpoint that it started on
	base       *checkpoint.Manifest // its tree
	start      *checkpoint.Manifest // the home when the attempt began, nil for the source
	onConflict string               // of the step: fail, ours, theirs
	// unmerged is set while its changes wait for their Checkpoint.
	unmerged bool
}

// placeFor is the sandbox of an attempt. left ends the attempt's stay there.
func (h *Host) placeFor(ctx context.Context, a engine.Attempt, emit func(engine.Body)) (m *member, left func(), err error) {
	h.tellEnded(emit)
	if err := h.watchSource(ctx, false, emit); err != nil {
		return nil, nil, err
	}
	r := h.roomOf(a.Step)
	f := &fork{use: h.useOf(r, a), onConflict: a.Step.OnConflict}
	f.apart = f.use == useFresh || f.use == usePool
	if f.use == useOwn {
		if m, err = h.ownSandbox(ctx, a.Timeout, emit); err != nil {
			return nil, nil, err
		}
		if err := h.catchUp(ctx, m); err != nil {
			h.leaveOwn()
			return nil, nil, err
		}
		return m, h.leaveOwn, nil
	}
	h.mu.Lock()
	old := h.forks[a.Step.ID]
	delete(h.forks, a.Step.ID)
	h.mu.Unlock()
	if old != nil { // an attempt that nobody covered
		h.release(ctx, old.m, old.use)
	}
	if f.use == usePool {
		if err := h.warm(ctx, r, emit); err != nil {
			return nil, nil, err
		}
	} else if err := h.begin(ctx, a.Step.ID, f); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			h.mu.Lock()
			delete(h.forks, a.Step.ID)
			h.mu.Unlock()
		}
	}()
	for {
		if f.m, err = h.acquire(ctx, r, f.use, a.Timeout, emit); err != nil {
			return nil, nil, err
		}
		if err = h.fillFork(ctx, a.Step.ID, f, emit); err == nil {
			return f.m, func() {}, nil
		}
		h.end(ctx, f.m)
		h.tellEnded(emit)
		// A used one may be broken: a new one says whether it is that or the checkpoint.
		if !f.m.used.Load() || ctx.Err() != nil {
			return nil, nil, fmt.Errorf("hand the workspace over: %w", err)
		}
	}
}

// useOf says what kind of place an attempt needs.
func (h *Host) useOf(r *room, a engine.Attempt) string {
	switch {
	case a.Step.Sandbox == workflow.Fresh || r.spec.Reuse == workflow.ReuseStep:
		return useFresh
	case r.spec.Reuse == workflow.ReusePool:
		return usePool
	case r.spec.Name != "":
		return useNamed
	case a.Alone || !r.Capabilities.Forks || r.inPlace || a.Step.Background || h.beside():
		return useOwn
	}
	return useFork
}

// begin notes the tree as it is when an attempt begins: what others merge while its
// sandbox is made is not in it. A step that takes its turn in a pool begins when it has
// its place.
func (h *Host) begin(ctx context.Context, step string, f *fork) error {
	h.mu.Lock()
	err := h.lookAhead(ctx)
	f.from, f.start = h.last, h.ahead
	h.forkLocked(step, f)
	h.mu.Unlock()
	if err == nil && f.start == nil && f.from != "" {
		if f.start, err = h.cfg.Checkpoints.Manifest(ctx, f.from); err != nil {
			err = fmt.Errorf("read checkpoint %s: %w", f.from, err)
		}
	}
	return err
}

// fillFork puts the tree into a fork's sandbox.
func (h *Host) fillFork(ctx context.Context, step string, f *fork, emit func(engine.Body)) error {
	if err := h.brought(); err != nil {
		return err
	}
	if f.use == usePool && f.m.used.Load() {
		if err := reset(ctx, f.m); err != nil {
			return err
		}
	}
	h.making.Lock()
	h.mu.Lock()
	base, last := h.base, h.last
	h.mu.Unlock()
	if base == "" && last == "" {
		defer h.making.Unlock()
		id, tree, err := h.bringIn(ctx, f.m, f.apart, emit)
		h.fork(step, f, id, tree)
		return err
	}
	h.making.Unlock()
	if f.use == usePool {
		if err := h.begin(ctx, step, f); err != nil {
			return err
		}
	}
	if f.start == nil { // when it began nothing was there but the source
		var err error
		if f.start, err = h.cfg.Checkpoints.Manifest(ctx, base); err != nil {
			return fmt.Errorf("read checkpoint %s: %w", base, err)
		}
		f.from = base
	}
	tree, err := h.put(ctx, f.m, f.apart, f.start)
	if err != nil {
		return err
	}
	h.fork(step, f, f.from, tree)
	return nil
}

func (h *Host) fork(step string, f *fork, from string, base *checkpoint.Manifest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f.from, f.base = from, base
	h.forkLocked(step, f)
}

func (h *Host) forkLocked(step string, f *fork) {
	if h.forks == nil {
		h.forks = map[string]*fork{}
	}
	h.forks[step] = f
}

// lookAhead takes in what the steps of `finally` changed in the run's own sandbox,
// which no checkpoint holds: the next one may work elsewhere. mu is held.
func (h *Host) lookAhead(ctx context.Context) error {
	if h.own == nil || h.guests > 0 || !h.dirty {
		return nil
	}
	snap, err := h.own.Snapshot(ctx, h.cfg.Checkpoints)
	if err == nil && snap.Batch != nil {
		err = snap.Batch.Seal()
	}
	if err != nil {
		return fmt.Errorf("store the workspace: %w", err)
	}
	h.ahead = snap.Manifest
	return nil
}

// catchUp brings the run's own sandbox to the newest tree after forks were merged.
func (h *Host) catchUp(ctx context.Context, m *member) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.dirty && h.renewBelow(m) {
		h.stale = true
	}
	h.dirty, h.ahead = true, nil
	if !h.stale {
		return nil
	}
	tree, err := h.cfg.Checkpoints.Manifest(ctx, h.last)
	if err != nil {
		return fmt.Errorf("read checkpoint %s: %w", h.last, err)
	}
	if err := m.Restore(ctx, h.cfg.Checkpoints, tree); err != nil {
		return fmt.Errorf("bring the workspace up to date: %w", err)
	}
	h.stale = false
	return nil
}

// treeOf is what a step's attempt started on: its fork's base, or the newest
// checkpoint.
func (h *Host) treeOf(ctx context.Context, step string) (*checkpoint.Manifest, error) {
	if err := h.brought(); err != nil {
		return nil, err
	}
	h.mu.Lock()
	f, last := h.forks[step], h.last
	h.mu.Unlock()
	if f != nil {
		return f.base, nil
	}
	return h.cfg.Checkpoints.Manifest(ctx, last)
}

// ended marks the fork of an attempt that ended as one to merge, or drops it when
// the attempt was stopped: what was in flight is in no checkpoint.
func (h *Host) ended(ctx context.Context, step string, out engine.Outcome) {
	h.mu.Lock()
	f := h.forks[step]
	stopped := out.Status == engine.StepInterrupted || out.Status == engine.StepCancelled ||
		f != nil && out.Status != engine.StepSucceeded && f.m.lost() // with what it held
	if f != nil && stopped {
		delete(h.forks, step)
	}
	if f != nil {
		f.unmerged = !stopped
	}
	h.mu.Unlock()
	if f != nil && stopped {
		h.release(ctx, f.m, f.use)
	}
}

// Discard implements engine.Discarder: a fork is not merged, and the run's own sandbox
// goes back to the last checkpoint before the attempt when the next step needs it.
func (h *Host) Discard(ctx context.Context, step string) {
	h.mu.Lock()
	delete(h.pending, step)
	delete(h.spoiled, step) // it left no traces
	f := h.forks[step]
	delete(h.forks, step)
	if f == nil {
		h.last, h.stale, h.dirty, h.ahead = h.covered, true, false, nil
	}
	h.mu.Unlock()
	if f != nil {
		h.release(ctx, f.m, f.use)
	}
}

var _ engine.Discarder = (*Host)(nil)

// Forked implements engine.Runner.
func (h *Host) Forked(step string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.forks[step]
	return f != nil && f.unmerged
}

// merge stores what a fork changed on top of the line. mu is held.
func (h *Host) merge(ctx context.Context, step string, f *fork) (string, []engine.FileChange, int, error) {
	delete(h.forks, step)
	defer h.release(ctx, f.m, f.use)
	snap, err := f.m.Snapshot(ctx, h.cfg.Checkpoints)
	if err != nil {
		return "", nil, 0, fmt.Errorf("store the workspace: %w", h.cfg.Redact.Error(err))
	}
	tree := snap.Manifest
	if f.apart {
		tree = workspaceOf(tree)
	}
	made := checkpoint.Diff(f.base, tree)
	next := checkpoint.Snapshot{Manifest: tree, Changes: made, Batch: snap.Batch}
	if h.last != f.from || f.apart || h.ahead != nil {
		if next.Manifest, next.Changes, err = h.mergeTrees(ctx, step, f, tree); err != nil {
			if snap.Batch != nil {
				snap.Batch.Abort()
			}
			return "", nil, 0, err
		}
	}
	id, err := h.cfg.Checkpoints.StageCheckpoint(ctx, h.cfg.RunID, next, h.last)
	if err != nil {
		return "", nil, 0, fmt.Errorf("store the workspace: %w", h.cfg.Redact.Error(err))
	}
	h.last, h.covered, h.stale, h.dirty, h.ahead = id, id, true, false, nil
	h.note(step, made)
	changed, count := h.changes(made)
	h.storeResult(ctx, []string{step}, tree)
	return id, changed, count, nil
}

func (h *Host) mergeTrees(ctx context.Context, step string, f *fork, tree *checkpoint.Manifest) (*checkpoint.Manifest, []checkpoint.Change, error) {
	line, err := h.cfg.Checkpoints.Manifest(ctx, h.last)
	if err != nil {
		return nil, nil, fmt.Errorf("read checkpoint %s: %w", h.last, err)
	}
	ours := line
	if h.ahead != nil {
		ours = h.ahead
	}
	m, conflicts, err := checkpoint.Merge(f.base, ours, tree, func(path string) checkpoint.Side {
		if h.last == f.from || !strings.HasPrefix(path, workspaceInTar+"/") {
			return checkpoint.Theirs // nobody else wrote; outside the workspace the later writer wins
		}
		return f.side()
	})
	if err != nil {
		return nil, nil, err
	}
	if len(conflicts) > 0 {
		return nil, nil, h.conflict(step, conflicts)
	}
	return m, checkpoint.Diff(line, m), nil
}

// side is who wins where both changed a path, as on_conflict says.
func (f *fork) side() checkpoint.Side {
	switch f.onConflict {
	case "ours":
		return checkpoint.Ours
	case "theirs":
		return checkpoint.Theirs
	}
	return checkpoint.Neither
}

// namedConflicts bounds the error's text.
const namedConflicts = 5

// conflict names both steps and the paths.
func (h *Host) conflict(step string, list []checkpoint.Conflict) error {
	var lines []string
	for i, c := range list {
		if i == namedConflicts {
			lines = append(lines, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		name, other := strings.TrimPrefix(c.Path, workspaceInTar+"/"), h.writers[c.Path]
		if other == "" {
			other = h.writers[parentOf(c.Path)]
		}
		if other != "" {
			other = ", by step " + other
		}
		lines = append(lines, fmt.Sprintf("%s: %s%s", name, c.Reason, other))
	}
	return &engine.ConflictError{Text: h.cfg.Redact.String(fmt.Sprintf(
		"step %s and a step that ran beside it changed the same files: %s; nothing of step %s was merged (order them with needs, or set on_conflict)",
		step, strings.Join(lines, "; "), step))}
}

func parentOf(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return ""
}

// note remembers who changed a path while forks are at work.
func (h *Host) note(step string, cs []checkpoint.Change) {
	if len(h.forks) == 0 {
		h.writers = nil
		return
	}
	if h.writers == nil {
		h.writers = map[string]string{}
	}
	for _, c := range cs {
		if !c.DirTimeOnly {
			h.writers[c.Path] = step
		}
	}
}

// dropForks ends all forks. mu is held.
func (h *Host) dropForks(ctx context.Context) {
	for step, f := range h.forks {
		delete(h.forks, step)
		if f.m == nil {
			continue // it never had a place
		}
		h.endLater(ctx, f.m)
	}
}
