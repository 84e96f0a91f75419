package agent

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// match of a Bash rule with a command's words.
type match int

const (
	matchNo    match = iota
	matchMaybe       // it depends on what an expansion yields
	matchYes
)

func (r Rule) matchWords(words []word) match {
	for i, want := range r.words {
		switch {
		case i >= len(words):
			// An unknown word before may have become several.
			if slices.ContainsFunc(words, func(w word) bool { return !w.known }) {
				return matchMaybe
			}
			return matchNo
		case !words[i].known:
			return matchMaybe
		case words[i].text != want:
			return matchNo
		}
	}
	if r.prefix || len(words) == len(r.words) {
		return matchYes
	}
	for _, w := range words[len(r.words):] {
		if w.known {
			return matchNo
		}
	}
	return matchMaybe
}

// simple judges one simple command: the program and its arguments.
func (j *shellJudge) simple(words []word) string {
	if j.depth++; j.depth > 8*maxDepth {
		return "the command is nested too deeply to be judged"
	}
	defer func() { j.depth-- }()
	if why := j.disallowed(words); why != "" {
		return why
	}
	if !words[0].known {
		return "the program is only known at run time (" + words[0].String() + "); write its name"
	}
	covered, exact := j.covered(words)
	if exact {
		return ""
	}
	return j.program(words, covered)
}

// program judges words of which a pattern names the first `covered`.
func (j *shellJudge) program(words []word, covered int) string {
	name := path.Base(words[0].text)
	if unwrap, ok := wrappers[name]; ok {
		in := unwrap(words)
		switch {
		case !j.open && in.at > 0 && covered > in.at: // the pattern names the inner program as well
			if len(in.words) == 0 {
				return ""
			}
			return firstOf(j.disallowed(in.words), func() string { return j.program(in.words, covered-in.at) })
		case in.why != "":
			return fmt.Sprintf("%s runs other commands: %s", name, in.why)
		case in.query:
			return ""
		case in.isScript:
			return j.script(in.script)
		}
		return j.simple(in.words)
	}
	if j.open {
		return ""
	}
	if covered == 0 {
		return fmt.Sprintf("no pattern of allowed_tools allows `%s`; allowed: %s", joined(words), j.patterns())
	}
	return escapes(name, words, covered, j.p.wholly(j.p.allowed, "Write") && !j.p.Hides("Write") && !j.p.wholly(j.p.denied, "Write"))
}

// disallowed: a rule that matches, or could, denies; the folder of the program
// does not matter (/bin/rm is rm).
func (j *shellJudge) disallowed(words []word) string {
	byName := slices.Clone(words)
	byName[0].text = path.Base(byName[0].text)
	for _, r := range j.p.denied {
		if r.Tool != "Bash" || r.Spec == "" {
			continue
		}
		if r.matchWords(words) != matchNo || r.matchWords(byName) != matchNo {
			return fmt.Sprintf("`%s` is covered by disallowed_tools %s", joined(words), r)
		}
	}
	return ""
}

// covered is the number of the command's words that allow rules name, 0 when none
// allows it; exact when a rule names them all.
func (j *shellJudge) covered(words []word) (n int, exact bool) {
	for _, r := range j.p.allowed {
		if r.Tool != "Bash" || r.Spec == "" || r.matchWords(words) != matchYes {
			continue
		}
		if !r.prefix || len(r.words) == len(words) && len(r.words) > 1 {
			return len(words), true
		}
		n = max(n, len(r.words))
	}
	return n, false
}

func (j *shellJudge) patterns() string {
	var list []string
	for _, r := range j.p.allowed {
		if r.Tool == "Bash" {
			list = append(list, r.String())
		}
	}
	return strings.Join(list, ", ")
}

// joined is a command for a message, bounded.
func joined(words []word) string {
	parts := make([]string, len(words))
	for i, w := range words {
		parts[i] = w.String()
	}
	s := strings.Join(parts, " ")
	if r := []rune(s); len(r) > 120 {
		s = string(r[:120]) + "…"
	}
	return s
}
