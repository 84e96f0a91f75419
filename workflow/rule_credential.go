package workflow

import (
	"strings"
	"unicode/utf8"
)

// credentials are the shapes of well-known keys: a table of prefixes and their
// least lengths, not a guess by entropy.
var credentials = lazily(`(sk-ant-[A-Za-z0-9_-]{16,}|sk-proj-[A-Za-z0-9_-]{16,}|gh[opsu]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}|A[KS]IA[0-9A-Z]{16}|xox[abps]-[A-Za-z0-9-]{20,}|glpat-[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{36}|e2b_[a-f0-9]{40}|AIza[A-Za-z0-9_-]{35}|-----BEGIN [A-Z ]*PRIVATE KEY-----)`)

// credentialSigns stand in each of them: most texts hold none, and are not
// searched for the rest.
var credentialSigns = []string{"sk-ant-", "sk-proj-", "gh", "AKIA", "ASIA", "xox", "glpat-", "npm_", "e2b_", "AIza", "-----BEGIN"}

func mayHoldCredential(text string) bool {
	for _, s := range credentialSigns {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// ruleCredential looks at the text, comments included: where it stands does not
// make a key less public.
func ruleCredential(p *fileParser) {
	report := func(at Pos, width int, where string) {
		d := p.found("credential", at, width, "%s looks like a credential", where)
		d.Hint = "declare it under `secrets` and give its value in the environment or --env-file"
	}
	if mayHoldCredential(string(p.text)) {
		for i, line := range p.sourceLines() {
			if !mayHoldCredential(line) {
				continue
			}
			for _, m := range credentials().FindAllStringIndex(line, -1) {
				report(Pos{Line: i + 1, Col: utf8.RuneCountInString(line[:m[0]]) + 1}, 1, "this")
			}
		}
	}
	p.w.own(func(s *Step) {
		if s.Agent != nil && s.Agent.PromptFile != "" && credentials().Match(p.root.Files[s.Agent.PromptFile]) {
			report(s.Agent.Pos, 1, "a part of "+s.Agent.PromptFile)
		}
	})
}
