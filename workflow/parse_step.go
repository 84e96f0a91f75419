package workflow

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// defaultWarnAfter is practice 6's figure.
const defaultWarnAfter = 60 * time.Second

// stepDefaults is `defaults:`.
type stepDefaults struct {
	timeout time.Duration
	retry   *Retry
	shell   string
	env     *yaml.Node
	cwd     *yaml.Node
	agent   *yaml.Node
}

func (p *fileParser) readDefaults(n *yaml.Node) {
	d := &p.defaults
	p.mapping(n, ctxDefaults, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "timeout":
			d.timeout = p.duration(v, "timeout")
		case "retry":
			d.retry = p.retry(v)
		case "shell":
			d.shell = p.word(ctxStep, k, v)
		case "env":
			d.env = v
		case "cwd":
			d.cwd = v
		case "agent":
			d.agent = v
		default:
			return false
		}
		return true
	})
}

// idNames are the ids of all steps, sorted.
func (p *fileParser) idNames() []string {
	if p.sortedIDs == nil {
		p.sortedIDs = keysOf(p.ids)
	}
	return p.sortedIDs
}

// id notes a step's id; a good one only once.
func (p *fileParser) id(step *yaml.Node, i int) {
	n := real(step)
	for j := 0; n.Kind == yaml.MappingNode && j+1 < len(n.Content); j += 2 {
		if n.Content[j].Value != "id" {
			continue
		}
		v := real(n.Content[j+1])
		if v.Kind != yaml.ScalarNode || v.Tag != "!!str" {
			return // step reports it
		}
		if !idName().MatchString(v.Value) {
			d := p.at("id", v, "a step's id has lower-case letters, digits and underscores, and starts with a letter")
			d.Suggestion = strings.ToLower(strings.ReplaceAll(v.Value, "-", "_"))
			if !idName().MatchString(d.Suggestion) {
				d.Suggestion = ""
			}
		}
		if _, dup := p.ids[v.Value]; dup {
			where := v
			if step.Kind == yaml.AliasNode {
				where = step // the id itself stands only once
			}
			p.at("duplicate-id", where, "there is another step %q above", v.Value)
			return
		}
		p.ids[v.Value] = i
		return
	}
}

// stepNodes are the values of a step that are read after all its keys are known.
type stepNodes struct {
	access, cache, run, agent, group, shell, cond, env, outputs, secrets, cwd *yaml.Node
	foreach, maxParallel, batch, failFast, repeat                             *yaml.Node
	maxParallelKey                                                            *yaml.Node
	timeout, retry                                                            bool
}

func (p *fileParser) step(n *yaml.Node, i int) *Step {
	s := &Step{Pos: pos(n), WarnAfter: defaultWarnAfter}
	s.Pos.File = p.file
	var x stepNodes
	ok := p.mapping(n, ctxStep, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "id":
			s.ID, _ = p.name(v, "id")
		case "name":
			s.Name, _ = p.str(v, "name")
		case "run":
			x.run = v
		case "agent":
			x.agent = v
		case "steps":
			x.group = v
		case "shell":
			x.shell = v
			p.word(ctxStep, k, v)
		case "needs":
			s.HasNeeds, s.Needs = true, p.needed[i]
		case "if":
			x.cond = v
		case "env":
			x.env = v
		case "secrets":
			x.secrets = v
		case "cwd":
			x.cwd = v
		case "access":
			s.Access = p.access(k, v)
			x.access = k
		case "cache":
			x.cache = v
		case "network":
			s.Network = p.network(ctxStep, k, v)
		case "on_conflict":
			s.OnConflict = p.word(ctxStep, k, v)
		case "timeout":
			s.Timeout = p.duration(v, "timeout")
			x.timeout = true
		case "warn_after":
			s.WarnAfter = p.duration(v, "warn_after")
		case "retry":
			s.Retry = *p.retry(v)
			x.retry = true
		case "allow_dangerous":
			s.AllowDangerous, _ = p.str(v, "allow_dangerous")
			if strings.TrimSpace(s.AllowDangerous) == "" {
				p.at("reason", v, "allow_dangerous takes the reason why")
			}
		case "continue_on_error":
			s.ContinueOnError = p.boolean(v, "continue_on_error")
		case "outputs":
			x.outputs = v
		case "foreach":
			x.foreach = v
		case "max_parallel":
			x.maxParallelKey, x.maxParallel = k, v
		case "batch":
			x.batch = v
		case "fail_fast":
			x.failFast = v
		case "repeat":
			x.repeat = v
		default:
			return false
		}
		return true
	})
	if !ok {
		return s
	}
	if s.ID == "" && valueOf(n, "id") == nil {
		p.add("required", pos(n), 1, "the step has no id")
	}
	p.inherit(s, x)
	p.onlyForeach(s, x)
	sc := p.stepScope(i)
	p.loops(s, x, i, sc)
	p.settings(s, x, i, sc)
	if x.cache != nil {
		s.Cache = p.cache(x.cache, sc)
	}
	p.kind(n, s, x, sc)
	if s.Network.Mode == "" {
		s.Network = p.w.Sandbox.Network
	}
	if x.secrets != nil {
		p.stepSecrets(s, x.secrets)
		p.injectable(s, x.secrets)
	}
	p.readable(s)
	p.lintStep(&stepLint{s: s, n: n, nodes: x})
	return s
}

