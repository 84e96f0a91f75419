package engine

import "time"

// StepStatus of one step (design: language, Expressions).
type StepStatus string

const (
	StepPending     StepStatus = "pending"
	StepRunning     StepStatus = "running"
	StepRetrying    StepStatus = "retrying" // waits for its next attempt
	StepWaiting     StepStatus = "waiting"  // for a person
	StepSucceeded   StepStatus = "succeeded"
	StepFailed      StepStatus = "failed"
	StepTimedOut    StepStatus = "timed_out"
	StepIsSkipped   StepStatus = "skipped"
	StepIsNotRun    StepStatus = "not_run"
	StepCancelled   StepStatus = "cancelled"
	StepInterrupted StepStatus = "interrupted"
)

// RunStatus of a run (design: architecture, Resume).
type RunStatus string

const (
	RunRunning     RunStatus = "running"
	RunSucceeded   RunStatus = "succeeded"
	RunFailed      RunStatus = "failed"
	RunCancelled   RunStatus = "cancelled"
	RunInterrupted RunStatus = "interrupted"
	RunWaiting     RunStatus = "waiting"
	RunOutOfBudget RunStatus = "out_of_budget"
	RunRateLimited RunStatus = "rate_limited"
)

// Class of an error; it drives retries and exit codes.
type Class string

const (
	ClassNone           Class = ""
	ClassExitCode       Class = "exit_code"
	ClassTimeout        Class = "timeout"
	ClassInfrastructure Class = "infrastructure"
	ClassRateLimit      Class = "rate_limit"
	ClassBudget         Class = "budget"
	ClassDenied         Class = "denied"
	ClassInvalid        Class = "invalid"
	ClassCancelled      Class = "cancelled"
	ClassRejected       Class = "rejected" // by a person
	ClassConflict       Class = "conflict" // changes of steps that ran side by side
)

// Outcome is how one attempt of a step ended. Everything in it is redacted.
type Outcome struct {
	// Status is one of succeeded, failed, timed_out, cancelled, interrupted.
	Status   StepStatus `json:"status"`
	Class    Class      `json:"class,omitempty"`
	ExitCode int        `json:"exit_code"`
	// Error in words, "" on success.
	Error string `json:"error,omitempty"`
	// RetryAfter is the least wait before another try, 0 when nothing was said.
	RetryAfter time.Duration  `json:"retry_after,omitempty"`
	Outputs    map[string]any `json:"outputs,omitempty"`
	// Exports are what the step gives the environment of those that come after it.
	Exports *Exports `json:"exports,omitempty"`
	// Artifacts that the step names and that were collected at its end.
	Artifacts *Artifacts `json:"artifacts,omitempty"`
	// Summary is what it wrote for people, in Markdown.
	Summary string  `json:"summary,omitempty"`
	Command string  `json:"command,omitempty"` // script or prompt, redacted
	Stdout  Excerpt `json:"stdout"`
	Stderr  Excerpt `json:"stderr"`
	// Log names the whole output (state.Logs), "" when nothing was written.
	Log       string        `json:"log,omitempty"`
	Started   time.Time     `json:"started"`
	Duration  time.Duration `json:"duration"`
	SandboxID string        `json:"sandbox,omitempty"`
	// Cached is the run whose result was taken instead of running, "" for a step
	// that ran. CacheMiss says why a step with `cache` had to run, in words.
	Cached    string `json:"cached,omitempty"`
	CacheMiss string `json:"cache_miss,omitempty"`
	// Discarded: what the attempt changed was taken back, as its `retry` says.
	Discarded bool `json:"discarded,omitempty"`
	// Changed files, set when the checkpoint is taken: all counted, the first 1,000 named.
	ChangedCount int          `json:"changed_count"`
	Changed      []FileChange `json:"changed,omitempty"`
	Leftover     int          `json:"leftover,omitempty"` // processes ended with the step
	MaxRSS       int64        `json:"max_rss,omitempty"`  // bytes
	// Usage is what the attempt took, nil when nothing was measured.
	Usage *Usage      `json:"usage,omitempty"`
	Agent *AgentUsage `json:"agent,omitempty"`
}

// Usage of the machine by one attempt. Peaks are sampled over the whole sandbox, so
// where steps overlap they are common to them, and 0 when it ended before a sample.
type Usage struct {
	CPU           time.Duration `json:"cpu,omitempty"` // of the command and the children it waited for
	PeakMemory    int64         `json:"peak_memory,omitempty"`
	PeakProcesses int           `json:"peak_processes,omitempty"`
	PeakDisk      int64         `json:"peak_disk,omitempty"` // of the home
	// Hit is the limit that the attempt ran into, "" for none.
	Hit string `json:"hit,omitempty"`
}

// Excerpt is the first and the last 1,000 characters of a stream (practice 12).
type Excerpt struct {
	Head  string `json:"head,omitempty"`
	Tail  string `json:"tail,omitempty"` // "" when Head holds everything
	Bytes int64  `json:"bytes"`
}

// FileChange is one changed file; Path is relative to the workspace, or starts
// with "~/" outside it.
type FileChange struct {
	Path string `json:"path"`
	Op   string `json:"op"` // added, modified, deleted
}

// AgentUsage is what a conversation took.
type AgentUsage struct {
	Provider         string   `json:"provider"`
	Model            string   `json:"model,omitempty"`
	Turns            int      `json:"turns"`
	ToolCalls        int      `json:"tool_calls"`
	Denied           int      `json:"denied"`
	InputTokens      int64    `json:"input_tokens"`
	OutputTokens     int64    `json:"output_tokens"`
	CacheReadTokens  int64    `json:"cache_read_tokens"`
	CacheWriteTokens int64    `json:"cache_write_tokens"`
	CostUSD          float64  `json:"cost_usd"`
	StopReason       string   `json:"stop_reason,omitempty"`
	Denials          []Denial `json:"denials,omitempty"`
}

// Denial is one refused tool call.
type Denial struct {
	Tool   string `json:"tool"`
	Input  string `json:"input"` // redacted, at most 1,000 characters
	Reason string `json:"reason"`
}
