package steps

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
)

// Where a driver can, a large source is not copied: it shows below the workspace, which
// is an overlay (sandbox.Spec.Lower). Its files stay the user's, who may work in them
// while the run does. So it is looked at whenever a sandbox is made over it, and, as
// often as costs a twentieth of the time, before a step: what was changed is told of
// (engine.SourceChanged), and steps go on seeing what was imported.

// belowFrom is the number of names from which a source is not copied. Copying less
// takes some 10 ms, and the copy is the run's own.
const belowFrom = 1000

// lookShare: looking at the source takes at most this part of the time.
const lookShare = 20

// beneath is what a run knows of its source as a lower tree.
type beneath struct {
	mu     sync.Mutex
	source *checkpoint.Source
	// copied says why the source is copied, "" while nothing speaks against a layer.
	copied string
	now    *checkpoint.Manifest // what it holds, as of the last look; nil before the first
	next   time.Time            // when it may be looked at again
}

// lookBelow begins a look at the source for a sandbox that is to be made over it; nil
// where the source is to be copied. The caller drops it.
func (h *Host) lookBelow(ctx context.Context, r *room) (*checkpoint.Look, error) {
	if h.cfg.Source == "" || !r.Capabilities.Overlay || h.cfg.Workflow.Workspace.Path != "" || h.cfg.Workflow.Workspace.InPlace {
		return nil, nil
	}
	source, err := h.below.open(h.cfg.Source, checkpoint.ImportOptions{Exclude: h.cfg.Workflow.Workspace.Exclude})
	if source == nil || err != nil {
		return nil, err
	}
	look, err := source.Look(ctx)
	if err != nil {
		h.mu.Lock()
		stored := h.base != ""
		h.mu.Unlock()
		if stored && ctx.Err() == nil {
			return nil, nil // somebody is at work in it: this sandbox is filled from the store
		}
		return nil, fmt.Errorf("bring in workspace.from: %w", err)
	}
	if look.Entries() < h.cfg.belowFrom() {
		look.Drop()
		h.below.refuse("it is small")
		return nil, nil
	}
	return look, nil
}

// open gives the source, nil where it is copied. mu is never held while the source is
// looked at: who looks may hold others up.
func (b *beneath) open(dir string, o checkpoint.ImportOptions) (src *checkpoint.Source, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.copied != "" || b.source != nil {
		return b.source, nil
	}
	b.source, err = checkpoint.NewSource(dir, o)
	return b.source, err
}

// refuse lets the source be copied from now on.
func (b *beneath) refuse(why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.copied, b.source = why, nil
}

func (c *Config) belowFrom() int {
	if c.BelowFrom > 0 {
		return c.BelowFrom
	}
	return belowFrom
}

// lower is a look in a driver's terms.
func (h *Host) lower(l *checkpoint.Look) *sandbox.Lower {
	if l == nil {
		return nil
	}
	return &sandbox.Lower{Dir: h.cfg.Source, UID: l.UID(), GID: l.GID(), Fill: l.FillUpper}
}

// createOver creates a sandbox, over the source if look is given. Where that cannot be
// had the source is copied from now on; look is then nil.
func (h *Host) createOver(ctx context.Context, r *room, spec sandbox.Spec, look *checkpoint.Look) (sandbox.Sandbox, *checkpoint.Look, error) {
	spec.Lower = h.lower(look)
	sb, err := r.Driver.Create(ctx, spec)
	if !errors.Is(err, sandbox.ErrNoOverlay) || look == nil {
		return sb, look, err
	}
	look.Drop()
	h.below.refuse(err.Error())
	if err := errors.Join(os.RemoveAll(spec.Dir), os.Mkdir(spec.Dir, 0o700)); err != nil {
		return nil, nil, fmt.Errorf("clear the sandbox's directory: %w", err)
	}
	spec.Lower = nil
	sb, err = r.Driver.Create(ctx, spec)
	return sb, nil, err
}

// settleBelow ends a look: the sandbox learns what lies below its workspace. In a run's
// first sandbox that is brought into the store.
func (h *Host) settleBelow(ctx context.Context, sb sandbox.Sandbox, look *checkpoint.Look) error {
	was, err := h.imported(ctx)
	if err != nil {
		return err
	}
	var st checkpoint.Store
	if was == nil {
		st = h.cfg.Checkpoints
	}
	began := time.Now()
	m, batch, err := look.Manifest(ctx, was, st)
	if err == nil && batch != nil {
		err = batch.Seal()
	}
	if err != nil {
		return fmt.Errorf("bring in workspace.from: %w", err)
	}
	took := time.Since(began)
	if was == nil {
		took = 0 // it was read whole; a look is a walk
	}
	h.below.saw(m, took)
	sb.(sandbox.Layered).SetLower(m)
	return nil
}

// bringing is the source coming in while the first step runs already.
type bringing struct {
	done chan struct{}
	err  error // after done
}

// bringLater brings the source of the run's first sandbox in beside the first step,
// which sees it below its workspace at once: reading and storing a large one takes
// seconds. Whoever needs the checkpoint waits for it (brought), the step's end too.
func (h *Host) bringLater(ctx context.Context, m *member, look *checkpoint.Look, emit func(engine.Body)) error {
	if err := makeStepDir(m); err != nil {
		look.Drop()
		return err
	}
	l := m.layeredOf()
	batch, err := l.Begin(ctx, h.cfg.Checkpoints)
	if err == nil && batch != nil {
		err = batch.Seal()
	}
	if err != nil {
		look.Drop()
		return fmt.Errorf("store the source tree: %w", err)
	}
	b := &bringing{done: make(chan struct{})}
	h.mu.Lock()
	h.bringing = b
	h.mu.Unlock()
	go func() {
		defer close(b.done)
		b.err = h.bringNow(ctx, m, look, emit)
	}()
	return nil
}

