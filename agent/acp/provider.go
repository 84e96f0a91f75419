package acp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	sdk "github.com/coder/acp-go-sdk"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/child"
	"flowrun.dev/flow/agent/gateway"
	"flowrun.dev/flow/agent/loop"
	"flowrun.dev/flow/agent/screen"
	"flowrun.dev/flow/agent/tools"
	"flowrun.dev/flow/sandbox"
)

// Name of the provider in workflow files.
const Name = "acp"

// Options of the provider.
type Options struct {
	// Gateway to the Messages API, for agents that use it. Its error is no obstacle: an
	// agent may need no model of ours.
	Gateway func() (*gateway.Gateway, error)
}

// Provider is the agent.Provider `acp`. It may be used by several goroutines.
type Provider struct{ o Options }

var (
	_ agent.Provider = (*Provider)(nil)
	_ agent.Enforcer = (*Provider)(nil)
)

// New returns the provider.
func New(o Options) *Provider { return &Provider{o: o} }

// Name is Name.
func (p *Provider) Name() string { return Name }

// EnforcesRights is true: the agent, its terminals and its files have the step's rights.
func (p *Provider) EnforcesRights() bool { return true }

// Check says whether the step names a program and rules that can be kept.
func (p *Provider) Check(r agent.Request) error {
	_, err := newPolicy(r)
	return err
}

func newPolicy(r agent.Request) (*agent.Policy, error) {
	if len(r.Command) == 0 || r.Command[0] == "" {
		return nil, invalid("set agent.command to the program and its arguments, e.g. command: [my-agent, --acp]", "use provider acp: the step names no command")
	}
	p, err := agent.NewPolicy(r.Allowed, r.Disallowed)
	if err != nil {
		return nil, &agent.Error{Class: agent.ClassInvalid, Err: err}
	}
	if _, missing := tools.Specs(p.Offered()); len(missing) > 0 {
		return nil, invalid("its tools are "+strings.Join(tools.Names(), ", "), "offer the step's tools: provider acp has no %s", strings.Join(missing, ", "))
	}
	// The agent's own tools need not ask, and the system's rights know no commands.
	for _, name := range []string{"Bash", "Read", "Glob", "Grep"} {
		if p.Narrow(name) {
			return nil, invalid("allow "+name+" as a whole or not at all, or use another provider",
				"keep the patterns of %s: an agent behind provider acp may act without asking, and only the system's rights bound it", name)
		}
	}
	switch {
	case r.Record != "":
		return nil, invalid("record with provider anthropic", "record the conversation: provider acp does not support it yet")
	case len(r.MCPServers) > 0 || len(r.History) > 0:
		return nil, invalid("use provider anthropic or claude-code", "use MCP servers or an earlier conversation: provider acp does not support it yet")
	case r.OnDenied != "" && r.OnDenied != "tell" && r.OnDenied != "fail":
		return nil, invalid("", "on_denied is %q; expected tell or fail", r.OnDenied)
	case r.MaxTurns < 0:
		return nil, invalid("", "max_turns is %d; expected 1 or more", r.MaxTurns)
	case r.System != "" || r.AppendSystem != "" || r.Model != "":
		return nil, invalid("give them to the agent by its command or its environment", "set model or system prompt: the protocol does not carry them to the agent")
	}
	if r.Sandbox != nil && r.Sandbox.Info().Tier == sandbox.TierNone {
		p = p.WithHome(r.Sandbox.Home())
	}
	return p, nil
}

func invalid(hint, format string, a ...any) *agent.Error {
	return &agent.Error{Class: agent.ClassInvalid, Hint: hint, Err: fmt.Errorf(format, a...)}
}

