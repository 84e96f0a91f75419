package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/workflow"
)

func cmdValidate(a *app) *cobra.Command {
	format := "text"
	c := &cobra.Command{
		Use: "validate FILE...", Short: "Report every mistake of the files",
		Long:    "Reports every mistake of the files at once, and what the static checks of\ndocs/rules.md find. The verdict is the same on every machine; warnings do not\nchange it." + exitHelp(0, 2),
		Example: "  flow validate ci.yaml\n  flow validate --format sarif *.yaml > flow.sarif",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{msg: "flow validate takes at least one file", hint: "usage: " + cmd.UseLine()}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if a.json {
				format = "json"
			}
			return a.validate(args, format)
		},
	}
	c.Flags().StringVar(&format, "format", format, "text, json, github (annotations of GitHub Actions) or sarif (2.1.0)")
	return c
}

// validate prints text as it goes, and the other formats at the end.
func (a *app) validate(files []string, format string) error {
	if !slices.Contains([]string{"text", "json", "github", "sarif"}, format) {
		return &usageError{msg: fmt.Sprintf("there is no format %q", format), hint: "formats are text, json, github and sarif"}
	}
	var last error
	var checked []report.Checked
	// A file of 10,000 steps is half garbage while it is read: less of it is kept
	// for 20 ms more.
	debug.SetGCPercent(20)
	for _, f := range files {
		c := report.Checked{File: f, Diagnostics: []workflow.Diagnostic{}}
		w, err := workflow.Load(f)
		var bad *workflow.Diagnostics
		switch {
		case errors.As(err, &bad):
			last = printed{bad}
			c.Diagnostics = bad.List
			if format == "text" {
				if err := bad.Render(a.err, false); err != nil {
					return err
				}
			}
		case err != nil:
			last = printed{&usageError{msg: err.Error()}}
			c.Diagnostics = append(c.Diagnostics, workflow.Diagnostic{Severity: workflow.SeverityError, Rule: "file", Pos: workflow.Pos{File: f, Line: 1, Col: 1}, Message: err.Error()})
			fmt.Fprintf(a.err, "flow: %v\n", err)
		default:
			c.Steps = len(w.Steps) + len(w.Finally)
			c.Diagnostics = append(c.Diagnostics, w.Warnings...)
			if format == "text" {
				if err := workflow.Render(a.err, w.Warnings, w.Text, false); err != nil {
					return err
				}
				fmt.Fprintf(a.out, "%s: ok, %d steps%s\n", f, c.Steps, warningWords(len(w.Warnings)))
			}
		}
		checked = append(checked, c)
	}
	var err error
	switch format {
	case "json":
		code := codeOf(last)
		err = report.WriteJSON(a.out, map[string]any{"exit_code": code, "class": classOf(code), "files": checked})
	case "github":
		err = report.GitHub(a.out, checked)
	case "sarif":
		err = report.SARIF(a.out, version, checked)
	}
	if err != nil {
		return err
	}
	return last
}

func warningWords(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return ", 1 warning"
	}
	return fmt.Sprintf(", %d warnings", n)
}

func cmdSchema(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of workflow files", Long: "Prints the JSON Schema of workflow files, for editors: every key with its\nmeaning, default and example." + exitHelp(0),
		Example: "  flow schema > schema.json", Args: exactly(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			_, err := a.out.Write(workflow.Schema())
			return err
		},
	}
}

func cmdPlan(a *app) *cobra.Command {
	var pairs []string
	file := ""
	c := &cobra.Command{
		Use: "plan FILE", Short: "Say what would run",
		Long:    "Says what would run, be skipped, come from the cache or wait, in which order, under\nwhich conditions and with which rights. With inputs it says which conditions hold." + exitHelp(0, 2),
		Example: "  flow plan ci.yaml\n  flow plan ci.yaml -i mode=full", Args: exactly(1, "one workflow file"),
		RunE: func(_ *cobra.Command, args []string) error {
			plan, err := a.load(args[0])
			if err != nil {
				return err
			}
			given, err := givenInputs(file, pairs)
			if err != nil {
				return err
			}
			inputs, err := workflow.ResolveInputs(plan.Workflow, given)
			if err != nil && len(given) > 0 {
				return &usageError{msg: err.Error()}
			}
			if err != nil {
				inputs = nil // a required one is not given: nothing is said of conditions with inputs
			}
			return a.printPlan(plan, inputs)
		},
	}
	c.Flags().StringArrayVarP(&pairs, "input", "i", nil, "an input as name=value; repeatable")
	c.Flags().StringVar(&file, "inputs", "", "inputs as YAML or JSON; -i wins")
	return c
}