// inherit takes what the file's defaults say. A group runs nothing itself.
func (p *fileParser) inherit(s *Step, x stepNodes) {
	if x.group != nil {
		return
	}
	if !x.timeout {
		s.Timeout = p.defaults.timeout
	}
	if !x.retry && p.defaults.retry != nil {
		s.Retry = *p.defaults.retry
	}
}

// settings are the condition, env, cwd and outputs.
func (p *fileParser) settings(s *Step, x stepNodes, i int, sc *scope) {
	at := p.places[i]
	if x.cond != nil {
		// An `if` that names the item is judged for each of them, else once.
		kind := sc.kind
		kind.iteration = at.inRound
		s.If = p.condition(x.cond, "if", sc.with(kind))
	}
	s.Env = append(s.Env, p.w.Env...)
	if p.defaults.env != nil {
		s.Env = append(s.Env, p.env(p.defaults.env, "env", sc)...)
	}
	for _, e := range at.env {
		s.Env = append(s.Env, p.env(e, "env", sc)...)
	}
	if x.env != nil {
		s.Env = append(s.Env, p.env(x.env, "env", sc)...)
	}
	if c := firstNode(x.cwd, at.cwd, p.defaults.cwd); c != nil && x.run != nil {
		s.Cwd = p.template(c, "cwd", sc, nil)
	}
	if x.cwd != nil && x.agent != nil {
		p.at("cwd", x.cwd, "cwd is for run steps and groups; an agent works in the workspace")
	}
	if x.outputs != nil {
		s.Outputs = p.outputs(x.outputs, p.outputScope(i, sc))
	}
}

func firstNode(nodes ...*yaml.Node) *yaml.Node {
	for _, n := range nodes {
		if n != nil {
			return n
		}
	}
	return nil
}

// kind reads the one kind key.
func (p *fileParser) kind(n *yaml.Node, s *Step, x stepNodes, sc *scope) {
	var given []*yaml.Node
	var words []string
	for _, k := range []struct {
		word string
		n    *yaml.Node
	}{{"run", x.run}, {"agent", x.agent}, {"steps", x.group}} {
		if k.n != nil {
			given, words = append(given, k.n), append(words, k.word)
		}
	}
	switch {
	case len(given) > 1:
		p.at("kind", given[1], "the step has %s and %s; a step has one kind", words[0], words[1])
	case x.run != nil:
		s.Kind = KindRun
		s.Run = p.run(x.run, x.shell, sc)
	case x.agent != nil:
		s.Kind = KindAgent
		s.Agent = p.agent(x.agent, sc)
		if x.shell != nil {
			p.at("shell", x.shell, "shell is for run steps; an agent's Bash is bash")
		}
		if x.access != nil {
			p.at("access", x.access, "access is for run steps; what an agent may change follows from its allowed_tools")
		}
	case x.group != nil:
		s.Kind = KindGroup
		p.groupOnly(n)
	case !hasKey(n, "workflow", "approve"):
		d := p.add("kind", pos(n), 1, "the step does nothing: it has no kind key")
		d.Expected = []string{"run", "agent", "steps"}
	}
}

// groupOnly refuses what a group, which runs nothing itself, cannot have.
func (p *fileParser) groupOnly(n *yaml.Node) {
	n = real(n)
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch k := n.Content[i]; k.Value {
		case "retry", "shell", "secrets", "access", "cache", "network", "on_conflict", "allow_dangerous", "warn_after":
			d := p.at("group", k, "%s is for a step that runs something; this one is a group", k.Value)
			d.Hint = "give it to the steps in the group"
			if keyOf(ctxDefaults, k.Value) != nil {
				d.Hint += ", or to all steps under `defaults`"
			}
		}
	}
}

func hasKey(n *yaml.Node, names ...string) bool {
	n = real(n)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if slices.Contains(names, n.Content[i].Value) {
			return true
		}
	}
	return false
}

