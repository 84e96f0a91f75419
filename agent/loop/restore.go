package loop

import (
	"encoding/json"
	"errors"
	"fmt"

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
