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

// PlanView is what `flow plan` tells: what would run, in which order, and what it
// may do.
type PlanView struct {
	Workflow    string     `json:"workflow"`
	Description string     `json:"description,omitempty"`
	Driver      string     `json:"driver"`
	Network     string     `json:"network"`
	From        string     `json:"workspace_from,omitempty"`
	Apply       string     `json:"workspace_apply,omitempty"`
	Path        string     `json:"workspace_path,omitempty"`
	InPlace     bool       `json:"workspace_in_place,omitempty"`
	Timeout     Seconds    `json:"timeout_seconds,omitempty"`
	MaxParallel int        `json:"max_parallel"`
	Artifacts   []string   `json:"artifacts,omitempty"`
	Steps       []PlanStep `json:"steps"`

	// Group of concurrency as written, "" for none.
	Group            string `json:"concurrency_group,omitempty"`
	CancelInProgress bool   `json:"cancel_in_progress,omitempty"`
	// Mounts in words.
	Mounts []string `json:"mounts,omitempty"`
}

// PlanStep is one step of a plan. Wave is the round in which it can start at the
// earliest, from 1; steps of one wave may run at the same time.
type PlanStep struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
	Kind string `json:"kind"`
	// Depth of the groups, loops and called files around it; In is the step that calls
	// its file, "" for the file that is run.
	Depth int    `json:"depth,omitempty"`
	In    string `json:"in,omitempty"`
	Loop  string `json:"loop,omitempty"`  // how often, in words; "" for once
	Calls string `json:"calls,omitempty"` // the called file
	// Step as checked, for what only the caller can say.
	Step    *workflow.Step `json:"-"`
	Wave    int            `json:"wave"`
	Finally bool           `json:"finally,omitempty"`
	Needs   []string       `json:"needs"`
	// NeedsCount of Needs are enough, 0 for all; CancelRest cancels the others then.
	NeedsCount int    `json:"needs_count,omitempty"`
	CancelRest bool   `json:"cancel_rest,omitempty"`
	If         string `json:"if,omitempty"` // "" means: if nothing failed
	Shell      string `json:"shell,omitempty"`
	Provider   string `json:"provider,omitempty"`
	Model      string `json:"model,omitempty"`
	// AllowedTools of an agent; nil means none were named.
	AllowedTools    []string `json:"allowed_tools,omitempty"`
	DisallowedTools []string `json:"disallowed_tools,omitempty"`
	MaxTurns        int      `json:"max_turns,omitempty"`
	// Verdict for the inputs that were given: runs, skipped, or "" where it depends
	// on what happens before.
	Verdict string `json:"verdict,omitempty"`
	// Cache says whether a result of an earlier run may be taken: "", all (it
	// depends on everything) or key (on the named files and values only).
	Cache string `json:"cache,omitempty"`
	// Session is the step whose conversation an agent goes on with.
	Session string `json:"session,omitempty"`
	// MCPServers of an agent: what each runs, or where it is.
	MCPServers []string `json:"mcp_servers,omitempty"`
	// Rights in words: what the allowlist lets the step do, a sentence each.
	Rights []string `json:"rights,omitempty"`
	// Budget of an agent, zero fields for no bound.
	BudgetUSD    float64  `json:"budget_usd,omitempty"`
	BudgetTokens int64    `json:"budget_tokens,omitempty"`
	BudgetTurns  int      `json:"budget_turns,omitempty"`
	Secrets      []string `json:"secrets"` // names only
	// Sandbox in words, "" for the run's own.
	Sandbox         string  `json:"sandbox,omitempty"`
	Network         string  `json:"network"` // none, full, or "only" and the hosts
	Timeout         Seconds `json:"timeout_seconds,omitempty"`
	MaxAttempts     int     `json:"max_attempts,omitempty"` // 0: the default for infrastructure errors only
	ContinueOnError bool    `json:"continue_on_error,omitempty"`
	// Asks is the message of an approval as written, Choices are its answers. Its
	// Timeout is that of the answer.
	Asks    string   `json:"asks,omitempty"`
	Choices []string `json:"choices,omitempty"`
	// Artifacts that it hands on.
	Artifacts []string `json:"artifacts,omitempty"`
	// Background says in words when the step counts as ended, "" for one that ends by itself.
	Background string `json:"background,omitempty"`
}

// PlanOf turns a plan into its view. Driver and network are the file's; a caller
// that overrides them sets the fields.
func PlanOf(p *workflow.Plan) PlanView {
	w := p.Workflow
	v := PlanView{Workflow: w.Name, Description: w.Description, Driver: or(w.Sandbox.Driver, "auto"),
		Network: or(w.Sandbox.Network.String(), "none"), From: w.Workspace.From, Apply: or(w.Workspace.Apply, "never"), Path: w.Workspace.Path, InPlace: w.Workspace.InPlace,
		Timeout: Seconds(w.Timeout), MaxParallel: w.MaxParallel, Artifacts: w.Artifacts}
	if c := w.Concurrency; c != nil {
		v.Group, v.CancelInProgress = c.Group.Source(), c.CancelInProgress
	}
	v.rows(w, p.Nodes, "", 0)
	for _, m := range append(w.MountsOf(&w.Sandbox), namedMounts(w)...) {
		v.Mounts = append(v.Mounts, m.Host+" at "+m.To)
	}
	return v
}

