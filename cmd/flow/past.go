package main

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/workflow"
)

// past is what a run's events say, read once.
type past struct {
	root    string // of the project
	run     *engine.Run
	started engine.RunStarted // with the definition that the run follows now
	events  []engine.Event
}

// base is the checkpoint that holds the imported source, "" when none was made.
func (p *past) base() string {
	base := ""
	for _, e := range p.events {
		switch b := e.Body.(type) {
		case engine.WorkspaceImported:
			base = b.Checkpoint
		case engine.RunResumed:
			base = first(b.Source, base)
		}
	}
	return base
}

// baseOf is the imported source that a checkpoint of the run goes back to: one from
// before a resume that merged a changed source has the older one.
func (p *past) baseOf(checkpoint string) string {
	base := ""
	for _, e := range p.events {
		switch b := e.Body.(type) {
		case engine.WorkspaceImported:
			base = b.Checkpoint
		case engine.RunResumed:
			base = first(b.Source, base)
			if b.Merged == checkpoint {
				return base
			}
		case engine.StepFinished:
			if b.Checkpoint == checkpoint {
				return base
			}
		}
	}
	return p.base()
}

// replay folds the events of a run over its frozen definition.
func replay(ctx context.Context, store *state.Store, id string) (*past, error) {
	root, err := project(store.Dir())
	if err != nil {
		return nil, err
	}
	started, err := store.Start(ctx, id)
	if err != nil {
		return nil, err
	}
	// To parse and to read take most of a long run's resume, and need each other little.
	var plan *workflow.Plan
	var events []engine.Event
	var g errgroup.Group
	g.Go(func() (err error) {
		plan, err = frozen(root, started.Path, started.Text, started.Files)
		return err
	})
	g.Go(func() (err error) {
		events, err = store.Events(ctx, id, 0)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	run := engine.NewRun(plan)
	for _, e := range events {
		if r, ok := e.Body.(engine.RunResumed); ok && r.Text != nil {
			next, err := frozen(root, started.Path, r.Text, r.Files)
			if err != nil {
				return nil, err
			}
			run.Redefine(next)
			started.Text, started.Files = r.Text, r.Files
		}
		if err := run.Apply(e); err != nil {
			return nil, fmt.Errorf("read run %s: %w", id, err)
		}
	}
	return &past{root: root, run: run, started: started, events: events}, nil
}

// definitions are those that a run followed: the first, and what resumes took up.
func definitions(root string, events []engine.Event) ([]*workflow.Plan, error) {
	var plans []*workflow.Plan
	path := ""
	for _, e := range events {
		var text []byte
		var files map[string][]byte
		switch b := e.Body.(type) {
		case engine.RunStarted:
			path, text, files = b.Path, b.Text, b.Files
		case engine.RunResumed:
			text, files = b.Text, b.Files
		}
		if text == nil {
			continue
		}
		plan, err := frozen(root, path, text, files)
		if err != nil {
			return nil, err
		}
		plans = append(plans, plan)
	}
	return plans, nil
}

// frozen parses a definition as an event holds it.
func frozen(root, path string, text []byte, files map[string][]byte) (*workflow.Plan, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(root, path)
	}
	w, err := workflow.Parse(path, text, workflow.ParseOptions{ReadFile: func(name string) ([]byte, error) {
		if b, ok := files[name]; ok {
			return b, nil
		}
		return nil, fs.ErrNotExist
	}})
	if err != nil {
		return nil, fmt.Errorf("read the run's definition: %w", err)
	}
	return workflow.BuildPlan(w), nil
}
