package loop

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/screen"
)

// restore brings the complete turns of a conversation that goes on back. over is true
// when the last of them was its end: nothing is asked for again.
func (c *conversation) restore() (over bool, err error) {
	turns := c.r.Continue
	if len(turns) == 0 {
		c.screen.Prompt(c.r.Prompt)
		return false, nil
	}
	if turns[0].Prompt != c.r.Prompt {
		return false, invalid(errors.New("continue the conversation: it began with another prompt"), "what the prompt is made of has changed; begin anew with flow resume --from "+c.r.StepID)
	}
	stop := ""
	for i, t := range turns {
		if t.Compacted != nil {
			c.leaveOut(t.Compacted.Kept)
		}
		if stop, err = c.again(i, t.Index, t.Response, t.Results); err != nil {
			return false, invalid(fmt.Errorf("continue the conversation: turn %d: %w", i+1, err), "begin it anew with flow resume --from "+c.r.StepID)
		}
		if i < len(turns)-1 {
			if _, _, err := c.structuredAfter(stop); err != nil { // a reminder that was sent
				return false, err
			}
		}
	}
	c.set.SetState(turns[len(turns)-1].State)
	c.screen.Note(fmt.Sprintf("goes on after turn %d", len(turns)))
	over, err = c.after(len(turns)-1, stop)
	if err != nil {
		return false, classify(err)
	}
	return over, nil
}

// remember takes the turns of earlier conversations.
func (c *conversation) remember() error {
	for i, t := range c.r.History {
		wrong := func(err error) error {
			return invalid(fmt.Errorf("continue the conversation of an earlier step: turn %d: %w", i+1, err), "begin it anew with flow resume --from "+c.r.StepID)
		}
		switch {
		case t.Prompt != "":
			c.user(textBlock(t.Prompt))
		case i == 0:
			return wrong(errors.New("it has no prompt"))
		case c.messages[len(c.messages)-1].Role == "assistant" && c.res.StopReason != StopPause:
			c.user(textBlock(Reminder)) // the only thing that is said without a record
		}
		if t.Compacted != nil {
			c.leaveOut(t.Compacted.Kept)
		}
		var m Message
		if err := json.Unmarshal(t.Response, &m); err != nil {
			return wrong(err)
		}
		if _, err := c.take(m, screen.New(nil)); err != nil {
			return wrong(err)
		}
		var results []json.RawMessage
		if t.Results != nil {
			if err := json.Unmarshal(t.Results, &results); err != nil {
				return wrong(err)
			}
			c.user(results...)
		}
	}
	c.res = agent.Result{}
	return nil
}

// user adds what the model is told; two messages in a row would not be the API's form.
func (c *conversation) user(blocks ...json.RawMessage) {
	if n := len(c.messages); n > 0 && c.messages[n-1].Role == "user" {
		c.messages[n-1].Content = append(slices.Clip(c.messages[n-1].Content), blocks...)
		return
	}
	c.messages = append(c.messages, Input{Role: "user", Content: blocks})
}

// again takes one stored turn; nothing of it is shown or executed.
func (c *conversation) again(at, index int, response, results json.RawMessage) (stop string, err error) {
	if at != index {
		return "", fmt.Errorf("it is stored as turn %d", index+1)
	}
	var m Message
	if err := json.Unmarshal(response, &m); err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	blocks, err := c.take(m, screen.New(nil))
	if err != nil {
		return "", err
	}
	for _, b := range blocks {
		if c.structured != nil && b.Type == "tool_use" && b.Name == StructuredTool {
			c.structured.give(b.Input)
		}
	}
	if results != nil {
		var list []json.RawMessage
		if err := json.Unmarshal(results, &list); err != nil {
			return "", fmt.Errorf("read the tools' results: %w", err)
		}
		c.messages = append(c.messages, Input{Role: "user", Content: list})
	}
	return stopOf(m, blocks), nil
}
