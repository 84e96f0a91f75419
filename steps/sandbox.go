package steps

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sethvargo/go-retry"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// Creation is tried 3 times, 2 s to 10 s apart (practice 7).
const (
	createRetries  = 2
	createInitial  = 2 * time.Second
	createMax      = 10 * time.Second
	createTimeout  = 30 * time.Second
	healthTimeout  = 10 * time.Second // practice 23
	closeTimeout   = 10 * time.Second
	workspaceInTar = "workspace" // the workspace's name in the home tree
)

// errNoEcho is what the health check says when the sandbox answers wrongly.
var errNoEcho = errors.New("the new sandbox did not execute `echo`")

// ownSandbox returns the run's own sandbox with one guest more, making it when there
// is none, when the old one was lost, or when it cannot live for as long as the attempt
// needs (0: no matter). The caller calls leaveOwn.
func (h *Host) ownSandbox(ctx context.Context, need time.Duration, emit func(engine.Body)) (*member, error) {
	_ = h.brought() // the attempt that it belongs to says why not; this one begins anew
	h.making.Lock()
	defer h.making.Unlock()
	h.mu.Lock()
	m := h.own
	if m != nil && !m.lost() && m.tired(need) && h.guests == 0 {
		if err := h.lookAhead(ctx); err != nil {
			h.mu.Unlock()
			return nil, err
		}
	} else if m != nil && !m.lost() {
		h.guests++
		h.mu.Unlock()
		return m, nil
	}
	h.own = nil
	h.mu.Unlock()
	if m != nil {
		h.end(ctx, m)
		h.tellEnded(emit)
	}
	m, err := h.acquire(ctx, h.rooms[""], useOwn, need, emit)
	if err != nil {
		return nil, err
	}
	if look := m.look; look != nil {
		m.look = nil
		err = h.bringLater(ctx, m, look, emit)
	} else {
		_, _, err = h.fill(ctx, m, false, emit)
	}
	if err != nil {
		h.end(ctx, m)
		h.tellEnded(emit)
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.own, h.guests, h.stale, h.dirty = m, h.guests+1, false, false
	return m, nil
}

// leaveOwn: an attempt in the run's own sandbox has ended.
func (h *Host) leaveOwn() {
	h.mu.Lock()
	h.guests--
	idle := h.guests == 0
	h.mu.Unlock()
	if idle {
		h.house.mu.Lock()
		h.house.wake() // it can be evicted once it is covered
		h.house.mu.Unlock()
	}
}

// evictOwn takes the run's own sandbox away from it where nobody is in it and a
// checkpoint has all that it holds, so that there is room for another one.
func (h *Host) evictOwn() *member {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.own == nil || h.guests > 0 || h.dirty {
		return nil
	}
	m := h.own
	h.own = nil
	return m
}

// createRetried makes a sandbox, again where the place failed.
// own: it is the run's own, whose source may come in later.
func (h *Host) createRetried(ctx context.Context, r *room, own bool) (sandbox.Sandbox, error) {
	backoff := retry.WithMaxRetries(createRetries, retry.WithCappedDuration(createMax, retry.NewExponential(createInitial)))
	var sb sandbox.Sandbox
	err := retry.Do(ctx, backoff, func(ctx context.Context) error {
		var err error
		sb, err = h.create(ctx, r, own)
		var se *sandbox.Error
		if errors.As(err, &se) && se.Class == sandbox.ClassInfrastructure {
			return retry.RetryableError(err)
		}
		return err
	})
	return sb, err
}

func (h *Host) create(ctx context.Context, r *room, own bool) (sandbox.Sandbox, error) {
	id := fmt.Sprintf("%s-%d", h.cfg.RunID, h.number.Add(1))
	dir := filepath.Join(h.cfg.Dir, "sandboxes", id)
	// An earlier process of this run may have left a tree under the same number.
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("clear the sandbox's directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the sandbox's directory: %w", err)
	}
	trust, err := h.trust(r)
	if err != nil {
		return nil, err
	}
	look, err := h.lookBelow(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { look.Drop() }()
	long := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, createTimeout, errors.New("creating the sandbox took longer than 30s"))
	defer cancel()
	inPlace := ""
	if h.cfg.Workflow.Workspace.InPlace {
		inPlace = h.cfg.Source
	}
	sb, look, err := h.createOver(ctx, r, sandbox.Spec{ID: id, InPlace: inPlace, Dir: dir, Limits: limits(r.spec.Limits), Network: r.network, Trust: trust, Catch: r.catch, Mounts: r.Mounts}, look)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := h.watch(r, sb); err != nil {
		h.closeSandbox(ctx, sb)
		return nil, err
	}
	if sb.Info().Tier == sandbox.TierNone {
		return sb, nil // nothing was built that could be broken
	}
	if err := healthy(ctx, sb); err != nil {
		h.closeSandbox(ctx, sb)
		return nil, &sandbox.Error{Op: "check the new sandbox", Class: sandbox.ClassInfrastructure, Err: err}
	}
	if look == nil {
		return sb, nil
	}
	h.mu.Lock()
	first := h.base == ""
	h.mu.Unlock()
	if own && first {
		h.looks.keep(id, look)
		look = nil // not to be dropped
		return sb, nil
	}
	if err := h.settleBelow(long, sb, look); err != nil {
		h.closeSandbox(ctx, sb)
		return nil, err
	}
	return sb, nil
}

