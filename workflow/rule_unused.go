package workflow

// ruleUnusedInput: a typing mistake in an expression shows as an unused input.
func ruleUnusedInput(p *fileParser) {
	for _, in := range p.w.Inputs {
		if !p.used[in.Name] {
			p.found("unused-input", in.Pos, len(in.Name), "input %s is never used", in.Name)
		}
	}
}

// ruleUnusedSecret: no step is given it.
func ruleUnusedSecret(p *fileParser) {
	given := map[string]bool{}
	p.w.Walk(func(s *Step) {
		for _, name := range s.Secrets {
			given[name] = true
		}
	})
	for _, s := range p.w.Secrets {
		if !given[s.Name] {
			p.found("unused-secret", s.Pos, 1, "secret %s is given to no step", s.Name)
		}
	}
}
