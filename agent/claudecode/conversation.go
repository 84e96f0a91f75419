package claudecode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/gateway"
	"flowrun.dev/flow/agent/loop"
	"flowrun.dev/flow/agent/mcp"
	"flowrun.dev/flow/agent/screen"
	"flowrun.dev/flow/agent/tools"
	"flowrun.dev/flow/sandbox"
)

// conversation is the state of one Converse. The events of the CLI come on one
// goroutine, the requests to the API on others.
type conversation struct {
	r       agent.Request
	policy  *agent.Policy
	offered []string
	set     *tools.Set
	screen  *screen.Screen
	stop    context.CancelCauseFunc
	session *gateway.Session
	output  *loop.Output // of output_schema, nil for none
	servers *mcp.Servers
	calling sync.WaitGroup // calls of servers' tools
	p       *process

	// Of the goroutine that reads events.
	refused map[string]bool // tool_use ids of denied calls
	// reminders that the result of output_schema is missing.
	reminders int

	mu       sync.Mutex
	changed  *sync.Cond // inFlight
	version  string     // of the CLI
	tape     tape
	inFlight int // requests without the end of their answer
	res      agent.Result
	turn     *turn // answered, its results not yet known
	index    int   // of the next turn
	results  map[string]json.RawMessage
	denied   error        // the first denial, for on_denied: fail
	fatal    error        // why we ended the CLI
	api      *agent.Error // the last request's failure
	last     *resultEvent
	spent    agent.Spending // until the last recorded turn
}

func newConversation(r agent.Request, policy *agent.Policy, stop context.CancelCauseFunc) *conversation {
	c := &conversation{
		r: r, policy: policy, offered: policy.Offered(), set: tools.New(r.Sandbox, r.Env, policy), screen: screen.New(r.Out), stop: stop,
		refused: map[string]bool{}, results: map[string]json.RawMessage{},
	}
	c.changed = sync.NewCond(&c.mu)
	c.res.Model = r.Model
	return c
}

// hold runs the CLI to its end.
func (c *conversation) hold(ctx context.Context, cmd command) (agent.Result, error) {
	if cmd.file != "" {
		content, err := sessionFile(c.r, cmd.session, homeOf(c.r.Sandbox.BaseEnv())+"/workspace")
		if err == nil {
			err = putSession(ctx, c.r.Sandbox, cmd.env, cmd.file, content)
		}
		if err != nil {
			return c.res, failure(err)
		}
	}
	p, err := start(ctx, c.r.Sandbox, cmd)
	if err != nil {
		c.stop(err)
		if p != nil {
			_, _ = p.Wait()
		}
		return c.res, failure(err)
	}
	c.p = p
	calls, endCalls := context.WithCancelCause(ctx)
	if err := c.listen(calls); err != nil {
		c.fail(err)
	}
	exit, err := p.Wait()
	endCalls(errors.New("the CLI has ended"))
	c.calling.Wait()
	c.settle()
	err = c.ended(ctx, exit, err)
	// The gateway counts what was paid for, broken answers as well.
	spent := c.spending()
	u := &c.res.Usage
	u.InputTokens, u.OutputTokens, u.CacheReadTokens, u.CacheWriteTokens = spent.InputTokens, spent.OutputTokens, spent.CacheReadTokens, spent.CacheWriteTokens
	u.CostUSD, u.CostUnknown = spent.CostUSD, spent.CostUnknown
	return c.res, err
}

// settleTime bounds the end of requests whose asker has ended.
const settleTime = 5 * time.Second

// settle waits for the requests that are under way: the CLI has ended, and so do they. What
// has come of their answers is paid for, and counts.
func (c *conversation) settle() {
	over := false
	t := time.AfterFunc(settleTime, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		over = true
		c.changed.Broadcast()
	})
	defer t.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.inFlight > 0 && !over {
		c.changed.Wait()
	}
}

// spending of this attempt. A cassette costs nothing.
func (c *conversation) spending() agent.Spending {
	spent := c.session.Spent()
	if c.tape.player != nil {
		spent.CostUSD, spent.CostUnknown = 0, false
	}
	return spent
}

// fail ends the CLI; the first reason is the conversation's.
func (c *conversation) fail(err error) {
	c.mu.Lock()
	if c.fatal == nil {
		c.fatal = err
	}
	c.mu.Unlock()
	c.stop(err)
}

// ended is why the conversation is no success, nil when it is one.
func (c *conversation) ended(ctx context.Context, exit sandbox.Result, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeTurn()
	refused := c.session.Refused()
	switch {
	case c.fatal != nil && (ctx.Err() == nil || errors.Is(c.fatal, context.Cause(ctx))):
		return failure(c.fatal)
	case ctx.Err() != nil: // what broke after that broke because of it
		return failure(fmt.Errorf("the conversation was stopped in turn %d: %w", c.index+1, context.Cause(ctx)))
	case err != nil:
		return failure(err)
	case refused != nil: // a budget, for example
		return refused
	}
	end := ending{exit: exit, result: c.last, stderr: c.p.Stderr(), api: c.api, stop: c.res.StopReason, maxTurns: c.r.MaxTurns}
	if ae := end.failure(); ae != nil {
		return ae
	}
	return c.structured(c.last.Structured)
}

// structured takes the result of output_schema; the CLI has checked it by rules of its
// own, ours are those of all providers.
func (c *conversation) structured(value json.RawMessage) error {
	switch {
	case c.output == nil:
		return nil
	case value == nil:
		return failure(loop.WithoutOutput())
	}
	if err := c.output.Check(value); err != nil {
		return failed("make output_schema simpler, or say in the prompt what it means", "the result is not what output_schema wants: %v", err)
	}
	c.res.Structured = value
	return nil
}

