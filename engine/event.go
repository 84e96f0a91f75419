package engine

import "time"

// Event is one fact of a run. Seq starts at 1 and has no gaps.
type Event struct {
	Seq  int64
	At   time.Time // UTC
	Body Body
}

// Body is what happened. The concrete types are listed once, in the table of
// codec.go; each is stored as JSON under its Type.
type Body interface{ Type() string }

// RunStarted is always the first event: the frozen definition.
type RunStarted struct {
	RunID       string            `json:"run_id"`
	Workflow    string            `json:"workflow"` // name
	Path        string            `json:"path"`     // of the file, relative to the project's root
	Text        []byte            `json:"text"`
	Files       map[string][]byte `json:"files,omitempty"` // prompt files as frozen
	Inputs      map[string]any    `json:"inputs"`
	Options     Options           `json:"options"`
	FlowVersion string            `json:"flow_version"`
	// SourceManifest is the checkpoint that workspace.from became, "" for none.
	SourceManifest string `json:"source_manifest,omitempty"`
	// CIRun is the run of a CI system that the call belonged to, "" for none.
	CIRun string `json:"ci_run,omitempty"`
	// ForkOf says whose history the run began with, "" for its own.
	ForkOf string `json:"fork_of,omitempty"`
}

// Options are what the call chose for the whole run; a resume keeps them.
type Options struct {
	Driver   string        `json:"driver,omitempty"`   // overrides sandbox.driver
	Provider string        `json:"provider,omitempty"` // overrides every agent's provider
	Replay   string        `json:"replay,omitempty"`   // cassette folder for every agent
	Grace    time.Duration `json:"grace"`
	Until    string        `json:"until,omitempty"` // stop after this step
	Apply    string        `json:"apply,omitempty"` // overrides workspace.apply
}

// RunResumed is appended by the new owner before anything else of a resume. The
// steps in Reset go back to pending; Definition, when set, replaces the frozen one
// (accepted changes).
type RunResumed struct {
	Attempt    int         `json:"attempt"` // 2 for the first resume
	Reset      []StepReset `json:"reset"`
	Checkpoint string      `json:"checkpoint,omitempty"` // what the workspace is restored from; "" = the source
	// Merged, when set, is Checkpoint with what somebody changed in workspace.from
	// since, and Source that tree as imported: they take the places of Checkpoint and
	// of the run's base from here on.
	Merged string            `json:"merged,omitempty"`
	Source string            `json:"source,omitempty"`
	Text   []byte            `json:"text,omitempty"`
	Files  map[string][]byte `json:"files,omitempty"`
	// Removed are the steps that are no part of the run any more: instances that
	// are to be made anew, and what an accepted definition lacks.
	Removed []string `json:"removed,omitempty"`
}

// StepReset says which step runs again, and why, in words for people.
type StepReset struct {
	Step   string `json:"step"`
	Reason string `json:"reason"`
	// Forget what the scope opened: its items, rounds or steps are made anew.
	// Without it a foreach, repeat or group goes on with those that it has.
	Forget bool `json:"forget,omitempty"`
	// Again: the list of a foreach is another one now. It is computed anew, and
	// the instances whose items stayed are kept.
	Again bool `json:"again,omitempty"`
}

// SandboxCreated and SandboxClosed bracket a sandbox's life.
type SandboxCreated struct {
	ID     string `json:"id"`
	Driver string `json:"driver"`
	Tier   string `json:"tier"`
	// Reason why the tier is not a stronger one, "" for the strongest.
	Reason string `json:"reason,omitempty"`
	// Use is "" for the run's own sandbox, else fresh (of one step), pool, or named:
	// then Name is its name in the file. Forks of steps that overlap are not told of.
	Use  string `json:"use,omitempty"`
	Name string `json:"name,omitempty"`
	// Ready of Size sandboxes of a pool are there, while it warms; 0 otherwise.
	Ready int `json:"ready,omitempty"`
	Size  int `json:"size,omitempty"`
}
type SandboxClosed struct {
	ID string `json:"id"`
}

// WorkspaceImported: the source tree (workspace.from, or nothing) was brought
// into the first sandbox and stored as Checkpoint: what a resume starts from
// while no step has a checkpoint of its own, and what apply compares with.
type WorkspaceImported struct {
	Checkpoint string `json:"checkpoint"`
	Files      int    `json:"files"`
}

// ConditionEvaluated is the result of a step's `if`.
type ConditionEvaluated struct {
	Step  string `json:"step"`
	Value bool   `json:"value"`
	Error string `json:"error,omitempty"` // the step then fails with class invalid
}

// StepSkipped: its own `if` was false. StepNotRun: something that it needs
// failed, or the run ended before.
type StepSkipped struct {
	Step string `json:"step"`
	// Reason is given where it was not its own `if`: what its join needs was skipped.
	Reason string `json:"reason,omitempty"`
}
type StepNotRun struct {
	Step   string `json:"step"`
	Reason string `json:"reason"`
	// Cancelled: a join had enough without it, before it started.
	Cancelled bool `json:"cancelled,omitempty"`
}

// StepStarted is durable before the step's process exists.
type StepStarted struct {
	Step    string `json:"step"`
	Attempt int    `json:"attempt"` // from 1, over all resumes
	// Kind of a step that is no top-level step of the file, for its record.
	Kind string `json:"kind,omitempty"`
}

// ForeachExpanded freezes the items of a foreach, and the key of each that names
// its instance; it follows the step's StepStarted. Error: the list could not be
// computed, the step then fails with class invalid.
type ForeachExpanded struct {
	Step  string   `json:"step"`
	Keys  []string `json:"keys"`
	Items []any    `json:"items"`
	Error string   `json:"error,omitempty"`
}

