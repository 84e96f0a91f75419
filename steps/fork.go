package steps

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
)

// Steps that may run at the same time each work on a fork: a sandbox of their own
// with the workspace as it was when they started. At its end, in the order in which
// the engine takes the ends, a fork is merged into the run's one line of
// checkpoints; the run's sandbox follows when the next step needs it (catchUp).

// fork is the place of one attempt that may overlap others.
type fork struct {
	sb         sandbox.Sandbox
	from       string               // the checkpoint that it started on
	base       *checkpoint.Manifest // its tree
	onConflict string               // of the step: fail, ours, theirs
	// unmerged is set while its changes wait for their Checkpoint.
	unmerged bool
}

// placeFor is the sandbox of an attempt: the run's, or a fork.
func (h *Host) placeFor(ctx context.Context, a engine.Attempt, emit func(engine.Body)) (sandbox.Sandbox, error) {
	if a.Alone || !h.cfg.Capabilities.Forks {
		sb, err := h.sandboxFor(ctx, emit)
		if err != nil {
			return nil, err
		}
		return sb, h.catchUp(ctx, sb)
	}
	// The run's own sandbox brings the source in, once.
	if _, err := h.sandboxFor(ctx, emit); err != nil {
		return nil, err
	}
	h.mu.Lock()
	f := &fork{from: h.last, onConflict: a.Step.OnConflict}
	old := h.forks[a.Step.ID]
	if h.forks == nil {
		h.forks = map[string]*fork{}
	}
	// Known from here on: what others merge meanwhile is not in it.
	h.forks[a.Step.ID] = f
	h.mu.Unlock()
	if old != nil { // an attempt that nobody covered
		h.dropFork(ctx, old)
	}
	if err := h.fillFork(ctx, f); err != nil {
		h.mu.Lock()
		delete(h.forks, a.Step.ID)
		h.mu.Unlock()
		h.dropFork(ctx, f)
		return nil, fmt.Errorf("fork the workspace: %w", err)
	}
	return f.sb, nil
}

func (h *Host) fillFork(ctx context.Context, f *fork) error {
	base, err := h.cfg.Checkpoints.Manifest(ctx, f.from)
	if err != nil {
		return fmt.Errorf("read checkpoint %s: %w", f.from, err)
	}
	for sb := h.idle.take(); sb != nil; sb = h.idle.take() {
		if !ended(sb) && sb.Restore(ctx, h.cfg.Checkpoints, base) == nil {
			h.placeFork(f, base, sb)
			return nil
		}
		// A new one says whether it is the checkpoint or the sandbox that is broken.
		h.drops.Go(func() { h.closeSandbox(ctx, sb) })
	}
	sb, err := h.createRetried(ctx)
	if err != nil {
		return err
	}
	h.placeFork(f, base, sb)
	return sb.Restore(ctx, h.cfg.Checkpoints, base)
}

func (h *Host) placeFork(f *fork, base *checkpoint.Manifest, sb sandbox.Sandbox) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f.base, f.sb = base, sb
}

// idle are sandboxes of forks that were merged, which the next forks take: making one
// costs ten times what a small step does. Only those wait here that are, but for their
// home, as they were made (sandbox.Reusable), so that no step finds what another left.
type idle struct {
	mu   sync.Mutex
	list []sandbox.Sandbox
}

// take gives the one that waited least, nil when there is none.
func (i *idle) take() sandbox.Sandbox {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := len(i.list)
	if n == 0 {
		return nil
	}
	sb := i.list[n-1]
	i.list = i.list[:n-1]
	return sb
}

func (i *idle) put(sb sandbox.Sandbox) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.list = append(i.list, sb)
}

func ended(sb sandbox.Sandbox) bool {
	select {
	case <-sb.Done():
		return true
	default:
		return false
	}
}

// cleanTimeout bounds the question; init answers in some 10 µs.
const cleanTimeout = 2 * time.Second

// retire keeps a fork's sandbox for the next fork, or closes it.
func (h *Host) retire(ctx context.Context, f *fork) {
	if r, ok := f.sb.(sandbox.Reusable); ok {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
		defer cancel()
		if clean, err := r.Clean(ctx); err == nil && clean {
			h.idle.put(f.sb)
			return
		}
	}
	h.dropFork(ctx, f)
}

