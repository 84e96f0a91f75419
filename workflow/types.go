package workflow

import "time"

// Workflow is a checked definition. All fields are set by Parse and read-only
// from then on.
type Workflow struct {
	Name        string
	Description string
	// Path is the file as it was named, "" for text from elsewhere.
	Path string
	// Text is the exact text that was parsed; it is frozen in a run's first event.
	Text []byte
	// Files are the other files that the definition names (prompt_file,
	// cassettes are not among them), by the name used in the text, frozen as well.
	Files map[string][]byte

	Inputs  []Input
	Env     []EnvVar
	Secrets []Secret
	Sandbox SandboxSpec
	// Sandboxes are the named others.
	Sandboxes []*SandboxSpec
	Workspace Workspace
	// Timeout of the whole run, 0 for none.
	Timeout time.Duration
	// Budget of all agents of the run together, over all its resumes.
	Budget Budget
	// MaxParallel steps at the same time; default 5 (practice 8).
	MaxParallel int
	// Concurrency, when not nil: one run of a group at a time.
	Concurrency *Concurrency
	// FailFast stops the whole run at the first failure.
	FailFast bool
	Steps    []*Step
	// OnFailure are the steps that run before Finally when the run failed.
	OnFailure []*Step
	Finally   []*Step
	// Outputs of the run, computed when it succeeded.
	Outputs []Output
	// Mounts that every sandbox shows, read-only.
	Mounts []Mount
	// Artifacts are globs of the workspace's files that are kept at the run's end.
	Artifacts []string
	// Warnings that validation found, sorted by position.
	Warnings []Diagnostic
}

// Concurrency is `concurrency:`.
type Concurrency struct {
	Group            *Template
	CancelInProgress bool
	Pos              Pos
}

// Input is one typed input.
type Input struct {
	Name        string
	Type        string // string number integer boolean array object
	Description string
	Required    bool
	Default     any // nil when none
	HasDefault  bool
	Enum        []any
	Pattern     string
	Pos         Pos
}

// EnvVar is one plain setting; an ordered list keeps error positions and output stable.
type EnvVar struct {
	Name  string
	Value *Template
	Pos   Pos
}

// Secret is declared at the top and given to a step only where it names it.
type Secret struct {
	Name string
	// Env is the variable that holds it, default Name; File is a path to read it
	// from (relative to the workflow file). At most one is given.
	Env, File string
	// Inject binds it to a host; nil: steps get the value.
	Inject *Inject
	Pos    Pos
}

// SandboxSpec is where steps run: the run's sandbox, or a named one.
type SandboxSpec struct {
	Name    string  // "" for the run's
	Limits  Limits  // of everything in it
	Driver  string  // auto (default), local, host
	Require string  // any (default), strong
	Network Network // of the steps that do not say it; mode none when absent
	Mounts  []Mount // beside those of the file
	// Reuse is run ("" too), step or pool.
	Reuse string
	Pool  Pool // of reuse pool; Size is 0 otherwise
	// MaxSandboxes bounds all living ones of the run; 0 for the default. Of the run's only.
	MaxSandboxes int
	// Timeout is the life of one sandbox, 0 for as long as the run.
	Timeout time.Duration
	Pos     Pos
}

// Pool is `pool: {size, warm}`.
type Pool struct {
	Size int
	Warm bool // made before the first step
}

// Limits of the sandbox; 0 is none. Sizes in bytes.
type Limits struct {
	CPUs                        float64
	Memory, FileSize, Tmp, Disk int64
	Pids, OpenFiles             int
}

// Workspace is what the run works on.
type Workspace struct {
	// From is the source tree, relative to the project's root; "" for an empty workspace.
	From string
	// Path is the folder in the workspace that From is copied into, "" for itself.
	Path string
	// InPlace: the workspace is From itself.
	InPlace bool
	// Exclude patterns, gitignore-like (checkpoint.ImportOptions).
	Exclude []string
	// Apply brings the result back: never (default), on_success, always.
	Apply string
	Pos   Pos
}

// Kind of a step: its one kind key.
type Kind string

const (
	KindRun   Kind = "run"
	KindAgent Kind = "agent"
	KindGroup Kind = "group" // steps:
	KindCall  Kind = "workflow"
	// KindApprove waits for a person.
	KindApprove Kind = "approve"
)

// Step is one checked step. The defaults of the file are merged in already.
type Step struct {
	ID   string
	Name string
	Kind Kind
	Pos  Pos

	// Needs as written; nil means absent: every step above it in the same list.
	Needs    []string
	HasNeeds bool
	// Join says that some of Needs are enough; nil: all of them.
	Join *Join
	If   *Expr // nil means success()
	Env  []EnvVar
	// FileEnv is how many of Env come from the file's `env` and `defaults`: the rest
	// is nearer to the step.
	FileEnv int
	// Secrets that this step is given, by name.
	Secrets []string
	Access  Access
	// Exposed are those of them that an agent gets although they are not injected.
	Exposed []string
	// Network is what the step may reach: its own, or the sandbox's.
	Network         Network
	Timeout         time.Duration // per attempt, 0 for none
	Retry           Retry
	ContinueOnError bool
	Outputs         []Output
	Cache           *Cache // nil: it always runs
	// Sandbox is "" for the run's, Fresh, or the name of another one.
	Sandbox string
	// Artifacts are globs of the workspace's files that are kept at the step's end.
	Artifacts []string
	// Background lets the step's process go on when it has ended: until the run does.
	Background bool
	// Ready of a background step; nil: as soon as it has started.
	Ready *Ready
	// OnConflict is fail ("" too), ours or theirs.
	OnConflict string
	// AllowDangerous is the reason why a destructive command may stand in the script.
	AllowDangerous string

	// Cwd is the folder that the step starts in, relative to the workspace; nil
	// for the workspace itself.
	Cwd *Template
	// WarnAfter says when a step that still runs is told of; default 60 s (practice 6).
	WarnAfter time.Duration

	Run     *RunStep
	Agent   *AgentStep
	Approve *ApproveStep
	// Steps of a group.
	Steps []*Step
	// Call of another workflow file.
	Call *CallStep
	// Foreach makes an instance of the step for each item, Repeat one after the
	// other until a condition holds. With both, each item repeats for itself.
	Foreach *Foreach
	Repeat  *Repeat

	// Hash of everything that defines the step (SHA-256 hex of its canonical
	// form incl. the defaults, prompts and files that it uses), for resume.
	Hash string
	// ItemsHash is that of the list of foreach as written, which Hash leaves out.
	ItemsHash string
}