// healthy really executes echo inside (design: sandbox, Life).
func healthy(ctx context.Context, sb sandbox.Sandbox) error {
	ctx, cancel := context.WithTimeoutCause(ctx, healthTimeout, errors.New("the health check took longer than 10s"))
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	defer r.Close()
	res, err := sb.Exec(ctx, sandbox.Cmd{Argv: []string{"/bin/echo", "ok"}, Env: sb.BaseEnv(), Stdout: w})
	w.Close()
	if err != nil {
		return err
	}
	buf := make([]byte, 16)
	n, _ := r.Read(buf)
	if res.ExitCode != 0 || strings.TrimSpace(string(buf[:n])) != "ok" {
		return errNoEcho
	}
	return nil
}

// fill puts the source tree, or the checkpoint that the run continues from, into
// a sandbox: all of it, or for one that stands apart only the workspace. The source is
// stored as a checkpoint of its own (the frozen workspace.from), once in a run's life.
// It returns what the sandbox then holds. making is held while there is no base.
func (h *Host) fill(ctx context.Context, m *member, apart bool, emit func(engine.Body)) (id string, tree *checkpoint.Manifest, err error) {
	id, tree, err = h.newest(ctx)
	if err != nil {
		return "", nil, err
	}
	if tree == nil {
		return h.bringIn(ctx, m, apart, emit)
	}
	if tree, err = h.put(ctx, m, apart, tree); err != nil {
		err = fmt.Errorf("restore checkpoint %s: %w", id, err)
	}
	return id, tree, err
}

// put makes a sandbox hold a home tree, or of it the workspace alone.
func (h *Host) put(ctx context.Context, m *member, apart bool, tree *checkpoint.Manifest) (*checkpoint.Manifest, error) {
	if apart {
		tree = workspaceOf(tree)
	}
	h.renewBelow(m)
	if err := m.Restore(ctx, h.cfg.Checkpoints, tree); err != nil {
		return nil, err
	}
	if apart {
		return tree, makeStepDir(m)
	}
	return tree, nil
}

