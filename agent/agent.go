package agent

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"flowrun.dev/flow/sandbox"
)

// Provider holds one conversation per call.
type Provider interface {
	Name() string
	// Check says before anything starts whether the provider could work here
	// (key present, cassette readable) and honour the request's tools; the error
	// names what is missing.
	Check(r Request) error
	// Converse runs the conversation to its end. A cancelled ctx ends it soon.
	// The error, if any, is an *Error; the Result is filled as far as it got.
	Converse(ctx context.Context, r Request) (Result, error)
}

// Enforcer is a Provider that gives Request.Rights to every process of its
// conversations. Where one does not, or is no Enforcer, what a step changed is looked at
// afterwards.
type Enforcer interface{ EnforcesRights() bool }

// Request is one conversation.
type Request struct {
	RunID, StepID string
	Attempt       int
	Prompt        string
	System        string // replaces the built-in system prompt when not ""
	AppendSystem  string
	Model         string // "" = the provider's default
	Allowed       []string
	Disallowed    []string
	MaxTurns      int // requests to the model; 0 for no limit
	// Account that answers are counted in and that bounds them; nil: nothing does.
	Account  *Account
	OnDenied string // tell, fail
	// OutputSchema is a JSON Schema of type object that the conversation has to end
	// with (Result.Structured), nil for none.
	OutputSchema json.RawMessage
	// Cassette folder for provider replay.
	Cassette string
	// Record is the folder that the conversation is recorded into, "" for none; Redact
	// takes the secrets out of what is stored there.
	Record string
	Redact func(string) string
	// MCPServers give tools beside the provider's own.
	MCPServers []MCPServer
	// HTTP is the step's way out, by which servers with a URL are reached; nil: none.
	HTTP http.RoundTripper
	// Command of provider acp: the agent's program and its arguments.
	Command []string
	Sandbox sandbox.Sandbox
	// StateDir is a folder inside the sandbox, covered by its checkpoints, for what
	// a provider keeps there; "" for the home.
	StateDir string
	// Env is the environment of the tools' processes, Rights what they may do: the
	// allowlist as the sandbox enforces it (Policy.Rights).
	Env    []string
	Rights sandbox.Rights
	// Out receives a readable rendering of the conversation as it goes (the
	// caller redacts).
	Out io.Writer
	// Turn is called after each complete turn (answer and tool results), in
	// order, before the next request; it returns when the turn is stored. An error
	// ends the conversation.
	Turn func(Turn) error
	// Continue are the complete turns of a conversation that goes on: none of them is
	// asked for again. Empty for a new one.
	Continue []Turn
	// History are the turns of earlier conversations with which a new one goes on, each
	// begun by the turn with its Prompt. They are the model's memory and nothing else:
	// they count for no limit and are not recorded again.
	History []Turn
	Now     func() time.Time
}

// MCPServer is a server of the Model Context Protocol: a program that runs in the
// sandbox (Command), or one that is reached over HTTP (URL).
type MCPServer struct {
	Name    string // [a-z0-9_], without a double underscore
	Command []string
	Env     []string // "K=V", after Request.Env
	URL     string
	Headers map[string]string
}

// Turn is one request to the model with its answer and the tools' results.
type Turn struct {
	Index    int             `json:"index"`            // from 0
	Prompt   string          `json:"prompt,omitempty"` // of turn 0
	Response json.RawMessage `json:"response,omitempty"`
	Results  json.RawMessage `json:"results,omitempty"`
	// State is what the provider needs besides to go on: a shell's variables, a
	// session's name. Each turn's replaces the one before.
	State json.RawMessage `json:"state,omitempty"`
	Spent Spending        `json:"spent"` // by this turn
	// Compacted, when the conversation did not fit into this turn's request, says what
	// was left out of it and of all later ones.
	Compacted *Compaction `json:"compacted,omitempty"`
}

// Compaction leaves results of tools out of a conversation.
type Compaction struct {
	Kept    int `json:"kept"`     // the last messages, which have all of theirs
	LeftOut int `json:"left_out"` // results
}

// Usage of a conversation so far.
type Usage struct {
	Turns, ToolCalls                                             int
	InputTokens, OutputTokens, CacheReadTokens, CacheWriteTokens int64
	CostUSD                                                      float64
	// CostUnknown: no price is known for the model, and CostUSD is 0 for that reason.
	CostUnknown bool
}

// Denial is one refused call.
type Denial struct{ Tool, Input, Reason string }

// Result of a conversation.
type Result struct {
	Text       string          // the last answer's text
	Structured json.RawMessage // accepted by Request.OutputSchema, nil for none
	Model      string
	StopReason string
	Usage      Usage
	Denials    []Denial
}

// Class of an Error.
type Class string

const (
	ClassFailed         Class = "failed"         // the conversation itself failed (max turns, refusal, mismatch)
	ClassInfrastructure Class = "infrastructure" // the API is unreachable or broken; may pass
	ClassRateLimit      Class = "rate_limit"     // 429, 529
	ClassBudget         Class = "budget"
	ClassDenied         Class = "denied"  // on_denied: fail
	ClassInvalid        Class = "invalid" // will not pass: key, model, request, cassette
)

// Error is why a conversation did not succeed.
type Error struct {
	Class      Class
	RetryAfter time.Duration
	Hint       string
	Err        error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }
