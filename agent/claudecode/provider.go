package claudecode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/child"
	"flowrun.dev/flow/agent/gateway"
	"flowrun.dev/flow/agent/loop"
	"flowrun.dev/flow/agent/mcp"
	"flowrun.dev/flow/sandbox"
)

// Name of the provider in workflow files.
const Name = "claude-code"

// InsidePath is where sandboxes with a root of their own have to show the CLI.
const InsidePath = "/flow/claude-code/claude"

// OwnRoot says whether sandboxes of the tier have a root of their own; in the others
// the CLI is where it is on the machine.
func OwnRoot(t sandbox.Tier) bool {
	return t == sandbox.TierNamespaceRoot || t == sandbox.TierNamespaceUser
}

// Options of the provider.
type Options struct {
	// Path of the CLI on this machine, links followed; "" when there is none.
	Path string
	// Sought says where Path was looked for, for the error that there is none.
	Sought string
	// Gateway to the API; its error (no key, no usable address) is Check's.
	Gateway func() (*gateway.Gateway, error)
}

// Provider is the agent.Provider `claude-code`. It may be used by several goroutines.
type Provider struct{ o Options }

var (
	_ agent.Provider = (*Provider)(nil)
	_ agent.Enforcer = (*Provider)(nil)
)

// New returns the provider. Whether it could work is said by Check.
func New(o Options) *Provider { return &Provider{o: o} }

// Name is Name.
func (p *Provider) Name() string { return Name }

// EnforcesRights is true: the CLI and its tools run with the step's rights.
func (p *Provider) EnforcesRights() bool { return true }

// toolNames are the CLI's tools that a step may be allowed. The others of the CLI
// (subagents, the web, MCP servers) are not supported yet.
var toolNames = []string{"Bash", "Read", "Write", "Edit", "Glob", "Grep"}

// Check starts nothing: it says whether there is a CLI that sandboxes can execute, a
// key, and every tool of the step.
func (p *Provider) Check(r agent.Request) error {
	if p.o.Path == "" {
		return invalid("install Claude Code (npm install -g @anthropic-ai/claude-code), or set FLOW_CLAUDE to its native binary",
			"use provider claude-code: there is no `claude` %s", p.o.Sought)
	}
	if err := native(p.o.Path); err != nil {
		return invalid("set FLOW_CLAUDE to the native binary of the npm package @anthropic-ai/claude-code-linux-x64 (or the one of your system)",
			"use provider claude-code: %v", err)
	}
	if r.Cassette != "" {
		if _, err := newPolicy(r); err != nil {
			return err
		}
		_, err := newTape(r)
		return err
	}
	_, err := p.gateway(r)
	return err
}

func (p *Provider) gateway(r agent.Request) (*gateway.Gateway, error) {
	gw, err := p.o.Gateway()
	if err != nil {
		return nil, &agent.Error{Class: agent.ClassInvalid, Err: fmt.Errorf("use provider claude-code: %w", err), Hint: gateway.SettingHint}
	}
	if _, err := newPolicy(r); err != nil {
		return nil, err
	}
	// Without `model` the CLI chooses one, and the gateway judges its price.
	if r.Model != "" {
		if err := gateway.Priced(gw.Prices(), r.Model, r.Account.BoundsCost()); err != nil {
			return nil, err
		}
	}
	return gw, nil
}

// native refuses a script: what it needs beside itself is not in a sandbox.
func native(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the CLI: %w", err)
	}
	defer f.Close()
	magic := make([]byte, 4)
	if _, err := io.ReadFull(f, magic); err != nil {
		return fmt.Errorf("read the CLI %s: %w", path, err)
	}
	for _, known := range []string{"\x7fELF", "\xcf\xfa\xed\xfe", "\xca\xfe\xba\xbe"} {
		if string(magic) == known {
			return nil
		}
	}
	return fmt.Errorf("%s is no native binary", path)
}

// newPolicy parses the rules and refuses what this provider could not keep.
func newPolicy(r agent.Request) (*agent.Policy, error) {
	p, err := agent.NewPolicy(r.Allowed, r.Disallowed)
	if err != nil {
		return nil, &agent.Error{Class: agent.ClassInvalid, Err: err}
	}
	var missing []string
	for _, name := range p.Offered() {
		if !slices.Contains(toolNames, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return nil, invalid("its tools are "+strings.Join(toolNames, ", "),
			"offer the step's tools: provider claude-code does not support %s yet", strings.Join(missing, ", "))
	}
	// The CLI searches by itself: a denied file in the searched folder would be shown.
	for _, name := range []string{"Grep", "Glob"} {
		if slices.Contains(p.Offered(), name) && p.Hides(name) {
			return nil, invalid("leave "+name+" out of allowed_tools, disallow it for whole folders by allowing "+name+"(./folder/**) only, or use provider anthropic",
				"keep files from %s: provider claude-code cannot leave out single files that disallowed_tools names", name)
		}
	}
	switch r.OnDenied {
	case "", "tell", "fail":
	default:
		return nil, invalid("", "on_denied is %q; expected tell or fail", r.OnDenied)
	}
	if r.MaxTurns < 0 {
		return nil, invalid("", "max_turns is %d; expected 1 or more", r.MaxTurns)
	}
	if r.Sandbox != nil && !r.Sandbox.Info().Tier.Strong() {
		p = p.WithHome(r.Sandbox.Home())
	}
	return p, nil
}

func invalid(hint, format string, a ...any) *agent.Error {
	return &agent.Error{Class: agent.ClassInvalid, Hint: hint, Err: fmt.Errorf(format, a...)}
}

// Converse holds one conversation.
func (p *Provider) Converse(ctx context.Context, r agent.Request) (agent.Result, error) {
	if err := p.Check(r); err != nil {
		return agent.Result{}, err
	}
	if r.Sandbox == nil {
		return agent.Result{}, invalid("", "hold a conversation: there is no sandbox")
	}
	if strings.TrimSpace(r.Prompt) == "" {
		return agent.Result{}, invalid("", "hold a conversation: the prompt is empty")
	}
	policy, err := newPolicy(r)
	if err != nil {
		return agent.Result{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := newConversation(r, policy, cancel)
	if c.tape, err = newTape(r); err != nil {
		return agent.Result{}, failure(err)
	}
	account := r.Account
	var gw *gateway.Gateway
	if c.tape.player != nil {
		account = nil // a cassette spends nothing
		gw, err = c.playing()
	} else {
		gw, err = p.gateway(r)
	}
	if err != nil {
		return agent.Result{}, failure(err)
	}
	if r.OutputSchema != nil {
		if c.output, err = loop.NewOutput(r.OutputSchema); err != nil {
			return agent.Result{}, invalid("", "%v", err)
		}
	}
	session := gw.Open(gateway.SessionOptions{Step: r.StepID, Account: account, Before: c.before, Record: c.answered})
	defer session.Close()
	c.session = session
	if over, err := c.restore(); over || err != nil {
		if err != nil {
			err = failure(err)
		}
		return c.res, err
	}
	if c.servers, err = mcp.Start(ctx, r, policy); err != nil {
		return c.res, failure(err)
	}
	defer c.servers.Close()
	if c.output != nil {
		c.offered = append(c.offered, loop.StructuredTool)
	}
	for _, spec := range c.servers.Specs() {
		c.offered = append(c.offered, spec.Name)
	}
	url, closeAPI, err := child.Serve(ctx, r.Sandbox, gw)
	if err != nil {
		return c.res, failure(err)
	}
	defer closeAPI()
	return c.hold(ctx, p.command(r, policy, url, session.Token()))
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
