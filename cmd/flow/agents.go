package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/steps"
	"flowrun.dev/flow/workflow"
)

// able lists, for what not every provider can do yet, those that can.
func able(feature string) []string {
	return map[string][]string{
		"--record":    {"anthropic", "claude-code"},
		"mcp_servers": {"anthropic", "claude-code", "replay"}, "session: continue": {"anthropic", "claude-code", "replay"},
		"output_schema": {"anthropic", "claude-code", "replay"},
	}[feature]
}

// agentsReady asks the providers of all agent steps before anything starts. What is
// wrong with several steps (a missing key) is said once, with their names.
func (a *app) agentsReady(plan *workflow.Plan, o engine.Options, record string) error {
	providers := a.providers()
	var order []string
	found := map[string][]string{} // message → steps
	plan.Workflow.Walk(func(s *workflow.Step) {
		if s.Kind != workflow.KindAgent {
			return
		}
		text := a.agentReady(providers, plan, engine.Attempt{Step: s, Options: o}, record)
		if text == "" {
			return
		}
		if found[text] == nil {
			order = append(order, text)
		}
		found[text] = append(found[text], fmt.Sprintf("%s (line %d)", s.ID, s.Pos.Line))
	})
	if len(order) == 0 {
		return nil
	}
	var lines []string
	for _, text := range order {
		word := "step"
		if len(found[text]) > 1 {
			word = "steps"
		}
		lines = append(lines, fmt.Sprintf("%s: %s %s: %s", plan.Workflow.Path, word, strings.Join(found[text], ", "), text))
	}
	return &usageError{msg: strings.Join(lines, "\n  ")}
}

// agentReady is what keeps one agent step from starting, "" for nothing.
func (a *app) agentReady(providers map[string]agent.Provider, plan *workflow.Plan, at engine.Attempt, record string) string {
	name := steps.ProviderFor(at)
	p, ok := providers[name]
	if !ok {
		var names []string
		for n := range providers {
			names = append(names, n)
		}
		slices.Sort(names)
		return fmt.Sprintf("there is no agent provider %q; known are %s", name, strings.Join(names, ", "))
	}
	for _, f := range []struct {
		name  string
		asked bool
	}{{"--record", record != ""}, {"output_schema", at.Step.Agent.OutputSchema != nil},
		{"mcp_servers", slices.ContainsFunc(at.Step.Agent.MCPServers, func(m workflow.MCPServer) bool { return at.Step.Agent.Uses(m.Name) })},
		{"session: continue", at.Step.Agent.Session != ""}} {
		if f.asked && !slices.Contains(able(f.name), name) {
			return fmt.Sprintf("%s is not supported yet for provider %s; it is for %s", f.name, name, strings.Join(able(f.name), ", "))
		}
	}
	err := p.Check(steps.AgentRequest(steps.Config{Workflow: plan.Workflow, FileDir: filepath.Dir(plan.Workflow.Path)}, at))
	if err == nil {
		return ""
	}
	text := err.Error()
	var ae *agent.Error
	if errors.As(err, &ae) && ae.Hint != "" {
		text += "; " + ae.Hint
	}
	return text
}