func (p *fileParser) run(n, shell *yaml.Node, sc *scope) *RunStep {
	r := &RunStep{Pos: pos(n), Shell: "bash"}
	if p.defaults.shell != "" {
		r.Shell = p.defaults.shell
	}
	if shell != nil {
		r.Shell = real(shell).Value
	}
	if x := real(n); x.Kind == yaml.SequenceNode {
		if shell != nil {
			p.at("shell", shell, "shell reads a script; run is a list of words here, which no shell reads")
		}
		p.list(n, "run", func(a *yaml.Node) {
			if t := p.template(a, "run", sc, nil); t != nil {
				r.Argv = append(r.Argv, t)
			}
		})
		if len(x.Content) == 0 {
			p.at("required", n, "run is an empty list")
		}
		return r
	}
	r.Script = p.template(n, "run", sc, p.inScript)
	return r
}

// inScript refuses free text in a script: it would be run as code.
func (p *fileParser) inScript(e *Expr) error {
	if harmless(e, p.w.Inputs) {
		return nil
	}
	text := strings.TrimSpace(e.source)
	return &exprError{
		msg: fmt.Sprintf("`%s` is free text; inside a script it would run as code", text),
		at:  strings.Index(e.source, text), width: utf8.RuneCountInString(text), rule: "script-injection",
		hint: "pass it as a variable:\nenv: {VALUE: \"${{ " + text + " }}\"}\nand use \"$VALUE\" in the script",
	}
}

// needs reads the order of step i. It is read for all steps before anything
// else, because an expression may name only what ends before its step.
func (p *fileParser) needs(step *yaml.Node, i int) {
	n := valueOf(step, "needs")
	if n == nil {
		return
	}
	names := []string{}
	defer func() { p.needed[i] = names }()
	list := p.places[i].list
	l := &p.lists[list]
	if real(n).Kind == yaml.MappingNode {
		p.at("not-supported", n, "needs with any or count is not supported yet")
		l.graph.set(i-l.base, nil, pos(n))
		return
	}
	var on []int
	p.list(n, "needs", func(x *yaml.Node) {
		id, ok := p.name(x, "needs")
		if !ok {
			return
		}
		at, ok := p.ids[id]
		switch {
		case !ok:
			d := p.at("unknown-step", real(x), "there is no step %q", id)
			d.Suggestion = p.nearest(id, p.idNames())
		case at == i:
			p.at("cycle", real(x), "step %s needs itself", id)
		case p.places[at].list != list:
			p.at("unknown-step", real(x), "needs stays within its list: %q is in %s", id, p.whereIs(at))
		case l.late:
			p.at("unknown-step", real(x), "the steps of %s run one after the other: needs says nothing there", l.what)
		case slices.Contains(names, id):
		default:
			names = append(names, id)
			on = append(on, at-l.base)
		}
	})
	l.graph.set(i-l.base, on, pos(n))
}

// isMissing: the key is absent, or has an empty text.
func isMissing(n *yaml.Node) bool {
	return n == nil || real(n).Kind == yaml.ScalarNode && real(n).Value == "" && real(n).Tag == "!!str"
}

// valueOf finds a key's value in a map, nil when it has none.
func valueOf(n *yaml.Node, name string) *yaml.Node {
	n = real(n)
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// condition reads a bare expression that is true or false.
func (p *fileParser) condition(n *yaml.Node, what string, sc *scope) *Expr {
	return p.bare(n, what, sc, true)
}

// bare reads an expression that stands without `${{ }}`.
func (p *fileParser) bare(n *yaml.Node, what string, sc *scope, asBool bool) *Expr {
	n = real(n)
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		d := p.at("condition", n, "an unquoted ! is a tag in YAML")
		d.Hint = fmt.Sprintf("write  %[1]s: '%[2]s%[3]s'  or  %[1]s: not (…)", what, n.Tag, n.Value)
		return nil
	}
	if n.Kind == yaml.MappingNode && n.Style&yaml.FlowStyle != 0 {
		d := p.at("condition", n, "%s is a map; expected an expression", what)
		d.Hint = "write it bare, without braces:  " + what + ": success()"
		return nil
	}
	src, ok := p.str(n, what)
	if !ok {
		return nil
	}
	if t := strings.TrimSpace(src); strings.HasPrefix(t, "${{") {
		d := p.at("condition", n, "%s takes a bare expression", what)
		d.Hint = "write  " + what + ": " + strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(t, "${{"), "}}"))
		return nil
	}
	e, err := compile(src, sc, asBool)
	if err != nil {
		p.inside(n, 0, err)
		return nil
	}
	return e
}

