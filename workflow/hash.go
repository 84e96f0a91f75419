package workflow

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"
)

// hashForm is what makes a step do what it does, defaults and prompts included;
// names, descriptions, comments and positions are not in it. A new key is a new
// field with omitempty, so that the hashes of steps without it stay as they were.
type hashForm struct {
	ID       string        `json:"id"`
	Kind     Kind          `json:"kind"`
	Needs    []string      `json:"needs,omitempty"`
	HasNeeds bool          `json:"has_needs,omitempty"`
	Join     *Join         `json:"join,omitempty"`
	If       string        `json:"if,omitempty"`
	Env      [][2]string   `json:"env,omitempty"`
	Outputs  [][2]string   `json:"outputs,omitempty"`
	Secrets  []string      `json:"secrets,omitempty"`
	Timeout  time.Duration `json:"timeout,omitempty"`
	Retry    *Retry        `json:"retry,omitempty"`
	Continue bool          `json:"continue,omitempty"`
	Network  string        `json:"network,omitempty"`
	Access   *Access       `json:"access,omitempty"`
	Cache    []string      `json:"cache,omitempty"`
	Exposed  []string      `json:"exposed,omitempty"`
	Inject   [][]string    `json:"inject,omitempty"`
	Conflict string        `json:"on_conflict,omitempty"`
	Sandbox  string        `json:"sandbox,omitempty"`
	Run      *runForm      `json:"run,omitempty"`
	Agent    *agentForm    `json:"agent,omitempty"`
	Approve  *approveForm  `json:"approve,omitempty"`
	Cwd      string        `json:"cwd,omitempty"`
	Foreach  *foreachForm  `json:"foreach,omitempty"`
	Repeat   *repeatForm   `json:"repeat,omitempty"`
	Call     []string      `json:"call,omitempty"`
	Steps    []string      `json:"steps,omitempty"` // ids: what they do is in their own hashes

	Artifacts []string `json:"artifacts,omitempty"`
	// Ready is port, script, log and timeout of a background step.
	Background bool     `json:"background,omitempty"`
	Mounts     []string `json:"mounts,omitempty"`
	Ready      []string `json:"ready,omitempty"`
}

// foreachForm leaves the list out: see hashItems.
type foreachForm struct {
	MaxParallel int           `json:"max_parallel,omitempty"`
	BatchSize   int           `json:"batch_size,omitempty"`
	BatchPause  time.Duration `json:"batch_pause,omitempty"`
	FailFast    bool          `json:"fail_fast,omitempty"`
}

type repeatForm struct {
	Until string `json:"until"`
	Max   int    `json:"max"`
}

type runForm struct {
	Script string   `json:"script,omitempty"`
	Argv   []string `json:"argv,omitempty"`
	Shell  string   `json:"shell"`
}

type agentForm struct {
	Provider        string     `json:"provider"`
	Model           string     `json:"model,omitempty"`
	Prompt          string     `json:"prompt"`
	System          string     `json:"system,omitempty"`
	AppendSystem    string     `json:"append_system,omitempty"`
	AllowedTools    []string   `json:"allowed_tools"`
	DisallowedTools []string   `json:"disallowed_tools,omitempty"`
	MaxTurns        int        `json:"max_turns"`
	OnDenied        string     `json:"on_denied"`
	Cassette        string     `json:"cassette,omitempty"`
	Command         []string   `json:"command,omitempty"`
	OutputSchema    string     `json:"output_schema,omitempty"`
	ContextFiles    []string   `json:"context_files,omitempty"`
	Session         string     `json:"session,omitempty"`
	MCPServers      [][]string `json:"mcp_servers,omitempty"`
}

type approveForm struct {
	Message string        `json:"message"`
	Choices []string      `json:"choices"`
	Timeout time.Duration `json:"timeout,omitempty"`
}

