package loop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"flowrun.dev/flow/agent"
)

// ErrWindow is wrapped by a Model's error when a request was refused because the
// conversation no longer fits into the model's context window.
var ErrWindow = errors.New("the conversation no longer fits into the model's context window")

// How many of the last messages keep the results of tools when older ones are left out:
// as many as possible first, then fewer. A result below minResult bytes stays: leaving it
// out gives nothing.
var keeps = [...]int{12, 6, 2}

const minResult = 400

// next asks the model. When the conversation no longer fits, results of tools that it
// saw long ago are left out, oldest first, and it is asked again. Calls and their results
// stay in pairs, and nothing is asked for that a resume could not make again: the turn
// says what was left out (agent.Compaction).
func (c *conversation) next(ctx context.Context) (Message, error) {
	ask := func() (Message, error) {
		return c.o.Model.Next(ctx, MessageRequest{Model: c.o.Name, System: system(c.r, c.specs), Messages: c.messages, Tools: c.specs})
	}
	c.compacted = nil
	m, err := ask()
	for _, keep := range keeps {
		if err == nil || !errors.Is(err, ErrWindow) {
			return m, err
		}
		n := c.leaveOut(keep)
		if n == 0 {
			continue
		}
		if c.compacted == nil {
			c.compacted = &agent.Compaction{}
		}
		c.compacted.Kept, c.compacted.LeftOut = keep, c.compacted.LeftOut+n
		c.screen.Note(fmt.Sprintf("the conversation no longer fits: %d old results of tools are left out", n))
		m, err = ask()
	}
	if err != nil && errors.Is(err, ErrWindow) {
		return m, failed(fmt.Errorf("%w, also without old results of tools", err), windowHint)
	}
	return m, err
}

const windowHint = "give the step a smaller task, split it into several steps, or use a model with a larger window"

// leaveOut replaces the results of tools in all messages but the last `keep`; it says
// how many. Messages are never shared with a request that is under way.
func (c *conversation) leaveOut(keep int) (n int) {
	for i := range c.messages[:max(0, len(c.messages)-keep)] {
		for k, raw := range c.messages[i].Content {
			if c.messages[i].Role != "user" || len(raw) < minResult {
				continue
			}
			var r struct {
				ToolResult
				Content json.RawMessage `json:"content"`
			}
			if json.Unmarshal(raw, &r) != nil || r.Type != "tool_result" {
				continue
			}
			short, err := encode(ToolResult{Type: r.Type, ToolUseID: r.ToolUseID, IsError: r.IsError,
				Content: fmt.Sprintf("[%d bytes were left out: the conversation no longer fitted. Call the tool again if you need them.]", len(r.Content))})
			if err != nil || len(short) >= len(raw) {
				continue
			}
			content := append([]json.RawMessage(nil), c.messages[i].Content...)
			content[k] = short
			c.messages[i].Content = content
			n++
		}
	}
	return n
}
