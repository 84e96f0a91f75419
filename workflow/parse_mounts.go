package workflow

import (
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// Mount shows a folder or file of the host inside, read-only.
type Mount struct {
	// Host as written: absolute, below the user's home (`~/`), or relative to the
	// workflow file.
	Host string
	To   string // absolute, in a place of its own
	Pos  Pos
}

// insidePattern is a clean absolute path; ownPlaces are the folders that a sandbox has
// itself: a mount over them would hide what it is built of, or be hidden.
const (
	insidePattern = `^(/[^/]+)+$`
	ownPlaces     = `^/(usr|bin|sbin|lib|lib32|lib64|libx32|opt|nix|snap|gnu|etc|proc|dev|sys|tmp|var|run|home|root|boot)(/|$)|/\.\.?(/|$)`
)

var (
	insideOK = lazily(insidePattern)
	notOurs  = lazily(ownPlaces)
)

func lazyMatch(re func() *regexp.Regexp, s string) bool { return re().MatchString(s) }

// maxMounts of one sandbox.
const maxMounts = 32

// mounts reads `mounts:`, a list of maps with host and to.
func (p *fileParser) mounts(n *yaml.Node) []Mount {
	var out []Mount
	p.list(n, "mounts", func(x *yaml.Node) {
		m := Mount{Pos: pos(x)}
		ok := p.mapping(x, ctxMount, func(k, v *yaml.Node) bool {
			switch k.Value {
			case "host":
				m.Host, _ = p.str(v, "host")
				if strings.Contains(m.Host, "${{") {
					p.at("mount", v, "host takes no expressions: what of this machine is shown is fixed in the file")
				}
			case "to":
				m.To = p.insidePath(v)
			default:
				return false
			}
			return true
		})
		if !ok {
			return
		}
		for _, name := range []string{"host", "to"} {
			if keyNode(x, name) == nil {
				p.at("required", x, "the mount has no %s: it says what of this machine is shown (host), and where (to)", name)
			}
		}
		for _, o := range out {
			if o.To != "" && (strings.HasPrefix(m.To+"/", o.To+"/") || strings.HasPrefix(o.To+"/", m.To+"/")) {
				p.at("mount", x, "%s is shown at %s, which is the same place or around it", o.Host, o.To)
				break
			}
		}
		out = append(out, m)
	})
	if len(out) > maxMounts {
		p.at("mount", n, "%d mounts; at most %d are possible", len(out), maxMounts)
	}
	return out
}

// insidePath reads a place in the sandbox.
func (p *fileParser) insidePath(v *yaml.Node) string {
	to, ok := p.name(v, "to")
	switch {
	case !ok:
		return ""
	case lazyMatch(notOurs, to):
		d := p.at("mount", v, "%s is a place of the sandbox's own", to)
		d.Hint = "take one of its own, e.g. /data or /mnt/models"
	case !lazyMatch(insideOK, to):
		p.at("mount", v, "%q is not a clean absolute path in the sandbox, as /data/models", to)
	}
	return to
}

// MountsOf are those of a sandbox: the file's, and its own.
func (w *Workflow) MountsOf(s *SandboxSpec) []Mount {
	return append(append([]Mount(nil), w.Mounts...), s.Mounts...)
}
