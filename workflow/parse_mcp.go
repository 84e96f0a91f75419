package workflow

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"gopkg.in/yaml.v3"
)

// mcpPrefix begins the names of tools that a server gives: mcp__SERVER__TOOL.
const mcpPrefix = "mcp__"

// mcpTool is how a rule names tools of a server: one, or all of them.
const mcpTool = mcpPrefix + `[a-z][a-z0-9]*(_[a-z0-9]+)*(__([A-Za-z0-9_-]+|\*))?`

var (
	mcpToolForm   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^` + mcpTool + `$`) })
	mcpServerForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(mcpServerPattern) })
	headerForm    = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(headerPattern) })
)

// mcpServerPattern has no double underscore: it ends a server's name in its tools'.
const mcpServerPattern = `^[a-z][a-z0-9]*(_[a-z0-9]+)*$`

const headerPattern = `^[A-Za-z][A-Za-z0-9-]*$`

// MCPServer is one of `mcp_servers`: it has a Command or a URL.
type MCPServer struct {
	Name    string
	Command []string // runs in the sandbox
	Env     []EnvVar // beside the step's
	URL     string   // of a server that speaks streamable HTTP
	Headers []EnvVar
	Pos     Pos
}

// Target is the host and port of a server with a URL.
func (s MCPServer) Target() (host string, port int) {
	u, err := url.Parse(s.URL)
	if err != nil {
		return "", 0
	}
	port = map[string]int{"http": 80, "https": 443}[u.Scheme]
	if p, err := strconv.Atoi(u.Port()); err == nil {
		port = p
	}
	return strings.ToLower(u.Hostname()), port
}

// mcpServers reads `mcp_servers`.
func (p *fileParser) mcpServers(n *yaml.Node, sc *scope) []MCPServer {
	out := []MCPServer{}
	p.pairs(n, "mcp_servers", func(k, v *yaml.Node) {
		if !mcpServerForm().MatchString(k.Value) {
			d := p.at("name", k, "the name of an MCP server has lower-case letters, digits and single underscores, and starts with a letter")
			d.Hint = "its tools are named " + mcpPrefix + "NAME__TOOL"
			return
		}
		out = append(out, p.mcpServer(k, v, sc))
	})
	return out
}

func (p *fileParser) mcpServer(k, n *yaml.Node, sc *scope) MCPServer {
	s := MCPServer{Name: k.Value, Pos: pos(k)}
	given := map[string]*yaml.Node{}
	ok := p.mapping(n, inMCP, func(k, v *yaml.Node) bool {
		given[k.Value] = v
		switch k.Value {
		case "command":
			s.Command = p.grants(v, "command")
			if real(v).Kind == yaml.SequenceNode && len(real(v).Content) == 0 {
				p.at("mcp", v, "command is empty")
			}
		case "env":
			s.Env = p.env(v, "env", sc)
		case "url":
			s.URL = p.mcpURL(v)
		case "headers":
			s.Headers = p.headers(v, sc)
		default:
			return false
		}
		return true
	})
	if !ok {
		return s
	}
	switch command, url := given["command"], given["url"]; {
	case command != nil && url != nil:
		p.at("exclusive", k, "the MCP server %s has command and url; it can be only one", s.Name)
	case command == nil && url == nil:
		d := p.at("required", k, "the MCP server %s has neither command nor url", s.Name)
		d.Hint = "command: [program, argument]  runs in the sandbox;  url: https://…  is reached over HTTP"
	case url != nil && given["env"] != nil:
		p.at("exclusive", given["env"], "env is for a server with a command")
	case command != nil && given["headers"] != nil:
		p.at("exclusive", given["headers"], "headers are for a server with a url")
	}
	return s
}

func (p *fileParser) mcpURL(n *yaml.Node) string {
	text, ok := p.name(n, "url")
	if !ok {
		return ""
	}
	if strings.Contains(text, "${{") {
		p.noExpression(n, "url")
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.Fragment != "" {
		p.at("mcp", n, "%q is no http or https address", text)
		return ""
	}
	if u.User != nil {
		d := p.at("mcp", n, "the url holds a user name or password")
		d.Hint = "declare a secret with `inject` for the host"
		return ""
	}
	return text
}

// headers of requests to a server. What names an account is a secret with `inject`.
func (p *fileParser) headers(n *yaml.Node, sc *scope) []EnvVar {
	var out []EnvVar
	p.pairs(n, "headers", func(k, v *yaml.Node) {
		if !headerForm().MatchString(k.Value) {
			p.at("name", k, "a header's name has letters, digits and hyphens")
			return
		}
		if t := p.template(v, k.Value, sc, nil); t != nil {
			out = append(out, EnvVar{Name: k.Value, Value: t, Pos: pos(k)})
		}
	})
	return out
}

// serverOf is the server that a rule names, "" for a rule of another tool.
func serverOf(rule string) string {
	rest, ok := strings.CutPrefix(rule, mcpPrefix)
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "__")
	return name
}

// serversFit: every rule of a server's tools names one that there is, and of every server
// that the step itself names something is allowed. One of the defaults or of a profile
// that a step does not use is not started for it.
func (p *fileParser) serversFit(a *AgentStep, n *yaml.Node) {
	var names []string
	for _, s := range a.MCPServers {
		names = append(names, s.Name)
	}
	used := map[string]bool{}
	for _, list := range []struct {
		key   string
		rules []string
	}{{"allowed_tools", a.AllowedTools}, {"disallowed_tools", a.DisallowedTools}} {
		for i, rule := range list.rules {
			server := serverOf(rule)
			if server == "" || !mcpToolForm().MatchString(rule) {
				continue
			}
			used[server] = used[server] || list.key == "allowed_tools"
			if slices.Contains(names, server) {
				continue
			}
			at := n
			if v := valueOf(n, list.key); v != nil && real(v).Kind == yaml.SequenceNode && i < len(real(v).Content) {
				at = real(v).Content[i]
			}
			d := p.at("mcp", at, "%s names the MCP server %s, which is not in mcp_servers", rule, server)
			d.Expected, d.Suggestion = names, p.nearest(server, names)
		}
	}
	for _, s := range a.MCPServers {
		if !used[s.Name] && valueOf(n, "mcp_servers") != nil {
			d := p.add("mcp", s.Pos, len(s.Name), "no rule of allowed_tools allows a tool of the MCP server %s", s.Name)
			d.Hint = "add  " + mcpPrefix + s.Name + "__TOOL, or  " + mcpPrefix + s.Name + "  for all of its tools"
		}
	}
	if a.Provider == "acp" && slices.ContainsFunc(a.AllowedTools, func(rule string) bool { return serverOf(rule) != "" }) {
		p.at("mcp", n, "mcp_servers is not supported for provider acp: what its agent calls there cannot be judged")
	}
}

// Uses says whether a rule of allowed_tools names the server.
func (a *AgentStep) Uses(server string) bool {
	return slices.ContainsFunc(a.AllowedTools, func(rule string) bool { return serverOf(rule) == server })
}

// serversReached: a server with a url is in the step's network.
func (p *fileParser) serversReached(s *Step) {
	if s.Agent == nil || s.Network.Mode == NetworkFull {
		return
	}
	for _, m := range s.Agent.MCPServers {
		host, port := m.Target()
		if m.URL == "" || !s.Agent.Uses(m.Name) || s.Network.Reaches(host, port) {
			continue
		}
		entry := host
		if port != 80 && port != 443 {
			entry += ":" + strconv.Itoa(port)
		}
		d := p.add("mcp", m.Pos, len(m.Name), "the MCP server %s is at %s, which the step's network does not reach", m.Name, entry)
		d.Hint = "give the step  network: {allow: [\"" + entry + "\"]}"
	}
}