// hashStep is the SHA-256 of a step's form, as hex.
func hashStep(w *Workflow, s *Step) string {
	f := hashForm{ID: s.ID, Kind: s.Kind, Needs: s.Needs, HasNeeds: s.HasNeeds, Join: s.Join, Secrets: s.Secrets, Timeout: s.Timeout,
		Continue: s.ContinueOnError, Network: s.Network.canonical(), Exposed: s.Exposed, Conflict: s.OnConflict, Sandbox: s.Sandbox}
	for _, name := range s.Secrets {
		for _, x := range w.Secrets {
			if x.Name == name && x.Inject != nil {
				f.Inject = append(f.Inject, []string{name, x.Inject.Target(), x.Inject.Header, x.Inject.Format})
			}
		}
	}
	for _, m := range w.MountsOf(w.SandboxOf(s)) {
		if s.Kind == KindRun || s.Kind == KindAgent {
			f.Mounts = append(f.Mounts, m.Host+" "+m.To)
		}
	}
	f.Artifacts, f.Background = s.Artifacts, s.Background
	if r := s.Ready; r != nil {
		f.Ready = []string{strconv.Itoa(r.Port), sourceOf(r.Run), r.Log, r.Timeout.String()}
	}
	if s.Cache != nil {
		f.Cache = append([]string{"cache"}, s.Cache.sources()...)
	}
	if s.If != nil {
		f.If = s.If.source
	}
	if s.Access.ReadOnly {
		f.Access = &s.Access
	}
	if s.Retry.Written {
		f.Retry = &s.Retry
	}
	for _, e := range s.Env {
		f.Env = append(f.Env, [2]string{e.Name, sourceOf(e.Value)})
	}
	for _, o := range s.Outputs {
		f.Outputs = append(f.Outputs, [2]string{o.Name, sourceOf(o.Expr)})
	}
	if r := s.Run; r != nil {
		f.Run = &runForm{Script: sourceOf(r.Script), Shell: r.Shell}
		for _, a := range r.Argv {
			f.Run.Argv = append(f.Run.Argv, sourceOf(a))
		}
	}
	f.Cwd = sourceOf(s.Cwd)
	if e := s.Foreach; e != nil {
		f.Foreach = &foreachForm{e.MaxParallel, e.BatchSize, e.BatchPause, e.FailFast}
	}
	if r := s.Repeat; r != nil && r.Until != nil {
		f.Repeat = &repeatForm{r.Until.source, r.Max}
	}
	if s.Call != nil && s.Call.Workflow != nil {
		f.Call = callForm(s.Call)
	}
	for _, c := range s.Steps {
		f.Steps = append(f.Steps, c.ID)
	}
	if a := s.Agent; a != nil {
		f.Agent = &agentForm{a.Provider, a.Model, sourceOf(a.Prompt), sourceOf(a.SystemPrompt), sourceOf(a.AppendSystemPrompt),
			a.AllowedTools, a.DisallowedTools, a.MaxTurns, a.OnDenied, a.Cassette, a.Command, string(a.OutputSchema), a.ContextFiles, a.Session, serverForms(a.MCPServers)}
	}
	if a := s.Approve; a != nil {
		f.Approve = &approveForm{sourceOf(a.Message), a.Choices, a.Timeout}
	}
	// A struct of strings, numbers and lists cannot fail to encode.
	b, _ := json.Marshal(&f)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// serverForms are what MCP servers are made from: a form of lists, as names could hold
// any separator.
func serverForms(list []MCPServer) (out [][]string) {
	for _, m := range list {
		out = append(out, []string{m.Name, m.URL}, m.Command)
		for _, vars := range [][]EnvVar{m.Env, m.Headers} {
			form := []string{}
			for _, e := range vars {
				form = append(form, e.Name, sourceOf(e.Value))
			}
			out = append(out, form)
		}
	}
	return out
}

func sourceOf(t *Template) string {
	if t == nil {
		return ""
	}
	return t.source
}

// hashItems is the digest of a foreach's list as written: a change of it alone
// keeps the instances whose items stayed.
func hashItems(f *Foreach) string {
	if f == nil {
		return ""
	}
	form := []any{}
	if f.Expr != nil {
		form = append(form, f.Expr.source)
	}
	for _, v := range []*Value{f.List, f.Include, f.Exclude} {
		if v == nil {
			form = append(form, nil)
			continue
		}
		form = append(form, v.source)
	}
	for _, a := range f.Matrix {
		switch {
		case a.Expr != nil:
			form = append(form, a.Name, a.Expr.source)
		case a.Values != nil: // neither: a mistake that is reported
			form = append(form, a.Name, a.Values.source)
		}
	}
	// Strings alone cannot fail to encode.
	b, _ := json.Marshal(form)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
