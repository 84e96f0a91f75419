package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/report"
)

func cmdState(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "state", Short: "Carry a run to another machine as one file",
		Long: "A run with all that a resume needs, as one file. It holds the workspace and the\n" +
			"conversations as they were, unredacted: treat it like the workspace itself." + exitHelp(0, 2, 3),
		Example: "  flow state export latest-failed run.flowrun\n  flow state import run.flowrun",
		Args:    noCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(&cobra.Command{
		Use: "export RUN FILE", Short: "Write a run into a new file", Long: "Writes a run with all that a resume needs into a new file." + exitHelp(0, 2, 3),
		Example: "  flow state export latest-failed run.flowrun", Args: exactly(2, "a run and a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, id, err := a.found(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer store.Close()
			if err := store.ExportRun(cmd.Context(), id, args[1]); err != nil {
				return err
			}
			if a.json {
				return report.WriteJSON(a.out, map[string]any{"run": id, "file": args[1]})
			}
			_, err = fmt.Fprintf(a.out, "run %s is in %s: it holds the workspace as it was, unredacted\n", id, args[1])
			return err
		},
	}, &cobra.Command{
		Use: "import FILE", Short: "Bring a run in from a file", Long: "Brings an exported run in. What it defines is run by a resume: look at it first." + exitHelp(0, 2, 3),
		Example: "  flow state import run.flowrun", Args: exactly(1, "a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, _, err := a.openState(cmd.Context())
			if err != nil {
				return err
			}
			defer store.Close()
			id, err := store.ImportRun(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if a.json {
				return report.WriteJSON(a.out, map[string]any{"run": id})
			}
			_, err = fmt.Fprintf(a.out, "run %s is here; look at it with `flow show %s` before you resume it\n", id, id)
			return err
		},
	})
	return c
}
