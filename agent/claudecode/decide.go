package claudecode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/loop"
	"flowrun.dev/flow/sandbox"
)

// judgeTime bounds one judgement, which may follow links inside the sandbox.
const judgeTime = 30 * time.Second

// asked answers the CLI's question whether a call may be executed.
func (c *conversation) asked(ctx context.Context, line []byte) error {
	var q controlRequest
	if err := json.Unmarshal(line, &q); err != nil {
		return fmt.Errorf("read the CLI's question: %w", err)
	}
	switch q.Request.Subtype {
	case "hook_callback":
		return c.gate(ctx, q.RequestID, line)
	case "mcp_message":
		return c.mcpMessage(ctx, q.RequestID, line)
	case "can_use_tool":
		// What the hook allowed and the CLI would still ask a person about (its own
		// settings, for example). The rules are the step's, so the answer is the same.
		d := c.judge(ctx, q.Request.ToolName, q.Request.ToolInput)
		if d.Allow {
			return c.reply(q.RequestID, map[string]any{"behavior": "allow", "updatedInput": q.Request.ToolInput})
		}
		c.deny(q.Request.ToolUseID, q.Request.ToolName, q.Request.ToolInput, d.Reason)
		return c.reply(q.RequestID, map[string]any{"behavior": "deny", "message": "Permission denied: " + d.Reason})
	}
	return c.p.send(map[string]any{"type": "control_response", "response": map[string]any{
		"subtype": "error", "request_id": q.RequestID, "error": "not supported: " + q.Request.Subtype}})
}

// gate is the PreToolUse hook.
func (c *conversation) gate(ctx context.Context, id string, line []byte) error {
	var h hookInput
	if err := json.Unmarshal(line, &h); err != nil {
		return fmt.Errorf("read the CLI's hook: %w", err)
	}
	in := h.Request.Input
	if in.Event != "PreToolUse" || in.ToolName == "" {
		return fmt.Errorf("read the CLI's hook: the event %q was not asked for", in.Event)
	}
	d := c.judge(ctx, in.ToolName, in.ToolInput)
	if c.output != nil && in.ToolName == loop.StructuredTool { // it executes nothing
		d = agent.Decision{Allow: true}
	}
	decision := map[string]any{"hookEventName": "PreToolUse", "permissionDecision": "allow"}
	if d.Allow {
		c.screen.Call(in.ToolName, c.shown(in.ToolInput))
	} else {
		c.deny(in.ToolUseID, in.ToolName, in.ToolInput, d.Reason)
		decision["permissionDecision"], decision["permissionDecisionReason"] = "deny", "Permission denied: "+d.Reason
	}
	return c.reply(id, map[string]any{"hookSpecificOutput": decision})
}

func (c *conversation) reply(id string, answer any) error {
	return c.p.send(map[string]any{"type": "control_response",
		"response": map[string]any{"subtype": "success", "request_id": id, "response": answer}})
}

// judge is the step's policy, with links followed; what cannot be judged is denied.
func (c *conversation) judge(ctx context.Context, tool string, input json.RawMessage) agent.Decision {
	ctx, cancel := context.WithTimeoutCause(ctx, judgeTime, errors.New("judging a call took longer than 30s"))
	defer cancel()
	d, err := c.set.Judge(ctx, tool, input)
	if err != nil {
		return agent.Decision{Reason: "the call cannot be judged: " + err.Error()}
	}
	return d
}

// shown makes the CLI's absolute paths relative again: it completes what the model
// wrote before it asks.
func (c *conversation) shown(input json.RawMessage) json.RawMessage {
	var in map[string]any
	if json.Unmarshal(input, &in) != nil {
		return input
	}
	for _, key := range []string{"file_path", "path"} {
		name, ok := in[key].(string)
		if !ok {
			continue
		}
		if rel, ok := strings.CutPrefix(c.policy.Resolve(name), sandbox.WorkspaceDir+"/"); ok {
			in[key] = rel
		}
	}
	out, err := json.Marshal(in)
	if err != nil {
		return input
	}
	return out
}

// maxDenialInput bounds what is kept of a refused call's input, in bytes.
const maxDenialInput = 4 << 10

func (c *conversation) deny(id, tool string, input json.RawMessage, reason string) {
	if c.refused[id] {
		return
	}
	c.refused[id] = true
	kept := string(input)
	if len(kept) > maxDenialInput {
		kept = strings.ToValidUTF8(kept[:maxDenialInput], "") + "…"
	}
	c.screen.Denied(tool, c.shown(input), reason)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.res.Denials = append(c.res.Denials, agent.Denial{Tool: tool, Input: kept, Reason: reason})
	if c.denied == nil {
		c.denied = fmt.Errorf("the call of %s was denied: %s", tool, reason)
	}
}
