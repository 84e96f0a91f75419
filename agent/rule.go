package agent

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/hashicorp/go-multierror"

	"flowrun.dev/flow/sandbox"
)

// Rule is one entry of allowed_tools or disallowed_tools, in Claude Code's words:
//
//	Read                 the tool, with every input (Read(*) is the same)
//	Bash(go test ./...)  exactly this simple command
//	Bash(go test:*)      simple commands that begin with these words
//	Edit(./src/**)       files below the workspace, doublestar patterns
//	Read(~/notes/*)      below the home; Read(//etc/**) anywhere in the sandbox
//	mcp__server__tool, WebFetch(domain:x)
//
// Unlike Claude Code, a scoped Write rule counts (it ignores them), and one
// leading slash is refused, as it reads like an absolute path and is none there.
type Rule struct {
	Tool string
	// Spec is the text in parentheses, "" for the whole tool.
	Spec string

	words  []string // of Bash: the pattern's words
	prefix bool     // of Bash: more words may follow
	glob   string   // of a file tool: absolute doublestar pattern inside the sandbox
	loose  bool     // of a file tool: written without a slash
}

// Rules are parsed entries, in the order of the file.
type Rules []Rule

// String is the rule as it was written.
func (r Rule) String() string {
	if r.Spec == "" {
		return r.Tool
	}
	return r.Tool + "(" + r.Spec + ")"
}

// toolKinds are the tools whose names are Claude Code's, with what their rules may
// hold in parentheses. Which of them a provider really has is checked by the provider.
var toolKinds = map[string]string{
	"Bash": "command", "Read": "path", "Write": "path", "Edit": "path", "Glob": "path", "Grep": "path",
	"WebFetch": "domain",
	"Agent":    "", "Task": "", "NotebookEdit": "", "Skill": "", "TodoWrite": "", "WebSearch": "",
}

var (
	ruleForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?s)^([A-Za-z][A-Za-z0-9_-]*(?:\*)?)(?:\((.*)\))?$`) })
	mcpForm  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^mcp__[A-Za-z0-9_-]+(\*)?$`) })
)

// MCPPrefix begins the names of the tools of MCP servers: mcp__SERVER__TOOL.
const MCPPrefix = "mcp__"

func (r Rule) ofServer() bool { return strings.HasPrefix(r.Tool, MCPPrefix) }

// coversMCP: mcp__SERVER covers all tools of the server, and so does mcp__SERVER__*.
func (r Rule) coversMCP(tool string) bool {
	if !r.ofServer() {
		return false
	}
	if begin, ok := strings.CutSuffix(r.Tool, "*"); ok {
		return strings.HasPrefix(tool, begin)
	}
	_, _, one := strings.Cut(strings.TrimPrefix(r.Tool, MCPPrefix), "__")
	return tool == r.Tool || !one && strings.HasPrefix(tool, r.Tool+"__")
}

// ParseRules parses entries and reports all mistakes at once.
func ParseRules(entries []string) (Rules, error) {
	var rules Rules
	var errs *multierror.Error
	for _, e := range entries {
		r, err := parseRule(e)
		if err != nil {
			errs = multierror.Append(errs, fmt.Errorf("tool rule %q: %w", e, err))
			continue
		}
		rules = append(rules, r)
	}
	return rules, errs.ErrorOrNil()
}

func parseRule(entry string) (Rule, error) {
	m := ruleForm().FindStringSubmatch(strings.TrimSpace(entry))
	if m == nil {
		return Rule{}, errors.New("expected Tool or Tool(pattern)")
	}
	r := Rule{Tool: m[1], Spec: m[2]}
	scoped := strings.HasSuffix(strings.TrimSpace(entry), ")")
	if mcpForm().MatchString(r.Tool) {
		if scoped {
			return r, errors.New("an MCP rule has no pattern in parentheses")
		}
		return r, nil
	}
	kind, known := toolKinds[r.Tool]
	switch {
	case !known:
		return r, fmt.Errorf("unknown tool %s%s", r.Tool, nearestTool(r.Tool))
	case !scoped:
		return r, nil
	case strings.TrimSpace(r.Spec) == "":
		return r, fmt.Errorf("the pattern is empty; write %s for every input", r.Tool)
	case r.Spec == "*":
		r.Spec = ""
		return r, nil
	}
	var err error
	switch kind {
	case "command":
		err = r.parseCommand()
	case "path":
		err = r.parsePath()
	case "domain":
		if !strings.HasPrefix(r.Spec, "domain:") {
			err = errors.New("expected domain:HOST")
		}
	default:
		err = fmt.Errorf("%s takes no pattern", r.Tool)
	}
	return r, err
}

// nearestTool is a suggestion for a name that differs in case only or by a prefix.
func nearestTool(name string) string {
	var names []string
	for known := range toolKinds {
		if strings.EqualFold(known, name) {
			return "; did you mean " + known + "?"
		}
		names = append(names, known)
	}
	slices.Sort(names)
	return "; known are " + strings.Join(names, ", ") + " and mcp__SERVER__TOOL"
}

// parseCommand reads a Bash pattern with the same parser that judges commands, so
// that quoting means the same on both sides.
func (r *Rule) parseCommand() error {
	text, prefix := strings.CutSuffix(r.Spec, ":*")
	words, err := patternWords(text)
	if err != nil {
		return err
	}
	r.words, r.prefix = words, prefix
	return nil
}

func (r *Rule) parsePath() error {
	spec := r.Spec
	switch {
	case strings.HasSuffix(spec, "/"):
		return fmt.Errorf("a folder's files are %s**", spec)
	case strings.ContainsRune(spec, 0):
		return errors.New("the pattern holds a NUL byte")
	case strings.HasPrefix(spec, "//"):
		r.glob = path.Clean(spec[1:])
	case strings.HasPrefix(spec, "/"):
		return fmt.Errorf("write /%s for an absolute path, or .%s for one in the workspace", spec, spec)
	case strings.HasPrefix(spec, "~/"):
		r.glob = path.Join(sandbox.HomeDir, spec[2:])
	default:
		r.glob = path.Join(sandbox.WorkspaceDir, spec)
		r.loose = !strings.Contains(spec, "/")
		if !beneath(r.glob, sandbox.WorkspaceDir) {
			return errors.New("the pattern leaves the workspace; write ~/… or //… for a path outside")
		}
	}
	if !doublestar.ValidatePattern(r.glob) {
		return errors.New("the pattern is not a valid doublestar pattern")
	}
	return nil
}

func beneath(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}
