package steps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/replay"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// AgentRequest is the static part of an agent step's conversation: what a
// provider can check before anything starts.
func AgentRequest(cfg Config, a engine.Attempt) agent.Request {
	s := a.Step.Agent
	r := agent.Request{
		RunID: cfg.RunID, StepID: a.Step.ID, Attempt: a.Attempt,
		Command: s.Command, Model: s.Model, Allowed: s.AllowedTools, Disallowed: s.DisallowedTools,
		MaxTurns: s.MaxTurns, OnDenied: s.OnDenied, OutputSchema: s.OutputSchema, Now: time.Now, Record: cfg.Record,
	}
	for _, m := range s.MCPServers {
		if s.Uses(m.Name) {
			r.MCPServers = append(r.MCPServers, agent.MCPServer{Name: m.Name, Command: m.Command, URL: m.URL})
		}
	}
	if cfg.Redact != nil {
		r.Redact = cfg.Redact.String
	}
	if w := cfg.Workflow; w != nil {
		// For the check before anything starts; runAgent gives it the real account.
		r.Account = newBank(w.Budget, nil).of(a.Step)
	}
	switch {
	case a.Options.Replay != "":
		r.Cassette = a.Options.Replay
	case s.Cassette != "":
		r.Cassette = s.Cassette
		if !filepath.IsAbs(r.Cassette) {
			r.Cassette = filepath.Join(cfg.FileDir, r.Cassette)
		}
	}
	return r
}

// ProviderFor names the provider of an agent step under the run's options.
func ProviderFor(a engine.Attempt) string {
	switch {
	case a.Options.Replay != "":
		if p := replay.ProviderOf(a.Options.Replay, a.Step.ID); p != "" {
			return p // only the same program makes the same requests
		}
		return "replay"
	case a.Options.Provider != "":
		return a.Options.Provider
	default:
		return a.Step.Agent.Provider
	}
}

// runAgent executes one attempt of an `agent:` step.
func (h *Host) runAgent(ctx context.Context, sb sandbox.Sandbox, a engine.Attempt, c *capture, emit func(engine.Body)) engine.Outcome {
	name := ProviderFor(a)
	p, ok := h.cfg.Providers[name]
	if !ok {
		return h.invalid(fmt.Errorf("start the agent: unknown provider %q", name))
	}
	req, err := h.request(sb, a)
	if err != nil {
		return h.invalid(err)
	}
	out := engine.Outcome{Command: h.cfg.Redact.String(req.Prompt)}
	req.Sandbox, req.StateDir = sb, stepDirInside(sb)
	way, err := h.way(sb, a)
	if err != nil {
		return h.placeFailed(ctx, out, err)
	}
	defer way.close()
	req.HTTP = way.transport()
	req.Account = h.bank.of(a.Step)
	req.Out = c.stdout.w
	conv, turns, err := h.goOn(ctx, sb, a, emit)
	if err != nil {
		return h.placeFailed(ctx, out, err)
	}
	req.Continue, req.Turn = turns, conv.turn
	if req.History, err = h.history(ctx, a); err != nil {
		return h.invalid(err)
	}

	policy, err := agent.NewPolicy(req.Allowed, req.Disallowed)
	if err != nil {
		return h.invalid(err)
	}
	rights := policy.Rights()
	caps := h.roomOf(a.Step).Capabilities
	if e, ok := p.(agent.Enforcer); !ok || !e.EnforcesRights() {
		caps.PathRights = false
	}
	return h.boundedBy(ctx, sb, caps, rights, func(enforced sandbox.Rights) engine.Outcome {
		req.Rights = enforced
		return h.converse(ctx, p, name, req, c, out)
	})
}

// converse holds the conversation and makes its end the attempt's.
func (h *Host) converse(ctx context.Context, p agent.Provider, name string, req agent.Request, c *capture, out engine.Outcome) engine.Outcome {
	res, err := p.Converse(ctx, req)
	c.drain()
	out.Agent = h.usage(name, res)
	if ctx.Err() != nil {
		return stopped(ctx, out)
	}
	if err != nil {
		return h.conversationFailed(ctx, out, err)
	}
	out.Status = engine.StepSucceeded
	if err := h.holdsSecret("text", res.Text); err != nil {
		// The model's words are not the author's choice: redact, do not fail.
		res.Text = h.cfg.Redact.String(res.Text)
	}
	out.Outputs = map[string]any{"text": res.Text}
	return h.structuredOutputs(out, res.Structured)
}

// structuredOutputs are the properties of the value that output_schema accepted.
func (h *Host) structuredOutputs(out engine.Outcome, raw []byte) engine.Outcome {
	if raw == nil {
		return out
	}
	values := map[string]any{}
	if err := json.Unmarshal(raw, &values); err != nil {
		return failInvalid(out, h.cfg.Redact.String(fmt.Sprintf("read the agent's result: %v", err)))
	}
	for name, v := range values {
		if err := h.holdsSecret(name, v); err != nil {
			return failInvalid(out, h.cfg.Redact.String(err.Error()))
		}
		out.Outputs[name] = v
	}
	return out
}

