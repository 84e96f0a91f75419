package main

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/checkpoint/patch"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/workflow"
)

// workspaceInHome is the workspace's name in a checkpoint, which holds the home.
var workspaceInHome = path.Base(sandbox.WorkspaceDir)

type diffFlags struct {
	stat  bool
	color string
}

func cmdDiff(a *app) *cobra.Command {
	f := &diffFlags{}
	c := &cobra.Command{
		Use: "diff [RUN] [STEP]", Short: "Show what a run, or one of its steps, changed",
		Long: "Writes what the run changed in the workspace since it was imported, or with STEP\n" +
			"what that step changed, as a patch that `git apply` takes: binary files, modes\n" +
			"and links included. What no patch can say (empty directories, other modes) is\n" +
			"named on standard error. RUN is an id, a prefix of one, latest or latest-failed." + exitHelp(0, 2, 3),
		Example: "  flow diff\n  flow diff latest implement --stat\n  flow diff k7m2 | git apply",
		Args:    atMost(2, "a run and a step"),
		RunE: func(cmd *cobra.Command, args []string) error {
			step := ""
			if len(args) == 2 {
				step = args[1]
			}
			return a.diff(cmd.Context(), first(append(args, "latest")...), step, f)
		},
	}
	c.Flags().BoolVar(&f.stat, "stat", false, "how many lines of which files, instead of the patch")
	c.Flags().StringVar(&f.color, "color", "auto", "auto (on a terminal), always or never")
	return c
}

func (a *app) diff(ctx context.Context, word, step string, f *diffFlags) error {
	if !contains([]string{"auto", "always", "never"}, f.color) {
		return &usageError{msg: fmt.Sprintf("--color takes one of auto, always, never, got %q", f.color)}
	}
	store, id, err := a.found(ctx, word)
	if err != nil {
		return err
	}
	defer store.Close()
	line, err := store.Timeline(ctx, id)
	if err != nil {
		return err
	}
	from, to := line.Base, line.Newest
	if step != "" {
		p, err := line.At(step)
		if err != nil {
			return stepHint(err)
		}
		from, to = p.Before, p.After
	}
	before, err := workspaceAt(ctx, store, from)
	if err != nil {
		return err
	}
	after, err := workspaceAt(ctx, store, to)
	if err != nil {
		return err
	}
	files, notes := patch.Files(before, after)
	if f.stat || a.json {
		stats, err := patch.Stats(ctx, store, files)
		if err != nil {
			return err
		}
		if a.json {
			return report.WriteJSON(a.out, map[string]any{"run": id, "step": step, "files": orEmpty(stats), "notes": orEmpty(notes)})
		}
		if err := report.DiffStat(a.out, stats2rows(stats), a.diffStyle(f)); err != nil {
			return err
		}
	} else if err := a.printPatch(ctx, store, files, f); err != nil {
		return err
	}
	for _, n := range notes {
		fmt.Fprintf(a.err, "flow: not in the patch: %q: %s\n", n.Path, n.Text)
	}
	return nil
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func stats2rows(stats []patch.Stat) []report.DiffRow {
	rows := make([]report.DiffRow, 0, len(stats))
	for _, s := range stats {
		r := report.DiffRow{Path: s.Path, Op: s.Op, Binary: s.Binary, Added: s.Added, Deleted: s.Deleted, OldSize: s.OldSize, NewSize: s.NewSize}
		if s.Op == "modified" && s.OldMode != s.NewMode {
			r.Mode = s.OldMode + " → " + s.NewMode
		}
		rows = append(rows, r)
	}
	return rows
}

func (a *app) diffStyle(f *diffFlags) report.Style {
	st := a.style()
	switch f.color {
	case "always":
		st.Color = true
	case "never":
		st.Color = false
	}
	return st
}

// printPatch writes the patch as it is, or for a terminal coloured and made safe
// to look at: the contents are a step's words.
func (a *app) printPatch(ctx context.Context, store *state.Store, files []patch.File, f *diffFlags) error {
	if f.color == "never" || f.color == "auto" && !a.terminal() {
		return patch.Write(ctx, a.out, store, files)
	}
	w := report.NewPatchWriter(a.out, a.diffStyle(f))
	if err := patch.Write(ctx, w, store, files); err != nil {
		return err
	}
	return w.Flush()
}

// workspaceAt is the workspace of a checkpoint, empty for none.
func workspaceAt(ctx context.Context, store *state.Store, id string) (*checkpoint.Manifest, error) {
	return treeAt(ctx, store, id, workspaceInHome)
}

// sourceInHome is where workspace.from lies in a checkpoint.
func sourceInHome(w *workflow.Workflow) string { return path.Join(workspaceInHome, w.Workspace.Path) }

// inPlace refuses what needs a run's files, where it has none of its own.
func inPlace(w *workflow.Workflow) error {
	if !w.Workspace.InPlace {
		return nil
	}
	return errInPlace()
}

func errInPlace() error {
	return &usageError{msg: "the run worked in place (workspace.in_place): flow has no copy of its files",
		hint: "they are in workspace.from, as the steps left them"}
}

// treeAt is what lies below a path of a checkpoint, empty for none.
func treeAt(ctx context.Context, store *state.Store, id, below string) (*checkpoint.Manifest, error) {
	if id == "" {
		return &checkpoint.Manifest{}, nil
	}
	m, err := store.Manifest(ctx, id)
	if err != nil {
		return nil, err
	}
	if e := m.Lookup(workspaceInHome); e != nil && e.Kind == checkpoint.KindSymlink {
		return nil, errInPlace()
	}
	return m.Subtree(below), nil
}

// stepHint tells which steps can be named instead.
func stepHint(err error) error {
	var se *state.StepError
	if !errors.As(err, &se) {
		return err
	}
	if len(se.Have) == 0 {
		return &usageError{msg: se.Error(), hint: "no step of this run has a checkpoint"}
	}
	return &usageError{msg: se.Error(), hint: fmt.Sprintf("steps with a checkpoint: %v", se.Have)}
}
