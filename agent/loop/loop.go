package loop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/mcp"
	"flowrun.dev/flow/agent/screen"
	"flowrun.dev/flow/agent/tools"
)

// Options of a conversation, set by the provider.
type Options struct {
	Model Model
	// Name of the model in requests and, where an answer names none, in the result.
	Name string
	// Spent so far in this attempt, for the turns' records; nil: it is what the
	// answers say, without a price.
	Spent func() agent.Spending
}

// conversation is the state of one Run.
type conversation struct {
	o      Options
	r      agent.Request
	policy *agent.Policy
	specs  []tools.Spec
	set    *tools.Set
	screen *screen.Screen

	structured *structured
	servers    *mcp.Servers

	messages  []Input
	compacted *agent.Compaction // for the request that is under way
	res       agent.Result
	denied    error          // the first denial, for on_denied: fail
	spent     agent.Spending // until the last recorded turn
}

// Run holds the conversation to its end. The result is filled as far as it got.
func Run(ctx context.Context, o Options, r agent.Request) (agent.Result, error) {
	policy, specs, err := prepare(r)
	if err != nil {
		return agent.Result{}, err
	}
	if r.Sandbox == nil {
		return agent.Result{}, invalid(errors.New("hold a conversation: there is no sandbox"), "")
	}
	if strings.TrimSpace(r.Prompt) == "" {
		return agent.Result{}, invalid(errors.New("hold a conversation: the prompt is empty"), "")
	}
	c := &conversation{
		o: o, r: r, policy: policy, specs: specs, set: tools.New(r.Sandbox, r.Env, policy).WithRights(r.Rights), screen: screen.New(r.Out),
	}
	if c.structured, err = newStructured(r.OutputSchema); err != nil {
		return agent.Result{}, invalid(err, "")
	}
	if c.structured != nil {
		c.specs = append(c.specs, c.structured.spec())
	}
	if err := c.remember(); err != nil {
		return agent.Result{}, err
	}
	c.user(textBlock(r.Prompt))
	c.res.Model = o.Name
	if over, err := c.restore(); over || err != nil {
		return c.res, err
	}
	if c.servers, err = mcp.Start(ctx, r, policy); err != nil {
		return c.res, classify(err)
	}
	defer c.servers.Close()
	c.specs = append(c.specs, c.servers.Specs()...)
	for index := len(r.Continue); ; index++ {
		done, err := c.turn(ctx, index)
		switch {
		case ctx.Err() != nil:
			return c.res, classify(fmt.Errorf("the conversation was stopped in turn %d: %w", index+1, context.Cause(ctx)))
		case err != nil:
			return c.res, classify(err)
		case done:
			return c.res, nil
		}
	}
}

// turn is one request, its answer, its calls and its record.
func (c *conversation) turn(ctx context.Context, index int) (done bool, err error) {
	m, err := c.next(ctx)
	if err != nil {
		return false, err
	}
	blocks, err := c.answer(m)
	if err != nil {
		return false, err
	}
	var results []json.RawMessage
	stop := stopOf(m, blocks)
	if stop == StopToolUse {
		if results, err = c.calls(ctx, blocks); err != nil {
			return false, err
		}
	}
	if err := c.record(index, m, results); err != nil {
		return false, err
	}
	if c.denied != nil && c.r.OnDenied == "fail" {
		return false, &agent.Error{Class: agent.ClassDenied, Err: c.denied,
			Hint: "on_denied is fail; allow the call in allowed_tools, or let the agent be told (on_denied: tell)"}
	}
	return c.after(index, stop)
}

// after says how the conversation goes on after a complete turn.
func (c *conversation) after(index int, stop string) (done bool, err error) {
	done, goOn, err := c.structuredAfter(stop)
	switch {
	case done || err != nil:
		return done, err
	case !goOn && (stop == StopEndTurn || stop == StopSequence):
		return true, nil
	case goOn || stop == StopToolUse || stop == StopPause:
		if c.r.MaxTurns > 0 && index+1 >= c.r.MaxTurns {
			return false, failed(fmt.Errorf("the conversation did not end within max_turns: %d", c.r.MaxTurns), "raise max_turns, or give the step a smaller task")
		}
		return false, nil
	}
	return false, StopError(stop)
}

// stopOf: an answer may call tools and still say end_turn (gateways).
// Leaving the calls out would be a false success.
func stopOf(m Message, blocks []block) string {
	if m.StopReason == StopEndTurn || m.StopReason == StopSequence {
		for _, b := range blocks {
			if b.Type == "tool_use" {
				return StopToolUse
			}
		}
	}
	return m.StopReason
}

// answer takes a new message into the conversation, the usage and the rendering.
func (c *conversation) answer(m Message) ([]block, error) {
	u := &c.res.Usage
	u.Turns++
	u.InputTokens += m.Usage.InputTokens
	u.OutputTokens += m.Usage.OutputTokens
	u.CacheReadTokens += m.Usage.CacheReadInputTokens
	u.CacheWriteTokens += m.Usage.CacheCreationInputTokens
	return c.take(m, c.screen)
}

// take takes a message into the conversation.
func (c *conversation) take(m Message, show *screen.Screen) ([]block, error) {
	if m.Model != "" {
		c.res.Model = m.Model
	}
	c.res.StopReason = m.StopReason

	blocks := make([]block, len(m.Content))
	var text []string
	for i, raw := range m.Content {
		if err := json.Unmarshal(raw, &blocks[i]); err != nil {
			return nil, fmt.Errorf("read the model's answer: block %d: %w", i, err)
		}
		if b := blocks[i]; b.Type == "text" && strings.TrimSpace(b.Text) != "" {
			text = append(text, b.Text)
			show.Text(b.Text)
		}
	}
	c.res.Text = strings.Join(text, "\n\n")
	c.messages = append(c.messages, Input{Role: "assistant", Content: m.Content})
	return blocks, nil
}

