package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/state"
)

// shells is the table of shells that there is a completion script for.
var shells = map[string]func(root *cobra.Command, a *app) error{
	"bash": func(root *cobra.Command, a *app) error { return root.GenBashCompletionV2(a.out, true) },
	"zsh":  func(root *cobra.Command, a *app) error { return root.GenZshCompletion(a.out) },
	"fish": func(root *cobra.Command, a *app) error { return root.GenFishCompletion(a.out, true) },
}

func cmdCompletion(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish", Short: "Print a completion script for a shell",
		Long: "Prints a script that completes commands, flags, files, runs and steps. Put it where\n" +
			"the shell looks for it, or source it." + exitHelp(0, 2),
		Example: "  source <(flow completion bash)\n  flow completion zsh > \"${fpath[1]}/_flow\"\n  flow completion fish > ~/.config/fish/completions/flow.fish",
		Args:    exactly(1, "one of bash, zsh, fish"), ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			write, ok := shells[args[0]]
			if !ok {
				return &usageError{msg: fmt.Sprintf("there is no completion for %q", args[0]), hint: "one of bash, zsh, fish"}
			}
			return write(cmd.Root(), a)
		},
	}
}

// completeWorkflow completes the name of a workflow file.
func completeWorkflow(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}

// completeRun completes a run, and after it one of its steps where the command
// takes one. Errors complete nothing: a shell has no place for them.
func (a *app) completeRun(step bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		const none = cobra.ShellCompDirectiveNoFileComp
		store, err := a.readState()
		if err != nil || store == nil || len(args) > 1 || len(args) == 1 && !step {
			return nil, none
		}
		defer store.Close()
		var out []string
		if len(args) == 1 {
			id, err := store.Resolve(cmd.Context(), args[0])
			if err != nil {
				return nil, none
			}
			infos, err := store.Steps(cmd.Context(), id)
			if err != nil {
				return nil, none
			}
			for _, i := range infos {
				out = append(out, cobra.CompletionWithDesc(i.Step, string(i.Status)))
			}
			return out, none
		}
		infos, err := store.Runs(cmd.Context(), state.Filter{Limit: 50})
		if err != nil {
			return nil, none
		}
		for _, i := range infos {
			out = append(out, cobra.CompletionWithDesc(i.ID, i.Workflow+", "+string(i.Status)))
		}
		return append(out, cobra.CompletionWithDesc("latest", "the newest run"), cobra.CompletionWithDesc("latest-failed", "the newest that failed")), none
	}
}

// completeWith gives the table of commands what completes their arguments and
// flags.
func (a *app) completeWith(root *cobra.Command) {
	runs := map[string]bool{ // does it take a step after the run?
		"resume": false, "show": true, "logs": true, "diff": true, "apply": false, "export": false, "fork": false, "shell": false, "pin": false,
	}
	words := map[string][]string{
		"driver": {"auto", "local", "host"}, "output": {"tui", "plain", "json"}, "apply": {"never", "on_success", "always"},
	}
	for _, c := range root.Commands() {
		if step, ok := runs[c.Name()]; ok {
			c.ValidArgsFunction = a.completeRun(step)
		}
		switch c.Name() {
		case "approve", "reject":
			c.ValidArgsFunction = a.completeQuestion
		case "run", "validate", "plan", "graph":
			c.ValidArgsFunction = completeWorkflow
		}
		for name, list := range words {
			if f := c.Flags().Lookup(name); f != nil && f.Value.Type() == "string" {
				_ = c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
			}
		}
	}
}
