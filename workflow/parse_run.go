package workflow

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

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
		case "workspace":
			r.Restore = p.word(ctxRetry, k, v) == "restore"
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
