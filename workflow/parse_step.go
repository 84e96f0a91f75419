package workflow

import (
	"slices"
	"strings"
	"time"

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
	access, cache, run, agent, approve, group, workflow, with, shell, cond, env, outputs, secrets, cwd *yaml.Node
	foreach, maxParallel, batch, failFast, repeat                                                      *yaml.Node
	maxParallelKey                                                                                     *yaml.Node
	timeout, retry                                                                                     bool
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
		case "approve":
			x.approve = v
		case "steps":
			x.group = v
		case "workflow":
			x.workflow = v
		case "with":
			x.with = v
		case "shell":
			x.shell = v
			p.word(ctxStep, k, v)
		case "needs":
			s.HasNeeds, s.Needs, s.Join = true, p.needed[i], p.joins[i]
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
		case "sandbox":
			s.Sandbox = p.sandboxName(v)
		case "cache":
			x.cache = v
		case "background", "ready": // see background
		case "artifacts":
			s.Artifacts = p.artifacts(v)
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
	if s.Retry.Restore && p.inFinally(i) {
		if where := valueOf(n, "retry"); where != nil {
			p.at("finally", firstNode(valueOf(where, "workspace"), where), "steps of on_failure and finally have no checkpoint that their workspace could go back to")
		} else {
			s.Retry.Restore = false // of the defaults: for the steps that can
		}
	}
	p.onlyForeach(s, x)
	sc := p.stepScope(i)
	p.loops(s, x, i, sc)
	p.settings(s, x, i, sc)
	if x.cache != nil {
		s.Cache = p.cache(x.cache, sc)
	}
	p.kind(n, s, x, sc)
	p.inPlaceStep(n, s)
	if x.approve != nil && p.isLate(i) {
		d := p.at("approve", x.approve, "an approval cannot stand in %s: a run waits before its end, not in it", p.topList(i).what)
		d.Hint = "make it the last of `steps`"
	}
	if hasKey(n, "background", "ready") {
		p.background(s, n, p.places[i], sc)
	}
	if s.Network.Mode == "" {
		s.Network = p.w.SandboxOf(s).Network
	}
	if x.secrets != nil {
		p.stepSecrets(s, x.secrets)
		p.injectable(s, x.secrets)
	}
	p.readable(s)
	p.serversReached(s)
	p.lintStep(&stepLint{s: s, n: n, nodes: x})
	return s
}

// inherit takes what the file's defaults say. A group and an approval run nothing
// themselves.
func (p *fileParser) inherit(s *Step, x stepNodes) {
	if x.group != nil || x.approve != nil || x.workflow != nil {
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
	s.FileEnv = len(s.Env)
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

// kind reads the one kind key.
func (p *fileParser) kind(n *yaml.Node, s *Step, x stepNodes, sc *scope) {
	var given []*yaml.Node
	var words []string
	for _, k := range []struct {
		word string
		n    *yaml.Node
	}{{"run", x.run}, {"agent", x.agent}, {"approve", x.approve}, {"workflow", x.workflow}, {"steps", x.group}} {
		if k.n != nil {
			given, words = append(given, k.n), append(words, k.word)
		}
	}
	if x.with != nil && x.workflow == nil {
		p.at("call", x.with, "with is for a step that calls a workflow")
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
		p.meaningless(n, "group", "%s is for a step that runs something; this one is a group", "give it to the steps in the group", groupIgnores)
	case x.approve != nil:
		s.Kind = KindApprove
		s.Approve = p.approve(x.approve, sc)
		p.meaningless(n, "approve", "%s is for a step that runs something; this one waits for a person", "remove it", approveIgnores)
		if k := keyNode(n, "timeout"); k != nil {
			p.at("approve", k, "timeout limits an attempt; this step waits for a person").Hint = "give it to the question: `approve: {message: …, timeout: 72h}`"
		}
	case x.workflow != nil:
		s.Kind = KindCall
		p.call(n, s, x, sc)
	default:
		d := p.add("kind", pos(n), 1, "the step does nothing: it has no kind key")
		d.Expected = []string{"run", "agent", "approve", "workflow", "steps"}
	}
}

// Keys of a step that say nothing of a group, or of an approval: it runs nothing.
var (
	groupIgnores   = []string{"retry", "shell", "secrets", "access", "cache", "artifacts", "network", "sandbox", "on_conflict", "allow_dangerous", "warn_after"}
	approveIgnores = append([]string{"env", "cwd"}, groupIgnores...)
)

// meaningless refuses keys that a step of its kind would ignore.
func (p *fileParser) meaningless(n *yaml.Node, rule, format, hint string, keys []string) {
	n = real(n)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if !slices.Contains(keys, k.Value) {
			continue
		}
		d := p.at(rule, k, format, k.Value)
		d.Hint = hint
		if rule == "group" && keyOf(ctxDefaults, k.Value) != nil {
			d.Hint += ", or to all steps under `defaults`"
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
