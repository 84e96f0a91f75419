package steps

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
)

// How a step is held to its rights: by the system, where the driver can (package
// sandbox, Capabilities.PathRights). Where it cannot, or not wholly, the changed files
// are looked at after the attempt, what it may not change is put back as it was, and
// the attempt fails. Such an attempt runs alone, so that the changes are its own.

// boundedBy runs an attempt with rights; run is given those that are enforced. caps are
// the driver's, or less: an agent's provider may do less than the driver could.
func (h *Host) boundedBy(ctx context.Context, sb sandbox.Sandbox, caps sandbox.Capabilities, r sandbox.Rights, run func(enforced sandbox.Rights) engine.Outcome) engine.Outcome {
	if !r.ReadOnly || caps.PathRights && !caps.LooseModes {
		h.checked.RLock()
		defer h.checked.RUnlock()
		return run(r)
	}
	h.checked.Lock()
	defer h.checked.Unlock()
	g := newGuard(sb, h.cfg.Checkpoints)
	if err := g.before(ctx); err != nil {
		return h.placeFailed(ctx, engine.Outcome{}, err)
	}
	enforced := r
	if !caps.PathRights {
		enforced.ReadOnly, enforced.Write = false, nil
	}
	out := run(enforced)
	// On a context of its own: a cancelled attempt is put back too.
	back, err := g.after(context.WithoutCancel(ctx), r)
	if err != nil {
		out = h.placeFailed(ctx, out, err)
		out.Status = engine.StepFailed
		return out
	}
	if len(back) > 0 && out.Status != engine.StepInterrupted {
		out.Status, out.Class = engine.StepFailed, engine.ClassDenied
		out.Error = h.cfg.Redact.String(putBackText(back))
	}
	return out
}

// putBackText names the first few.
func putBackText(paths []string) string {
	const most = 5
	shown, more := paths, ""
	if len(paths) > most {
		shown, more = paths[:most], fmt.Sprintf(" and %d more", len(paths)-most)
	}
	return "the step changed what its access does not allow; put back: " + strings.Join(shown, ", ") + more
}

// guard knows a home tree before and after an attempt.
type guard struct {
	tracker *checkpoint.Tracker
	store   checkpoint.Store
	was     *checkpoint.Manifest
}

// newGuard uses a tracker of its own: the sandbox's counts changes from the run's
// last checkpoint.
func newGuard(sb sandbox.Sandbox, st checkpoint.Store) *guard {
	opts := checkpoint.Options{Exclude: func(p string, _ bool) bool { return p == stepDirName }}
	if owner, err := ownerOf(sb.Home()); err == nil {
		opts.Owner = owner
	}
	return &guard{tracker: checkpoint.NewTracker(sb.Home(), opts), store: st}
}

func (g *guard) snapshot(ctx context.Context) (checkpoint.Snapshot, error) {
	snap, err := g.tracker.Snapshot(ctx, g.store)
	if err == nil && snap.Batch != nil {
		err = snap.Batch.Seal()
	}
	if err != nil {
		return snap, &sandbox.Error{Op: "look at the step's changes", Class: sandbox.ClassInfrastructure, Err: err}
	}
	return snap, nil
}

func (g *guard) before(ctx context.Context) error {
	snap, err := g.snapshot(ctx)
	g.was = snap.Manifest
	return err
}

// after puts back what r does not allow and returns its paths, as people know them.
func (g *guard) after(ctx context.Context, r sandbox.Rights) ([]string, error) {
	snap, err := g.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	wanted, back := Revert(g.was, snap.Manifest, snap.Changes, r)
	if len(back) == 0 {
		return nil, nil
	}
	if err := g.tracker.Restore(ctx, g.store, wanted); err != nil {
		return nil, &sandbox.Error{Op: "put back what the step changed", Class: sandbox.ClassInfrastructure, Err: err}
	}
	return back, nil
}

// Revert is the tree that is left when what r does not allow is undone, and the paths
// that were. was and is are home trees, changes lead from the one to the other.
func Revert(was, is *checkpoint.Manifest, changes []checkpoint.Change, r sandbox.Rights) (*checkpoint.Manifest, []string) {
	undo := map[string]bool{}
	var back []string
	for _, c := range changes {
		if c.DirTimeOnly || mayChange(c, r.Write) {
			continue
		}
		undo[c.Path] = true
		back = append(back, shownPath(c.Path))
	}
	if len(back) == 0 {
		return is, nil
	}
	wanted := &checkpoint.Manifest{}
	for _, e := range is.Entries {
		if !undo[e.Path] && !below(e.Path, undo, was) {
			wanted.Entries = append(wanted.Entries, e)
		}
	}
	for _, e := range was.Entries {
		if undo[e.Path] {
			wanted.Entries = append(wanted.Entries, e)
		}
	}
	slices.SortFunc(wanted.Entries, func(a, b checkpoint.Entry) int { return strings.Compare(a.Path, b.Path) })
	if wanted.Validate() != nil {
		// Links between what goes and what stays: then nothing of it stays.
		return was, back
	}
	return wanted, back
}

// below reports whether a path lies in a directory that goes or becomes a file again.
func below(p string, undo map[string]bool, was *checkpoint.Manifest) bool {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if undo[dir] {
			if e := was.Lookup(dir); e == nil || e.Kind != checkpoint.KindDir {
				return true
			}
		}
	}
	return false
}

// mayChange judges one path of the home tree.
func mayChange(c checkpoint.Change, writable []string) bool {
	for _, w := range writable {
		rest, inHome := strings.CutPrefix(w, "~/")
		rest, folder := strings.CutSuffix(rest, "/")
		if !inHome {
			rest = workspaceInTar + "/" + rest
		}
		switch {
		case c.Path == rest && c.Op == checkpoint.OpModified, folder && strings.HasPrefix(c.Path, rest+"/"),
			folder && c.Op == checkpoint.OpAdded && c.Entry.Kind == checkpoint.KindDir && (c.Path == rest || strings.HasPrefix(rest, c.Path+"/")),
			!folder && strings.HasPrefix(c.Path, rest+"/"):
			return true
		}
	}
	return false
}

// shownPath is a path of the home tree as records show it.
func shownPath(p string) string {
	if name, ok := strings.CutPrefix(p, workspaceInTar+"/"); ok {
		return name
	}
	return "~/" + p
}