// Converse holds one conversation: one prompt.
func (p *Provider) Converse(ctx context.Context, r agent.Request) (agent.Result, error) {
	policy, err := newPolicy(r)
	if err != nil {
		return agent.Result{}, err
	}
	if r.Sandbox == nil {
		return agent.Result{}, invalid("", "hold a conversation: there is no sandbox")
	}
	if len(r.Continue) > 0 { // the prompt is the turn, and it is complete
		return again(r)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	env := r.Env
	if env == nil {
		env = r.Sandbox.BaseEnv()
	}
	c := &client{r: r, policy: policy, set: tools.New(r.Sandbox, env, policy).WithRights(r.Rights), screen: screen.New(r.Out), stop: cancel, env: env, terminals: map[string]*terminal{}}
	session, env, closeAPI, err := p.model(ctx, r, c, env)
	if err != nil {
		return agent.Result{}, failure(err)
	}
	defer closeAPI()
	res, err := c.hold(ctx, env)
	if session != nil {
		spent := session.Spent()
		u := &res.Usage
		u.InputTokens, u.OutputTokens, u.CacheReadTokens, u.CacheWriteTokens = spent.InputTokens, spent.OutputTokens, spent.CacheReadTokens, spent.CacheWriteTokens
		u.CostUSD, u.CostUnknown, u.Turns = spent.CostUSD, spent.CostUnknown, max(u.Turns, spent.Requests)
		if refused := session.Refused(); err != nil && refused != nil {
			return res, refused
		}
	}
	if err != nil {
		return res, failure(err)
	}
	return res, nil
}

// model puts the gateway where the agent reaches it. Without a key there is none.
func (p *Provider) model(ctx context.Context, r agent.Request, c *client, env []string) (*gateway.Session, []string, func(), error) {
	gw, err := p.o.Gateway()
	if err != nil {
		return nil, env, func() {}, nil
	}
	session := gw.Open(gateway.SessionOptions{Step: r.StepID, Account: r.Account, Before: func(_ context.Context, q gateway.Request) error {
		if r.MaxTurns > 0 && q.Number > r.MaxTurns {
			err := &agent.Error{Class: agent.ClassFailed, Hint: "raise max_turns, or give the step a smaller task", Err: fmt.Errorf("the conversation did not end within max_turns: %d", r.MaxTurns)}
			c.fail(err)
			return err
		}
		return nil
	}})
	url, closeServer, err := child.Serve(ctx, r.Sandbox, gw)
	if err != nil {
		session.Close()
		return nil, nil, nil, err
	}
	out := append([]string(nil), env...)
	out = append(out, "ANTHROPIC_BASE_URL="+url, "ANTHROPIC_API_KEY="+session.Token())
	return session, out, func() { closeServer(); session.Close() }, nil
}

// hold runs the agent for one prompt.
func (c *client) hold(ctx context.Context, env []string) (agent.Result, error) {
	c.screen.Prompt(c.r.Prompt)
	p, err := child.Start(ctx, c.r.Sandbox, sandbox.Cmd{Argv: c.r.Command, Env: env, Rights: c.r.Rights})
	if err != nil {
		return c.res, err
	}
	// The library reads before it can be told where to log; its log is nobody's.
	quiet := make(chan struct{})
	conn := sdk.NewClientSideConnection(c, p, gated{p.IO, quiet})
	conn.SetLogger(slog.New(slog.DiscardHandler))
	close(quiet)
	stop, askErr := c.prompt(ctx, conn)
	if askErr != nil {
		c.stop(askErr) // it may not understand an end of its stdin
	}
	p.Finish()
	select { // a polite end, but not for ever
	case <-conn.Done():
	case <-time.After(child.Grace):
		c.stop(errEnded)
	}
	exit, err := p.Wait()
	<-conn.Done()
	c.endTerminals()
	return c.ended(ctx, stop, askErr, exit, err, p.Stderr())
}

// gated reads nothing before open is closed.
type gated struct {
	io.Reader
	open <-chan struct{}
}

func (g gated) Read(b []byte) (int, error) {
	<-g.open
	return g.Reader.Read(b)
}

var errEnded = errors.New("the conversation is over")

// prompt makes the three calls of a conversation.
func (c *client) prompt(ctx context.Context, conn *sdk.ClientSideConnection) (sdk.StopReason, error) {
	init, err := conn.Initialize(ctx, sdk.InitializeRequest{
		ProtocolVersion: sdk.ProtocolVersionNumber, ClientInfo: &sdk.Implementation{Name: "flow", Version: "1"},
		ClientCapabilities: sdk.ClientCapabilities{Terminal: c.offers("Bash"),
			Fs: sdk.FileSystemCapabilities{ReadTextFile: c.offers("Read"), WriteTextFile: c.offers("Write") || c.offers("Edit")}},
	})
	if err != nil {
		return "", fmt.Errorf("initialize the agent: %w", err)
	}
	if init.ProtocolVersion != sdk.ProtocolVersionNumber {
		return "", invalid("use a version of the agent that speaks it", "initialize the agent: it speaks version %d of the protocol, flow speaks %d", init.ProtocolVersion, sdk.ProtocolVersionNumber)
	}
	s, err := conn.NewSession(ctx, sdk.NewSessionRequest{Cwd: c.workspace(), McpServers: []sdk.McpServer{}})
	if err != nil {
		return "", fmt.Errorf("open a session with the agent: %w", err)
	}
	res, err := conn.Prompt(ctx, sdk.PromptRequest{SessionId: s.SessionId, Prompt: []sdk.ContentBlock{sdk.TextBlock(c.r.Prompt)}})
	if err != nil {
		return "", fmt.Errorf("ask the agent: %w", err)
	}
	return res.StopReason, nil
}

func (c *client) ended(ctx context.Context, stop sdk.StopReason, askErr error, exit sandbox.Result, err error, stderr string) (agent.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
	c.res.Text, c.res.StopReason = strings.TrimSpace(c.text.String()), string(stop)
	switch {
	case c.fatal != nil:
		return c.res, c.fatal
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errEnded) && askErr == nil:
		return c.res, fmt.Errorf("the conversation was stopped: %w", context.Cause(ctx))
	case err != nil:
		return c.res, err
	case askErr != nil:
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, askErr) {
			return c.res, fmt.Errorf("the conversation was stopped: %w", cause)
		}
		return c.res, broken(askErr, exit, stderr)
	}
	c.res.Usage.Turns = 1
	raw, err := json.Marshal(map[string]any{"role": "assistant", "content": []any{map[string]string{"type": "text", "text": c.res.Text}}, "stop_reason": stop})
	if err != nil {
		return c.res, err
	}
	if c.r.Turn != nil {
		if err := c.r.Turn(agent.Turn{Prompt: c.r.Prompt, Response: raw}); err != nil {
			return c.res, fmt.Errorf("record turn 1: %w", err)
		}
	}
	return c.res, stopped(stop)
}

