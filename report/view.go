package report

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"flowrun.dev/flow/engine"
)

// RunRow is one run in a list. JSON: times are RFC 3339 in UTC, durations seconds.
type RunRow struct {
	ID         string           `json:"id"`
	Workflow   string           `json:"workflow"`
	Status     engine.RunStatus `json:"status"`
	Started    time.Time        `json:"started"`
	Duration   Seconds          `json:"duration_seconds"` // so far, for one that runs
	StepsDone  int              `json:"steps_done"`
	StepsTotal int              `json:"steps_total"`
	Cause      string           `json:"cause,omitempty"` // why it ended like this, in words
	// ForkedFrom is the run that it began as a copy of, at ForkPoint (in words).
	ForkedFrom string `json:"forked_from,omitempty"`
	ForkPoint  string `json:"fork_point,omitempty"`
	Pinned     bool   `json:"pinned,omitempty"` // gc leaves it
}

// RunView is all that `flow show` tells of one run.
type RunView struct {
	RunRow
	Path    string       `json:"path,omitempty"` // of the workflow file
	Attempt int          `json:"attempt"`        // 1, and one more with each resume
	Class   engine.Class `json:"class,omitempty"`
	Sandbox string       `json:"sandbox,omitempty"` // the last one's driver and tier, "local (ns-root)"
	CostUSD float64      `json:"cost_usd"`
	Denied  int          `json:"denied_calls"`
	Owner   string       `json:"owner,omitempty"` // who runs it now, "" when nobody does
	Steps   []StepRow    `json:"steps"`
	// Egress are the destinations that steps wanted to reach, in the order of the first try.
	Egress    []engine.Egress `json:"egress,omitempty"`
	Artifacts []ArtifactRow   `json:"artifacts,omitempty"`
	Continue  string          `json:"continue,omitempty"` // the exact command that continues it
}

// StepRow is one step of a run.
type StepRow struct {
	ID       string            `json:"id"`
	Name     string            `json:"name,omitempty"` // its title
	Kind     string            `json:"kind"`           // run, agent
	Status   engine.StepStatus `json:"status"`
	Attempts int               `json:"attempts"`
	Duration Seconds           `json:"duration_seconds"` // of the last attempt
	ExitCode int               `json:"exit_code"`
	Class    engine.Class      `json:"class,omitempty"`
	Error    string            `json:"error,omitempty"`
	// Reason why it was skipped, did not run, or runs again.
	Reason  string              `json:"reason,omitempty"`
	Changed []engine.FileChange `json:"changed,omitempty"` // the first ones
	// ChangedCount counts all of them.
	ChangedCount int     `json:"changed_count"`
	CostUSD      float64 `json:"cost_usd"`
	Denied       int     `json:"denied_calls"`
	Sandbox      string  `json:"sandbox,omitempty"` // of the last attempt: its id
	// SandboxUse says of one that is not the run's own what it is: fresh, pool, or a
	// name of `sandboxes`.
	SandboxUse string          `json:"sandbox_use,omitempty"`
	Usage      *engine.Usage   `json:"usage,omitempty"` // of the machine, by the last attempt
	Denials    []engine.Denial `json:"denials,omitempty"`
	Stderr     engine.Excerpt  `json:"stderr"` // of the last attempt
	Stdout     engine.Excerpt  `json:"stdout"`
	Summary    string          `json:"summary,omitempty"` // Markdown that it wrote ($FLOW_SUMMARY)
	Cached     string          `json:"cached,omitempty"`  // the run whose result was taken
	// Accepted: it did not end well, and continue_on_error takes that as a result.
	Accepted bool         `json:"accepted,omitempty"`
	Records  []RecordView `json:"records,omitempty"` // every attempt, the first one first
	// Approval is what a person is asked, nil for a step that does not wait for one.
	Approval *ApprovalView `json:"approval,omitempty"`
}

// ArtifactRow is one file that a step, or the run itself (Step ""), handed on.
type ArtifactRow struct {
	Step string `json:"step,omitempty"`
	engine.Artifact
}

// RecordView is one attempt of a step.
type RecordView struct {
	Attempt  int               `json:"attempt"`
	Status   engine.StepStatus `json:"status"`
	Class    engine.Class      `json:"class,omitempty"`
	ExitCode int               `json:"exit_code"`
	Error    string            `json:"error,omitempty"`
	Started  time.Time         `json:"started"`
	Duration Seconds           `json:"duration_seconds"`
	Sandbox  string            `json:"sandbox,omitempty"` // its id
}

// UseOf is StepRow.SandboxUse of the steps that ran in a sandbox.
func UseOf(b engine.SandboxCreated) string {
	if b.Name != "" {
		return b.Name
	}
	return b.Use
}

// FromOutcome fills in what an outcome says of a step's last attempt.
func (r *StepRow) FromOutcome(o engine.Outcome) {
	r.Status, r.Class, r.ExitCode, r.Error = o.Status, o.Class, o.ExitCode, o.Error
	r.Duration, r.Stdout, r.Stderr = Seconds(o.Duration), o.Stdout, o.Stderr
	r.Changed, r.ChangedCount, r.Usage, r.Cached, r.Sandbox = o.Changed, o.ChangedCount, o.Usage, o.Cached, o.SandboxID
	if a := o.Agent; a != nil {
		r.CostUSD, r.Denied, r.Denials = a.CostUSD, a.Denied, a.Denials
	}
}

// WriteJSON writes any of this package's views: indented, one value, a line end.
func WriteJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}
