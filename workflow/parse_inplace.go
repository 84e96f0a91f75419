package workflow

import "gopkg.in/yaml.v3"

// What workspace.in_place cannot be together with: all that would have to put files
// back, or work on a copy of them.

// inPlaceAlone refuses the keys of `workspace` that speak of a copy.
func (p *fileParser) inPlaceAlone(n *yaml.Node) {
	if !p.w.Workspace.InPlace {
		return
	}
	if p.w.Workspace.From == "" {
		p.at("required", firstNode(valueOf(n, "in_place"), n), "in_place needs `from`: the folder that the steps work in")
	}
	for _, key := range []string{"exclude", "path"} {
		if v := valueOf(n, key); v != nil {
			p.at("in-place", v, "%s is for a copy of `from`, and in_place makes none", key)
		}
	}
	if v := valueOf(n, "apply"); v != nil && p.w.Workspace.Apply != "never" {
		p.at("in-place", v, "with in_place there is nothing to apply: what the steps change is changed")
	}
}

// inPlaceSandboxes refuses other sandboxes than the run's one.
func (p *fileParser) inPlaceSandboxes() {
	if !p.w.Workspace.InPlace {
		return
	}
	s := &p.w.Sandbox
	switch {
	case s.Driver != "" && s.Driver != "auto" && s.Driver != "host":
		p.add("in-place", s.Pos, 1, "workspace.in_place works with driver host only, and this one is %s", s.Driver)
	case s.Reuse == ReuseStep || s.Reuse == ReusePool:
		p.add("in-place", s.Pos, 1, "with workspace.in_place all steps share one sandbox: reuse is run")
	}
	if len(p.w.Sandboxes) > 0 {
		p.add("in-place", p.w.Sandboxes[0].Pos, len(p.w.Sandboxes[0].Name), "with workspace.in_place there are no other sandboxes")
	}
}

// inPlaceStep refuses what a step asks for that would have to know, or put back, what
// it changed.
func (p *fileParser) inPlaceStep(n *yaml.Node, s *Step) {
	if !p.w.Workspace.InPlace {
		return
	}
	at := func(key string) *yaml.Node { return firstNode(valueOf(n, key), n) }
	no := func(key, why string) {
		p.at("in-place", at(key), "%s does not go with workspace.in_place: %s", key, why)
	}
	if s.Sandbox == Fresh {
		no("sandbox", "there is one tree, and no copy of it")
	}
	if s.Cache != nil {
		no("cache", "what the step changes is not known, and could not be put there")
	}
	if s.Access.ReadOnly {
		no("access", "what it does not allow could not be put back")
	}
	if s.Retry.Restore {
		p.at("in-place", at("retry"), "retry.workspace: restore does not go with workspace.in_place: nothing is put back")
	}
}