// Join is `needs: {any: …}` or `needs: {count: …, of: …}`: the step's turn comes
// once Count of the listed steps succeeded.
type Join struct {
	Count int
	// CancelRest: the others of the list are cancelled then, and the step starts
	// once they have ended. Without it they go on beside the step.
	CancelRest bool
}

// Foreach is `foreach` with the step's `max_parallel`, `batch` and `fail_fast`.
// Exactly one of Expr, List and Matrix is set.
type Foreach struct {
	Expr   *Expr  // yields a list
	List   *Value // a list as written, `${{ }}` in its strings
	Matrix []Axis // every combination, the last axis fastest
	// Include adds to the combinations that it fits, or is one of its own;
	// Exclude takes those away that it fits.
	Include, Exclude *Value
	// MaxParallel instances at the same time; 0 for no bound but the run's.
	MaxParallel int
	BatchSize   int // 0: one batch
	BatchPause  time.Duration
	// FailFast stops the other instances when one failed.
	FailFast bool
	Pos      Pos
}

// Axis is one list of a matrix.
type Axis struct {
	Name   string
	Expr   *Expr // of a list, or
	Values *Value
}

// Repeat is `repeat: {until, max}`.
type Repeat struct {
	Until *Expr
	Max   int
	Pos   Pos
}

// Output is `outputs: {name: EXPR}`.
type Output struct {
	Name string
	Expr *Template
	Pos  Pos
}

// Retry of a step. The zero value is "no retry written": infrastructure and
// rate-limit errors are still tried 3 times, 2 s to 10 s (practice 7).
type Retry struct {
	Written     bool
	MaxAttempts int           // all attempts, the first included
	Backoff     string        // constant, exponential (default), fibonacci
	Initial     time.Duration // default 2s
	Max         time.Duration // default 10s
	Jitter      time.Duration
	MaxElapsed  time.Duration
	On          []string // error classes; nil means exit_code, timeout, infrastructure, rate_limit
	// Restore: the next attempt starts with the tree that the failed one started with.
	Restore bool `json:",omitempty"`
}

// RunStep is `run:`.
type RunStep struct {
	Script *Template // nil when Argv is given
	Argv   []*Template
	Shell  string // bash (default), sh, python, node
	Pos    Pos
}

// AgentStep is `agent:`, its profile and the file's defaults merged in.
type AgentStep struct {
	Provider           string // anthropic, claude-code, acp, replay
	Profile            string
	Model              string
	Prompt             *Template
	PromptFile         string
	SystemPrompt       *Template
	AppendSystemPrompt *Template
	AllowedTools       []string
	DisallowedTools    []string
	MaxTurns           int    // default 50
	OnDenied           string // tell (default), fail
	// OutputSchema is a JSON Schema that the conversation has to end with, nil for none.
	OutputSchema []byte
	// ContextFiles of the workspace are added to the system prompt.
	ContextFiles   []string
	MaxPromptChars int // default 10,000
	// Budget of the step over all its attempts. It is no part of the step's hash: a
	// raised budget lets a conversation go on.
	Budget         Budget
	toolsByDefault bool // none were named
	// Session is the step whose conversation this one goes on with, "" for a new one.
	Session    string
	sessionPos Pos
	// MCPServers give tools beside the built-in ones, in the order of the file.
	MCPServers []MCPServer
	// Command of provider acp: program and arguments.
	Command []string
	// Cassette is the folder that provider replay plays, relative to the file.
	Cassette string
	Pos      Pos
}

// ApproveStep is `approve:`.
type ApproveStep struct {
	Message *Template
	// Choices are the answers, ChoiceReject among them when it is written.
	Choices []string
	// Timeout of the answer, 0 for none.
	Timeout time.Duration
	Pos     Pos
}

// ChoiceApprove and ChoiceReject are the answers of an approval that names none.
// The second fails the step, and is always there.
const (
	ChoiceApprove = "approve"
	ChoiceReject  = "reject"
)

// Budget bounds what agents may spend; zero fields are no bound.
type Budget struct {
	CostUSD float64
	Tokens  int64
	Turns   int
}

// Pos is a place in a file: 1-based line and column, the column in characters.
type Pos struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line"`
	Col  int    `json:"col"`
}

// Statuses are the words that `steps.ID.status` can have.
func Statuses() []string {
	return []string{"succeeded", "failed", "timed_out", "skipped", "not_run", "cancelled", "conflict"}
}
