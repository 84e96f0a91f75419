package report

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"flowrun.dev/flow/workflow"
)

// PlanText writes a plan for people.
func PlanText(w io.Writer, v PlanView, s Style) error {
	s = s.withDefaults()
	var b bytes.Buffer
	sep := s.glyphs().sep
	fmt.Fprintln(&b, s.clip(s.paint(toneName, clean(v.Workflow))+sep+count(len(v.Steps), "step")+sep+
		"at most "+strconv.Itoa(v.MaxParallel)+" at the same time", s.Width))
	if v.Description != "" {
		for _, l := range wrap(clean(v.Description), s.Width) {
			fmt.Fprintln(&b, l)
		}
	}
	fmt.Fprintln(&b)
	head := func(name, text string) { paragraph(&b, s, name+": ", toneDim, text) }
	head("sandbox", v.Driver)
	head("network", networkWords(v.Network))
	switch {
	case v.From == "":
		head("workspace", "empty at the start")
	case v.InPlace:
		head("workspace", v.From+" itself, not a copy: what steps change there is changed, and nothing puts it back")
	case v.Path != "":
		head("workspace", "a copy of "+v.From+" in "+v.Path+"; "+applyWords(v.Apply))
	default:
		head("workspace", "a copy of "+v.From+"; "+applyWords(v.Apply))
	}
	if v.Timeout > 0 {
		head("timeout", duration(time.Duration(v.Timeout))+" for the whole run")
	}
	if len(v.Mounts) > 0 {
		head("shows", strings.Join(v.Mounts, ", ")+" (of this machine, read-only)")
	}
	if len(v.Artifacts) > 0 {
		head("artifacts", strings.Join(v.Artifacts, ", "))
	}
	if v.Group != "" {
		text := "one run of group " + v.Group + " at a time; this one waits for the one before"
		if v.CancelInProgress {
			text = "one run of group " + v.Group + " at a time; this one cancels the one before"
		}
		head("concurrency", text)
	}
	finally := false
	var numbers []int // of the row, by depth
	for i := range v.Steps {
		st := &v.Steps[i]
		fmt.Fprintln(&b)
		if st.Finally && !finally {
			finally = true
			fmt.Fprintln(&b, s.paint(toneDim, "at the end, whatever happened:"))
		}
		if len(numbers) > st.Depth {
			numbers = numbers[:st.Depth+1]
			numbers[st.Depth]++
		} else {
			numbers = append(numbers, 1)
		}
		planRowText(&b, s, st, numbers)
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write plan: %w", err)
	}
	return nil
}

// planRowText writes a row, indented by its depth.
func planRowText(b *bytes.Buffer, s Style, st *PlanStep, numbers []int) {
	const indent = "   "
	words := make([]string, len(numbers))
	for i, n := range numbers {
		words[i] = strconv.Itoa(n)
	}
	if s.Width > 0 {
		s.Width = max(20, s.Width-len(indent)*st.Depth)
	}
	var row bytes.Buffer
	planStep(&row, s, st, strings.Join(words, "."))
	for line := range strings.Lines(row.String()) {
		b.WriteString(strings.Repeat(indent, st.Depth) + line)
	}
}

