package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/report"
)

func cmdExport(a *app) *cobra.Command {
	var at string
	var all, artifacts bool
	c := &cobra.Command{
		Use: "export RUN DIR", Short: "Write a run's workspace into a new directory",
		Long: "Writes the workspace as the run left it, or as it was after a step, into a new (or\n" +
			"empty) directory. It appears whole and verified, or not at all. Left out, as by\n" +
			"`flow apply`: .git/, .flow/, .env files, links that lead outside and what a host executes by\n" +
			"itself; --all takes them too. Setuid bits, sockets and fifos never come.\n\n" +
			"With --artifacts the files that `artifacts` named: those of steps in steps/STEP/, those\n" +
			"of the run in run/; with --at, those of that step alone." + exitHelp(0, 2, 3),
		Example: "  flow export latest out\n  flow export k7m2 out --at build\n  flow export latest dist --artifacts", Args: exactly(2, "a run and a directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if artifacts {
				return a.exportArtifacts(cmd.Context(), args[0], args[1], at)
			}
			return a.export(cmd.Context(), args[0], args[1], at, all)
		},
	}
	c.Flags().StringVar(&at, "at", "", "as it was after this step")
	c.Flags().BoolVar(&all, "all", false, "everything, as the steps left it: mind what your tools execute by themselves in there")
	c.Flags().BoolVar(&artifacts, "artifacts", false, "the run's artifacts instead of its workspace")
	return c
}

func (a *app) export(ctx context.Context, word, dir, step string, all bool) error {
	store, id, err := a.found(ctx, word)
	if err != nil {
		return err
	}
	defer store.Close()
	line, err := store.Timeline(ctx, id)
	if err != nil {
		return err
	}
	at := line.Newest
	if step != "" {
		p, err := line.At(step)
		if err != nil {
			return stepHint(err)
		}
		at = p.After
	}
	if at == "" {
		return &usageError{msg: fmt.Sprintf("run %s has no workspace to export: no sandbox was ever made", id)}
	}
	m, err := workspaceAt(ctx, store, at)
	if err != nil {
		return err
	}
	rep, err := checkpoint.Export(ctx, m, store, dir, all)
	if err != nil {
		return err
	}
	if a.json {
		return report.WriteJSON(a.out, map[string]any{"directory": dir, "files": rep.Files, "directories": rep.Dirs, "bytes": rep.Bytes, "left_out": orEmpty(rep.LeftOut)})
	}
	a.printLeftOut("not exported", rep.LeftOut)
	_, err = fmt.Fprintf(a.out, "%s: %d files, %d directories, %d bytes\n", dir, rep.Files, rep.Dirs, rep.Bytes)
	return err
}
