package acp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	sdk "github.com/coder/acp-go-sdk"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/screen"
	"flowrun.dev/flow/agent/tools"
)

// client answers the agent's requests; they come on several goroutines.
type client struct {
	r      agent.Request
	policy *agent.Policy
	screen *screen.Screen
	stop   context.CancelCauseFunc
	env    []string

	files sync.Mutex // set is not for several goroutines
	set   *tools.Set

	mu        sync.Mutex
	res       agent.Result
	fatal     error
	text      strings.Builder // the agent's words after its last call
	shown     strings.Builder // those that are not rendered yet
	terminals map[string]*terminal
	next      int
}

var _ sdk.Client = (*client)(nil)

func (c *client) offers(tool string) bool { return slices.Contains(c.policy.Offered(), tool) }

// workspace as processes inside see it.
func (c *client) workspace() string {
	for _, kv := range c.r.Sandbox.BaseEnv() {
		if home, ok := strings.CutPrefix(kv, "HOME="); ok {
			return home + "/workspace"
		}
	}
	return "/home/user/workspace"
}

func (c *client) fail(err error) {
	c.mu.Lock()
	if c.fatal == nil {
		c.fatal = err
	}
	c.mu.Unlock()
	c.stop(err)
}

// denied records a refusal and makes the answer to the agent.
func (c *client) denied(tool string, input json.RawMessage, reason string) error {
	const kept = 4 << 10
	text := string(input)
	if len(text) > kept {
		text = strings.ToValidUTF8(text[:kept], "") + "…"
	}
	c.mu.Lock()
	c.flush()
	c.screen.Denied(tool, input, reason)
	c.res.Denials = append(c.res.Denials, agent.Denial{Tool: tool, Input: text, Reason: reason})
	c.mu.Unlock()
	if c.r.OnDenied == "fail" {
		c.fail(&agent.Error{Class: agent.ClassDenied, Err: fmt.Errorf("the call of %s was denied: %s", tool, reason),
			Hint: "on_denied is fail; allow the call in allowed_tools, or let the agent be told (on_denied: tell)"})
	}
	return sdk.NewInvalidParams(map[string]string{"error": "Permission denied: " + reason})
}

// called renders a call that is executed.
func (c *client) called(tool string, input json.RawMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
	c.text.Reset()
	c.res.Usage.ToolCalls++
	c.screen.Call(tool, input)
}

// flush renders the words that came in pieces. The caller holds mu.
func (c *client) flush() {
	if s := strings.TrimSpace(c.shown.String()); s != "" {
		c.screen.Text(s)
	}
	c.shown.Reset()
}

// ReadTextFile reads in the sandbox.
func (c *client) ReadTextFile(ctx context.Context, q sdk.ReadTextFileRequest) (sdk.ReadTextFileResponse, error) {
	input := encode(map[string]any{"file_path": q.Path})
	c.files.Lock()
	res, err := c.set.ReadFile(ctx, q.Path)
	c.files.Unlock()
	switch {
	case err != nil:
		return sdk.ReadTextFileResponse{}, err
	case res.Denied != "":
		return sdk.ReadTextFileResponse{}, c.denied("Read", input, res.Denied)
	}
	c.called("Read", input)
	if res.IsError {
		return sdk.ReadTextFileResponse{}, sdk.NewInvalidParams(map[string]string{"error": res.Text})
	}
	return sdk.ReadTextFileResponse{Content: part(res.Text, q.Line, q.Limit)}, nil
}

// part is some lines of a text; the first has number 1.
func part(text string, line, limit *int) string {
	if line == nil && limit == nil {
		return text
	}
	lines := strings.SplitAfter(text, "\n")
	from, to := 0, len(lines)
	if line != nil {
		from = min(max(*line-1, 0), to)
	}
	if limit != nil && *limit >= 0 {
		to = min(to, from+*limit)
	}
	return strings.Join(lines[from:to], "")
}

// WriteTextFile writes in the sandbox: it needs Write, or Edit where the file exists.
func (c *client) WriteTextFile(ctx context.Context, q sdk.WriteTextFileRequest) (sdk.WriteTextFileResponse, error) {
	name := encode(map[string]any{"file_path": q.Path})
	if !c.offers("Write") {
		// Our Edit replaces text; the protocol's write replaces the file.
		return sdk.WriteTextFileResponse{}, c.denied("Write", name, "the tool Write is not in allowed_tools")
	}
	input := encode(map[string]any{"file_path": q.Path, "content": q.Content})
	if d := c.policy.Judge("Write", input); !d.Allow {
		return sdk.WriteTextFileResponse{}, c.denied("Write", name, d.Reason)
	}
	c.files.Lock()
	res, err := c.set.Run(ctx, "Write", input)
	c.files.Unlock()
	switch {
	case err != nil:
		return sdk.WriteTextFileResponse{}, err
	case res.Denied != "":
		return sdk.WriteTextFileResponse{}, c.denied("Write", name, res.Denied)
	case res.IsError:
		return sdk.WriteTextFileResponse{}, sdk.NewInvalidParams(map[string]string{"error": res.Text})
	}
	c.called("Write", name)
	return sdk.WriteTextFileResponse{}, nil
}