// calls executes the tool calls of an answer, in order, and appends their results.
func (c *conversation) calls(ctx context.Context, blocks []block) ([]json.RawMessage, error) {
	var results []json.RawMessage
	for _, b := range blocks {
		if b.Type != "tool_use" {
			continue
		}
		res, err := c.call(ctx, b)
		if err != nil {
			return nil, fmt.Errorf("execute the tool %s: %w", b.Name, err)
		}
		raw, err := encode(ToolResult{Type: "tool_result", ToolUseID: b.ID, Content: res.Text, IsError: res.IsError})
		if err != nil {
			return nil, fmt.Errorf("encode the result of %s: %w", b.Name, err)
		}
		results = append(results, raw)
	}
	if len(results) == 0 {
		return nil, failed(errors.New("the model stopped for a tool call and made none"), "")
	}
	c.messages = append(c.messages, Input{Role: "user", Content: results})
	return results, nil
}

// call judges and executes one call.
func (c *conversation) call(ctx context.Context, b block) (tools.Result, error) {
	c.res.Usage.ToolCalls++
	if c.structured != nil && b.Name == StructuredTool {
		res := c.structured.give(b.Input)
		c.screen.Call(b.Name, b.Input)
		if res.IsError {
			c.screen.Failed(res.Text)
		}
		return res, nil
	}
	if !c.offered(b.Name) {
		c.deny(b, "the tool was not offered: it is not in allowed_tools")
		return tools.Result{Text: "No such tool available: " + b.Name, IsError: true}, nil
	}
	if d := c.policy.Judge(b.Name, b.Input); !d.Allow {
		c.deny(b, d.Reason)
		return tools.Result{Text: "Permission denied: " + d.Reason, IsError: true}, nil
	}
	c.screen.Call(b.Name, b.Input)
	run := c.set.Run
	if strings.HasPrefix(b.Name, agent.MCPPrefix) {
		run = c.servers.Call
	}
	res, err := run(ctx, b.Name, b.Input)
	if err != nil {
		return res, err
	}
	if res.Denied != "" {
		c.deny(b, res.Denied)
		return res, nil
	}
	if res.IsError {
		c.screen.Failed(res.Text)
	}
	return res, nil
}

func (c *conversation) offered(name string) bool {
	for _, s := range c.specs {
		if s.Name == name {
			return true
		}
	}
	return false
}

// maxDenialInput bounds what is kept of a refused call's input, in bytes.
const maxDenialInput = 4 << 10

func (c *conversation) deny(b block, reason string) {
	input := string(b.Input)
	if len(input) > maxDenialInput {
		input = strings.ToValidUTF8(input[:maxDenialInput], "") + "…"
	}
	c.res.Denials = append(c.res.Denials, agent.Denial{Tool: b.Name, Input: input, Reason: reason})
	c.screen.Denied(b.Name, b.Input, reason)
	if c.denied == nil {
		c.denied = fmt.Errorf("the call of %s was denied: %s", b.Name, reason)
	}
}

// record hands the complete turn to the caller.
func (c *conversation) record(index int, m Message, results []json.RawMessage) error {
	if c.r.Turn == nil {
		return nil
	}
	t := agent.Turn{Index: index, Response: m.Raw, State: c.set.State(), Compacted: c.compacted}
	if index == 0 {
		t.Prompt = c.r.Prompt
	}
	spent := c.spentSoFar()
	t.Spent = spent.Minus(c.spent)
	c.spent = spent
	var err error
	if t.Response == nil {
		if t.Response, err = encode(m); err != nil {
			return fmt.Errorf("encode turn %d: %w", index+1, err)
		}
	}
	if results != nil {
		if t.Results, err = encode(results); err != nil {
			return fmt.Errorf("encode turn %d: %w", index+1, err)
		}
	}
	if err := c.r.Turn(t); err != nil {
		return fmt.Errorf("record turn %d: %w", index+1, err)
	}
	return nil
}

// StopError is why an answer that stopped for the reason is no success, nil where it is.
func StopError(reason string) error {
	switch reason {
	case StopEndTurn, StopSequence:
		return nil
	case StopPause:
		return failed(errors.New("the model paused and was not asked to go on"), "")
	case StopMaxTokens:
		return failed(errors.New("the model's answer was cut off: max_tokens was reached"), "give the step a smaller task")
	case StopRefusal:
		return failed(errors.New("the model refused to answer"), "see the step's log for its words; reword the prompt")
	case StopWindow:
		return failed(ErrWindow, windowHint)
	case "":
		return failed(errors.New("the model's answer has no stop reason"), "")
	}
	return failed(fmt.Errorf("the model stopped for an unknown reason: %s", reason), "a newer flow may know it")
}

func (c *conversation) spentSoFar() agent.Spending {
	if c.o.Spent != nil {
		return c.o.Spent()
	}
	u := c.res.Usage
	return agent.Spending{Requests: u.Turns, InputTokens: u.InputTokens, OutputTokens: u.OutputTokens, CacheReadTokens: u.CacheReadTokens, CacheWriteTokens: u.CacheWriteTokens}
}

func textBlock(text string) json.RawMessage {
	raw, _ := encode(map[string]string{"type": "text", "text": text}) // strings always encode
	return raw
}

// encode leaves <, > and & as they are: transcripts are read by people.
func encode(v any) (json.RawMessage, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return json.RawMessage(strings.TrimSuffix(b.String(), "\n")), nil
}
