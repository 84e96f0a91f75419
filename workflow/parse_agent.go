package workflow

import (
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// tools that an agent step may be allowed.
var tools = []string{"Bash", "Read", "Write", "Edit", "Glob", "Grep"}

var toolRule = lazily(`^([A-Za-z_][A-Za-z0-9_]*)(\(.+\))?$`)

func (p *fileParser) agent(n *yaml.Node, sc *scope) *AgentStep {
	a := &AgentStep{Pos: pos(n), Provider: "anthropic", MaxTurns: 50, OnDenied: "tell"}
	if p.defaults.agent != nil {
		p.agentKeys(a, p.defaults.agent, inAgentDefaults, sc)
	}
	if x := real(n); x.Kind == yaml.ScalarNode {
		a.Prompt = p.template(n, "agent", sc, nil)
	} else {
		p.agentKeys(a, n, inAgent, sc)
	}
	if a.AllowedTools == nil && a.Profile != "" {
		a.AllowedTools = profiles[a.Profile]
	}
	if a.AllowedTools == nil {
		a.AllowedTools, a.toolsByDefault = profiles["default"], true
	}
	switch {
	case valueOf(n, "prompt") != nil && valueOf(n, "prompt_file") != nil:
		p.at("exclusive", n, "the agent step has prompt and prompt_file; it can be only one")
	case real(n).Kind == yaml.SequenceNode:
	case isMissing(real(n)), a.Prompt == nil && valueOf(n, "prompt") == nil && valueOf(n, "prompt_file") == nil && real(n).Kind == yaml.MappingNode:
		p.at("required", n, "the agent step has no prompt")
	case a.Prompt != nil && utf8.RuneCountInString(a.Prompt.Source()) > maxPrompt:
		p.at("limit", n, "the prompt has more than %d characters", maxPrompt)
	}
	if a.Provider == "replay" && a.Cassette == "" {
		p.at("required", n, "provider replay needs a cassette")
	}
	switch {
	case a.Provider == "acp" && len(a.Command) == 0:
		p.at("required", n, "provider acp needs a command: the agent's program and its arguments")
	case a.Provider != "acp" && len(a.Command) > 0:
		p.at("exclusive", n, "command is for provider acp; the provider is %s", a.Provider)
	}
	return a
}

// agentKeys reads `agent:` or `defaults.agent:`, which has no prompt.
func (p *fileParser) agentKeys(a *AgentStep, n *yaml.Node, in Context, sc *scope) {
	p.mapping(n, in, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "prompt":
			a.Prompt = p.template(v, "prompt", sc, nil)
		case "prompt_file":
			p.promptFile(a, v, sc)
		case "provider":
			a.Provider = p.word(ctxAgent, k, v)
		case "profile":
			a.Profile = p.word(ctxAgent, k, v)
		case "model":
			a.Model, _ = p.str(v, "model")
		case "system_prompt":
			a.SystemPrompt = p.template(v, "system_prompt", sc, nil)
		case "append_system_prompt":
			a.AppendSystemPrompt = p.template(v, "append_system_prompt", sc, nil)
		case "allowed_tools":
			a.AllowedTools = p.toolRules(v, "allowed_tools")
		case "disallowed_tools":
			a.DisallowedTools = p.toolRules(v, "disallowed_tools")
		case "max_turns":
			a.MaxTurns = p.integer(ctxAgent, k, v)
		case "budget":
			a.Budget = p.budget(v)
		case "on_denied":
			a.OnDenied = p.word(ctxAgent, k, v)
		case "command":
			a.Command = p.grants(v, "command")
		case "cassette":
			a.Cassette, _ = p.str(v, "cassette")
		default:
			return false
		}
		return true
	})
}

func (p *fileParser) budget(n *yaml.Node) Budget {
	var b Budget
	p.mapping(n, ctxBudget, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "cost_usd":
			b.CostUSD = p.decimal(ctxBudget, k, v)
		case "tokens":
			b.Tokens = int64(p.integer(ctxBudget, k, v))
		default:
			return false
		}
		return true
	})
	return b
}

func (p *fileParser) toolRules(n *yaml.Node, what string) []string {
	rules := p.grants(n, what)
	for i, r := range rules {
		at := real(n)
		if i < len(at.Content) {
			at = real(at.Content[i])
		}
		m := toolRule().FindStringSubmatch(r)
		switch {
		case m == nil:
			p.at("tool", at, "%q is not a tool rule; expected Name or Name(pattern)", r)
		case strings.HasPrefix(m[1], "mcp__") || m[1] == "WebFetch" || m[1] == "WebSearch" || m[1] == "Task":
			p.at("not-supported", at, "tool %s is not supported yet", m[1])
		case !slices.Contains(tools, m[1]):
			d := p.at("tool", at, "unknown tool %q", m[1])
			d.Expected, d.Suggestion = tools, p.nearest(m[1], tools)
		}
	}
	return rules
}

// promptFile freezes the file's content; its `${{ }}` parts are expressions too.
func (p *fileParser) promptFile(a *AgentStep, n *yaml.Node, sc *scope) {
	name, ok := p.str(n, "prompt_file")
	if !ok {
		return
	}
	a.PromptFile = name
	if p.opts.ReadFile == nil {
		p.at("file", n, "prompt_file %q cannot be read here", name)
		return
	}
	b, err := p.opts.ReadFile(name)
	if err != nil {
		p.at("file", n, "read prompt_file: %v", err)
		return
	}
	if !utf8.Valid(b) || utf8.RuneCount(b) > maxPrompt {
		p.at("limit", n, "prompt_file %q is not text of at most %d characters", name, maxPrompt)
		return
	}
	p.w.Files[name] = b
	text := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: string(b), Line: n.Line, Column: n.Column}
	a.Prompt = p.template(text, "prompt_file", sc, nil)
}
