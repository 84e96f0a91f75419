package workflow

import (
	"strings"

	"gopkg.in/yaml.v3"
)

// Rule is one static check that goes beyond the shape of a file. docs/rules.md
// has an entry for each, and a golden pair lies in testdata/rules.
type Rule struct {
	// Name is stable: `lint.off` and the formats for machines use it.
	Name     string
	Severity Severity
	// Fixed rules cannot be switched off: what they find has a safe form.
	Fixed bool
	// Summary is one sentence; Doc says why, and what to do.
	Summary, Doc string

	step func(*fileParser, *stepLint) // asked once a step, nil for none
	file func(*fileParser)            // asked once at the end, nil for none
}

// stepLint is a parsed step with its nodes.
type stepLint struct {
	s     *Step
	n     *yaml.Node
	nodes stepNodes
}

// Rules returns the table of static checks. A rule is one row, and one file rule_*.go.
func Rules() []Rule {
	return []Rule{
		{Name: "credential", Severity: SeverityError, Summary: "The file holds a literal that looks like a credential.",
			Doc:  "A workflow is stored with each run, shown and shared. Declare the name under `secrets`, and give the value in the environment, in `--env-file` or in a file. The value is never printed, not even by this message. The shapes of well-known keys are looked for, in the whole file and its prompt files.",
			file: ruleCredential},
		{Name: "dangerous-command", Severity: SeverityError, Summary: "A script would destroy a disk or a whole tree.",
			Doc:  "The script is parsed as a shell reads it: `rm -rf` of `/`, of a system folder or of the home, `mkfs`, `dd` and redirections onto a disk, `shred` and `wipefs` of a device, fork bombs. `rm -rf /tmp/x` and `of=/dev/null` are none. Where it is meant, say why: `allow_dangerous: \"the disk is a scratch image\"` on the step.",
			step: ruleDangerousCommand},
		{Name: "script-injection", Severity: SeverityError, Fixed: true, Summary: "Free text is put into a script, where it would run as code.",
			Doc: "A string input without `enum`, a step's output, a file's text or an agent's words may hold `$(…)`, quotes and line breaks. Pass it as a variable under `env` and write `\"$NAME\"` in the script. Numbers, booleans, statuses, `run.*` and inputs with an `enum` are allowed."},
		{Name: "dangerous-prompt", Severity: SeverityWarning, Summary: "A prompt asks for what would destroy a disk or a whole tree.",
			Doc:  "The same commands as in `dangerous-command`, as words of a prompt. The sandbox bounds what they reach.",
			step: ruleDangerousPrompt},
		{Name: "agent-tools", Severity: SeverityWarning, Summary: "An agent step names no tools.",
			Doc:  "It gets those of profile `default`, among them Bash. Name what the step needs: `allowed_tools: [Read, Grep]`, or a `profile`.",
			step: ruleAgentTools},
		{Name: "agent-timeout", Severity: SeverityWarning, Summary: "An agent step has no time limit.",
			Doc:  "A conversation may go on for hours. Give the step, or `defaults`, a `timeout`.",
			step: ruleAgentTimeout},
		{Name: "agent-budget", Severity: SeverityWarning, Summary: "An agent step that costs money has no budget.",
			Doc:  "Give the step, `defaults.agent` or the file a `budget`. A step that is played from a cassette costs nothing and needs none.",
			step: ruleAgentBudget},
		{Name: "bash-pattern", Severity: SeverityWarning, Summary: "A Bash pattern stands beside a tool that writes files.",
			Doc:  "A pattern such as `Bash(go test:*)` bounds which commands start, not what the code that they run does; and with Write or Edit the agent writes that code. Only the sandbox bounds it. Leave the pattern as a guide for the agent, and do not count on it.",
			step: ruleBashPattern},
		{Name: "unused-input", Severity: SeverityWarning, Summary: "No expression names an input.",
			Doc:  "Often the sign of a misspelt name elsewhere.",
			file: ruleUnusedInput},
		{Name: "unused-secret", Severity: SeverityWarning, Summary: "No step names a secret.",
			Doc:  "A declared secret has to be given for the run to start. Remove it, or name it in the steps that need it: `secrets: [NAME]`.",
			file: ruleUnusedSecret},
		{Name: "unused-sandbox", Severity: SeverityWarning, Summary: "No step runs in a named sandbox.",
			Doc:  "It is never made. Remove it, or name it in the steps that it is for: `sandbox: NAME`.",
			file: ruleUnusedSandbox},
		{Name: "constant-condition", Severity: SeverityWarning, Summary: "A condition is always true or always false.",
			Doc:  "It names nothing that can vary, or compares with a word that never comes: `steps.a.status == \"success\"` (the status is `succeeded`), or an input with a word that is not in its `enum`.",
			step: ruleConstantCondition},
		{Name: "unreachable-step", Severity: SeverityWarning, Summary: "A step can never run.",
			Doc:  "Its condition waits for a failure, and nothing ends before it.",
			step: ruleUnreachableStep},
		{Name: "unused-lint", Severity: SeverityWarning, Fixed: true, Summary: "A rule is switched off that finds nothing.",
			Doc: "Remove the row from `lint.off`, so that the rule guards the file again."},
	}
}

