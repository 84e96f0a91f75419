package workflow

import (
	"strings"

	"gopkg.in/yaml.v3"
)

// sessionPattern is what `session` takes.
const sessionPattern = `^(new|continue [a-z][a-z0-9_]*)$`

var sessionForm = lazily(sessionPattern)

// session reads `session: new` (the default) or `session: continue STEP`. The step that
// is named has to have ended before this one starts.
func (p *fileParser) session(a *AgentStep, n *yaml.Node, sc *scope) {
	text, ok := p.name(n, "session")
	if !ok {
		return
	}
	if !sessionForm().MatchString(text) {
		d := p.at("session", n, "session: unknown word %q", text)
		d.Expected = []string{"new", "continue STEP"}
		return
	}
	id, found := strings.CutPrefix(text, "continue ")
	if !found {
		a.Session = ""
		return
	}
	j, there := p.ids[id]
	switch {
	case !there:
		d := p.at("session-step", n, "there is no step %q", id)
		d.Suggestion = p.nearest(id, p.idNames())
	case j == sc.step:
		p.at("session-step", n, "a step cannot continue its own conversation")
	default:
		if why := sc.hidden(id); why != "" {
			p.at("session-step", n, "%s", why)
			return
		}
		a.Session, a.sessionPos = id, pos(n)
		p.sessions = append(p.sessions, id)
	}
}

// continued judges the steps whose conversations others continue, once all are read.
func (p *fileParser) continued() {
	if p.sessions == nil {
		return
	}
	byID := map[string]*Step{}
	p.w.own(func(s *Step) { byID[s.ID] = s })
	p.w.own(func(s *Step) {
		if s.Agent == nil || s.Agent.Session == "" {
			return
		}
		wrong := func(format string, args ...any) {
			p.add("session-step", s.Agent.sessionPos, len("continue ")+len(s.Agent.Session), format, args...)
		}
		switch of := byID[s.Agent.Session]; {
		case of == nil: // its id is a mistake of its own
		case of.Agent == nil:
			wrong("step %s is no agent step: it has no conversation", of.ID)
		case of.Foreach != nil || of.Repeat != nil:
			wrong("step %s has several conversations: it has foreach or repeat", of.ID)
		case of.Cache != nil:
			wrong("step %s has cache: a result from the cache has no conversation", of.ID)
		case s.Cache != nil:
			wrong("a step with cache cannot continue a conversation: it would depend on more than its key")
		case of.Agent.Provider != s.Agent.Provider:
			wrong("step %s has provider %s, and this one %s: a conversation stays with its provider", of.ID, of.Agent.Provider, s.Agent.Provider)
		case s.Agent.Provider == "acp":
			wrong("session: continue is not supported for provider acp")
		}
	})
}
