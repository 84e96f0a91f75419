package claudecode

import (
	"encoding/json"
	"strings"
)

// head is what every line has.
type head struct {
	Type      string          `json:"type"`
	Subtype   string          `json:"subtype"`
	RequestID json.RawMessage `json:"request_id"`
}

// controlRequest is what the CLI asks us.
type controlRequest struct {
	RequestID string `json:"request_id"`
	Request   struct {
		Subtype   string          `json:"subtype"`
		ToolName  string          `json:"tool_name"` // can_use_tool
		ToolUseID string          `json:"tool_use_id"`
		ToolInput json.RawMessage `json:"input"`
	} `json:"request"`
}

// hookInput is the input of a hook_callback.
type hookInput struct {
	Request struct {
		Input struct {
			Event     string          `json:"hook_event_name"`
			ToolName  string          `json:"tool_name"`
			ToolInput json.RawMessage `json:"tool_input"`
			ToolUseID string          `json:"tool_use_id"`
		} `json:"input"`
	} `json:"request"`
}

// controlResponse is the CLI's answer to us.
type controlResponse struct {
	Response struct {
		Subtype   string `json:"subtype"`
		RequestID string `json:"request_id"`
		Error     string `json:"error"`
		Response  struct {
			HookOnFailure bool `json:"hook_on_failure_supported"`
		} `json:"response"`
	} `json:"response"`
}

// initEvent says what the CLI has.
type initEvent struct {
	Tools      []string `json:"tools"`
	MCPServers []struct {
		Name string `json:"name"`
	} `json:"mcp_servers"`
	SessionID string `json:"session_id"`
	Version   string `json:"claude_code_version"`
}

// messageEvent is an assistant or user event; each holds one content block or more.
type messageEvent struct {
	Parent  string `json:"parent_tool_use_id"`
	Message struct {
		Model   string          `json:"model"`
		Content json.RawMessage `json:"content"`
	} `json:"message"`
}

// block is what is read of a content block.
type block struct {
	Type      string          `json:"type"`
	Text      string          `json:"text"`
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Input     json.RawMessage `json:"input"`
	ToolUseID string          `json:"tool_use_id"`
	Content   json.RawMessage `json:"content"`
	IsError   bool            `json:"is_error"`
}

// synthetic is the model of messages that the CLI makes itself: errors.
const synthetic = "<synthetic>"

// blocks of a message's content; a plain string is one text block.
func blocks(content json.RawMessage) ([]block, []json.RawMessage) {
	var text string
	if json.Unmarshal(content, &text) == nil {
		return []block{{Type: "text", Text: text}}, []json.RawMessage{content}
	}
	var raw []json.RawMessage
	if json.Unmarshal(content, &raw) != nil {
		return nil, nil
	}
	list := make([]block, len(raw))
	for i, r := range raw {
		// A block that does not decode stays empty: its type is unknown to us.
		_ = json.Unmarshal(r, &list[i])
	}
	return list, raw
}

// resultText is the text of a tool's result, without the CLI's own mark-up.
func resultText(content json.RawMessage) string {
	list, _ := blocks(content)
	var parts []string
	for _, b := range list {
		if b.Type == "text" {
			parts = append(parts, b.Text)
		}
	}
	text := strings.TrimSpace(strings.Join(parts, "\n"))
	if inner, ok := strings.CutPrefix(text, "<tool_use_error>"); ok {
		text = strings.TrimSuffix(inner, "</tool_use_error>")
	}
	return text
}

// resultEvent ends a conversation. `usage` and num_turns count only a part of it and
// are not read; total_cost_usd is the CLI's own reckoning for the whole session.
type resultEvent struct {
	Subtype        string          `json:"subtype"`
	IsError        bool            `json:"is_error"`
	Result         string          `json:"result"`
	Errors         []string        `json:"errors"`
	TerminalReason string          `json:"terminal_reason"`
	StopReason     string          `json:"stop_reason"`
	APIErrorStatus int             `json:"api_error_status"`
	TotalCostUSD   float64         `json:"total_cost_usd"`
	Structured     json.RawMessage `json:"structured_output"`
}
