package workflow

import (
	"encoding/json"
	"path"
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
	a.MaxPromptChars = maxPrompt
	if p.defaults.agent != nil {
		p.agentKeys(a, p.defaults.agent, inAgentDefaults, sc)
	}
	p.profile(a, n, sc)
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
	case a.Prompt != nil && utf8.RuneCountInString(a.Prompt.Source()) > a.MaxPromptChars:
		p.at("limit", n, "the prompt has more than %d characters; max_prompt_chars raises the limit", a.MaxPromptChars)
	}
	if a.Provider == "replay" && a.Cassette == "" {
		p.at("required", n, "provider replay needs a cassette")
	}
	p.serversFit(a, n)
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
			a.Profile = p.profileName(v)
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
			if a.Cassette, _ = p.str(v, "cassette"); a.Cassette != "" && p.dir != "" && !path.IsAbs(a.Cassette) {
				a.Cassette = path.Join(p.dir, a.Cassette)
			}
		case "output_schema":
			a.OutputSchema = p.outputSchema(v)
		case "mcp_servers":
			a.MCPServers = p.mcpServers(v, sc)
		case "context_files":
			a.ContextFiles = p.contextFiles(v)
		case "session":
			p.session(a, v, sc)
		case "max_prompt_chars":
			a.MaxPromptChars = p.integer(ctxAgent, k, v)
		default:
			return false
		}
		return true
	})
}

// profile applies the keys of a profile of the file: after the defaults, before the
// step's own.
func (p *fileParser) profile(a *AgentStep, n *yaml.Node, sc *scope) {
	name := a.Profile
	if v := valueOf(n, "profile"); v != nil {
		name = real(v).Value
	}
	if keys := p.ownProfile(name); keys != nil {
		if p.taken == nil {
			p.taken = map[string]bool{}
		}
		p.taken[name] = true
		tools := a.AllowedTools
		a.AllowedTools = nil
		p.agentKeys(a, keys, inAgentDefaults, sc)
		if a.AllowedTools == nil {
			a.AllowedTools = tools
		}
	}
}

// ownProfiles judges the profiles of the file; one that a step takes was read there.
func (p *fileParser) ownProfiles() {
	if p.profiles == nil {
		return
	}
	p.pairs(p.profiles, "profiles", func(k, v *yaml.Node) {
		if !idName().MatchString(k.Value) {
			p.at("name", k, "a profile's name has lower-case letters, digits and underscores, and starts with a letter")
		}
		if valueOf(v, "profile") != nil {
			p.at("profile", v, "a profile cannot take another one")
		}
		if !p.taken[k.Value] && p.lists != nil && len(p.places) > 0 {
			p.agentKeys(&AgentStep{}, v, inAgentDefaults, p.stepScope(0))
		}
	})
}

// ownProfile is a profile of the file, nil when it has none of that name.
func (p *fileParser) ownProfile(name string) *yaml.Node {
	if p.profiles == nil || name == "" {
		return nil
	}
	return valueOf(p.profiles, name)
}

func (p *fileParser) profileName(n *yaml.Node) string {
	name, ok := p.str(n, "profile")
	if !ok || profiles[name] != nil || p.ownProfile(name) != nil {
		return name
	}
	known := profileNames()
	if p.profiles != nil && real(p.profiles).Kind == yaml.MappingNode {
		for i := 0; i < len(real(p.profiles).Content); i += 2 {
			known = append(known, real(p.profiles).Content[i].Value)
		}
	}
	d := p.at("enum", n, "there is no profile %q", name)
	d.Expected, d.Suggestion = known, p.nearest(name, known)
	return name
}

// outputSchema is kept as JSON; what it means is checked by the JSON Schema itself.
func (p *fileParser) outputSchema(n *yaml.Node) []byte {
	m := real(n)
	if m.Kind != yaml.MappingNode || valueOf(m, "type") == nil || real(valueOf(m, "type")).Value != "object" {
		p.at("type", n, "output_schema is not a JSON Schema of type object")
		return nil
	}
	raw, err := json.Marshal(jsonOf(n))
	if err == nil {
		err = CheckSchema(raw)
	}
	if err != nil {
		p.at("schema", n, "output_schema is no JSON Schema: %v", err)
		return nil
	}
	return raw
}

// jsonOf is a node as JSON has it.
func jsonOf(n *yaml.Node) any {
	n = real(n)
	switch n.Kind {
	case yaml.MappingNode:
		o := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			o[n.Content[i].Value] = jsonOf(n.Content[i+1])
		}
		return o
	case yaml.SequenceNode:
		list := []any{}
		for _, x := range n.Content {
			list = append(list, jsonOf(x))
		}
		return list
	}
	return plain(n)
}

// filePattern is a path beneath the workspace: no "", "." or ".." between slashes.
const filePattern = `^([^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+)(/([^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+))*$`

var fileForm = lazily(filePattern)

func (p *fileParser) contextFiles(n *yaml.Node) []string {
	var names []string
	p.list(n, "context_files", func(x *yaml.Node) {
		name, ok := p.str(x, "context_files")
		if ok && (real(x).Tag != "!!str" || !fileForm().MatchString(name)) {
			p.at("path", x, "%q is no path of a file in the workspace", name)
			return
		}
		names = append(names, name)
	})
	return names
}

func (p *fileParser) budget(n *yaml.Node) Budget {
	var b Budget
	p.mapping(n, ctxBudget, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "cost_usd":
			b.CostUSD = p.decimal(ctxBudget, k, v)
		case "tokens":
			b.Tokens = int64(p.integer(ctxBudget, k, v))
		case "turns":
			b.Turns = p.integer(ctxBudget, k, v)
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
		case strings.HasPrefix(r, mcpPrefix):
			if !mcpToolForm().MatchString(r) {
				d := p.at("tool", at, "%q names no tool of an MCP server", r)
				d.Expected = []string{mcpPrefix + "SERVER__TOOL", mcpPrefix + "SERVER"}
			}
		case m == nil:
			p.at("tool", at, "%q is not a tool rule; expected Name or Name(pattern)", r)
		case m[1] == "WebFetch" || m[1] == "WebSearch" || m[1] == "Task":
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
	name = path.Join(p.dir, name)
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
	if !utf8.Valid(b) {
		p.at("limit", n, "prompt_file %q is no UTF-8 text", name)
		return
	}
	p.root.Files[name] = b
	text := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: string(b), Line: n.Line, Column: n.Column}
	a.Prompt = p.template(text, "prompt_file", sc, nil)
}
