package workflow

import (
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// ruleAgentTools: no tools are named, here or in the defaults.
func ruleAgentTools(p *fileParser, l *stepLint) {
	if a := l.s.Agent; a != nil && a.toolsByDefault {
		p.foundAt("agent-tools", l.nodes.agent, "the agent step has no allowed_tools; it gets those of profile default: %s", strings.Join(profiles["default"], ", "))
	}
}

// ruleAgentTimeout: nothing ends a conversation that goes on for ever.
func ruleAgentTimeout(p *fileParser, l *stepLint) {
	if l.s.Agent != nil && l.s.Timeout == 0 {
		p.found("agent-timeout", pos(l.n), 1, "agent step %s has no timeout", l.s.ID)
	}
}

// ruleAgentBudget: a live conversation may cost any amount.
func ruleAgentBudget(p *fileParser, l *stepLint) {
	if a := l.s.Agent; a != nil && a.Provider != "replay" && a.Budget == (Budget{}) && p.w.Budget == (Budget{}) {
		d := p.found("agent-budget", pos(l.n), 1, "agent step %s has no budget", l.s.ID)
		d.Hint = "give it one, or the file:  budget: {cost_usd: 2}"
	}
}

// ruleBashPattern: with a tool that writes files, a pattern of Bash is no bound.
func ruleBashPattern(p *fileParser, l *stepLint) {
	a := l.s.Agent
	if a == nil || !slices.Contains(a.AllowedTools, "Write") && !slices.Contains(a.AllowedTools, "Edit") {
		return
	}
	for _, rule := range a.AllowedTools {
		if strings.HasPrefix(rule, "Bash(") {
			at := l.nodes.agent
			if list := valueOf(at, "allowed_tools"); list != nil && real(list).Kind == yaml.SequenceNode {
				for _, x := range real(list).Content {
					if real(x).Value == rule {
						at = real(x)
					}
				}
			}
			d := p.foundAt("bash-pattern", at, "%s beside Write or Edit bounds nothing: the agent writes the code that it runs", rule)
			d.Hint = "only the sandbox bounds what written code does"
			return
		}
	}
}

// foundAt is found at a node, which is underlined.
func (p *fileParser) foundAt(rule string, n *yaml.Node, format string, args ...any) *Diagnostic {
	where, width := p.span(n)
	return p.found(rule, where, width, format, args...)
}
