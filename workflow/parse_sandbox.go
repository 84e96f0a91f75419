package workflow

import (
	"gopkg.in/yaml.v3"
)

// Fresh is the word of a step's `sandbox` for one of its own.
const Fresh = "fresh"

// What `reuse` says of a sandbox.
const (
	ReuseRun  = "run"  // one serves all steps; "" too
	ReuseStep = "step" // each step gets one of its own
	ReusePool = "pool" // a few serve the steps in turn
)

// defaultPool is how many sandboxes a pool has (practice 14).
const defaultPool = 3

// sandbox reads the run's sandbox.
func (p *fileParser) sandbox(n *yaml.Node) { p.w.Sandbox = p.sandboxSpec(ctxSandbox, n) }

// sandboxes reads the named ones.
func (p *fileParser) sandboxes(n *yaml.Node) {
	p.pairs(n, "sandboxes", func(k, v *yaml.Node) {
		switch {
		case !idName().MatchString(k.Value):
			p.at("name", k, "a sandbox's name has lower-case letters, digits and underscores, and starts with a letter")
		case k.Value == Fresh:
			d := p.at("reserved", k, "a sandbox cannot be named %s", Fresh)
			d.Hint = "`sandbox: fresh` on a step is one of its own; take another name"
		}
		s := p.sandboxSpec(inNamedSandbox, v)
		s.Name, s.Pos = k.Value, pos(k)
		p.w.Sandboxes = append(p.w.Sandboxes, &s)
	})
}

func (p *fileParser) sandboxSpec(c Context, n *yaml.Node) (s SandboxSpec) {
	s.Pos = pos(n)
	var pool *yaml.Node
	p.mapping(n, c, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "driver":
			s.Driver = p.word(c, k, v)
		case "require":
			s.Require = p.word(c, k, v)
		case "network":
			s.Network = p.network(c, k, v)
		case "mounts":
			s.Mounts = p.mounts(v)
		case "limits":
			s.Limits = p.limits(v)
		case "reuse":
			s.Reuse = p.word(c, k, v)
		case "pool":
			pool = k
			s.Pool = p.pool(v)
		case "max_sandboxes":
			s.MaxSandboxes = p.integer(c, k, v)
		case "timeout":
			s.Timeout = p.duration(v, "timeout")
		default:
			return false
		}
		return true
	})
	switch {
	case s.Reuse == ReusePool && s.Pool.Size == 0:
		s.Pool.Size = defaultPool
	case pool != nil && s.Reuse != ReusePool:
		d := p.at("pool", pool, "pool is given, and reuse is not pool")
		d.Hint = "write `reuse: pool` beside it"
		s.Pool = Pool{}
	}
	return s
}

// poolsFit: a pool that is larger than what there may be would never be whole.
func (p *fileParser) poolsFit() {
	most := p.w.Sandbox.MaxSandboxes
	for _, s := range append([]*SandboxSpec{&p.w.Sandbox}, p.w.Sandboxes...) {
		if most > 0 && s.Pool.Size > most {
			p.add("pool", s.Pos, 1, "a pool of %d sandboxes does not fit into sandbox.max_sandboxes, which is %d", s.Pool.Size, most)
		}
	}
}

func (p *fileParser) pool(n *yaml.Node) (pool Pool) {
	pool.Size = defaultPool
	p.mapping(n, inPool, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "size":
			pool.Size = p.integer(inPool, k, v)
		case "warm":
			pool.Warm = p.boolean(v, "warm")
		default:
			return false
		}
		return true
	})
	return pool
}

// sandboxName reads a step's `sandbox`.
func (p *fileParser) sandboxName(n *yaml.Node) string {
	name, ok := p.name(n, "sandbox")
	if !ok || name == Fresh || p.w.named(name) != nil {
		return name
	}
	known := []string{Fresh}
	for _, s := range p.w.Sandboxes {
		known = append(known, s.Name)
	}
	d := p.at("enum", n, "there is no sandbox %q", name)
	d.Expected, d.Suggestion = known, p.nearest(name, known)
	if len(p.w.Sandboxes) == 0 {
		d.Hint = "other sandboxes are declared under `sandboxes`, at the top of the file"
	}
	return ""
}

func (w *Workflow) named(name string) *SandboxSpec {
	for _, s := range w.Sandboxes {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// SandboxOf is the kind of sandbox that a step runs in: a named one, or the run's
// (also for `sandbox: fresh`, which is another one of that kind).
func (w *Workflow) SandboxOf(s *Step) *SandboxSpec {
	if named := w.named(s.Sandbox); named != nil {
		return named
	}
	return &w.Sandbox
}

// ruleUnusedSandbox: no step runs in it.
func ruleUnusedSandbox(p *fileParser) {
	used := map[string]bool{}
	p.w.Walk(func(s *Step) { used[s.Sandbox] = true })
	for _, s := range p.w.Sandboxes {
		if !used[s.Name] {
			p.found("unused-sandbox", s.Pos, len(s.Name), "sandbox %s is used by no step", s.Name)
		}
	}
}