// BatchStarted lets the next items of a foreach with `batch` start.
type BatchStarted struct {
	Step string `json:"step"`
	N    int    `json:"n"` // from 2
}

// IterationStarted opens round N of a repeat.
type IterationStarted struct {
	Step string `json:"step"`
	N    int    `json:"n"` // from 1
}

// UntilEvaluated is the result of a repeat's `until` after round N.
type UntilEvaluated struct {
	Step  string `json:"step"`
	N     int    `json:"n"`
	Value bool   `json:"value"`
	Error string `json:"error,omitempty"` // the step then fails with class invalid
}

// StopRequested asks a step, with all that is inside it, to end as Status. With
// Rest it asks what is inside and not yet ended, and lets the step itself go on
// to its own end; Rest without a Step is the run's fail_fast. What was stopped so
// does not count as a failure.
type StopRequested struct {
	Step   string     `json:"step,omitempty"`
	Rest   bool       `json:"rest,omitempty"`
	Status StepStatus `json:"status"` // cancelled, timed_out
	Reason string     `json:"reason"`
	// Join is the step whose needs are met without this one (cancel_rest).
	Join string `json:"join,omitempty"`
}

// SourceChanged: somebody changed files of workspace.from while the run used them. Where
// the source is not copied (driver local), steps that ran meanwhile may have seen that;
// those after it see what was imported. Paths are the first of Count.
type SourceChanged struct {
	Paths []string `json:"paths"`
	Count int      `json:"count"`
}

// StepSlow: an attempt still runs after the step's warn_after.
type StepSlow struct {
	Step    string        `json:"step"`
	Attempt int           `json:"attempt"`
	After   time.Duration `json:"after"`
}

// StepFinished is one attempt's end, with all that the execution record needs.
type StepFinished struct {
	Step    string  `json:"step"`
	Attempt int     `json:"attempt"`
	Outcome Outcome `json:"outcome"`
	// Checkpoint covers the workspace as it was when this step ended; "" when
	// another step was running at that moment (they share the tree).
	Checkpoint string `json:"checkpoint,omitempty"`
}

// RetryScheduled: the next attempt of a failed step starts at At.
type RetryScheduled struct {
	Step    string    `json:"step"`
	Attempt int       `json:"attempt"` // the coming one
	At      time.Time `json:"at"`
	Reason  string    `json:"reason"`
}

// CauseSuperseded of a CancelRequested: a newer run of the same concurrency group.
const CauseSuperseded = "superseded"

// CancelRequested: a person, a newer run or a signal asked; Cause is sigint, sigterm,
// user, superseded or timeout.
type CancelRequested struct {
	Cause string `json:"cause"`
}

// RunFinished ends a run (or this attempt of it: an interrupted one can be resumed).
type RunFinished struct {
	Status RunStatus `json:"status"`
	Class  Class     `json:"class,omitempty"`
	Cause  string    `json:"cause,omitempty"` // in words
	// Outputs of a run that succeeded.
	Outputs map[string]any `json:"outputs,omitempty"`
	// Artifacts of the run itself.
	Artifacts *Artifacts `json:"artifacts,omitempty"`
}

// Egress counts the decisions of one kind on one destination that a step wanted to
// reach. It is appended when the first of its kind falls and, if more followed, once
// more when the attempt ends: the last one counts, and a flood of connections does not
// become a flood of events.
type Egress struct {
	Step    string `json:"step"`
	Attempt int    `json:"attempt"`
	// Host in normal form, quoted where it is no host; "*" for the destinations
	// beyond the bound of an attempt.
	Host     string `json:"host"`
	Port     int    `json:"port,omitempty"`
	Verdict  string `json:"verdict"` // allowed, refused, or placeholder (of a secret, sent to another host)
	Reason   string `json:"reason,omitempty"`
	Count    int64  `json:"count"`
	Sent     int64  `json:"sent,omitempty"`     // bytes
	Received int64  `json:"received,omitempty"` // bytes
}

func (Egress) Type() string { return "egress" }

// Ended is the status that the step has then.
func (b StepNotRun) Ended() StepStatus {
	if b.Cancelled {
		return StepCancelled
	}
	return StepIsNotRun
}

func (RunStarted) Type() string         { return "run_started" }
func (RunResumed) Type() string         { return "run_resumed" }
func (SandboxCreated) Type() string     { return "sandbox_created" }
func (SandboxClosed) Type() string      { return "sandbox_closed" }
func (WorkspaceImported) Type() string  { return "workspace_imported" }
func (ConditionEvaluated) Type() string { return "condition_evaluated" }
func (StepSkipped) Type() string        { return "step_skipped" }
func (StepNotRun) Type() string         { return "step_not_run" }
func (StepStarted) Type() string        { return "step_started" }
func (ForeachExpanded) Type() string    { return "foreach_expanded" }
func (BatchStarted) Type() string       { return "batch_started" }
func (IterationStarted) Type() string   { return "iteration_started" }
func (UntilEvaluated) Type() string     { return "until_evaluated" }
func (StepSlow) Type() string           { return "step_slow" }
func (SourceChanged) Type() string      { return "source_changed" }
func (StopRequested) Type() string      { return "stop_requested" }
func (StepFinished) Type() string       { return "step_finished" }
func (RetryScheduled) Type() string     { return "retry_scheduled" }
func (CancelRequested) Type() string    { return "cancel_requested" }
func (RunFinished) Type() string        { return "run_finished" }