// rows adds the nodes of a list and, below each, what it opens. in names the step that
// holds them; those of a called file have its id before their own.
func (v *PlanView) rows(w *workflow.Workflow, nodes []workflow.Node, in string, depth int) {
	waves := wavesOf(nodes)
	for i := range nodes {
		n := &nodes[i]
		v.Steps = append(v.Steps, planRow(w, nodes, n, waves[i], in, depth))
		row := &v.Steps[len(v.Steps)-1]
		for n.Role == workflow.RoleForeach || n.Role == workflow.RoleRepeat {
			n = &n.Body[0]
		}
		id := in
		if n.Role == workflow.RoleCall {
			id = row.ID
		}
		v.rows(w, n.Body, id, depth+1)
	}
}

func planRow(w *workflow.Workflow, nodes []workflow.Node, n *workflow.Node, wave int, in string, depth int) PlanStep {
	st := n.Step
	ps := PlanStep{ID: st.ID, Name: st.Name, Kind: string(st.Kind), Wave: wave, In: in, Depth: depth, Step: st, Finally: n.Finally,
		Needs: []string{}, If: source(st.If), Secrets: append([]string{}, st.Secrets...),
		Network: or(st.Network.String(), "none"),
		Timeout: Seconds(st.Timeout), ContinueOnError: st.ContinueOnError}
	ps.Sandbox, ps.Artifacts = sandboxWords(w, st), st.Artifacts
	ps.Background = backgroundWords(st)
	for _, k := range n.Needs {
		ps.Needs = append(ps.Needs, nodes[k].Step.ID)
	}
	if j := st.Join; j != nil {
		ps.NeedsCount, ps.CancelRest = j.Count, j.CancelRest
	}
	if st.Retry.Written {
		ps.MaxAttempts = st.Retry.MaxAttempts
	}
	if st.Run != nil {
		ps.Shell = st.Run.Shell
		if len(st.Run.Argv) > 0 {
			ps.Shell = ""
		}
	}
	if a := st.Agent; a != nil {
		ps.Provider, ps.Model, ps.MaxTurns = a.Provider, a.Model, a.MaxTurns
		ps.AllowedTools, ps.DisallowedTools = a.AllowedTools, a.DisallowedTools
		ps.Session = a.Session
		for _, m := range a.MCPServers {
			if a.Uses(m.Name) {
				ps.MCPServers = append(ps.MCPServers, m.Name+": "+or(m.URL, strings.Join(m.Command, " ")))
			}
		}
		ps.BudgetUSD, ps.BudgetTokens, ps.BudgetTurns = a.Budget.CostUSD, a.Budget.Tokens, a.Budget.Turns
	}
	if a := st.Approve; a != nil {
		ps.Asks, ps.Choices, ps.Timeout = a.Message.Source(), a.Choices, Seconds(a.Timeout)
	}
	if c := st.Cache; c != nil {
		ps.Cache = "all"
		if len(c.Key) > 0 {
			ps.Cache = "key"
		}
	}
	if in != "" {
		ps.ID = in + "." + st.ID
	}
	if n.Role == workflow.RoleForeach {
		ps.Loop = "for each item"
	} else if n.Role == workflow.RoleRepeat {
		ps.Loop = fmt.Sprintf("again until %s, at most %d times", source(st.Repeat.Until), st.Repeat.Max)
	}
	if st.Call != nil {
		ps.Calls = st.Call.Path
	}
	return ps
}

// Judge tells for each step whether its condition holds with these inputs, where
// that can be known before anything ran. With nil it tells what no input changes.
func (v *PlanView) Judge(inputs map[string]any) {
	for i := range v.Steps {
		e := v.Steps[i].Step.If
		if e == nil || v.Steps[i].In != "" || // a called file has inputs of its own
			len(e.Refs()) > 0 || e.UsesFiles() || e.UsesStatus() || !onlyInputs(e.Source(), inputs != nil) {
			continue
		}
		ok, err := e.EvalBool(workflow.Vars{Inputs: inputs})
		if err != nil {
			continue
		}
		v.Steps[i].Verdict = "runs"
		if !ok {
			v.Steps[i].Verdict = "skipped"
		}
	}
}

// onlyInputs: no word of the expression names what only a run knows. A text in
// quotes may hold such a word too; then nothing is said.
func onlyInputs(source string, given bool) bool {
	for _, word := range strings.FieldsFunc(source, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		switch word {
		case "env", "run", "item", "index", "iteration", "self", "now", "let":
			return false
		case "inputs":
			if !given {
				return false
			}
		}
	}
	return true
}

// wavesOf is the length of the longest way to each node. Needs point backwards
// in a plan without cycles except where the file names a later step, hence the
// count of what is still open (Kahn) and no single pass.
func wavesOf(nodes []workflow.Node) []int {
	waves, open := make([]int, len(nodes)), make([]int, len(nodes))
	var ready []int
	for i := range nodes {
		open[i] = len(nodes[i].Needs)
		if open[i] == 0 {
			ready = append(ready, i)
			waves[i] = 1
		}
	}
	for len(ready) > 0 {
		i := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		for _, k := range nodes[i].Dependents {
			waves[k] = max(waves[k], waves[i]+1)
			if open[k]--; open[k] == 0 {
				ready = append(ready, k)
			}
		}
	}
	return waves
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

func source(e *workflow.Expr) string {
	if e == nil {
		return ""
	}
	return e.Source()
}

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