// broken is why a call to the agent failed: it ended, or it answered with an error.
func broken(err error, exit sandbox.Result, stderr string) error {
	var re *sdk.RequestError
	switch {
	case errors.As(err, &re) && re.Code == -32000:
		return invalid("give the agent what it needs by `env` or `secrets`", "%w: it wants to be signed in", err)
	case exit.ExitCode == 126 || exit.ExitCode == 127:
		return invalid("the command has to exist in the sandbox", "start the agent: exit code %d: %s", exit.ExitCode, stderr)
	case stderr != "":
		return fmt.Errorf("%w; exit code %d; it said: %s", err, exit.ExitCode, stderr)
	}
	return fmt.Errorf("%w; exit code %d", err, exit.ExitCode)
}

// stopped is why a stop reason is no success.
func stopped(stop sdk.StopReason) error {
	switch stop {
	case sdk.StopReasonMaxTurnRequests:
		return &agent.Error{Class: agent.ClassFailed, Err: errors.New("the agent reached its own limit of requests"), Hint: "raise it in the agent's settings, or give the step a smaller task"}
	case sdk.StopReasonCancelled:
		return &agent.Error{Class: agent.ClassInfrastructure, Err: errors.New("the agent cancelled the prompt")}
	}
	return loop.StopError(string(stop))
}

// again is a conversation whose one turn is complete.
func again(r agent.Request) (agent.Result, error) {
	t := r.Continue[len(r.Continue)-1]
	var m struct {
		Content []struct {
			Text string `json:"text"`
		} `json:"content"`
		StopReason string `json:"stop_reason"`
	}
	if err := json.Unmarshal(t.Response, &m); err != nil || r.Continue[0].Prompt != r.Prompt || len(m.Content) == 0 {
		return agent.Result{}, invalid("begin it anew with flow resume --from "+r.StepID, "continue the conversation: what is stored is not its end")
	}
	if err := stopped(sdk.StopReason(m.StopReason)); err != nil {
		return agent.Result{}, failure(err)
	}
	return agent.Result{Text: m.Content[0].Text, StopReason: m.StopReason}, nil
}

// failure makes any error an *agent.Error.
func failure(err error) *agent.Error {
	var ae *agent.Error
	if errors.As(err, &ae) {
		return ae
	}
	out := &agent.Error{Class: agent.ClassInfrastructure, Err: err}
	var se *sandbox.Error
	if errors.As(err, &se) {
		out.Hint = se.Hint
		if se.Class == sandbox.ClassInvalid {
			out.Class = agent.ClassInvalid
		}
	}
	return out
}
