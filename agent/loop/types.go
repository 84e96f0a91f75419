package loop

import (
	"context"
	"encoding/json"

	"flowrun.dev/flow/agent/tools"
)

// Model answers requests. Next is called from one goroutine, once a turn; it does
// its own retries. An error should be an *agent.Error; another one counts as
// infrastructure. The answer's Content must be valid JSON blocks.
type Model interface {
	Next(ctx context.Context, r MessageRequest) (Message, error)
}

// MessageRequest has the fields of the Messages API that the loop sets.
type MessageRequest struct {
	Model    string       `json:"model,omitempty"`
	System   string       `json:"system,omitempty"`
	Messages []Input      `json:"messages"`
	Tools    []tools.Spec `json:"tools,omitempty"`
}

// Input is one message of a request; each block is raw.
type Input struct {
	Role    string            `json:"role"` // user, assistant
	Content []json.RawMessage `json:"content"`
}

// Message is one answer.
type Message struct {
	ID         string            `json:"id,omitempty"`
	Type       string            `json:"type,omitempty"`
	Role       string            `json:"role"`
	Model      string            `json:"model"`
	Content    []json.RawMessage `json:"content"`
	StopReason string            `json:"stop_reason"`
	Usage      Usage             `json:"usage"`
	// Raw is the answer as it came, for the record; nil: it is made from the fields.
	Raw json.RawMessage `json:"-"`
}

// Usage of one answer. InputTokens does not count what the cache read or wrote.
type Usage struct {
	InputTokens              int64 `json:"input_tokens"`
	OutputTokens             int64 `json:"output_tokens"`
	CacheReadInputTokens     int64 `json:"cache_read_input_tokens"`
	CacheCreationInputTokens int64 `json:"cache_creation_input_tokens"`
}

// block is what the loop reads of a content block.
type block struct {
	Type  string          `json:"type"`
	Text  string          `json:"text"`
	ID    string          `json:"id"`
	Name  string          `json:"name"`
	Input json.RawMessage `json:"input"`
}

// ToolResult is the block that answers a tool_use.
type ToolResult struct {
	Type      string `json:"type"` // tool_result
	ToolUseID string `json:"tool_use_id"`
	Content   string `json:"content"`
	IsError   bool   `json:"is_error,omitempty"`
}

// Stop reasons of the Messages API.
const (
	StopEndTurn   = "end_turn"
	StopSequence  = "stop_sequence"
	StopToolUse   = "tool_use"
	StopMaxTokens = "max_tokens"
	StopPause     = "pause_turn"
	StopRefusal   = "refusal"
	StopWindow    = "model_context_window_exceeded"
)