func (h *Host) bringNow(ctx context.Context, m *member, look *checkpoint.Look, emit func(engine.Body)) error {
	if err := h.settleBelow(ctx, m.Sandbox, look); err != nil {
		return err
	}
	snap, err := m.layeredOf().First()
	if err != nil {
		return err
	}
	id, err := h.cfg.Checkpoints.StageCheckpoint(ctx, h.cfg.RunID, snap, "")
	if err != nil {
		return fmt.Errorf("store the source tree: %w", err)
	}
	now := h.below.held()
	h.mu.Lock()
	h.base, h.last, h.covered, m.below = id, id, id, now
	h.mu.Unlock()
	emit(engine.WorkspaceImported{Checkpoint: id, Files: len(snap.Manifest.Entries)})
	return nil
}

func (b *beneath) held() *checkpoint.Manifest {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

// brought waits until the source is in. When it could not be brought in, the sandbox
// over it is given up, and the next attempt begins anew. mu is not held.
func (h *Host) brought() error {
	h.mu.Lock()
	b := h.bringing
	h.mu.Unlock()
	if b == nil {
		return nil
	}
	<-b.done // it ends with its context
	h.mu.Lock()
	own := h.own
	first := h.bringing == b
	if first {
		h.bringing = nil
	}
	if first && b.err != nil {
		h.own = nil
	}
	h.mu.Unlock()
	if first && b.err != nil && own != nil {
		h.endLater(context.Background(), own)
	}
	return b.err
}

// onHost is the host's path of a sandbox's workspace.
func onHost(sb sandbox.Sandbox) string {
	switch x := sb.(type) {
	case *member:
		sb = x.Sandbox
	case *reaching:
		sb = x.Sandbox
	}
	if l, ok := sb.(sandbox.Layered); ok && l.Layered() {
		return l.Workspace()
	}
	return filepath.Join(sb.Home(), workspaceInTar)
}

// imported is the workspace as the source was when it was brought in; nil before that.
func (h *Host) imported(ctx context.Context) (*checkpoint.Manifest, error) {
	h.mu.Lock()
	base := h.base
	h.mu.Unlock()
	if base == "" {
		return nil, nil
	}
	m, err := h.cfg.Checkpoints.Manifest(ctx, base)
	if err != nil {
		return nil, fmt.Errorf("read checkpoint %s: %w", base, err)
	}
	return m.Subtree(workspaceInTar), nil
}

// saw notes a look, and returns what it found changed since the last.
func (b *beneath) saw(m *checkpoint.Manifest, took time.Duration) []checkpoint.Change {
	b.mu.Lock()
	defer b.mu.Unlock()
	var cs []checkpoint.Change
	if b.now != nil && b.now != m {
		cs = checkpoint.Listed(checkpoint.Diff(b.now, m))
	}
	b.now, b.next = m, time.Now().Add(lookShare*took)
	return cs
}

// layeredOf is the sandbox if its workspace is a layer over the source.
func (m *member) layeredOf() sandbox.Layered {
	l, ok := m.Sandbox.(sandbox.Layered)
	if !ok || !l.Layered() {
		return nil
	}
	return l
}

// watchSource looks at the source if it is time, or last is set, and tells what somebody
// changed in it.
func (h *Host) watchSource(ctx context.Context, last bool, emit func(engine.Body)) error {
	b := &h.below
	b.mu.Lock()
	source, was, due := b.source, b.now, last || time.Now().After(b.next)
	b.mu.Unlock()
	if source == nil || was == nil || !due {
		return nil
	}
	began := time.Now()
	look, err := source.Look(ctx)
	var m *checkpoint.Manifest
	if err == nil {
		m, _, err = look.Manifest(ctx, was, nil)
	}
	if err != nil {
		// Mostly that somebody is at work in it right now: the next look says what changed.
		if _, gone := os.Stat(source.Dir()); gone == nil && ctx.Err() == nil {
			return nil
		}
		return fmt.Errorf("look at workspace.from: %w", err)
	}
	cs := b.saw(m, time.Since(began))
	if len(cs) == 0 {
		return nil
	}
	e := engine.SourceChanged{Count: len(cs)}
	for _, c := range cs[:min(len(cs), namedSource)] {
		e.Paths = append(e.Paths, h.cfg.Redact.String(c.Path))
	}
	emit(e)
	return nil
}

// namedSource bounds the paths in an event.
const namedSource = 20

// renewBelow tells a sandbox what the source holds now, if that is not what it knows.
// What the workspace holds is then not known until a Restore.
func (h *Host) renewBelow(m *member) (renewed bool) {
	l := m.layeredOf()
	if l == nil {
		return false
	}
	now := h.below.held()
	if m.below == now || m.below == nil { // nil: it is still coming in
		return false
	}
	m.below = now
	l.SetLower(now)
	return true
}

// looks wait for the members of their sandboxes.
type looks struct {
	mu sync.Mutex
	by map[string]*checkpoint.Look
}

func (l *looks) keep(id string, look *checkpoint.Look) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = map[string]*checkpoint.Look{}
	}
	l.by[id] = look
}

func (l *looks) take(id string) *checkpoint.Look {
	l.mu.Lock()
	defer l.mu.Unlock()
	look := l.by[id]
	delete(l.by, id)
	return look
}
