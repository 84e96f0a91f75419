package main

import (
	"strings"
	"testing"

	"flowrun.dev/flow/agent/agenttest"
)

// TestScriptBudget: a spent budget refuses the next request (exit 4), survives a
// resume, and goes on with what was raised.
func TestScriptBudget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := `name: budget
sandbox: {driver: host}
budget: {tokens: 5000}
steps:
  - {id: one, timeout: 1m, agent: {prompt: do it, model: claude-sonnet-5-5, allowed_tools: [Read], budget: {cost_usd: 0.01}}}
`
	write(t, dir, "b.yaml", file)
	// 1,000 input and 1,000 output tokens of this model cost 0.012 dollars.
	turn := readTurn
	turn.Input, turn.Output = 1000, 1000
	end := agenttest.Turn{Text: "done", Input: 1000, Output: 1000}
	api := agenttest.NewServer(t, turn, turn, end, end)
	env := []string{"ANTHROPIC_API_KEY=k-0123456789", "ANTHROPIC_BASE_URL=" + api.URL}

	out, code := runFlow(t, dir, env, "run", "--output", "plain", "b.yaml")
	if code != 4 || !strings.Contains(out, "the budget of step one is spent: cost_usd: 0.0120 of 0.0100 (passed by 0.0020)") || len(api.Requests()) != 1 {
		t.Fatalf("exit %d, %d requests\n%s", code, len(api.Requests()), out)
	}
	show, _ := runFlow(t, dir, nil, "show", "--json")
	if !strings.Contains(show, `"status": "out_of_budget"`) || !strings.Contains(show, `"cost_usd": 0.012`) {
		t.Errorf("the record:\n%s", show)
	}
	// The same budget is spent already: no request is made.
	if out, code := runFlow(t, dir, env, "resume", "--output", "plain"); code != 4 || len(api.Requests()) != 1 {
		t.Fatalf("exit %d, %d requests\n%s", code, len(api.Requests()), out)
	}
	write(t, dir, "b.yaml", strings.Replace(file, "0.01}", "0.02}", 1))
	out, code = runFlow(t, dir, env, "resume", "--output", "plain", "--accept-changes")
	if code != 4 || !strings.Contains(out, "cost_usd: 0.0240 of 0.0200") || len(api.Requests()) != 2 {
		t.Fatalf("exit %d, %d requests\n%s", code, len(api.Requests()), out)
	}
	// The step's budget is high enough now, the run's allows one answer more.
	write(t, dir, "b.yaml", strings.Replace(file, "0.01}", "1}", 1))
	out, code = runFlow(t, dir, env, "resume", "--output", "plain", "--accept-changes")
	if code != 0 || len(api.Requests()) != 3 {
		t.Fatalf("exit %d, %d requests\n%s", code, len(api.Requests()), out)
	}
	show, _ = runFlow(t, dir, nil, "show", "--json")
	if !strings.Contains(show, `"status": "succeeded"`) {
		t.Errorf("the record:\n%s", show)
	}
}

// TestScriptRunBudget: what one step spent counts for the next.
func TestScriptRunBudget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "b.yaml", `name: budget
sandbox: {driver: host}
budget: {tokens: 15}
defaults: {timeout: 1m, agent: {allowed_tools: [Read]}}
steps:
  - {id: one, agent: do it}
  - {id: two, agent: do more}
  - {id: three, agent: do the rest}
`)
	end := agenttest.Turn{Text: "done", Input: 5, Output: 5}
	api := agenttest.NewServer(t, end, end, end)
	out, code := runFlow(t, dir, []string{"ANTHROPIC_API_KEY=k-0123456789", "ANTHROPIC_BASE_URL=" + api.URL}, "run", "--output", "plain", "b.yaml")
	if code != 4 || !strings.Contains(out, "the budget of the run is spent: tokens: 20 of 15 (passed by 5)") || len(api.Requests()) != 2 {
		t.Fatalf("exit %d, %d requests\n%s", code, len(api.Requests()), out)
	}
}

// TestScriptNoPrice: a budget in dollars for a model without a price is refused
// before anything starts; FLOW_PRICES gives it one.
func TestScriptNoPrice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "b.yaml", `name: budget
sandbox: {driver: host}
steps:
  - {id: one, timeout: 1m, agent: {prompt: do it, model: house-model, allowed_tools: [Read], budget: {cost_usd: 1}}}
`)
	write(t, dir, "prices.yaml", "date: 2026-11-01\nmodels:\n  house-model: {input: 100, output: 200}\n")
	api := agenttest.NewServer(t, agenttest.Turn{Text: "done", Input: 1000, Output: 1000})
	env := []string{"ANTHROPIC_API_KEY=k-0123456789", "ANTHROPIC_BASE_URL=" + api.URL}
	out, code := runFlow(t, dir, env, "run", "--output", "plain", "b.yaml")
	if code != 2 || !strings.Contains(out, `no price is known for model "house-model"`) || !strings.Contains(out, "FLOW_PRICES") {
		t.Fatalf("exit %d\n%s", code, out)
	}
	if out, code = runFlow(t, dir, append(env, "FLOW_PRICES=prices.yaml"), "run", "--output", "plain", "b.yaml"); code != 0 {
		t.Fatalf("exit %d\n%s", code, out)
	}
	if show, _ := runFlow(t, dir, nil, "show", "--json"); !strings.Contains(show, `"cost_usd": 0.3`) {
		t.Errorf("the record:\n%s", show)
	}
}

// TestScriptBudgetTurns: answers are counted over the steps of a run and the attempts of
// a step, for both providers, and survive a resume.
func TestScriptBudgetTurns(t *testing.T) {
	t.Parallel()
	for _, provider := range []string{"anthropic", "claude-code"} {
		t.Run(provider, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := `name: turns
sandbox: {driver: host}
budget: {turns: 3}
defaults: {timeout: 1m, agent: {provider: ` + provider + `, model: claude-haiku-5-5, allowed_tools: [Bash]}}
steps:
  - {id: one, agent: {prompt: do it, budget: {turns: 2}}}
  - {id: two, agent: do more}
`
			write(t, dir, "b.yaml", file)
			turn := agenttest.Turn{Tools: []agenttest.Call{{Name: "Bash", Input: map[string]any{"command": "true"}}}, Input: 1, Output: 1}
			end := agenttest.Turn{Text: "done", Input: 1, Output: 1}
			api := agenttest.NewServer(t, turn, end, turn, end)
			env := claudeEnv(t, api)
			out, code := runFlow(t, dir, env, "run", "--output", "plain", "b.yaml")
			if code != 4 || !strings.Contains(out, "the budget of the run is spent: turns: 3 of 3") || len(api.Requests()) != 3 {
				t.Fatalf("exit %d, %d requests\n%s", code, len(api.Requests()), out)
			}
			if out, code := runFlow(t, dir, env, "resume", "--output", "plain"); code != 4 || len(api.Requests()) != 3 {
				t.Fatalf("exit %d, %d requests\n%s", code, len(api.Requests()), out)
			}
			write(t, dir, "b.yaml", strings.Replace(file, "turns: 3", "turns: 4", 1))
			if out, code := runFlow(t, dir, env, "resume", "--output", "plain", "--accept-changes"); code != 0 || len(api.Requests()) != 4 {
				t.Fatalf("exit %d, %d requests\n%s", code, len(api.Requests()), out)
			}
		})
	}
}
