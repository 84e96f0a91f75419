package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"flowrun.dev/flow/sandbox"
)

// Policy is a step's tool allowlist: what is offered to the model, and the judge
// of every call. It does not change after NewPolicy and may be used by several
// goroutines.
//
// What it cannot do: bound what an allowed program does when it runs (`go test`
// runs code that the agent wrote). There the sandbox is the boundary.
type Policy struct {
	allowed, denied Rules
	// home is the real directory that sandbox.HomeDir means, where the two differ
	// (driver host).
	home string
}

// Decision is the answer of Policy.Judge.
type Decision struct {
	Allow  bool
	Reason string // why not; "" when allowed
}

// NewPolicy parses both lists; the error holds all mistakes.
func NewPolicy(allowed, disallowed []string) (*Policy, error) {
	a, errA := ParseRules(allowed)
	d, errD := ParseRules(disallowed)
	if errA != nil {
		return nil, fmt.Errorf("parse allowed_tools: %w", errA)
	}
	if errD != nil {
		return nil, fmt.Errorf("parse disallowed_tools: %w", errD)
	}
	return &Policy{allowed: a, denied: d}, nil
}

// WithHome returns a copy that takes paths below dir for paths below
// sandbox.HomeDir. Driver host needs it: there, programs see the real directory.
func (p *Policy) WithHome(dir string) *Policy {
	c := *p
	c.home = strings.TrimSuffix(dir, "/")
	return &c
}

// Offered lists the built-in tools to offer to the model, in the order of
// allowed_tools: those with a rule that allows something and none that disallows
// everything. For the tools of MCP servers, Judge says which are offered.
func (p *Policy) Offered() []string {
	var names []string
	for _, r := range p.allowed {
		if !r.ofServer() && !slices.Contains(names, r.Tool) && !p.wholly(p.denied, r.Tool) {
			names = append(names, r.Tool)
		}
	}
	return names
}

// wholly says whether rules cover the tool with every input.
func (p *Policy) wholly(rules Rules, tool string) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool { return r.Tool == tool && r.Spec == "" })
}

func (p *Policy) scoped(rules Rules, tools ...string) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool { return r.Spec != "" && slices.Contains(tools, r.Tool) })
}

// Judge says whether the call may be executed. A call that it cannot judge is denied.
func (p *Policy) Judge(tool string, input json.RawMessage) Decision {
	reason := p.judge(tool, input)
	return Decision{Allow: reason == "", Reason: reason}
}

func (p *Policy) judge(tool string, input json.RawMessage) string {
	if strings.HasPrefix(tool, MCPPrefix) {
		return p.judgeMCP(tool)
	}
	if !slices.Contains(p.Offered(), tool) {
		return "the tool " + tool + " is not in allowed_tools"
	}
	switch toolKinds[tool] {
	case "command":
		var in struct {
			Command string `json:"command"`
		}
		if err := decodeOnce(input, &in); err != nil {
			return "the input cannot be judged: " + err.Error()
		}
		return p.judgeBash(in.Command)
	case "path":
		if !p.Scoped(tool) {
			return ""
		}
		name, err := PathOf(tool, input)
		if err != nil {
			return "the input cannot be judged: " + err.Error()
		}
		return p.JudgePath(tool, name)
	}
	if p.wholly(p.allowed, tool) && !p.scoped(p.denied, tool) {
		return ""
	}
	return "the pattern of " + tool + " cannot be judged by this provider"
}

// judgeMCP: a rule of a server's tools has no pattern of their input.
func (p *Policy) judgeMCP(tool string) string {
	covers := func(r Rule) bool { return r.coversMCP(tool) }
	switch {
	case !slices.ContainsFunc(p.allowed, covers):
		return "the tool " + tool + " is not in allowed_tools"
	case slices.ContainsFunc(p.denied, covers):
		return "the tool " + tool + " is in disallowed_tools"
	}
	return ""
}

// MCPRules are the rules of allowed_tools that name exactly one tool of a server.
func (p *Policy) MCPRules() (names []string) {
	for _, r := range p.allowed {
		if _, rest, one := strings.Cut(strings.TrimPrefix(r.Tool, MCPPrefix), "__"); r.ofServer() && one && !strings.HasSuffix(rest, "*") {
			names = append(names, r.Tool)
		}
	}
	return names
}

// decodeOnce refuses what two readers of the same JSON could read differently:
// keys that are repeated, or that differ in case only (encoding/json matches
// names without case and takes the last; another reader takes the first).
func decodeOnce(input json.RawMessage, v any) error {
	dec := json.NewDecoder(bytes.NewReader(input))
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	if tok != json.Delim('{') {
		return fmt.Errorf("expected an object, got %v", tok)
	}
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return err
		}
		key, _ := tok.(string)
		if fold := strings.ToLower(key); seen[fold] {
			return fmt.Errorf("the key %q is given twice", key)
		} else {
			seen[fold] = true
		}
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return err
		}
	}
	return json.Unmarshal(input, v)
}

