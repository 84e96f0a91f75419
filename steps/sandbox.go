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

// sandboxFor returns the run's living sandbox, making it when there is none or
// when the old one was lost.
func (h *Host) sandboxFor(ctx context.Context, emit func(engine.Body)) (sandbox.Sandbox, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.living != nil {
		select {
		case <-h.living.Done():
			h.dropLocked(emit)
		default:
			return h.living, nil
		}
	}
	sb, err := h.createRetried(ctx)
	if err != nil {
		return nil, err
	}
	info := sb.Info()
	emit(engine.SandboxCreated{ID: info.ID, Driver: info.Driver, Tier: string(info.Tier), Reason: h.cfg.Capabilities.Weakness()})
	if err := h.fill(ctx, sb, emit); err != nil {
		h.closeSandbox(ctx, sb)
		emit(engine.SandboxClosed{ID: info.ID})
		return nil, err
	}
	h.living, h.stale = sb, false
	return sb, nil
}

// createRetried makes a sandbox, again where the place failed.
func (h *Host) createRetried(ctx context.Context) (sandbox.Sandbox, error) {
	backoff := retry.WithMaxRetries(createRetries, retry.WithCappedDuration(createMax, retry.NewExponential(createInitial)))
	var sb sandbox.Sandbox
	err := retry.Do(ctx, backoff, func(ctx context.Context) error {
		var err error
		sb, err = h.create(ctx)
		var se *sandbox.Error
		if errors.As(err, &se) && se.Class == sandbox.ClassInfrastructure {
			return retry.RetryableError(err)
		}
		return err
	})
	return sb, err
}

func (h *Host) create(ctx context.Context) (sandbox.Sandbox, error) {
	id := fmt.Sprintf("%s-%d", h.cfg.RunID, h.number.Add(1))
	dir := filepath.Join(h.cfg.Dir, "sandboxes", id)
	// An earlier process of this run may have left a tree under the same number.
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("clear the sandbox's directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the sandbox's directory: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, createTimeout, errors.New("creating the sandbox took longer than 30s"))
	defer cancel()
	trust, err := h.trust()
	if err != nil {
		return nil, err
	}
	sb, err := h.cfg.Driver.Create(ctx, sandbox.Spec{ID: id, Dir: dir, Limits: limits(h.cfg.Workflow.Sandbox.Limits), Network: h.network, Trust: trust, Catch: h.catch(), Mounts: h.cfg.Mounts})
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := h.watch(sb); err != nil {
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
// a new sandbox. The source is stored as a checkpoint of its own (the frozen
// workspace.from), once in a run's life.
func (h *Host) fill(ctx context.Context, sb sandbox.Sandbox, emit func(engine.Body)) error {
	from := h.last
	if from == "" {
		from = h.base
	}
	if from != "" {
		m, err := h.cfg.Checkpoints.Manifest(ctx, from)
		if err != nil {
			return fmt.Errorf("read checkpoint %s: %w", from, err)
		}
		if err := sb.Restore(ctx, h.cfg.Checkpoints, m); err != nil {
			return fmt.Errorf("restore checkpoint %s: %w", from, err)
		}
		return nil
	}
	if err := h.importSource(ctx, sb); err != nil {
		return err
	}
	if err := makeStepDir(sb); err != nil {
		return err
	}
	snap, err := sb.Snapshot(ctx, h.cfg.Checkpoints)
	if err != nil {
		return fmt.Errorf("store the source tree: %w", err)
	}
	id, err := h.cfg.Checkpoints.StageCheckpoint(ctx, h.cfg.RunID, snap, "")
	if err != nil {
		return fmt.Errorf("store the source tree: %w", err)
	}
	h.base, h.last, h.covered = id, id, id
	emit(engine.WorkspaceImported{Checkpoint: id, Files: len(snap.Manifest.Entries)})
	return nil
}

func (h *Host) importSource(ctx context.Context, sb sandbox.Sandbox) error {
	if h.cfg.Source == "" {
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
	_, err = checkpoint.Import(ctx, h.cfg.Source, dst, checkpoint.ImportOptions{Exclude: h.cfg.Workflow.Workspace.Exclude, Owner: owner})
	if err != nil {
		return fmt.Errorf("bring in workspace.from: %w", err)
	}
	return nil
}

// Checkpoint stores the home tree; see engine.Runner.
func (h *Host) Checkpoint(ctx context.Context, steps []string) (string, []engine.FileChange, int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(steps) == 1 {
		if f := h.forks[steps[0]]; f != nil && f.unmerged {
			return h.merge(ctx, steps[0], f)
		}
	}
	if h.living == nil || h.stale {
		return "", nil, 0, nil // nothing has changed since the last one
	}
	snap, err := h.living.Snapshot(ctx, h.cfg.Checkpoints)
	if err != nil {
		return "", nil, 0, fmt.Errorf("store the workspace: %w", h.cfg.Redact.Error(err))
	}
	id, err := h.cfg.Checkpoints.StageCheckpoint(ctx, h.cfg.RunID, snap, h.last)
	if err != nil {
		return "", nil, 0, fmt.Errorf("store the workspace: %w", h.cfg.Redact.Error(err))
	}
	changed, count := h.changes(h.sinceCovered(ctx, snap))
	h.last, h.covered = id, id
	h.storeResult(ctx, steps, snap.Manifest)
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

// enter and leave count the attempts that are using the sandbox.
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

// Close ends the sandbox and removes its directory.
func (h *Host) Close(ctx context.Context) []engine.Body {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []engine.Body
	h.dropForks(ctx)
	h.dropLocked(func(b engine.Body) { out = append(out, b) })
	h.closeProxy()
	_ = os.Remove(filepath.Join(h.cfg.Dir, "sandboxes")) // empty, unless something could not be removed: swept later
	return out
}

func (h *Host) dropLocked(emit func(engine.Body)) {
	if h.living == nil {
		return
	}
	id := h.living.Info().ID
	h.closeSandbox(context.Background(), h.living)
	h.living = nil
	emit(engine.SandboxClosed{ID: id})
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
