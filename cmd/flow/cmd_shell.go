package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/redact"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/steps"
	"flowrun.dev/flow/workflow"
)

type shellFlags struct{ at, before, envFile, driver string }

func cmdShell(a *app) *cobra.Command {
	f := &shellFlags{}
	c := &cobra.Command{
		Use: "shell RUN [-- COMMAND...]", Short: "Open a shell in a sandbox restored to a point of a run",
		Long: "Makes a sandbox, restores a run's files into it as they were after a step (--at),\n" +
			"before one (--before), or in the end, and opens a shell in it, or runs COMMAND. With\n" +
			"a step named, it has that step's env and rights; its secrets only with --env-file.\n" +
			"What is changed in it is not kept." + exitHelp(0, 1, 2, 3),
		Example: "  flow shell latest\n  flow shell latest-failed --before test\n  flow shell k7m2 --at build -- ls -l",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || cmd.ArgsLenAtDash() > 1 || cmd.ArgsLenAtDash() < 0 && len(args) > 1 {
				return &usageError{msg: "flow shell takes one run, and a command after `--`", hint: "usage: " + cmd.UseLine()}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.shell(cmd.Context(), args[0], args[1:], f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.at, "at", "", "as it was after this step")
	fl.StringVar(&f.before, "before", "", "as it was before this step")
	fl.StringVar(&f.envFile, "env-file", "", "file of NAME=value; the shell then gets the step's secrets")
	fl.StringVar(&f.driver, "driver", "", "auto, local or host; overrides the run's")
	return c
}

func (a *app) shell(ctx context.Context, word string, argv []string, f *shellFlags) error {
	if f.at != "" && f.before != "" {
		return &usageError{msg: "flow shell takes one of --at STEP and --before STEP"}
	}
	store, id, err := a.found(ctx, word)
	if err != nil {
		return err
	}
	defer store.Close()
	past, err := replay(ctx, store, id)
	if err != nil {
		return err
	}
	run, started := past.run, past.started
	w := run.Plan().Workflow
	if err := inPlace(w); err != nil {
		return err
	}
	at, point, err := shellPoint(ctx, store, id, f)
	if err != nil {
		return err
	}
	sh := steps.Shell{Argv: argv}
	if step := first(f.at, f.before); step != "" {
		if sh.Step, sh.Vars, err = a.shellStep(ctx, store, run, step, f.envFile != ""); err != nil {
			return err
		}
		sh.Exports = run.ExportsFor(step)
	}
	secrets, set := map[string]string(nil), (*redact.Set)(nil)
	if f.envFile != "" {
		if secrets, set, err = a.loadSecrets(w, f.envFile, filepath.Dir(w.Path)); err != nil {
			return err
		}
	}
	spec := &w.Sandbox
	if sh.Step != nil {
		spec = w.SandboxOf(sh.Step)
	}
	driver, caps, err := steps.Choose(ctx, first(f.driver, started.Options.Driver, spec.Driver), a.drivers())
	if err != nil {
		return err
	}
	dir, err := shellDir(store)
	if err != nil {
		return err
	}
	defer dir.remove()
	host := steps.NewHost(steps.Config{RunID: id, Workflow: w, Driver: driver, Capabilities: caps, Named: map[string]steps.Place{spec.Name: {Driver: driver, Capabilities: caps}}, Dir: dir.path, FileDir: filepath.Dir(w.Path),
		Checkpoints: store, Logs: logs{store}, Redact: set, Secrets: secrets, Restore: at})
	defer host.Close(ctx)
	fmt.Fprintf(a.err, "flow: run %s, %s, in a sandbox of driver %s (%s); what you change in it is not kept\n", id, point, driver.Name(), caps.Tier)
	return a.runShell(ctx, host, sh, fmt.Sprintf("(flow %s, %s) \\w \\$ ", id, point))
}

// shellPoint is the checkpoint to restore, and what to call it.
func shellPoint(ctx context.Context, store *state.Store, id string, f *shellFlags) (at, point string, err error) {
	line, err := store.Timeline(ctx, id)
	if err != nil {
		return "", "", err
	}
	at, point = line.Newest, "as it is now"
	switch {
	case f.at != "":
		p, err := line.At(f.at)
		if err != nil {
			return "", "", stepHint(err)
		}
		at, point = p.After, "after step "+f.at
	case f.before != "":
		if at, err = line.Before(f.before); err != nil {
			return "", "", stepHint(err)
		}
		point = "before step " + f.before
	}
	if at == "" {
		return "", "", &usageError{msg: fmt.Sprintf("run %s has no files to restore: no sandbox was ever made", id)}
	}
	return at, point, nil
}

// shellStep finds a step's settings with the values that its expressions had.
func (a *app) shellStep(ctx context.Context, store *state.Store, run *engine.Run, id string, secrets bool) (*workflow.Step, workflow.Vars, error) {
	i, ok := run.Plan().ByID[id]
	if !ok {
		return nil, workflow.Vars{}, &usageError{msg: fmt.Sprintf("the run's definition has no step %q", id)}
	}
	step := *run.Plan().Nodes[i].Step
	if !secrets {
		step.Secrets = nil
	}
	env, err := engine.EnvOf(run)
	if err != nil {
		return nil, workflow.Vars{}, err
	}
	src := engine.Sources{Inputs: run.Start.Inputs, Env: env, Output: func(ctx context.Context, step string, attempt int, log string, stderr bool) (string, error) {
		if log == "" {
			return "", nil
		}
		return store.Tail(ctx, log, stderr, 64<<10)
	}}
	vars, err := engine.VarsFor(ctx, run, i, engine.RefsOf(&step), src)
	return &step, vars, err
}

// runShell gives the command a terminal of its own where ours is one.
func (a *app) runShell(ctx context.Context, host *steps.Host, sh steps.Shell, prompt string) error {
	in, isFile := a.in.(*os.File)
	out, outFile := a.out.(*os.File)
	errs, errFile := a.err.(*os.File)
	if !isFile || !outFile || !errFile {
		return errors.New("open a shell: standard input and output are not files")
	}
	if len(sh.Argv) == 0 {
		sh.Argv = []string{"sh", "-c", "if command -v bash >/dev/null; then exec bash --noprofile --norc; fi; exec sh"}
	}
	sh.Stdin, sh.Stdout, sh.Stderr = in, out, errs
	if term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd())) {
		p, err := openPTY(in, out)
		if err != nil {
			return err
		}
		defer p.close()
		sh.Stdin, sh.Stdout, sh.Stderr, sh.Terminal = p.slave, p.slave, p.slave, true
		sh.Env = append(sh.Env, "TERM="+first(a.env("TERM"), "dumb"), "PS1="+prompt)
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	res, err := host.RunShell(ctx, sh)
	if err != nil {
		return err
	}
	if res.ExitCode != 0 {
		return printed{&shellError{code: res.ExitCode}}
	}
	return nil
}

// shellError is a command in a shell that did not end with 0; it said why itself.
type shellError struct{ code int }

func (e *shellError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// scratch is a directory of this process below the state directory. The lock ends
// with the process: what a killed one left is removed by the next.
type scratch struct {
	path string
	lock *os.File
}

func shellDir(store *state.Store) (*scratch, error) {
	parent := filepath.Join(store.Dir(), "shells")
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for the sandbox: %w", err)
	}
	old, err := os.ReadDir(parent)
	if err != nil {
		return nil, fmt.Errorf("look for what killed shells left: %w", err)
	}
	for _, e := range old {
		s := &scratch{path: filepath.Join(parent, e.Name())}
		if s.take() == nil {
			s.remove()
		}
	}
	dir, err := os.MkdirTemp(parent, "s")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the sandbox: %w", err)
	}
	s := &scratch{path: dir}
	if err := s.take(); err != nil {
		return nil, fmt.Errorf("lock the sandbox's directory: %w", err)
	}
	return s, nil
}

func (s *scratch) take() error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return err
	}
	s.lock = f
	return nil
}

// remove runs at the end, when the sandbox is closed.
func (s *scratch) remove() {
	_ = os.RemoveAll(s.path) // what resists is tried again by the next shell
	s.lock.Close()
}