// bringIn imports the source into the first sandbox of the run.
func (h *Host) bringIn(ctx context.Context, m *member, apart bool, emit func(engine.Body)) (string, *checkpoint.Manifest, error) {
	if m.layeredOf() == nil {
		if err := h.importSource(ctx, m); err != nil {
			return "", nil, err
		}
	}
	if err := makeStepDir(m); err != nil {
		return "", nil, err
	}
	snap, err := m.Snapshot(ctx, h.cfg.Checkpoints)
	if err != nil {
		return "", nil, fmt.Errorf("store the source tree: %w", err)
	}
	id, err := h.cfg.Checkpoints.StageCheckpoint(ctx, h.cfg.RunID, snap, "")
	if err != nil {
		return "", nil, fmt.Errorf("store the source tree: %w", err)
	}
	h.mu.Lock()
	h.base, h.last, h.covered = id, id, id
	h.mu.Unlock()
	emit(engine.WorkspaceImported{Checkpoint: id, Files: len(snap.Manifest.Entries)})
	tree := snap.Manifest
	if apart {
		tree = workspaceOf(tree)
	}
	return id, tree, nil
}

// newest is the newest tree of the run's line and the checkpoint that it is in or
// follows; nil before the source was brought in.
func (h *Host) newest(ctx context.Context) (string, *checkpoint.Manifest, error) {
	if err := h.brought(); err != nil {
		return "", nil, err
	}
	h.mu.Lock()
	id, ahead := h.last, h.ahead
	if id == "" {
		id = h.base
	}
	h.mu.Unlock()
	if ahead != nil || id == "" {
		return id, ahead, nil
	}
	m, err := h.cfg.Checkpoints.Manifest(ctx, id)
	if err != nil {
		return "", nil, fmt.Errorf("read checkpoint %s: %w", id, err)
	}
	return id, m, nil
}

// workspaceOf is a home tree without what lies beside the workspace.
func workspaceOf(m *checkpoint.Manifest) *checkpoint.Manifest {
	out := &checkpoint.Manifest{}
	for _, e := range m.Entries {
		if e.Path == workspaceInTar || strings.HasPrefix(e.Path, workspaceInTar+"/") {
			out.Entries = append(out.Entries, e)
		}
	}
	checkpoint.Unlink(out) // a name of a file that lies beside it stands for itself
	return out
}

func (h *Host) importSource(ctx context.Context, sb sandbox.Sandbox) error {
	w := h.cfg.Workflow.Workspace
	if h.cfg.Source == "" || w.InPlace {
		return nil
	}
	if sb.Home() == "" {
		return &sandbox.Error{Op: "bring in workspace.from", Class: sandbox.ClassInvalid,
			Err: fmt.Errorf("driver %s has no tree on this host", sb.Info().Driver)}
	}
	dst := filepath.Join(sb.Home(), workspaceInTar)
	owner, err := ownerOf(dst)
	if err != nil {
		return err
	}
	if w.Path != "" {
		if dst, err = makeFolders(dst, w.Path, owner); err != nil {
			return fmt.Errorf("make workspace.path: %w", err)
		}
	}
	_, err = checkpoint.Import(ctx, h.cfg.Source, dst, checkpoint.ImportOptions{Exclude: h.cfg.Workflow.Workspace.Exclude, Owner: owner})
	if err != nil {
		return fmt.Errorf("bring in workspace.from: %w", err)
	}
	return nil
}

// makeFolders makes the folders of a slash path below dir, which is new, with its owner.
func makeFolders(dir, name string, owner *checkpoint.Owner) (string, error) {
	for part := range strings.SplitSeq(name, "/") {
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", err
		}
		if owner == nil {
			continue
		}
		if err := os.Lchown(dir, owner.UID, owner.GID); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// Checkpoint stores the home tree; see engine.Runner.
func (h *Host) Checkpoint(ctx context.Context, steps []string) (string, []engine.FileChange, int, error) {
	if err := h.brought(); err != nil {
		return "", nil, 0, h.cfg.Redact.Error(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(steps) == 1 {
		if f := h.forks[steps[0]]; f != nil && f.unmerged {
			return h.merge(ctx, steps[0], f)
		}
	}
	if h.own == nil || h.stale {
		return "", nil, 0, nil // nothing has changed since the last one
	}
	snap, err := h.own.Snapshot(ctx, h.cfg.Checkpoints)
	if err != nil {
		return "", nil, 0, fmt.Errorf("store the workspace: %w", h.cfg.Redact.Error(err))
	}
	id, err := h.cfg.Checkpoints.StageCheckpoint(ctx, h.cfg.RunID, snap, h.last)
	if err != nil {
		return "", nil, 0, fmt.Errorf("store the workspace: %w", h.cfg.Redact.Error(err))
	}
	changed, count := h.changes(h.sinceCovered(ctx, snap))
	h.last, h.covered, h.dirty, h.ahead = id, id, false, nil
	h.storeResult(ctx, steps, snap.Manifest)
	h.house.mu.Lock()
	h.house.wake() // it can be evicted now
	h.house.mu.Unlock()
	return id, changed, count, nil
}

// sinceCovered are the changes of the steps that a checkpoint covers: with turns
// between, more than the snapshot's own. Where the tree before cannot be read, those
// are all that is known.
func (h *Host) sinceCovered(ctx context.Context, snap checkpoint.Snapshot) []checkpoint.Change {
	if h.covered == h.last || h.covered == "" {
		return snap.Changes
	}
	before, err := h.cfg.Checkpoints.Manifest(ctx, h.covered)
	if err != nil {
		return snap.Changes
	}
	return checkpoint.Diff(before, snap.Manifest)
}

// enter and leave count the attempts.
func (h *Host) enter() {
	h.mu.Lock()
	h.busy++
	h.mu.Unlock()
}

func (h *Host) leave() {
	h.mu.Lock()
	h.busy--
	h.mu.Unlock()
}

// namedChanges bounds the list of changed files in a record; the checkpoint has all.
const namedChanges = 1000

func (h *Host) changes(cs []checkpoint.Change) ([]engine.FileChange, int) {
	var out []engine.FileChange
	count := 0
	for _, c := range cs {
		if c.Path == workspaceInTar || c.Path == stepDirName || strings.HasPrefix(c.Path, stepDirName+"/") {
			continue
		}
		if c.Op == checkpoint.OpModified && c.Entry != nil && c.Entry.Kind == checkpoint.KindDir {
			continue
		}
		count++
		if len(out) == namedChanges {
			continue
		}
		name, ok := strings.CutPrefix(c.Path, workspaceInTar+"/")
		if !ok {
			name = "~/" + c.Path
		}
		out = append(out, engine.FileChange{Path: h.cfg.Redact.String(name), Op: string(c.Op)})
	}
	return out, count
}

// Close ends all sandboxes and removes their directories.
func (h *Host) Close(ctx context.Context) []engine.Body {
	out := h.endProcesses()
	_ = h.brought() // the attempt that it belonged to has said why not
	h.mu.Lock()
	own := h.own
	h.own = nil
	h.dropForks(ctx)
	h.mu.Unlock()
	if own != nil {
		h.endLater(ctx, own)
	}
	h.closeHouse(ctx)
	// The run has its result; a source that cannot be looked at changes nothing in it.
	_ = h.watchSource(context.WithoutCancel(ctx), true, func(b engine.Body) { out = append(out, b) })
	h.tellEnded(func(b engine.Body) { out = append(out, b) })
	h.mu.Lock()
	h.closeProxy()
	h.mu.Unlock()
	_ = os.Remove(filepath.Join(h.cfg.Dir, "sandboxes")) // empty, unless something could not be removed: swept later
	return out
}

// closeSandbox runs on a context of its own: it has to happen after a cancel too.
func (h *Host) closeSandbox(ctx context.Context, sb sandbox.Sandbox) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), closeTimeout, errors.New("closing the sandbox took longer than 10s"))
	defer cancel()
	// What cannot be closed now ends with this process and is swept by the next.
	_ = sb.Close(ctx)
	_ = os.RemoveAll(filepath.Join(h.cfg.Dir, "sandboxes", sb.Info().ID))
}

// limits of the file, in the driver's terms.
func limits(l workflow.Limits) sandbox.Limits {
	return sandbox.Limits{CPUs: l.CPUs, Memory: l.Memory, Pids: l.Pids, FileSize: l.FileSize, OpenFiles: l.OpenFiles, Tmp: l.Tmp, Disk: l.Disk}
}
