package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/redact"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/steps"
	"flowrun.dev/flow/workflow"
)

// showStep shows one step: its row, and, of an agent, the conversation as it is stored.
func (a *app) showStep(ctx context.Context, word, step, envFile string, last int) error {
	store, id, err := a.found(ctx, word)
	if err != nil {
		return err
	}
	defer store.Close()
	rows, err := stepRows(ctx, store, id)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(rows, func(r report.StepRow) bool { return r.ID == step })
	if i < 0 {
		return &usageError{msg: fmt.Sprintf("run %s has no step %q", id, step), hint: "it has " + strings.Join(stepIDs(rows), ", ")}
	}
	events, err := store.Events(ctx, id, 0)
	if err != nil {
		return err
	}
	turns := turnsOf(events, step)
	set := &redact.Set{}
	if len(turns) > 0 {
		// Turns are stored as they were: what a step was given is taken out here.
		if set, err = a.secretsOf(store, events, envFile); err != nil {
			return err
		}
	}
	out := json.NewEncoder(a.out)
	out.SetEscapeHTML(false)
	skipped := 0
	if last > 0 && len(turns) > last {
		skipped = len(turns) - last
	}
	switch {
	case a.json:
		if err := out.Encode(struct {
			Type string `json:"type"`
			report.StepRow
		}{"step", rows[i]}); err != nil {
			return err
		}
	default:
		if err := report.ShowStep(a.out, rows[i], a.style()); err != nil {
			return err
		}
		if skipped > 0 {
			fmt.Fprintf(a.out, "· %d turns before these: --turns 0 shows all\n", skipped)
		}
	}
	for _, t := range turns[skipped:] {
		turn, err := steps.ReadTurn(ctx, store, step, t.TurnAt)
		if err != nil {
			return err
		}
		v := turnView(t, turn, set)
		if a.json {
			err = out.Encode(struct {
				Type string `json:"type"`
				report.TurnView
			}{"turn", v})
		} else {
			err = report.WriteTurn(a.out, v, a.style())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// turnsOf are the turns of the step's last conversation, in order.
func turnsOf(events []engine.Event, step string) []engine.TurnCompleted {
	var out []engine.TurnCompleted
	for _, e := range events {
		t, ok := e.Body.(engine.TurnCompleted)
		if !ok || t.Step != step {
			continue
		}
		if n := len(out); n > 0 && t.Conversation != out[n-1].Conversation {
			out = nil
		}
		// A resume may have gone back: what it left is no part of the conversation.
		for len(out) > 0 && out[len(out)-1].Turn >= t.Turn {
			out = out[:len(out)-1]
		}
		out = append(out, t)
	}
	return out
}

// secretsOf makes the redactor of what a run's steps were given, by its first
// definition and by those that resumes took up. A value that is not known now could
// not be taken out, so that is refused.
func (a *app) secretsOf(store *state.Store, events []engine.Event, envFile string) (*redact.Set, error) {
	root, err := project(store.Dir())
	if err != nil {
		return nil, err
	}
	plans, err := definitions(root, events)
	if err != nil {
		return nil, err
	}
	var all workflow.Workflow
	dir := ""
	for _, plan := range plans {
		given := map[string]bool{}
		plan.Workflow.Walk(func(s *workflow.Step) {
			for _, name := range s.Secrets {
				given[name] = true
			}
		})
		for _, s := range plan.Workflow.Secrets {
			same := func(o workflow.Secret) bool { return o.Name == s.Name && o.Env == s.Env && o.File == s.File }
			if given[s.Name] && s.Inject == nil && !slices.ContainsFunc(all.Secrets, same) {
				all.Secrets = append(all.Secrets, s)
			}
		}
		dir = filepath.Dir(plan.Workflow.Path)
	}
	_, set, err := a.loadSecrets(&all, envFile, dir)
	if err != nil {
		return nil, fmt.Errorf("take the secrets out of the conversation: %w", err)
	}
	return set, nil
}

// turnView decodes a stored turn; what cannot be read is left out.
func turnView(at engine.TurnCompleted, t agent.Turn, set *redact.Set) report.TurnView {
	v := report.TurnView{Step: at.Step, Conversation: at.Conversation, Turn: at.Turn + 1, Prompt: set.String(t.Prompt),
		InputTokens: at.InputTokens + at.CacheReadTokens + at.CacheWriteTokens, OutputTokens: at.OutputTokens, CostUSD: at.CostUSD, LeftOut: at.LeftOut}
	type block struct {
		Type      string          `json:"type"`
		Text      string          `json:"text"`
		ID        string          `json:"id"`
		Name      string          `json:"name"`
		Input     json.RawMessage `json:"input"`
		ToolUseID string          `json:"tool_use_id"`
		Content   json.RawMessage `json:"content"`
		IsError   bool            `json:"is_error"`
	}
	var answer struct {
		Model      string  `json:"model"`
		StopReason string  `json:"stop_reason"`
		Content    []block `json:"content"`
	}
	var results []block
	_ = json.Unmarshal(t.Response, &answer)
	_ = json.Unmarshal(t.Results, &results)
	v.Model, v.StopReason = answer.Model, answer.StopReason
	for _, b := range answer.Content {
		switch b.Type {
		case "text":
			v.Text = append(v.Text, set.String(b.Text))
		case "tool_use":
			c := report.CallView{Name: b.Name, Input: set.String(string(b.Input))}
			for _, r := range results {
				if r.ToolUseID != b.ID {
					continue
				}
				var text string
				if json.Unmarshal(r.Content, &text) != nil {
					var parts []block
					_ = json.Unmarshal(r.Content, &parts)
					for _, p := range parts {
						text += p.Text
					}
				}
				c.Result, c.Error = set.String(text), r.IsError
			}
			v.Calls = append(v.Calls, c)
		}
	}
	return v
}