// template compiles the `${{ }}` parts of a string. check may refuse one.
func (p *fileParser) template(n *yaml.Node, what string, sc *scope, check func(*Expr) error) *Template {
	src, ok := p.str(n, what)
	if !ok {
		return nil
	}
	if !strings.Contains(src, "${{") {
		return Literal(src)
	}
	texts, exprs, offsets, bad := split(src)
	if bad >= 0 {
		p.inside(real(n), bad, &exprError{msg: "${{ is never closed by }}", width: 3})
		return nil
	}
	t := &Template{source: src}
	for i, text := range texts {
		if text != "" {
			t.parts = append(t.parts, part{text: text})
		}
		if i == len(exprs) {
			break
		}
		e, err := compile(exprs[i], sc, false)
		if err == nil && check != nil {
			err = check(e)
		}
		if err != nil {
			p.inside(real(n), offsets[i], err)
			continue
		}
		t.parts = append(t.parts, part{expr: e})
	}
	return t
}

// inside reports a mistake at its place within a string: offset is where the
// expression starts in the value.
func (p *fileParser) inside(n *yaml.Node, offset int, err error) *Diagnostic {
	var ee *exprError
	if !errors.As(err, &ee) {
		ee = &exprError{msg: err.Error(), width: 1}
	}
	if p.full() {
		p.dropped++
		return &Diagnostic{}
	}
	d := p.add("expression", p.placeIn(n, offset+ee.at), ee.width, "%s", ee.msg)
	d.Suggestion, d.Hint = ee.suggestion, ee.hint
	if ee.rule != "" {
		d.Rule = ee.rule
	}
	return d
}

func (p *fileParser) env(n *yaml.Node, what string, sc *scope) []EnvVar {
	var out []EnvVar
	p.pairs(n, what, func(k, v *yaml.Node) {
		if !envName().MatchString(k.Value) {
			p.at("name", k, "a variable's name has letters, digits and underscores")
			return
		}
		if reservedName().MatchString(k.Value) {
			p.at("name", k, "variables that start with FLOW_ are set by flow")
			return
		}
		if t := p.template(v, k.Value, sc, nil); t != nil {
			out = append(out, EnvVar{Name: k.Value, Value: t, Pos: pos(k)})
		}
	})
	return out
}

func (p *fileParser) outputs(n *yaml.Node, sc *scope) []Output {
	var out []Output
	p.pairs(n, "outputs", func(k, v *yaml.Node) {
		if !envName().MatchString(k.Value) {
			p.at("name", k, "an output's name has letters, digits and underscores, as it is used in expressions")
			return
		}
		if t := p.template(v, k.Value, sc, nil); t != nil {
			out = append(out, Output{Name: k.Value, Expr: t, Pos: pos(k)})
		}
	})
	return out
}

func (p *fileParser) stepSecrets(s *Step, n *yaml.Node) {
	var declared []string
	for _, x := range p.w.Secrets {
		declared = append(declared, x.Name)
	}
	p.list(n, "secrets", func(x *yaml.Node) {
		name, ok, expose := "", true, false
		if real(x).Kind != yaml.MappingNode {
			name, ok = p.str(x, "secrets")
		} else {
			p.mapping(x, inStepSecret, func(k, v *yaml.Node) bool {
				switch k.Value {
				case "name":
					name, _ = p.str(v, "name")
				case "expose":
					expose = p.boolean(v, "expose")
				default:
					return false
				}
				return true
			})
		}
		switch {
		case !ok:
		case strings.Contains(name, "${{"):
			p.noExpression(x, "secrets")
		case !slices.Contains(declared, name):
			d := p.at("unknown-secret", n, "a secret named here is not declared under `secrets`")
			d.Expected, d.Suggestion = declared, p.nearest(name, declared)
		default:
			s.Secrets = append(s.Secrets, name)
			if expose {
				s.Exposed = append(s.Exposed, name)
			}
		}
	})
}

func (p *fileParser) retry(n *yaml.Node) *Retry {
	r := &Retry{Written: true, MaxAttempts: 3, Backoff: "exponential", Initial: 2 * time.Second, Max: 10 * time.Second}
	p.mapping(n, ctxRetry, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "max_attempts":
			r.MaxAttempts = p.integer(ctxRetry, k, v)
		case "backoff":
			r.Backoff = p.word(ctxRetry, k, v)
		case "initial":
			r.Initial = p.duration(v, "initial")
		case "max":
			r.Max = p.duration(v, "max")
		case "jitter":
			r.Jitter = p.duration(v, "jitter")
		case "max_elapsed":
			r.MaxElapsed = p.duration(v, "max_elapsed")
		case "on":
			p.list(v, "on", func(x *yaml.Node) { r.On = append(r.On, p.word(ctxRetry, k, x)) })
		default:
			return false
		}
		return true
	})
	if r.Max < r.Initial {
		r.Max = r.Initial
	}
	return r
}
