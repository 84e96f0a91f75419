package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/state"
)

// reportFlags name the files that are written at a run's end, however it ended.
type reportFlags struct{ summary, junit string }

func (f *reportFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.summary, "summary", "", "write the run as Markdown; appended when FILE is $GITHUB_STEP_SUMMARY")
	fl.StringVar(&f.junit, "junit", "", "write the run as JUnit XML, a test case a step")
}

// check refuses, before anything starts, files that could not be written at the end.
func (f *reportFlags) check() error {
	for _, x := range []struct{ flag, path string }{{"--summary", f.summary}, {"--junit", f.junit}} {
		if x.path == "" {
			continue
		}
		info, err := os.Stat(x.path)
		switch {
		case err == nil && info.IsDir():
			return &usageError{msg: fmt.Sprintf("%s %s: it is a folder", x.flag, x.path)}
		case errors.Is(err, fs.ErrNotExist):
			if dir, err := os.Stat(filepath.Dir(x.path)); err != nil || !dir.IsDir() {
				return &usageError{msg: fmt.Sprintf("%s %s: its folder does not exist", x.flag, x.path)}
			}
		case err != nil:
			return &usageError{msg: fmt.Sprintf("%s %s: %v", x.flag, x.path, err)}
		}
	}
	return nil
}

// reportTail is how much of a failed step's streams a report has.
const reportTail = 16 << 10

// resultView is a run for a report: its steps as the fold has them, with the output
// and the summaries of their last attempts.
func resultView(ctx context.Context, store *state.Store, run *engine.Run) (report.RunView, error) {
	info, err := store.Run(ctx, run.ID)
	if err != nil {
		return report.RunView{}, err
	}
	v := report.RunView{RunRow: runRow(info), Path: info.Path, Attempt: info.Attempt, Class: info.Class, Continue: report.ContinueCommand(run.ID, info.Status)}
	events, err := store.Events(ctx, run.ID, 0)
	if err != nil {
		return v, err
	}
	extra := map[string]report.Extra{}
	for _, e := range events {
		switch b := e.Body.(type) {
		case engine.SandboxCreated:
			v.Sandbox = fmt.Sprintf("%s (%s)", b.Driver, b.Tier)
		case engine.StepFinished:
			x := report.Extra{Stdout: b.Outcome.Stdout, Stderr: b.Outcome.Stderr, Summary: b.Outcome.Summary}
			if b.Outcome.Status != engine.StepSucceeded && b.Outcome.Log != "" {
				x.Stdout = longTail(ctx, store, b.Outcome.Log, false, x.Stdout)
				x.Stderr = longTail(ctx, store, b.Outcome.Log, true, x.Stderr)
			}
			extra[b.Step] = x
		}
	}
	v.Steps = report.ResultRows(run, extra)
	for i := range v.Steps {
		v.CostUSD += v.Steps[i].CostUSD
		v.Denied += v.Steps[i].Denied
	}
	return v, nil
}

// longTail is more of a stream than its excerpt has, where that is stored.
func longTail(ctx context.Context, store *state.Store, log string, stderr bool, e engine.Excerpt) engine.Excerpt {
	if e.Tail == "" {
		return e // Head is all of it
	}
	text, err := store.Tail(ctx, log, stderr, reportTail)
	if err != nil || len(text) <= len(e.Tail) {
		return e
	}
	return engine.Excerpt{Tail: text, Bytes: int64(len(text))}
}

// write writes what was asked for. It is called once the run has ended, also when it
// was interrupted, so on a context of its own.
func (f *reportFlags) write(ctx context.Context, a *app, store *state.Store, run *engine.Run) error {
	if f.summary == "" && f.junit == "" {
		return nil
	}
	v, err := resultView(context.WithoutCancel(ctx), store, run)
	if err != nil {
		return fmt.Errorf("write the reports: %w", err)
	}
	var errs []error
	if f.junit != "" {
		errs = append(errs, writeReport(f.junit, false, func(w io.Writer) error { return report.JUnit(w, v) }))
	}
	if f.summary != "" {
		// Other steps of the CI's job write there too.
		onto := f.summary == a.env("GITHUB_STEP_SUMMARY")
		errs = append(errs, writeReport(f.summary, onto, func(w io.Writer) error { return report.Summary(w, v) }))
	}
	return errors.Join(errs...)
}

// writeReport replaces a file as a whole, so that nobody reads half of it; what is no
// regular file (a pipe, a terminal) is written to.
func writeReport(path string, onto bool, render func(io.Writer) error) error {
	var b bytes.Buffer
	if err := render(&b); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if special := err == nil && !info.Mode().IsRegular(); onto || special {
		flags := os.O_WRONLY | os.O_APPEND
		if !special {
			flags |= os.O_CREATE
		}
		out, err := os.OpenFile(path, flags, 0o644)
		if err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
		_, err = out.Write(b.Bytes())
		return errors.Join(err, out.Close())
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".flow-report-")
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	_, err = tmp.Write(b.Bytes())
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write the report %s: %w", path, err)
	}
	return nil
}
