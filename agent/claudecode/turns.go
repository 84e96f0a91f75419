package claudecode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/tidwall/sjson"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/anthropic"
	"flowrun.dev/flow/agent/gateway"
	"flowrun.dev/flow/agent/loop"
)

// turn is an answer whose results are not yet known.
type turn struct {
	response json.RawMessage
	calls    []string // ids of its tool_use blocks
}

// before is the boundary of turns: what was answered before is complete when the
// next request comes. That request waits until the turn is stored.
func (c *conversation) before(ctx context.Context, r gateway.Request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	stop := context.AfterFunc(ctx, c.changed.Broadcast)
	defer stop()
	for c.inFlight > 0 && ctx.Err() == nil { // its last bytes are on their way
		c.changed.Wait()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := c.boundary(r.Body)
	if err == nil && c.tape.player != nil {
		err = c.play(r.Body)
	}
	if err != nil {
		if c.fatal == nil {
			c.fatal = err
		}
		c.stop(err)
		return err
	}
	c.inFlight++
	return nil
}

// play compares the request with the recorded one; RoundTrip gives its answer.
func (c *conversation) play(body []byte) error {
	q, err := normal(c.r, body)
	if err != nil {
		return err
	}
	c.tape.answer, err = c.tape.player.Answer(c.version, q)
	return err
}

func (c *conversation) boundary(body []byte) error {
	if c.fatal != nil {
		return c.fatal
	}
	c.api = nil
	if c.turn == nil {
		return nil
	}
	if err := c.record(c.resultsIn(body)); err != nil {
		return err
	}
	if c.denied != nil && c.r.OnDenied == "fail" {
		return &agent.Error{Class: agent.ClassDenied, Err: c.denied,
			Hint: "on_denied is fail; allow the call in allowed_tools, or let the agent be told (on_denied: tell)"}
	}
	if c.r.MaxTurns > 0 && c.index >= c.r.MaxTurns {
		return maxTurns(c.r.MaxTurns)
	}
	return nil
}

// resultsIn takes the open turn's results out of a request.
func (c *conversation) resultsIn(body []byte) []json.RawMessage {
	if len(c.turn.calls) == 0 {
		return nil
	}
	var req struct {
		Messages []struct {
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
	}
	found := map[string]json.RawMessage{}
	if json.Unmarshal(body, &req) == nil {
		for i := len(req.Messages) - 1; i >= 0 && req.Messages[i].Role != "assistant"; i-- {
			list, raw := blocks(req.Messages[i].Content)
			for k, b := range list {
				if b.Type == "tool_result" {
					found[b.ToolUseID] = raw[k]
				}
			}
		}
	}
	var results []json.RawMessage
	for _, id := range c.turn.calls {
		raw, ok := found[id]
		if !ok {
			raw, ok = c.results[id] // a request that sums the conversation up
		}
		if ok {
			results = append(results, raw)
		}
	}
	return results
}

// record hands the open turn over. The caller holds mu.
func (c *conversation) record(results []json.RawMessage) error {
	t := agent.Turn{Index: c.index, Response: c.turn.response}
	if t.Index == 0 {
		t.Prompt = c.r.Prompt
	}
	spent := c.spending()
	t.Spent, c.spent = spent.Minus(c.spent), spent
	if results != nil {
		t.Results = slices.Concat([]byte("["), bytes.Join(asBytes(results), []byte(",")), []byte("]"))
	}
	c.index++
	c.turn = nil
	clear(c.results)
	if c.r.Turn == nil {
		return nil
	}
	if err := c.r.Turn(t); err != nil {
		return fmt.Errorf("record turn %d: %w", t.Index+1, err)
	}
	return nil
}

// asBytes is for bytes.Join: encoding a list of raw values would change their text.
func asBytes(list []json.RawMessage) [][]byte {
	out := make([][]byte, len(list))
	for i, raw := range list {
		out[i] = raw
		// The marker of what the API should cache is the request's, not the result's.
		if plain, err := sjson.DeleteBytes(slices.Clone(raw), "cache_control"); err == nil {
			out[i] = plain
		}
	}
	return out
}

// answered takes an exchange with the API into the conversation.
func (c *conversation) answered(e gateway.Exchange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight--
	c.changed.Broadcast()
	switch {
	case e.Err != nil:
		c.api = &agent.Error{Class: agent.ClassInfrastructure, Err: e.Err, Hint: "check the network and ANTHROPIC_BASE_URL; flow resume goes on"}
		return
	case e.Status >= 300:
		c.api = anthropic.HTTPError(e.Status, e.ResponseHead, e.Response)
		return
	}
	raw, err := message(e.ContentType, e.Response)
	var refused *streamError
	switch {
	case errors.As(err, &refused):
		c.api = anthropic.HTTPError(http.StatusOK, e.ResponseHead, refused.body)
		return
	case err != nil:
		c.api = &agent.Error{Class: agent.ClassInfrastructure, Err: fmt.Errorf("ask the model: %w", err)}
		return
	}
	if err := c.take(raw); err != nil {
		c.api = &agent.Error{Class: agent.ClassInfrastructure, Err: fmt.Errorf("read the model's answer: %w", err)}
		return
	}
	if c.tape.recorder == nil {
		return
	}
	q, err := normal(c.r, e.Request)
	if err == nil {
		err = c.tape.recorder.Write(c.version, q, raw)
	}
	if err != nil {
		if c.fatal == nil {
			c.fatal = err
		}
		c.stop(err)
	}
}

// take makes a whole answer the open turn.
func (c *conversation) take(raw json.RawMessage) error {
	m, err := read(raw)
	if err != nil {
		return err
	}
	u := &c.res.Usage
	u.Turns++
	u.ToolCalls += len(m.calls)
	if m.Model != "" {
		c.res.Model = m.Model
	}
	c.res.StopReason, c.res.Text = m.StopReason, m.text
	c.turn = &turn{response: raw, calls: m.calls}
	return nil
}

// answer is what is read of one.
type answer struct {
	Model      string          `json:"model"`
	Content    json.RawMessage `json:"content"`
	StopReason string          `json:"stop_reason"`

	text   string
	calls  []string        // ids
	output json.RawMessage // given by the last call of StructuredTool
}

func read(raw json.RawMessage) (answer, error) {
	var m answer
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, err
	}
	list, rawBlocks := blocks(m.Content)
	if rawBlocks == nil {
		return m, errors.New("its content is no list of blocks")
	}
	var text []string
	for _, b := range list {
		switch b.Type {
		case "tool_use":
			m.calls = append(m.calls, b.ID)
			if b.Name == loop.StructuredTool {
				m.output = b.Input
			}
		case "text":
			text = append(text, b.Text)
		}
	}
	m.text = strings.TrimSpace(strings.Join(text, "\n\n"))
	return m, nil
}
