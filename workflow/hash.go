package workflow

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// hashStep is the digest of all that makes a step do what it does, defaults and
// prompts included; names, descriptions, comments and positions are not in it.
func hashStep(w *Workflow, s *Step) string {
	source := func(t *Template) string {
		if t == nil {
			return ""
		}
		return t.source
	}
	var env, outputs, argv [][2]string
	for _, e := range s.Env {
		env = append(env, [2]string{e.Name, source(e.Value)})
	}
	for _, o := range s.Outputs {
		outputs = append(outputs, [2]string{o.Name, source(o.Expr)})
	}
	form := map[string]any{
		"id": s.ID, "kind": s.Kind, "needs": s.Needs, "has_needs": s.HasNeeds, "env": env, "outputs": outputs,
		"secrets": s.Secrets, "timeout": s.Timeout, "retry": s.Retry, "continue": s.ContinueOnError, "network": w.Sandbox.Network,
	}
	if s.If != nil {
		form["if"] = s.If.source
	}
	if r := s.Run; r != nil {
		for _, a := range r.Argv {
			argv = append(argv, [2]string{"", source(a)})
		}
		form["run"] = []any{source(r.Script), argv, r.Shell}
	}
	if a := s.Agent; a != nil {
		form["agent"] = []any{a.Provider, a.Model, source(a.Prompt), source(a.SystemPrompt), source(a.AppendSystemPrompt),
			a.AllowedTools, a.DisallowedTools, a.MaxTurns, a.OnDenied, a.Cassette}
	}
	// A map of strings, numbers and lists cannot fail to encode; keys are sorted.
	b, _ := json.Marshal(form)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
