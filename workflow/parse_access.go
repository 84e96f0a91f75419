package workflow

import (
	"io/fs"
	"strings"

	"gopkg.in/yaml.v3"
)

// Access is what a step may change: everything (the zero value), or nothing but
// some paths of the workspace.
type Access struct {
	ReadOnly bool
	// Write stays writable when ReadOnly: relative to the workspace, or "~/…"
	// relative to the home; a folder ends with a slash.
	Write []string
}

// access reads `access:`: write, read, or a list of writable paths. They are
// literals: what grants something never comes from a step.
func (p *fileParser) access(k, n *yaml.Node) Access {
	n = real(n)
	if n.Kind != yaml.SequenceNode {
		switch p.word(ctxStep, k, n) {
		case "read":
			return Access{ReadOnly: true}
		}
		return Access{}
	}
	a := Access{ReadOnly: true}
	p.list(n, "access", func(x *yaml.Node) {
		name, ok := p.name(x, "access")
		switch {
		case !ok:
		case strings.Contains(name, "${{"):
			p.at("literal", real(x), "access takes literal paths, no expressions: what grants a right is fixed in the file")
		case !writablePath(name):
			d := p.at("path", real(x), "a writable path is relative to the workspace (or ~/… to the home) and stays in it: %q does not", name)
			d.Hint = "a folder ends with a slash, as in  access: [out/, report.xml]"
		default:
			a.Write = append(a.Write, name)
		}
	})
	return a
}

// writablePath is the syntax of one: what it leads to is judged when the step starts.
func writablePath(name string) bool {
	rest := strings.TrimSuffix(strings.TrimPrefix(name, "~/"), "/")
	return fs.ValidPath(rest) && rest != "." && rest != "~" && strings.IndexByte(rest, 0) < 0
}
