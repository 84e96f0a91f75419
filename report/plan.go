package report

import (
	"fmt"
	"strings"

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