func (a *app) printPlan(plan *workflow.Plan, inputs map[string]any) error {
	v := report.PlanOf(plan)
	v.Judge(inputs)
	for i := range v.Steps {
		if s := v.Steps[i].Step.Agent; s != nil {
			words, err := agent.RightsText(s.AllowedTools, s.DisallowedTools)
			if err != nil {
				return &usageError{msg: fmt.Sprintf("%s:%d: step %s: %v", v.Steps[i].Step.Pos.File, s.Pos.Line, v.Steps[i].ID, err)}
			}
			v.Steps[i].Rights = words
		}
	}
	if a.json {
		return report.WriteJSON(a.out, v)
	}
	return report.PlanText(a.out, v, a.style())
}

func cmdVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Long: "Prints the version." + exitHelp(0), Example: "  flow version", Args: exactly(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return report.WriteJSON(a.out, map[string]string{"version": version})
			}
			fmt.Fprintln(a.out, "flow", version)
			return nil
		},
	}
}

// unhealthyError says that something that flow needs does not work here.
type unhealthyError struct{ what []string }

func (e *unhealthyError) Error() string { return fmt.Sprintf("not healthy: %v", e.what) }

// check is one row of doctor.
type check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

func cmdDoctor(a *app) *cobra.Command {
	deep := false
	c := &cobra.Command{
		Use: "doctor", Short: "Say what isolation this machine gives, and why", Long: "Really starts a sandbox of each kind and Claude Code's CLI where it is installed, and opens the database." + exitHelp(0, 3),
		Example: "  flow doctor --json\n  flow doctor --deep", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context(), deep) },
	}
	c.Flags().BoolVar(&deep, "deep", false, "read and check everything that is stored: contents by their hash, checkpoints, the database")
	return c
}

func (a *app) doctor(ctx context.Context, deep bool) error {
	checks := []check{}
	for _, d := range a.drivers() {
		c := check{Name: "sandbox " + d.Name()}
		caps, err := d.Probe(ctx)
		c.OK = err == nil
		c.Text = fmt.Sprintf("tier %s", caps.Tier)
		if caps.Reason != "" {
			c.Text += ": " + caps.Reason
		}
		if len(caps.Limits) > 0 {
			c.Text += "; can limit " + strings.Join(caps.Limits, ", ")
		}
		if caps.Overlay {
			c.Text += "; shows a large workspace.from without a copy, where its file system allows"
		}
		c.Hint = caps.Lift
		if err != nil {
			c.Text = err.Error()
			var se *sandbox.Error
			if errors.As(err, &se) {
				c.Hint = se.Hint
			}
		}
		checks = append(checks, c)
	}
	checks = append(checks, a.checkState(ctx), a.checkClaude(ctx))
	if deep {
		checks = append(checks, a.checkStored(ctx))
	}
	bad := []string{}
	for _, c := range checks {
		if !c.OK {
			bad = append(bad, c.Name)
		}
	}
	if a.json {
		if err := report.WriteJSON(a.out, map[string]any{"checks": checks, "healthy": len(bad) == 0}); err != nil {
			return err
		}
	} else {
		for _, c := range checks {
			word := "ok  "
			if !c.OK {
				word = "FAIL"
			}
			fmt.Fprintf(a.out, "%s  %-15s %s\n", word, c.Name, c.Text)
			if c.Hint != "" {
				fmt.Fprintf(a.out, "      %s\n", c.Hint)
			}
		}
	}
	if len(bad) > 0 {
		return printed{&unhealthyError{bad}}
	}
	return nil
}

// checkStored reads all that is stored.
func (a *app) checkStored(ctx context.Context) check {
	c := check{Name: "stored", OK: true, Text: "nothing is stored yet"}
	store, err := a.readState()
	if err != nil {
		return check{Name: "stored", Text: err.Error(), Hint: state.Hint(err)}
	}
	if store == nil {
		return c
	}
	defer store.Close()
	wrong, err := store.Verify(ctx)
	if err != nil {
		wrong = append(wrong, err.Error())
	}
	c.Text = "everything that is stored could be read and has its hash"
	if len(wrong) > 0 {
		c.OK, c.Text = false, strings.Join(wrong, "\n      ")
		c.Hint = "restore .flow from a backup, or remove the runs that are damaged: `flow gc --keep 0` removes all that are not pinned"
	}
	return c
}

func (a *app) checkState(ctx context.Context) check {
	c := check{Name: "database", OK: true, Text: "no state directory yet"}
	store, err := a.readState()
	if err == nil && store != nil {
		defer store.Close()
		c.Text = store.Dir()
		err = store.CheckIntegrity(ctx)
	}
	if err != nil {
		c.OK, c.Text, c.Hint = false, err.Error(), state.Hint(err)
	}
	return c
}