func ruleByName(name string) *Rule {
	rules := Rules()
	for i := range rules {
		if rules[i].Name == name {
			return &rules[i]
		}
	}
	return nil
}

// lintOff is one row of `lint.off`.
type lintOff struct {
	pos  Pos
	used bool
}

// lint reads `lint: {off: [{rule, why}]}`.
func (p *fileParser) lint(n *yaml.Node) {
	p.mapping(n, inLint, func(k, v *yaml.Node) bool {
		if k.Value != "off" {
			return false
		}
		p.list(v, "off", p.lintRow)
		return true
	})
}

func (p *fileParser) lintRow(n *yaml.Node) {
	var name, why string
	var at *yaml.Node
	if !p.mapping(n, inLintOff, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "rule":
			name, _ = p.str(v, "rule")
			at = real(v)
		case "why":
			why, _ = p.str(v, "why")
		default:
			return false
		}
		return true
	}) {
		return
	}
	switch rule := ruleByName(name); {
	case at == nil:
		p.add("required", pos(n), 1, "rule is missing: which one is off?")
	case rule == nil:
		d := p.at("enum", at, "there is no rule %q", name)
		d.Expected = offNames()
		d.Suggestion = p.nearest(name, d.Expected)
	case rule.Fixed:
		d := p.at("policy", at, "rule %s cannot be switched off", name)
		d.Hint = rule.Doc
	case strings.TrimSpace(why) == "" && valueOf(n, "why") == nil:
		p.at("required", at, "why is rule %s off? Give a reason", name)
	case strings.TrimSpace(why) == "":
		p.at("reason", at, "why is rule %s off? Give a reason", name)
	default:
		if p.off == nil {
			p.off = map[string]*lintOff{}
		}
		p.off[name] = &lintOff{pos: pos(at)}
	}
}

// offNames are the rules that can be switched off.
func offNames() []string {
	var out []string
	for _, r := range Rules() {
		if !r.Fixed {
			out = append(out, r.Name)
		}
	}
	return out
}

// found reports what a rule of the table found, unless it is off.
func (p *fileParser) found(rule string, at Pos, width int, format string, args ...any) *Diagnostic {
	if off := p.off[rule]; off != nil {
		off.used = true
		return &Diagnostic{}
	}
	d := p.add(rule, at, width, format, args...)
	if r := ruleByName(rule); r != nil {
		d.Severity = r.Severity
	}
	return d
}

// lintStep asks the rules about a step while its nodes are there.
func (p *fileParser) lintStep(l *stepLint) {
	for i := range p.rules {
		if p.rules[i].step != nil {
			p.rules[i].step(p, l)
		}
	}
}

// lintFile asks the rules about the file.
func (p *fileParser) lintFile() {
	for i := range p.rules {
		if p.rules[i].file != nil {
			p.rules[i].file(p)
		}
	}
	for _, name := range keysOf(p.off) {
		if off := p.off[name]; !off.used {
			p.found("unused-lint", off.pos, len(name), "rule %s is off, and finds nothing here", name)
		}
	}
}
