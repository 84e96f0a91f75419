package workflow

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Ready says when a background step counts as ended. Exactly one of Port, Run and Log
// is set.
type Ready struct {
	Port int       // something listens on it in the step's sandbox
	Run  *Template // a script that ends with exit code 0
	Log  string    // a regular expression (RE2) that a line of the step's output matches
	// Timeout: not ready after it is a failure; default 60 s.
	Timeout time.Duration
}

// defaultReady is how long a background step may take to become ready.
const defaultReady = 60 * time.Second

// Keys that say nothing of a step that goes on in the background, with the reason.
var backgroundRefuses = []struct{ key, why string }{
	{"agent", "only a run step can go on in the background"},
	{"approve", "only a run step can go on in the background"},
	{"steps", "only a run step can go on in the background: give it to the step in the group that has the process, at the top level"},
	{"workflow", "only a run step can go on in the background"},
	{"foreach", "one process a step: write a step for each"},
	{"repeat", "its process goes on by itself"},
	{"cache", "a process cannot be taken from the cache"},
	{"artifacts", "its files are not complete while it runs: let a step after it, or the run, name them"},
	{"outputs", "its output is not complete while it runs; what it writes to $FLOW_OUTPUT before it is ready counts"},
	{"access", "what it changes cannot be told from what the steps beside it change"},
	{"sandbox", "it runs in the sandbox of the run, where the steps after it are"},
	{"on_conflict", "it works on the workspace itself, not on a copy"},
	{"warn_after", "it is meant to go on; `ready: {timeout}` bounds its start"},
}

// background reads `background` and `ready`.
func (p *fileParser) background(s *Step, n *yaml.Node, at standing, sc *scope) {
	k, v := keyNode(n, "background"), valueOf(n, "background")
	ready := valueOf(n, "ready")
	if v != nil {
		s.Background = p.boolean(v, "background")
	}
	if !s.Background {
		if ready != nil {
			d := p.at("background", keyNode(n, "ready"), "ready says when a background step counts as ended; this one ends by itself")
			d.Hint = "add `background: true`"
		}
		return
	}
	for _, r := range backgroundRefuses {
		if c := keyNode(n, r.key); c != nil {
			p.at("background", c, "%s does not go with background: %s", r.key, r.why)
		}
	}
	if p.isCalled {
		p.at("background", k, "a background step stands in the file that is run, not in one that it calls: it lives until the run ends")
	}
	if l := p.lists[at.list]; l.late || l.holder >= 0 {
		p.at("background", k, "a background step stands in `steps` of the file, not in %s: it lives until the run ends", l.what)
	}
	if reuse := p.w.Sandbox.Reuse; reuse != "" && reuse != ReuseRun {
		p.at("background", k, "background needs one sandbox for the run: with `reuse: %s` no other step could reach the process", reuse)
	}
	if ready != nil {
		s.Ready = p.ready(ready, sc)
	}
	s.WarnAfter = 0
}

// backgroundFits: the process keeps the sandbox of the run, and one that a step has for
// itself is another one.
func (p *fileParser) backgroundFits() {
	if p.w.Sandbox.MaxSandboxes != 1 {
		return
	}
	var lives, other *Step
	p.w.Walk(func(s *Step) {
		switch {
		case s.Background && lives == nil:
			lives = s
		case s.Sandbox != "" && other == nil:
			other = s
		}
	})
	if lives == nil || other == nil {
		return
	}
	d := p.add("background", other.Pos, 1, "step %s has a sandbox of its own, and there may be one only (sandbox.max_sandboxes), which the process of step %s keeps", other.ID, lives.ID)
	d.Hint = "write `max_sandboxes: 2`"
}

func (p *fileParser) ready(n *yaml.Node, sc *scope) *Ready {
	r := &Ready{Timeout: defaultReady}
	var given []string
	p.mapping(n, ctxReady, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "port":
			r.Port = p.integer(ctxReady, k, v)
		case "run":
			r.Run = p.template(v, "run", sc, p.inScript)
		case "log":
			r.Log, _ = p.str(v, "log")
			if _, err := regexp.Compile(r.Log); err != nil {
				p.at("pattern", v, "log: %v", err)
			} else if strings.TrimSpace(r.Log) == "" {
				p.at("pattern", v, "log is empty, and would match every line")
			}
		case "timeout":
			r.Timeout = p.duration(v, "timeout")
		default:
			return false
		}
		if k.Value != "timeout" {
			given = append(given, k.Value)
		}
		return true
	})
	slices.Sort(given)
	switch {
	case len(given) > 1:
		p.at("exclusive", n, "ready has %s; it can be only one", strings.Join(given, " and "))
	case len(given) == 0 && real(n).Kind == yaml.MappingNode:
		d := p.at("required", n, "ready does not say what to wait for")
		d.Hint = "one of `port: 8080`, `run: curl -sf localhost:8080/health`, `log: listening on`"
	}
	return r
}