// catchUp brings the run's sandbox to the newest checkpoint after forks were merged.
func (h *Host) catchUp(ctx context.Context, sb sandbox.Sandbox) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.stale {
		return nil
	}
	m, err := h.cfg.Checkpoints.Manifest(ctx, h.last)
	if err != nil {
		return fmt.Errorf("read checkpoint %s: %w", h.last, err)
	}
	if err := sb.Restore(ctx, h.cfg.Checkpoints, m); err != nil {
		return fmt.Errorf("bring the workspace up to date: %w", err)
	}
	h.stale = false
	return nil
}

// treeOf is what a step's attempt started on: its fork's base, or the newest
// checkpoint.
func (h *Host) treeOf(ctx context.Context, step string) (*checkpoint.Manifest, error) {
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
	stopped := out.Status == engine.StepInterrupted || out.Status == engine.StepCancelled
	if f != nil && stopped {
		delete(h.forks, step)
	}
	if f != nil {
		f.unmerged = !stopped
	}
	h.mu.Unlock()
	if f != nil && stopped {
		h.dropFork(ctx, f)
	}
}

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
	defer h.retire(ctx, f)
	snap, err := f.sb.Snapshot(ctx, h.cfg.Checkpoints)
	if err != nil {
		return "", nil, 0, fmt.Errorf("store the workspace: %w", h.cfg.Redact.Error(err))
	}
	made := checkpoint.Diff(f.base, snap.Manifest)
	next := snap
	if h.last != f.from {
		if next, err = h.mergeTrees(ctx, step, f, snap); err != nil {
			if snap.Batch != nil {
				snap.Batch.Abort()
			}
			return "", nil, 0, err
		}
	} else {
		next.Changes = made
	}
	id, err := h.cfg.Checkpoints.StageCheckpoint(ctx, h.cfg.RunID, next, h.last)
	if err != nil {
		return "", nil, 0, fmt.Errorf("store the workspace: %w", h.cfg.Redact.Error(err))
	}
	h.last, h.covered, h.stale = id, id, true
	h.note(step, made)
	changed, count := h.changes(made)
	h.storeResult(ctx, []string{step}, snap.Manifest)
	return id, changed, count, nil
}

func (h *Host) mergeTrees(ctx context.Context, step string, f *fork, snap checkpoint.Snapshot) (checkpoint.Snapshot, error) {
	ours, err := h.cfg.Checkpoints.Manifest(ctx, h.last)
	if err != nil {
		return snap, fmt.Errorf("read checkpoint %s: %w", h.last, err)
	}
	m, conflicts, err := checkpoint.Merge(f.base, ours, snap.Manifest, func(path string) checkpoint.Side {
		if !strings.HasPrefix(path, workspaceInTar+"/") {
			return checkpoint.Theirs // outside the workspace the later writer wins
		}
		return f.side()
	})
	if err != nil {
		return snap, err
	}
	if len(conflicts) > 0 {
		return snap, h.conflict(step, conflicts)
	}
	return checkpoint.Snapshot{Manifest: m, Changes: checkpoint.Diff(ours, m), Batch: snap.Batch}, nil
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

// dropFork closes a fork's sandbox and removes its tree, beside what else happens:
// a big tree takes its time. Close waits for it.
func (h *Host) dropFork(ctx context.Context, f *fork) {
	if f.sb == nil {
		return
	}
	h.drops.Go(func() { h.closeSandbox(context.WithoutCancel(ctx), f.sb) })
}

// dropForks ends all forks. mu is held.
func (h *Host) dropForks(ctx context.Context) {
	steps := make([]string, 0, len(h.forks))
	for step := range h.forks {
		steps = append(steps, step)
	}
	slices.Sort(steps)
	for _, step := range steps {
		h.dropFork(ctx, h.forks[step])
		delete(h.forks, step)
	}
	for sb := h.idle.take(); sb != nil; sb = h.idle.take() {
		h.drops.Go(func() { h.closeSandbox(ctx, sb) })
	}
	h.drops.Wait()
}
