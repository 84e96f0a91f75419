package main

import (
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/egress"
	"flowrun.dev/flow/redact"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/state"
)

// app is what every command shares: the streams, the environment, and the
// persistent flags.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string
	environ  func() []string

	// How steps with a list of hosts reach the network; set by tests only.
	reach egress.Reach
	roots *x509.CertPool

	stateDir string
	json     bool
	secrets  *redact.Set // set once the secrets of a run are known
}

// root builds the tree of commands. The order is the order of the help.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "flow",
		Short: "Run AI coding agents and shell steps as one declarative pipeline",
		Long: "flow runs AI coding agents and shell steps as one declarative pipeline:\n" +
			"a YAML file lists the steps, one reused sandbox runs them, SQLite records\n" +
			"them, and what failed can be resumed." + exitHelp(0, 1, 2, 3, 4, 5, 6, 7, 130, 143),
		Example:       "  flow run examples/workflows/quickstart.yaml\n  flow resume\n  flow show latest",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{msg: err.Error(), hint: "see `" + cmd.CommandPath() + " --help`"}
	})
	f := root.PersistentFlags()
	f.StringVar(&a.stateDir, "state", "", "state directory (default: .flow, found upwards; env FLOW_STATE)")
	f.BoolVar(&a.json, "json", false, "print data as JSON")
	for _, c := range commands {
		root.AddCommand(c(a))
	}
	root.CompletionOptions.DisableDefaultCmd = true // ours has examples and exit codes
	a.completeWith(root)
	return root
}

// commands is the table of commands, in the order of the help.
var commands = []func(*app) *cobra.Command{
	cmdInit, cmdRun, cmdResume, cmdValidate, cmdPlan, cmdGraph, cmdTest,
	cmdRuns, cmdShow, cmdLogs, cmdApprove, cmdReject, cmdCancel,
	cmdDiff, cmdApply, cmdExport, cmdFork, cmdShell,
	cmdDoctor,
	cmdCache, cmdGC, cmdPin, cmdState,
	cmdSchema,
	cmdCompletion,
	cmdVersion,
}

// noCommand gives a misspelt command the exit code of a wrong call.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see `flow --help`"
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		hint = "did you mean `flow " + s[0] + "`?"
	}
	return &usageError{msg: fmt.Sprintf("unknown command %q", args[0]), hint: hint}
}

// exactly and atMost are cobra's argument checks with our exit code.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return &usageError{msg: fmt.Sprintf("%s takes %s, got %d arguments", cmd.CommandPath(), what, len(args)),
			hint: "usage: " + cmd.UseLine()}
	}
}

func atMost(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= n {
			return nil
		}
		return &usageError{msg: fmt.Sprintf("%s takes at most %s, got %d arguments", cmd.CommandPath(), what, len(args)),
			hint: "usage: " + cmd.UseLine()}
	}
}

// redact takes the secrets out of a text, once they are known.
func (a *app) redact(s string) string {
	if a.secrets == nil {
		return s
	}
	return a.secrets.String(s)
}

// stateDirFor finds the state directory: the flag, FLOW_STATE, upwards from the
// working directory, else .flow in the working directory.
func (a *app) stateDirFor() (string, error) {
	for _, dir := range []string{a.stateDir, a.env("FLOW_STATE")} {
		if dir != "" {
			return filepath.Abs(dir)
		}
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the working directory: %w", err)
	}
	dir, err := state.Find(wd)
	if err != nil {
		return "", err
	}
	if dir == "" {
		dir = filepath.Join(wd, ".flow")
	}
	return dir, nil
}

// project is the root that workspace.from and stored paths are relative to: the
// folder that holds .flow; with a state directory of another name, the working
// directory.
func project(stateDir string) (string, error) {
	if filepath.Base(stateDir) == ".flow" {
		return filepath.Dir(stateDir), nil
	}
	return os.Getwd()
}

// terminal says whether standard output is one.
func (a *app) terminal() bool {
	f, ok := a.out.(*os.File)
	return ok && report.LookTerminal(f, a.env).Is
}

// style of what is printed: the terminal's, else wide enough for a log.
func (a *app) style() report.Style {
	f, ok := a.out.(*os.File)
	if !ok {
		return report.Style{Width: 120}
	}
	t := report.LookTerminal(f, a.env)
	if !t.Is || t.Width <= 0 {
		t.Width = 120
	}
	return report.Style{Width: t.Width, Color: t.Color, ASCII: t.ASCII}
}
