package agent

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"flowrun.dev/flow/sandbox"
)

// Rights is the allowlist as rights of the step's processes: the wall that holds
// whatever a program does.
//
//	no Write, Edit or Bash            the home is read-only
//	Write or Edit with paths only     what lies in these folders can be written, by
//	                                  programs of a narrow Bash rule too
//	Write or Edit of every file, or   everything can be written
//	Bash of every command, or a
//	narrow Bash without Write or Edit
//
// A pattern counts by its folder: the part before its first wildcard.
func (p *Policy) Rights() sandbox.Rights {
	folders, all := p.writable()
	if all {
		return sandbox.Rights{}
	}
	return sandbox.Rights{ReadOnly: true, Write: folders}
}

func (p *Policy) writable() (folders []string, all bool) {
	var bash, writes bool
	for _, r := range p.allowed {
		if p.wholly(p.denied, r.Tool) {
			continue
		}
		switch r.Tool {
		case "Bash":
			bash = true
			if r.Spec == "" {
				return nil, true
			}
		case "Write", "Edit":
			writes = true
			if r.Spec == "" {
				return nil, true
			}
			folder, whole := r.folder()
			if whole {
				return nil, true
			}
			if folder != "" && !slices.Contains(folders, folder) {
				folders = append(folders, folder)
			}
		default:
			if !slices.Contains(readers, r.Tool) {
				return nil, true // what a server or an unknown tool does is not known
			}
		}
	}
	slices.Sort(folders)
	return folders, bash && !writes
}

func (p *Policy) serverRules() (names []string) {
	for _, r := range p.allowed {
		if r.ofServer() {
			names = append(names, r.Tool)
		}
	}
	return names
}

// readers are the tools that write nothing.
var readers = []string{"Read", "Glob", "Grep", "WebFetch", "WebSearch", "TodoWrite"}

// folder of a file rule as sandbox.Rights names it; whole for the home itself, ""
// outside of it.
func (r Rule) folder() (name string, whole bool) {
	base, pattern := doublestar.SplitPattern(r.glob)
	if pattern == "" {
		base = r.glob
	}
	switch {
	case base == sandbox.HomeDir || strings.HasPrefix(sandbox.HomeDir, strings.TrimSuffix(base, "/")+"/"):
		return "", true
	case base == sandbox.WorkspaceDir:
		return "~/workspace/", false
	case strings.HasPrefix(base, sandbox.WorkspaceDir+"/"):
		return base[len(sandbox.WorkspaceDir)+1:] + "/", false
	case strings.HasPrefix(base, sandbox.HomeDir+"/"):
		return "~/" + base[len(sandbox.HomeDir)+1:] + "/", false
	}
	return "", false
}

// RightsText says in words what a step with these lists may do, a sentence for each
// right, for `flow plan`. The error is NewPolicy's.
func RightsText(allowed, disallowed []string) ([]string, error) {
	p, err := NewPolicy(allowed, disallowed)
	if err != nil {
		return nil, err
	}
	var out []string
	r := p.Rights()
	switch {
	case !r.ReadOnly:
		out = append(out, "may change every file of the workspace and the home")
	case len(r.Write) == 0:
		out = append(out, "may change no file")
	default:
		var names []string
		for _, w := range r.Write {
			if w == "~/workspace/" {
				w = "the workspace"
			}
			names = append(names, w)
		}
		out = append(out, "may change files in "+strings.Join(names, ", ")+" only")
	}
	var narrow []string
	for _, rule := range p.allowed {
		if rule.Tool == "Bash" && rule.Spec != "" {
			narrow = append(narrow, strings.TrimSuffix(rule.Spec, ":*"))
		}
	}
	switch {
	case !slices.Contains(p.Offered(), "Bash"):
		out = append(out, "runs no commands")
	case p.wholly(p.allowed, "Bash"):
		out = append(out, "runs any command")
	default:
		out = append(out, "runs only: "+strings.Join(narrow, ", "))
		if !r.ReadOnly || len(r.Write) > 0 {
			out = append(out, "what these programs do when they run is bounded by the sandbox and the writable files, not by the patterns")
		}
	}
	if servers := p.serverRules(); len(servers) > 0 {
		out = append(out, "uses tools of MCP servers, whose programs may change every file: "+strings.Join(servers, ", "))
	}
	if len(p.denied) > 0 {
		out = append(out, fmt.Sprintf("never: %s", strings.Join(disallowed, ", ")))
	}
	return out, nil
}
