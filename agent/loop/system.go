package loop

import (
	"strings"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/tools"
	"flowrun.dev/flow/sandbox"
)

// system is the step's system prompt, or our own short one, and what is appended.
func system(r agent.Request, specs []tools.Spec) string {
	text := r.System
	if text == "" {
		text = builtin(r, specs)
	}
	if r.AppendSystem != "" {
		text += "\n\n" + r.AppendSystem
	}
	return text
}

func builtin(r agent.Request, specs []tools.Spec) string {
	dir := sandbox.WorkspaceDir
	if r.Sandbox != nil && r.Sandbox.Info().Tier == sandbox.TierNone {
		dir = r.Sandbox.Home() + "/workspace"
	}
	var b strings.Builder
	b.WriteString("You are a coding agent and work on one step of a pipeline. Nobody answers questions while you work: " +
		"do the task with your tools, check the result, and end with a short summary of what you did and what is left.\n\n" +
		"The workspace is " + dir + ", on Linux, in a sandbox that may have no network. ")
	if len(specs) == 0 {
		b.WriteString("You have no tools.")
		return b.String()
	}
	names := make([]string, len(specs))
	for i, s := range specs {
		names[i] = s.Name
	}
	b.WriteString("Your tools are " + strings.Join(names, ", ") + "; these rules bound them: " + strings.Join(r.Allowed, ", "))
	if len(r.Disallowed) > 0 {
		b.WriteString("; never: " + strings.Join(r.Disallowed, ", "))
	}
	b.WriteString(". A denied call says why; do not try to get around it.")
	return b.String()
}
