package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/checkpoint/patch"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/workflow"
)

type applyFlags struct {
	to, at                    string
	dryRun, patch, executable bool
}

func cmdApply(a *app) *cobra.Command {
	f := &applyFlags{}
	c := &cobra.Command{
		Use: "apply [RUN]", Short: "Bring a run's result into the working tree",
		Long: "Brings what the run changed back into the tree that it started from (workspace.from).\n" +
			"Each path is compared three-way: what changed on both sides is a conflict, and then\n" +
			"nothing is written. All or nothing: after a kill in the middle the next apply undoes\n" +
			"the half first. Never written: .git/, .flow/, links that lead outside; what a host\n" +
			"executes by itself (.envrc, .github/workflows/, hooks, .vscode/, .claude/) only with\n" +
			"--apply-executable." + exitHelp(0, 2, 3) + "\n    1  conflicts; nothing was changed",
		Example: "  flow apply\n  flow apply k7m2 --dry-run\n  flow apply latest --patch | git apply -3",
		Args:    atMost(1, "one run"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.applyRun(cmd.Context(), first(append(args, "latest")...), f)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.to, "to", "", "the tree to change (default: the run's workspace.from)")
	fl.StringVar(&f.at, "at", "", "the result as it was after this step")
	fl.BoolVar(&f.dryRun, "dry-run", false, "say what would change, and the conflicts; change nothing")
	fl.BoolVar(&f.patch, "patch", false, "write a git patch of what may be brought back, change nothing")
	fl.BoolVar(&f.executable, "apply-executable", false, "bring back what a host executes by itself, too")
	return c
}

func (a *app) applyRun(ctx context.Context, word string, f *applyFlags) error {
	store, id, err := a.found(ctx, word)
	if err != nil {
		return err
	}
	defer store.Close()
	r, err := a.resultOf(ctx, store, id, f.at)
	if err != nil {
		return err
	}
	if f.executable {
		r.options.AllowExecutable = []string{"*"}
	}
	if f.patch {
		return a.resultPatch(ctx, store, r)
	}
	dst := f.to
	if dst == "" {
		if r.from == "" {
			return &usageError{msg: fmt.Sprintf("run %s started from an empty workspace: there is no tree to bring its result into", id),
				hint: "name one with --to DIR, or use `flow export " + id + " DIR`"}
		}
		dst = r.from
	}
	r.options.DryRun = f.dryRun
	rep, err := a.bringBack(ctx, store, r, dst)
	if err != nil {
		return err
	}
	return a.printApplied(rep, dst, f.dryRun)
}

// result is what a run made of its workspace.
type result struct {
	after, before *checkpoint.Manifest
	from          string // absolute path of workspace.from, "" for none
	options       checkpoint.ApplyOptions
}

func (a *app) resultOf(ctx context.Context, store *state.Store, id, step string) (*result, error) {
	w, root, err := a.frozenDefinition(ctx, store, id)
	if err != nil {
		return nil, err
	}
	if err := inPlace(w); err != nil {
		return nil, err
	}
	line, err := store.Timeline(ctx, id)
	if err != nil {
		return nil, err
	}
	at := line.Newest
	if step != "" {
		p, err := line.At(step)
		if err != nil {
			return nil, stepHint(err)
		}
		at = p.After
	}
	r := &result{options: checkpoint.ApplyOptions{Exclude: w.Workspace.Exclude, Journal: filepath.Join(store.Dir(), "apply")}}
	if w.Workspace.From != "" {
		r.from = filepath.Join(root, w.Workspace.From)
	}
	if r.before, err = treeAt(ctx, store, line.Base, sourceInHome(w)); err == nil {
		r.after, err = treeAt(ctx, store, at, sourceInHome(w))
	}
	return r, err
}

// frozenDefinition is the definition that a run follows, and the project's root.
func (a *app) frozenDefinition(ctx context.Context, store *state.Store, id string) (*workflow.Workflow, string, error) {
	past, err := replay(ctx, store, id)
	if err != nil {
		return nil, "", err
	}
	return past.run.Plan().Workflow, past.root, nil
}

func (a *app) bringBack(ctx context.Context, store *state.Store, r *result, dst string) (checkpoint.ApplyReport, error) {
	rep, err := checkpoint.Apply(ctx, r.after, r.before, store, dst, r.options)
	if rep.Recovered != checkpoint.RecoveredNothing {
		fmt.Fprintf(a.err, "flow: an earlier apply to %s had been interrupted; it was %s\n", dst, rep.Recovered)
	}
	if conflict := (*checkpoint.ConflictError)(nil); errors.As(err, &conflict) {
		return rep, hinted{err, "nothing was changed; bring yours and the run's together with `flow apply --patch | git apply -3`, or look with `flow diff`"}
	}
	return rep, err
}

func (a *app) printApplied(rep checkpoint.ApplyReport, dst string, dry bool) error {
	if a.json {
		return report.WriteJSON(a.out, map[string]any{"tree": dst, "dry_run": dry, "written": orEmpty(rep.Written), "deleted": orEmpty(rep.Deleted),
			"already": orEmpty(rep.Already), "left_out": orEmpty(rep.LeftOut), "kept": orEmpty(rep.Kept)})
	}
	verb := ""
	if dry {
		verb = "would be "
	}
	for _, p := range rep.Written {
		fmt.Fprintf(a.out, "%swritten  %s\n", verb, quoted(p))
	}
	for _, p := range rep.Deleted {
		fmt.Fprintf(a.out, "%sdeleted  %s\n", verb, quoted(p))
	}
	a.printLeftOut("not applied", rep.LeftOut)
	for _, p := range rep.Kept {
		fmt.Fprintf(a.err, "flow: kept: %s: it holds files that the run never saw\n", quoted(p))
	}
	_, err := fmt.Fprintf(a.out, "%d written, %d deleted, %d were so already, %d left out\n", len(rep.Written), len(rep.Deleted), len(rep.Already), len(rep.LeftOut))
	return err
}

func (a *app) printLeftOut(what string, list []checkpoint.LeftOut) {
	for _, l := range list {
		fmt.Fprintf(a.err, "flow: %s: %s: %s\n", what, quoted(l.Path), l.Reason)
	}
}

// quoted leaves a plain name as it is and quotes what could act on a terminal.
func quoted(path string) string {
	if q := fmt.Sprintf("%q", path); q != `"`+path+`"` {
		return q
	}
	return path
}

// resultPatch writes what may be brought back as a patch.
func (a *app) resultPatch(ctx context.Context, store *state.Store, r *result) error {
	left, err := checkpoint.Refused(r.after, r.before, r.options)
	if err != nil {
		return err
	}
	gone := map[string]bool{}
	for _, l := range left {
		gone[l.Path] = true
	}
	files, notes := patch.Files(r.before, r.after)
	kept := files[:0]
	for _, f := range files {
		if !gone[f.Path] {
			kept = append(kept, f)
		}
	}
	if err := patch.Write(ctx, a.out, store, kept); err != nil {
		return err
	}
	for _, n := range notes {
		fmt.Fprintf(a.err, "flow: not in the patch: %s: %s\n", quoted(n.Path), n.Text)
	}
	a.printLeftOut("not in the patch", left)
	return nil
}

// applyAfterRun brings the result back where the file or the call asks for it.
func (s *session) applyAfterRun(ctx context.Context, status engine.RunStatus) error {
	w := s.plan.Workflow
	word := first(s.options.Apply, w.Workspace.Apply)
	if w.Workspace.From == "" || w.Workspace.InPlace || word == "" || word == "never" || word == "on_success" && status != engine.RunSucceeded {
		return nil
	}
	r, err := s.a.resultOf(ctx, s.store, s.run.ID, "")
	if err != nil {
		return fmt.Errorf("apply the result: %w", err)
	}
	rep, err := s.a.bringBack(ctx, s.store, r, r.from)
	if err != nil {
		return fmt.Errorf("apply the result: %w", err)
	}
	s.a.printLeftOut("not applied", rep.LeftOut)
	return nil
}
