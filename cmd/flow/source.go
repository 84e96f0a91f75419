package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/state"
)

// namedDrift bounds the list of changed files in a report.
const namedDrift = 10

// sourceDrift compares workspace.from with what the run imported. What somebody
// changed by hand since is refused with the list, unless the call accepts it: then
// it is merged three-way into the checkpoint that the run continues from, or the
// conflicts are shown and nothing is changed.
func (a *app) sourceDrift(ctx context.Context, store *state.Store, past *past, root string, f *resumeFlags, resumed *engine.RunResumed) error {
	w, base := past.run.Plan().Workflow, past.base()
	if resumed.Checkpoint != "" {
		base = past.baseOf(resumed.Checkpoint)
	}
	if w.Workspace.From == "" || w.Workspace.InPlace || base == "" || f.keepSource {
		return nil
	}
	at := sourceInHome(w)
	src := filepath.Join(root, w.Workspace.From)
	home, err := store.Manifest(ctx, base)
	if err != nil {
		return err
	}
	was := home.Subtree(at)
	now, err := checkpoint.SourceNow(ctx, src, was, checkpoint.ImportOptions{Exclude: w.Workspace.Exclude})
	if err != nil {
		return fmt.Errorf("compare workspace.from: %w", err)
	}
	from := resumed.Checkpoint
	if from == "" {
		from = base
	}
	tree, err := store.Manifest(ctx, from)
	if err != nil {
		return err
	}
	newest, err := treeAt(ctx, store, past.run.NewestCheckpoint(), at)
	if err != nil {
		return err
	}
	drift := checkpoint.Drifted(was, newest, now)
	if len(drift) == 0 {
		return nil
	}
	if !f.accept {
		return &usageError{msg: fmt.Sprintf("%s changed since run %s started:%s", relative(root, src), past.run.ID, driftList(drift)),
			hint: "`flow resume " + past.run.ID + " --accept-changes` merges this into the run's files; `--keep-source` goes on without it"}
	}
	merged, conflicts, err := checkpoint.Merge(was, tree.Subtree(at), now, nil)
	if err != nil {
		return err
	}
	if len(conflicts) > 0 {
		return hinted{&checkpoint.ConflictError{Conflicts: conflicts}, "the run and somebody in " + relative(root, src) + " changed the same files; `--keep-source` goes on with the run's, `--from STEP` restores an earlier state"}
	}
	batch, err := checkpoint.StoreSource(ctx, src, checkpoint.Diff(was, now), store)
	if err != nil {
		return err
	}
	source := home.WithSubtree(at, now)
	if resumed.Source, err = store.StageCheckpoint(ctx, past.run.ID, checkpoint.Snapshot{Manifest: source, Changes: checkpoint.Diff(home, source), Batch: batch}, base); err != nil {
		return err
	}
	next := tree.WithSubtree(at, merged)
	if resumed.Merged, err = store.StageCheckpoint(ctx, past.run.ID, checkpoint.Snapshot{Manifest: next, Changes: checkpoint.Diff(tree, next)}, from); err != nil {
		return err
	}
	fmt.Fprintf(a.err, "flow: %s changed since the run started; merged into its files:%s\n", relative(root, src), driftList(drift))
	fmt.Fprintln(a.err, "  steps that stay done have seen it as it was; --from STEP runs them again")
	return nil
}

func driftList(cs []checkpoint.Change) string {
	var b strings.Builder
	for i, c := range cs {
		if i == namedDrift {
			fmt.Fprintf(&b, "\n    and %d more", len(cs)-i)
			break
		}
		fmt.Fprintf(&b, "\n    %s %s", c.Op, quoted(c.Path))
	}
	return b.String()
}