// maxContextFile bounds one of context_files.
const maxContextFile = 256 << 10

// contextFiles are appended to the system prompt.
func contextFiles(sb sandbox.Sandbox, names []string) (string, error) {
	var b strings.Builder
	for _, name := range names {
		text, err := sb.Files().ReadFile(name)
		switch {
		case err != nil:
			return "", fmt.Errorf("read context_files: %w", err)
		case len(text) > maxContextFile || !utf8.Valid(text):
			return "", fmt.Errorf("read context_files: %s is no text of at most %d bytes", name, maxContextFile)
		}
		fmt.Fprintf(&b, "\n\n<file path=%q>\n%s\n</file>", name, strings.TrimRight(string(text), "\n"))
	}
	if b.Len() == 0 {
		return "", nil
	}
	return "Files of the project:" + b.String(), nil
}

func (h *Host) request(sb sandbox.Sandbox, a engine.Attempt) (agent.Request, error) {
	req := AgentRequest(h.cfg, a)
	s := a.Step.Agent
	var err error
	if req.Env, err = h.environment(sb, a); err != nil {
		return req, err
	}
	if req.Prompt, err = s.Prompt.EvalString(a.Vars); err != nil {
		return req, fmt.Errorf("evaluate the prompt: %w", err)
	}
	if s.SystemPrompt != nil {
		if req.System, err = s.SystemPrompt.EvalString(a.Vars); err != nil {
			return req, fmt.Errorf("evaluate system_prompt: %w", err)
		}
	}
	if s.AppendSystemPrompt != nil {
		if req.AppendSystem, err = s.AppendSystemPrompt.EvalString(a.Vars); err != nil {
			return req, fmt.Errorf("evaluate append_system_prompt: %w", err)
		}
	}
	if err := servers(s, a, &req); err != nil {
		return req, err
	}
	context, err := contextFiles(sb, s.ContextFiles)
	if err != nil {
		return req, err
	}
	if context != "" {
		req.AppendSystem = strings.TrimSpace(req.AppendSystem + "\n\n" + context)
	}
	return req, nil
}

// servers evaluates what the MCP servers of the step are given.
func servers(s *workflow.AgentStep, a engine.Attempt, req *agent.Request) error {
	for _, m := range s.MCPServers {
		i := slices.IndexFunc(req.MCPServers, func(x agent.MCPServer) bool { return x.Name == m.Name })
		if i < 0 {
			continue
		}
		to := &req.MCPServers[i]
		to.Headers = map[string]string{}
		for _, e := range slices.Concat(m.Env, m.Headers) {
			value, err := e.Value.EvalString(a.Vars)
			if err == nil && strings.ContainsAny(value, "\x00\r\n") && m.URL != "" || strings.ContainsRune(value, 0) {
				err = errors.New("the value holds a line end or a NUL byte")
			}
			if err != nil {
				return fmt.Errorf("evaluate %s of the MCP server %s: %w", e.Name, m.Name, err)
			}
			if m.URL != "" {
				to.Headers[e.Name] = value
			} else {
				to.Env = append(to.Env, e.Name+"="+value)
			}
		}
	}
	return nil
}

// conversationClasses maps an agent's error class to the engine's.
var conversationClasses = map[agent.Class]engine.Class{
	agent.ClassFailed:         engine.ClassExitCode,
	agent.ClassInfrastructure: engine.ClassInfrastructure,
	agent.ClassRateLimit:      engine.ClassRateLimit,
	agent.ClassBudget:         engine.ClassBudget,
	agent.ClassDenied:         engine.ClassDenied,
	agent.ClassInvalid:        engine.ClassInvalid,
}

func (h *Host) conversationFailed(ctx context.Context, out engine.Outcome, err error) engine.Outcome {
	var ae *agent.Error
	if !errors.As(err, &ae) {
		return h.placeFailed(ctx, out, err)
	}
	out.Status, out.ExitCode = engine.StepFailed, 1
	out.Class = conversationClasses[ae.Class]
	out.RetryAfter = ae.RetryAfter
	out.Error = h.cfg.Redact.String(ae.Error())
	if ae.Hint != "" {
		out.Error += "; " + h.cfg.Redact.String(ae.Hint)
	}
	return out
}

func (h *Host) usage(provider string, r agent.Result) *engine.AgentUsage {
	u := &engine.AgentUsage{
		Provider: provider, Model: r.Model, Turns: r.Usage.Turns, ToolCalls: r.Usage.ToolCalls, Denied: len(r.Denials),
		InputTokens: r.Usage.InputTokens, OutputTokens: r.Usage.OutputTokens,
		CacheReadTokens: r.Usage.CacheReadTokens, CacheWriteTokens: r.Usage.CacheWriteTokens,
		CostUSD: r.Usage.CostUSD, StopReason: r.StopReason,
	}
	for _, d := range r.Denials {
		u.Denials = append(u.Denials, engine.Denial{
			Tool:   d.Tool,
			Input:  h.cfg.Redact.String(firstChars([]byte(d.Input), excerptChars)),
			Reason: h.cfg.Redact.String(d.Reason),
		})
	}
	return u
}