// SessionUpdate keeps the agent's words and renders its own tools' calls.
func (c *client) SessionUpdate(_ context.Context, n sdk.SessionNotification) error {
	u := n.Update
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case u.AgentMessageChunk != nil && u.AgentMessageChunk.Content.Text != nil:
		const bound = 1 << 20
		if text := u.AgentMessageChunk.Content.Text.Text; c.text.Len()+len(text) <= bound {
			c.text.WriteString(text)
			c.shown.WriteString(text)
		}
	case u.ToolCall != nil:
		c.flush()
		c.text.Reset()
		c.res.Usage.ToolCalls++
		c.screen.Call(string(u.ToolCall.Kind)+" "+u.ToolCall.Title, nil)
	}
	return nil
}

// RequestPermission judges a call of the agent's own tools.
func (c *client) RequestPermission(ctx context.Context, q sdk.RequestPermissionRequest) (sdk.RequestPermissionResponse, error) {
	tool, input, reason := c.judge(ctx, q.ToolCall)
	kind := sdk.PermissionOptionKindAllowOnce
	if reason != "" {
		_ = c.denied(tool, input, reason) // the answer is a choice here
		kind = sdk.PermissionOptionKindRejectOnce
	}
	for _, o := range q.Options {
		if o.Kind == kind {
			return sdk.RequestPermissionResponse{Outcome: sdk.NewRequestPermissionOutcomeSelected(o.OptionId)}, nil
		}
	}
	// The agent offers no such choice: nothing is allowed for always.
	return sdk.RequestPermissionResponse{Outcome: sdk.NewRequestPermissionOutcomeCancelled()}, nil
}

// judge finds the tool that a call of the agent's stands for, and judges it.
func (c *client) judge(ctx context.Context, call sdk.ToolCallUpdate) (tool string, input json.RawMessage, reason string) {
	kind := sdk.ToolKindOther
	if call.Kind != nil {
		kind = *call.Kind
	}
	raw, _ := call.RawInput.(map[string]any)
	var list []json.RawMessage
	switch kind {
	case sdk.ToolKindThink:
		return "think", nil, ""
	case sdk.ToolKindExecute:
		tool = "Bash"
		command, ok := commandOf(raw)
		if !ok {
			return tool, encode(raw), "the command cannot be told from the request"
		}
		list = append(list, encode(map[string]any{"command": command}))
	case sdk.ToolKindRead, sdk.ToolKindSearch, sdk.ToolKindEdit, sdk.ToolKindDelete, sdk.ToolKindMove:
		tool = map[sdk.ToolKind]string{sdk.ToolKindRead: "Read", sdk.ToolKindSearch: "Grep", sdk.ToolKindEdit: "Edit", sdk.ToolKindDelete: "Write", sdk.ToolKindMove: "Write"}[kind]
		if tool == "Edit" && !c.offers("Edit") {
			tool = "Write"
		}
		key := "file_path"
		if tool == "Grep" {
			key = "path"
		}
		for _, at := range call.Locations {
			list = append(list, encode(map[string]any{key: at.Path}))
		}
		if len(list) == 0 {
			return tool, encode(raw), "the request names no file"
		}
	default:
		return string(kind), encode(raw), fmt.Sprintf("a call of kind %s cannot be judged", kind)
	}
	for _, input := range list {
		c.files.Lock()
		d, err := c.set.Judge(ctx, tool, input)
		c.files.Unlock()
		if err != nil {
			d = agent.Decision{Reason: "the call cannot be judged: " + err.Error()}
		}
		if !d.Allow {
			return tool, input, d.Reason
		}
	}
	return tool, list[0], ""
}

// commandOf reads a command from an agent's own input: a line or a list of words.
func commandOf(raw map[string]any) (string, bool) {
	switch v := raw["command"].(type) {
	case string:
		return v, v != ""
	case []any:
		var words []string
		for _, w := range v {
			s, ok := w.(string)
			if !ok {
				return "", false
			}
			words = append(words, s)
		}
		return quoted(words), len(words) > 0
	}
	return "", false
}

// quoted makes words into a command line that a shell reads as these words.
func quoted(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.Join(out, " ")
}

func encode(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage(`{}`) // a rendering only: what is judged are strings
	}
	return raw
}

var errNoTerminal = errors.New("there is no such terminal")