// closeTurn records the last turn, which no request follows, when it is complete.
func (c *conversation) closeTurn() {
	if c.turn == nil || c.fatal != nil {
		return
	}
	var results []json.RawMessage
	for _, id := range c.turn.calls {
		raw, ok := c.results[id]
		if !ok {
			return // cut off in the middle of its calls
		}
		results = append(results, raw)
	}
	c.fatal = c.record(results)
}

const initID = "init"

// initialize is the first message: it registers the gate, and us as the MCP servers.
func initialize(servers []string) any {
	hook := map[string]any{"matcher": nil, "hookCallbackIds": []string{"gate"}, "timeout": 600, "onFailure": "block"}
	return map[string]any{"type": "control_request", "request_id": initID,
		"request": map[string]any{"subtype": "initialize", "hooks": map[string]any{"PreToolUse": []any{hook}}, "sdkMcpServers": servers}}
}

// listen serves the CLI until its output ends. An error means that it must be ended.
func (c *conversation) listen(ctx context.Context) error {
	if err := c.p.send(initialize(serverNames(c.r))); err != nil {
		return err
	}
	for {
		line, err := c.p.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.event(ctx, line); err != nil {
			return err
		}
	}
}

// event handles one line. What is unknown is skipped: newer CLIs say more.
func (c *conversation) event(ctx context.Context, line []byte) error {
	var h head
	if json.Unmarshal(line, &h) != nil {
		return nil // a warning of a runtime
	}
	switch h.Type {
	case "control_response":
		return c.initialized(line)
	case "control_request":
		return c.asked(ctx, line)
	case "system":
		if h.Subtype == "init" {
			return c.began(line)
		}
	case "assistant":
		return c.said(line)
	case "user":
		return c.returned(line)
	case "result":
		var r resultEvent
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("read the CLI's result: %w", err)
		}
		c.mu.Lock()
		c.last = &r
		paused := !r.IsError && c.res.StopReason == loop.StopPause
		c.mu.Unlock()
		if c.output != nil && !r.IsError && r.Structured == nil && r.Subtype == "success" && !paused && c.reminders < loop.MaxReminders {
			c.reminders++
			return c.ask(loop.Reminder)
		}
		if paused { // the CLI ends here; the model wants to be asked again
			return c.ask("Continue.")
		}
		c.p.Finish()
	}
	return nil
}

// initialized asks the prompt once the CLI has confirmed the gate.
func (c *conversation) initialized(line []byte) error {
	ours, err := confirmed(line)
	if err != nil || !ours {
		return err
	}
	if len(c.r.Continue) > 0 {
		return c.ask(goOn)
	}
	return c.ask(c.r.Prompt)
}

func (c *conversation) ask(prompt string) error {
	return c.p.send(map[string]any{"type": "user", "session_id": "", "parent_tool_use_id": nil,
		"message": map[string]any{"role": "user", "content": []any{map[string]any{"type": "text", "text": prompt}}}})
}

// confirmed reads the answer to initialize; ours is false for another one.
func confirmed(line []byte) (ours bool, err error) {
	var r controlResponse
	if err := json.Unmarshal(line, &r); err != nil {
		return false, fmt.Errorf("read the CLI's answer to initialize: %w", err)
	}
	switch {
	case r.Response.RequestID != initID:
		return false, nil
	case r.Response.Subtype != "success":
		return false, invalid("", "initialize the CLI: %s", r.Response.Error)
	case !r.Response.Response.HookOnFailure:
		return false, invalid(UpdateHint, "use provider claude-code: this version of the CLI does not report hook_on_failure_supported: "+
			"a failing check of a tool call would let the call run")
	}
	return true, nil
}

// began compares what the CLI has with what the step allows.
func (c *conversation) began(line []byte) error {
	var e initEvent
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("read the CLI's init event: %w", err)
	}
	c.mu.Lock()
	c.version = e.Version
	c.mu.Unlock()
	for _, name := range e.Tools {
		if !slices.Contains(c.offered, name) {
			return invalid("", "use provider claude-code: the CLI %s has the tool %s, which the step does not allow", e.Version, name)
		}
	}
	for _, s := range e.MCPServers {
		if slices.Contains(serverNames(c.r), s.Name) {
			continue
		}
		return invalid("", "use provider claude-code: the CLI %s has the MCP server %s, which the step does not name", e.Version, s.Name)
	}
	return nil
}

// said renders the model's words, and refuses calls of tools that were not offered.
func (c *conversation) said(line []byte) error {
	var e messageEvent
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("read the CLI's assistant event: %w", err)
	}
	if e.Message.Model == synthetic {
		return nil
	}
	list, _ := blocks(e.Message.Content)
	for _, b := range list {
		switch {
		case b.Type == "text":
			c.screen.Text(b.Text)
		case b.Type == "tool_use" && !slices.Contains(c.offered, b.Name):
			c.deny(b.ID, b.Name, b.Input, "the tool was not offered: it is not in allowed_tools")
		}
	}
	return nil
}

// returned keeps the tools' results and renders their errors.
func (c *conversation) returned(line []byte) error {
	var e messageEvent
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("read the CLI's user event: %w", err)
	}
	list, raw := blocks(e.Message.Content)
	for i, b := range list {
		if b.Type != "tool_result" {
			continue
		}
		c.mu.Lock()
		c.results[b.ToolUseID] = raw[i]
		c.mu.Unlock()
		if b.IsError && !c.refused[b.ToolUseID] {
			c.screen.Failed(resultText(b.Content))
		}
	}
	return nil
}
