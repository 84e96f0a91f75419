package anthropic

import (
	"context"
	"fmt"
	"net/http"

	sdk "github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/gateway"
	"flowrun.dev/flow/agent/loop"
	"flowrun.dev/flow/agent/replay"
)

const (
	// DefaultModel is used where a step names none.
	DefaultModel = "claude-sonnet-5-5"
	// DefaultMaxTokens bounds one answer. Answers are streamed, so that a large bound
	// costs nothing; a whole source file has to fit.
	DefaultMaxTokens = 32_000
	// DefaultRetries is the SDK's own: 408, 409, 429, 5xx and connection errors, with
	// 0.5 s doubling up to 8 s, or what Retry-After says.
	DefaultRetries = 2
)

// Options of the provider.
type Options struct {
	// Gateway to the API; its error (no key, no usable address) is Check's.
	Gateway func() (*gateway.Gateway, error)
	// MaxRetries of one request; 0 is DefaultRetries, below 0 none.
	MaxRetries int
	MaxTokens  int64 // of one answer; 0 is DefaultMaxTokens
}

// Provider is the agent.Provider `anthropic`. It may be used by several goroutines.
type Provider struct{ o Options }

var _ agent.Provider = (*Provider)(nil)

// New returns the provider. Whether it could work is said by Check.
func New(o Options) *Provider {
	if o.MaxTokens == 0 {
		o.MaxTokens = DefaultMaxTokens
	}
	switch {
	case o.MaxRetries == 0:
		o.MaxRetries = DefaultRetries
	case o.MaxRetries < 0:
		o.MaxRetries = 0
	}
	return &Provider{o: o}
}

// Name is "anthropic".
func (p *Provider) Name() string { return "anthropic" }

// EnforcesRights: our own tools run with the step's rights.
func (p *Provider) EnforcesRights() bool { return true }

// Check makes no request: it says whether there is a key, a usable address, every
// tool of the step, and a price where a budget in dollars has to be kept.
func (p *Provider) Check(r agent.Request) error {
	_, err := p.gateway(r)
	return err
}

func (p *Provider) gateway(r agent.Request) (*gateway.Gateway, error) {
	gw, err := p.o.Gateway()
	if err != nil {
		return nil, &agent.Error{Class: agent.ClassInvalid, Err: fmt.Errorf("use provider anthropic: %w", err), Hint: gateway.SettingHint}
	}
	if err := loop.Check(r); err != nil {
		return nil, err
	}
	if err := gateway.Priced(gw.Prices(), modelOf(r), r.Account.BoundsCost()); err != nil {
		return nil, err
	}
	return gw, nil
}

func modelOf(r agent.Request) string {
	if r.Model != "" {
		return r.Model
	}
	return DefaultModel
}

// Converse holds one conversation.
func (p *Provider) Converse(ctx context.Context, r agent.Request) (agent.Result, error) {
	gw, err := p.gateway(r)
	if err != nil {
		return agent.Result{}, err
	}
	session := gw.Open(gateway.SessionOptions{Step: r.StepID, Account: r.Account})
	defer session.Close()
	// NewMessageService, not NewClient: the latter reads the environment and profiles.
	// No time limit of the client's own: the step's timeout ends ctx.
	m := &model{
		messages: sdk.NewMessageService(
			option.WithEnvironmentProduction(), option.WithBaseURL(gw.Host()), option.WithHTTPClient(&http.Client{Transport: session}),
			option.WithMaxRetries(p.o.MaxRetries), option.WithoutOpenTelemetry(), option.WithAPIKey(session.Token()),
		),
		maxTokens: p.o.MaxTokens, retries: p.o.MaxRetries, host: gw.Host(), session: session,
	}
	var asked loop.Model = m
	if r.Record != "" {
		if asked, err = replay.Record(m, modelOf(r), r); err != nil {
			return agent.Result{}, err
		}
	}
	res, err := loop.Run(ctx, loop.Options{Model: asked, Name: modelOf(r), Spent: session.Spent}, r)
	// The gateway counts what was paid for, broken answers as well.
	spent := session.Spent()
	u := &res.Usage
	u.InputTokens, u.OutputTokens, u.CacheReadTokens, u.CacheWriteTokens = spent.InputTokens, spent.OutputTokens, spent.CacheReadTokens, spent.CacheWriteTokens
	u.CostUSD, u.CostUnknown = spent.CostUSD, spent.CostUnknown
	return res, err
}