// PathOf takes the path out of a file tool's input. Of a Glob it is the folder
// below which its pattern looks.
func PathOf(tool string, input json.RawMessage) (string, error) {
	var in struct {
		FilePath string `json:"file_path"`
		Path     string `json:"path"`
		Pattern  string `json:"pattern"`
	}
	if err := decodeOnce(input, &in); err != nil {
		return "", err
	}
	switch tool {
	case "Glob":
		base, _ := doublestar.SplitPattern(in.Pattern)
		if strings.HasPrefix(base, "/") {
			return base, nil
		}
		return path.Join(orDot(in.Path), base), nil
	case "Grep":
		return orDot(in.Path), nil
	}
	if in.FilePath == "" {
		return "", fmt.Errorf("file_path is missing")
	}
	return in.FilePath, nil
}

func orDot(s string) string {
	if s == "" {
		return "."
	}
	return s
}

// Resolve makes a name that a model gave into a clean absolute path inside the
// sandbox; relative names are the workspace's. It follows no links.
func (p *Policy) Resolve(name string) string {
	if !path.IsAbs(name) {
		return path.Join(sandbox.WorkspaceDir, name)
	}
	name = path.Clean(name)
	if p.home != "" && beneath(name, p.home) {
		return path.Join(sandbox.HomeDir, name[len(p.home):])
	}
	return name
}

// fileDenials are the tools whose disallow rules count for a tool as well: a file
// that must not be edited must not be written either, one that must not be read
// is not searched.
var fileDenials = map[string][]string{
	"Read": {"Read"}, "Glob": {"Glob"}, "Grep": {"Grep", "Read"},
	"Write": {"Write", "Edit"}, "Edit": {"Edit", "Write"},
}

// Scoped says whether the tool's calls depend on their path. The tool then judges
// the path again after links were followed (JudgePath).
func (p *Policy) Scoped(tool string) bool {
	return !p.wholly(p.allowed, tool) || p.scoped(p.denied, fileDenials[tool]...)
}

// Narrow says whether some of the tool's calls are allowed and some are not.
func (p *Policy) Narrow(tool string) bool {
	return slices.Contains(p.Offered(), tool) && (!p.wholly(p.allowed, tool) || p.Hides(tool) || p.scoped(p.denied, tool))
}

// Hides says whether disallow rules keep some files from the tool.
func (p *Policy) Hides(tool string) bool { return p.scoped(p.denied, fileDenials[tool]...) }

// JudgePath judges a file tool's path; it returns the reason of a denial, or "".
func (p *Policy) JudgePath(tool, name string) string {
	if strings.ContainsRune(name, 0) {
		return "the path holds a NUL byte"
	}
	full := p.Resolve(name)
	for _, r := range p.denied {
		if r.Spec != "" && slices.Contains(fileDenials[tool], r.Tool) && r.deniesPath(full) {
			return fmt.Sprintf("%s is covered by disallowed_tools %s", name, r)
		}
	}
	if p.wholly(p.denied, tool) {
		return "the tool " + tool + " is in disallowed_tools"
	}
	var patterns []string
	for _, r := range p.allowed {
		if r.Tool != tool {
			continue
		}
		if r.Spec == "" || r.allowsPath(tool, full) {
			return ""
		}
		patterns = append(patterns, r.String())
	}
	if len(patterns) == 0 {
		return "the tool " + tool + " is not in allowed_tools"
	}
	return fmt.Sprintf("%s is outside of what is allowed: %s", name, strings.Join(patterns, ", "))
}

// allowsPath: the searching tools look at everything below their path, so the
// pattern has to cover everything below it.
func (r Rule) allowsPath(tool, full string) bool {
	if tool != "Glob" && tool != "Grep" {
		return doublestar.MatchUnvalidated(r.glob, full)
	}
	const probe = "\x01"
	return doublestar.MatchUnvalidated(r.glob, full+"/"+probe) && doublestar.MatchUnvalidated(r.glob, full+"/"+probe+"/"+probe) ||
		doublestar.MatchUnvalidated(r.glob, full) && !strings.ContainsAny(r.glob, "*?[{")
}

// deniesPath errs to the safe side: a pattern covers what is below it, and one
// without a slash matches in every folder, as in .gitignore. Case is ignored, as
// it is on some file systems.
func (r Rule) deniesPath(full string) bool {
	full, glob := strings.ToLower(full), strings.ToLower(r.glob)
	patterns := []string{glob}
	if r.loose {
		patterns = append(patterns, "/**/"+strings.ToLower(r.Spec))
	}
	for _, p := range patterns {
		if doublestar.MatchUnvalidated(p, full) || doublestar.MatchUnvalidated(p+"/**", full) {
			return true
		}
	}
	return false
}

// Readable says whether a search may show the file: no disallow rule of Read or
// of the tool covers it.
func (p *Policy) Readable(tool, name string) bool {
	full := p.Resolve(name)
	return !slices.ContainsFunc(p.denied, func(r Rule) bool {
		return r.Spec != "" && (r.Tool == "Read" || r.Tool == tool) && r.deniesPath(full)
	})
}
