package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/redact"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/steps"
	"flowrun.dev/flow/workflow"
)

// session is one run that this process owns.
type session struct {
	a       *app
	store   *state.Store
	owner   *state.Owner
	plan    *workflow.Plan
	run     *engine.Run
	driver  chosen
	opening engine.Body
	options engine.Options
	project string
	past    []engine.Event // of a resumed run
	secrets map[string]string
	redact  *redact.Set
	output  string
	record  string // folder of recorded conversations, "" for none
	reports reportFlags
	// restore and base are the checkpoints of a resumed run, spent what its agents
	// spent in earlier attempts.
	restore, base string
	spent         map[string]agent.Spending
	wait          bool // for people, in this process
	cancel        bool // the run is only taken up to be cancelled
}

// drive runs the session to its end and prints it.
func (s *session) drive(ctx context.Context) error {
	w := s.plan.Workflow
	rep, err := s.reporter()
	if err != nil {
		return err
	}
	defer rep.Close()
	dir, err := s.store.MakeRunDir(s.run.ID)
	if err != nil {
		return err
	}
	source := ""
	if w.Workspace.From != "" {
		source = filepath.Join(s.project, w.Workspace.From)
	}
	results, err := s.a.resultCache(s.store)
	if err != nil {
		return err
	}
	mounts := func(t sandbox.Tier) []sandbox.Mount { return s.a.mounts(s.plan, s.options, t) }
	host := steps.NewHost(steps.Config{
		RunID: s.run.ID, Workflow: w, Driver: s.driver.driver, Capabilities: s.driver.caps, Dir: dir, Source: source, FileDir: filepath.Dir(w.Path),
		Checkpoints: s.store, Logs: logs{s.store}, Redact: s.redact, Secrets: s.secrets, Providers: s.a.providers(), Spent: s.spent, Record: s.record,
		Restore: s.restore, Base: s.base, Cache: results, Mounts: append(mounts(s.driver.caps.Tier), s.driver.mounts[""]...), Named: s.driver.places(mounts),
		Reach: s.a.reach, Roots: s.a.roots,
		Output: func(step string, st steps.Stream, p []byte) { rep.Output(step, st == steps.Stderr, p) },
	})
	loop := &engine.Loop{Run: s.run, Journal: s.owner, Runner: host, Clock: clock{}, Observers: []engine.Observer{rep}, Opening: s.opening, Wait: s.wait}
	if s.opening == nil {
		// The first event was stored with the run's row; a resume's goes through the loop.
		rep.Observe(engine.Event{Seq: 1, At: s.run.StartedAt, Body: s.shown(s.run.Start)})
	}
	if s.cancel {
		loop.Interrupt("user")
	}
	stop := watchSignals(loop)
	status, err := loop.Drive(ctx)
	stop()
	if err != nil {
		rep.Close()
		// What there is of the run is reported all the same, if the state can be read.
		return s.redact.Error(errors.Join(err, s.reports.write(ctx, s.a, s.store, s.run)))
	}
	cause := s.run.Cause
	if err := s.applyAfterRun(ctx, status); err != nil {
		rep.Close()
		return err
	}
	code := runCode(status, s.run.Class, cause)
	rep.Final(report.Final{Status: status, ExitCode: code, Class: classOf(code), Cause: cause, Continue: report.ContinueCommand(s.run.ID, status)})
	if err := rep.Close(); err != nil {
		return fmt.Errorf("print the run: %w", err)
	}
	reported := s.reports.write(ctx, s.a, s.store, s.run)
	if code == codeOK {
		return reported
	}
	if reported != nil {
		fmt.Fprintf(s.a.err, "flow: %v\n", reported)
	}
	return printed{&runError{run: s.run.ID, status: status, class: s.run.Class, cause: cause}}
}

// shown is the first event without inputs that hold a secret.
func (s *session) shown(b engine.RunStarted) engine.RunStarted {
	inputs := make(map[string]any, len(b.Inputs))
	for name, v := range b.Inputs {
		inputs[name] = v
		// What cannot be encoded could not have been stored.
		if text, err := json.Marshal(v); err != nil || s.redact.String(string(text)) != string(text) {
			inputs[name] = redact.Mark
		}
	}
	b.Inputs = inputs
	return b
}

func (s *session) reporter() (report.Reporter, error) {
	term := report.Terminal{}
	if f, ok := s.a.out.(*os.File); ok {
		term = report.LookTerminal(f, s.a.env)
	}
	kind := report.Kind(s.output)
	if kind == "" {
		kind = report.DefaultKind(term)
		if s.a.json {
			kind = report.JSON
		}
	}
	cfg := report.Config{Out: s.a.out, Style: s.a.style(), RunID: s.run.ID, Workflow: s.plan.Workflow.Name, Plan: s.plan, Past: s.past, Attempt: s.run.Attempt, Terminal: term,
		Sandbox: engine.SandboxCreated{Driver: s.driver.driver.Name(), Tier: string(s.driver.caps.Tier), Reason: s.driver.caps.Weakness()}}
	rep, err := report.New(kind, cfg)
	if err != nil {
		return nil, &usageError{msg: err.Error()}
	}
	return rep, nil
}

// watchSignals passes Ctrl-C and SIGTERM to the loop; the second one stops hard.
func watchSignals(loop *engine.Loop) (stop func()) {
	c := make(chan os.Signal, 4)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sig := range c {
			cause := "sigint"
			if sig == syscall.SIGTERM {
				cause = "sigterm"
			}
			loop.Interrupt(cause)
		}
	}()
	return func() {
		signal.Stop(c)
		close(c)
		<-done
	}
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}
