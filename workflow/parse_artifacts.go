package workflow

import (
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"gopkg.in/yaml.v3"
)

// artifacts reads `artifacts:`: globs of files in the workspace, `!glob` for those
// that are left out. They are policy, so no expression stands in them.
func (p *fileParser) artifacts(n *yaml.Node) []string {
	var out []string
	p.list(n, "artifacts", func(x *yaml.Node) {
		text, ok := p.str(x, "artifacts")
		if !ok {
			return
		}
		glob, _ := strings.CutPrefix(text, "!")
		switch {
		case strings.Contains(text, "${{"):
			p.at("glob", real(x), "artifacts takes no expressions: what is handed out is fixed in the file; use a glob that fits all cases")
		case glob == "" || !inWorkspaceGlob(glob):
			p.at("glob", real(x), "%q is not a glob of files in the workspace", text)
		default:
			out = append(out, text)
		}
	})
	if len(out) > 0 && strings.HasPrefix(out[0], "!") && !hasPositive(out) {
		p.at("glob", n, "artifacts names only what to leave out")
	}
	return out
}

func hasPositive(globs []string) bool {
	for _, g := range globs {
		if !strings.HasPrefix(g, "!") {
			return true
		}
	}
	return false
}

// inWorkspaceGlob: relative, and in no way out.
func inWorkspaceGlob(glob string) bool {
	if strings.HasPrefix(glob, "/") || !doublestar.ValidatePattern(glob) || strings.ContainsRune(glob, 0) {
		return false
	}
	clean := path.Clean(glob)
	return clean != ".." && !strings.HasPrefix(clean, "../")
}
