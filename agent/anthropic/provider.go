package anthropic

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	sdk "github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/loop"
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
	defaultBaseURL = "https://api.anthropic.com"
)

// Options of the provider. One of APIKey and AuthToken is needed.
type Options struct {
	APIKey    string // sent as X-Api-Key
	AuthToken string // sent as Authorization: Bearer
	BaseURL   string // "" for the public API
	// MaxRetries of one request; 0 is DefaultRetries, below 0 none.
	MaxRetries int
	MaxTokens  int64 // of one answer; 0 is DefaultMaxTokens
	// Prices of models; nil is Prices().
	Prices PriceTable
	// HTTPClient for tests and proxies; nil is a client of its own.
	HTTPClient *http.Client
}

// Provider is the agent.Provider `anthropic`. It may be used by several goroutines.
type Provider struct{ o Options }

var _ agent.Provider = (*Provider)(nil)

// New returns the provider. Whether it could work is said by Check.
func New(o Options) *Provider {
	if o.BaseURL == "" {
		o.BaseURL = defaultBaseURL
	}
	if o.MaxTokens == 0 {
		o.MaxTokens = DefaultMaxTokens
	}
	switch {
	case o.MaxRetries == 0:
		o.MaxRetries = DefaultRetries
	case o.MaxRetries < 0:
		o.MaxRetries = 0
	}
	if o.Prices == nil {
		o.Prices = Prices()
	}
	if o.HTTPClient == nil {
		// No time limit of its own: the step's timeout ends ctx.
		o.HTTPClient = &http.Client{}
	}
	return &Provider{o: o}
}

// Name is "anthropic".
func (p *Provider) Name() string { return "anthropic" }

// Check makes no request: it says whether there is a key, a usable address, and
// every tool of the step.
func (p *Provider) Check(r agent.Request) error {
	if p.o.APIKey == "" && p.o.AuthToken == "" {
		return &agent.Error{Class: agent.ClassInvalid, Err: errors.New("use provider anthropic: there is no key"),
			Hint: "set ANTHROPIC_API_KEY (or ANTHROPIC_AUTH_TOKEN), or use provider replay, which needs none"}
	}
	if u, err := url.Parse(p.o.BaseURL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return &agent.Error{Class: agent.ClassInvalid, Err: errors.New("use provider anthropic: its base URL is no http or https address"),
			Hint: "set ANTHROPIC_BASE_URL to an address like " + defaultBaseURL + ", or leave it out"}
	}
	return loop.Check(r)
}

// Converse holds one conversation.
func (p *Provider) Converse(ctx context.Context, r agent.Request) (agent.Result, error) {
	if err := p.Check(r); err != nil {
		return agent.Result{}, err
	}
	name := r.Model
	if name == "" {
		name = DefaultModel
	}
	// NewMessageService, not NewClient: the latter reads the environment and profiles.
	opts := []option.RequestOption{
		option.WithEnvironmentProduction(), option.WithBaseURL(p.o.BaseURL), option.WithHTTPClient(p.o.HTTPClient),
		option.WithMaxRetries(p.o.MaxRetries), option.WithoutOpenTelemetry(),
	}
	if p.o.APIKey != "" {
		opts = append(opts, option.WithAPIKey(p.o.APIKey))
	} else {
		opts = append(opts, option.WithAuthToken(p.o.AuthToken))
	}
	m := &model{messages: sdk.NewMessageService(opts...), maxTokens: p.o.MaxTokens, retries: p.o.MaxRetries, host: hostOf(p.o.BaseURL)}
	return loop.Run(ctx, loop.Options{Model: m, Name: name, Cost: p.o.Prices.Cost}, r)
}

func hostOf(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return "the API"
	}
	return fmt.Sprintf("%s://%s", u.Scheme, u.Host) // without user and password
}
