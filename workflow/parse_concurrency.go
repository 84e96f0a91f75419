package workflow

import "gopkg.in/yaml.v3"

// concurrency reads `concurrency:`.
func (p *fileParser) concurrency(n *yaml.Node) *Concurrency {
	c := &Concurrency{Pos: pos(n)}
	group := false
	if !p.mapping(n, inConcurrency, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "group":
			group = true
			if s, ok := p.str(v, "group"); ok && s == "" {
				p.at("required", v, "group is empty: name the group")
			} else if ok {
				c.Group = p.template(v, "group", p.topScope(), nil)
			}
		case "cancel_in_progress":
			c.CancelInProgress = p.boolean(v, "cancel_in_progress")
		default:
			return false
		}
		return true
	}) {
		return c
	}
	if !group {
		p.at("required", n, "concurrency has no group")
	}
	return c
}