func planStep(b *bytes.Buffer, s Style, st *PlanStep, number string) {
	sep := s.glyphs().sep
	kind := st.Kind
	switch {
	case st.Provider != "":
		kind += " (" + clean(st.Provider)
		if st.Model != "" {
			kind += ", " + clean(st.Model)
		}
		kind += ")"
	case st.Shell != "":
		kind += " (" + clean(st.Shell) + ")"
	}
	line := number + ". " + s.paint(toneName, clean(st.ID)) + sep + kind
	if st.Name != "" && st.Name != st.ID {
		line += sep + clean(st.Name)
	}
	fmt.Fprintln(b, s.clip(line, s.Width))
	add := func(name, text string) { paragraph(b, s, name+": ", toneDim, text) }
	if len(st.Needs) == 0 {
		add("starts", "at once")
	} else {
		add("starts", startWords(st))
	}
	if st.Loop != "" {
		add("runs", st.Loop)
	}
	if st.Calls != "" {
		add("calls", st.Calls)
	}
	if st.If != "" {
		text := st.If
		switch st.Verdict {
		case "skipped":
			text += " (false with these inputs: the step is skipped)"
		case "runs":
			text += " (true with these inputs)"
		}
		add("if", text)
	}
	if st.Background != "" {
		add("background", st.Background)
	}
	switch st.Cache {
	case "all":
		add("cache", "skipped, and its result taken, when nothing that it depends on changed")
	case "key":
		add("cache", "skipped, and its result taken, when its key did not change")
	}
	if st.Kind == string(workflow.KindAgent) {
		tools := "none"
		if len(st.AllowedTools) > 0 {
			tools = strings.Join(st.AllowedTools, ", ")
		}
		if len(st.DisallowedTools) > 0 {
			tools += "; never " + strings.Join(st.DisallowedTools, ", ")
		}
		add("tools", tools)
		add("turns", "at most "+strconv.Itoa(st.MaxTurns))
		if words := budgetWords(st.BudgetUSD, st.BudgetTokens, st.BudgetTurns); words != "" {
			add("budget", words)
		}
	}
	if st.Session != "" {
		add("session", "continues that of "+st.Session)
	}
	if len(st.MCPServers) > 0 {
		add("mcp servers", strings.Join(st.MCPServers, "; "))
	}
	if st.Sandbox != "" {
		add("sandbox", st.Sandbox)
	}
	if len(st.Rights) > 0 {
		add("rights", strings.Join(st.Rights, "; "))
	}
	if st.Kind == string(workflow.KindApprove) {
		add("waits", "for a person, who is asked: "+st.Asks)
		add("answers", strings.Join(st.Choices, ", "))
		if st.Timeout > 0 {
			add("timeout", duration(time.Duration(st.Timeout))+" for the answer")
		}
		if st.ContinueOnError {
			add("on error", "the run goes on")
		}
		return
	}
	holds := st.Kind == string(workflow.KindGroup) || st.Kind == string(workflow.KindCall)
	if !holds {
		add("network", networkWords(st.Network))
	}
	switch {
	case len(st.Secrets) > 0 && holds:
		add("passes on", strings.Join(st.Secrets, ", "))
	case len(st.Secrets) > 0:
		add("secrets", strings.Join(st.Secrets, ", "))
	case !holds:
		add("secrets", "none")
	}
	if len(st.Artifacts) > 0 {
		add("artifacts", strings.Join(st.Artifacts, ", "))
	}
	switch {
	case st.Timeout > 0 && holds:
		add("timeout", duration(time.Duration(st.Timeout))+" for all of it")
	case st.Timeout > 0:
		add("timeout", duration(time.Duration(st.Timeout))+" per attempt")
	}
	switch {
	case st.MaxAttempts == 1:
		add("retries", "never")
	case st.MaxAttempts > 1:
		add("retries", "at most "+count(st.MaxAttempts, "attempt"))
	}
	if st.ContinueOnError {
		add("on error", "the run goes on")
	}
}

// sandboxWords says where a step runs, "" for the run's own sandbox.
func sandboxWords(w *workflow.Workflow, s *workflow.Step) string {
	spec := w.SandboxOf(s)
	text := ""
	switch {
	case s.Kind == workflow.KindGroup, s.Kind == workflow.KindCall:
		return ""
	case s.Sandbox == workflow.Fresh || spec.Reuse == workflow.ReuseStep:
		text = "a new one, with the workspace as it is and an empty home, closed at the step's end"
	case spec.Reuse == workflow.ReusePool:
		text = "one of a pool of " + strconv.Itoa(spec.Pool.Size) + ", reset before the step"
	case spec.Name != "":
		text = "made when the first step needs it, kept for the others"
	}
	if spec.Name != "" {
		text = spec.Name + " (driver " + or(spec.Driver, "auto") + "): " + text
	}
	return text
}

// startWords says what a step waits for.
func startWords(st *PlanStep) string {
	switch {
	case st.NeedsCount == 0:
		return "after " + list(st.Needs, 8)
	case st.CancelRest:
		return fmt.Sprintf("when %d of %s succeeded; the others are cancelled", st.NeedsCount, list(st.Needs, 8))
	}
	return fmt.Sprintf("when %d of %s succeeded; the others go on", st.NeedsCount, list(st.Needs, 8))
}

func budgetWords(usd float64, tokens int64, turns int) string {
	var words []string
	if usd > 0 {
		words = append(words, "$"+strconv.FormatFloat(usd, 'f', -1, 64))
	}
	if tokens > 0 {
		words = append(words, strconv.FormatInt(tokens, 10)+" tokens")
	}
	if turns > 0 {
		words = append(words, strconv.Itoa(turns)+" turns")
	}
	return strings.Join(words, ", ")
}

func networkWords(n string) string {
	if n == "none" {
		return "off"
	}
	return clean(n)
}

func applyWords(a string) string {
	switch a {
	case "on_success":
		return "changes come back if the run succeeds"
	case "always":
		return "changes come back always"
	}
	return "changes stay in the run"
}

// list names at most n of the items.
func list(items []string, n int) string {
	if len(items) <= n {
		return strings.Join(items, ", ")
	}
	return strings.Join(items[:n], ", ") + " and " + strconv.Itoa(len(items)-n) + " more"
}

func backgroundWords(st *workflow.Step) string {
	if !st.Background {
		return ""
	}
	words := "until the run ends; "
	r := st.Ready
	switch {
	case r == nil:
		return words + "ready at once"
	case r.Port != 0:
		words += fmt.Sprintf("ready when port %d is listened on", r.Port)
	case r.Log != "":
		words += fmt.Sprintf("ready when a line of its output matches %q", r.Log)
	default:
		words += "ready when its script succeeds"
	}
	return words + " (" + duration(r.Timeout) + " at most)"
}

// namedMounts are what only the named sandboxes show.
func namedMounts(w *workflow.Workflow) (out []workflow.Mount) {
	for _, s := range w.Sandboxes {
		out = append(out, s.Mounts...)
	}
	return out
}
