package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"flowrun.dev/flow/agent"
)

// PublicURL is the API's public address.
const PublicURL = "https://api.anthropic.com"

// SettingHint says how the key and the address are set.
const SettingHint = "set ANTHROPIC_API_KEY (or ANTHROPIC_AUTH_TOKEN), and ANTHROPIC_BASE_URL for another address than " + PublicURL +
	"; provider replay needs neither"

// Options of a Gateway. One of APIKey and AuthToken is needed.
type Options struct {
	BaseURL   string // "" is PublicURL
	APIKey    string // sent as X-Api-Key
	AuthToken string // sent as Authorization: Bearer
	// Prices; a table without models is Prices().
	Prices PriceTable
	// Transport to the API; nil is one of its own, which honours the environment's
	// proxy settings.
	Transport http.RoundTripper
}

// Gateway knows one API. It serves the sessions that Open made; several goroutines
// may use it.
type Gateway struct {
	o    Options
	base *url.URL

	mu       sync.Mutex
	sessions map[[sha256.Size]byte]*Session
}

// New returns a gateway; the error says what is wrong with the options, without the key.
func New(o Options) (*Gateway, error) {
	if o.APIKey == "" && o.AuthToken == "" {
		return nil, errors.New("there is no key")
	}
	if o.BaseURL == "" {
		o.BaseURL = PublicURL
	}
	u, err := url.Parse(o.BaseURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("its base URL is no http or https address")
	}
	if o.Prices.Models == nil {
		o.Prices = Prices()
	}
	if o.Transport == nil {
		o.Transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	return &Gateway{o: o, base: u, sessions: map[[sha256.Size]byte]*Session{}}, nil
}

// Host is the API's address without user, password and path, for messages.
func (g *Gateway) Host() string { return g.base.Scheme + "://" + g.base.Host }

// Prices that the gateway counts with.
func (g *Gateway) Prices() PriceTable { return g.o.Prices }

// Request is what Options.Before learns of a request to the model.
type Request struct {
	// Number of the request in its session, from 1. Those that were refused count.
	Number int
	// InFlight are the session's other requests that have not ended: a turn is
	// complete only at 0 (subagents ask in parallel).
	InFlight int
	Model    string
	Body     []byte
}

// Exchange is one request to the model with its answer, for recording.
type Exchange struct {
	Request      []byte
	Status       int
	ContentType  string
	Response     []byte // as it came
	Whole        bool   // the answer reached its end
	ResponseHead http.Header
	// Err is why the API was not reached; there is no answer then, and Status is 0.
	Err error
}

// SessionOptions are what belongs to one attempt of a step.
type SessionOptions struct {
	Step string // for messages
	// Account that answers are counted in; nil: nothing bounds them.
	Account *agent.Account
	// Before is asked before a request to the model is forwarded, one request at a
	// time; its error refuses the request. nil for none.
	Before func(ctx context.Context, r Request) error
	// Record gets every exchange that was not refused, after its end; nil for none.
	Record func(Exchange)
}

// Session is one attempt of a step.
type Session struct {
	g     *Gateway
	o     SessionOptions
	token string

	before sync.Mutex // Before is asked for one request at a time

	mu       sync.Mutex
	closed   bool
	number   int
	inFlight int
	spent    agent.Spending
	model    string
	refused  *agent.Error
}

// Open makes a session with a token of its own.
func (g *Gateway) Open(o SessionOptions) *Session {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	// The prefix lets a key scanner, and a person, see what it is.
	s := &Session{g: g, o: o, token: "flow-step-" + base64.RawURLEncoding.EncodeToString(raw)}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sessions[sha256.Sum256([]byte(s.token))] = s
	return s
}

// Token is what the session's requests have to show, as X-Api-Key or as bearer: the
// placeholder that stands for the key inside the sandbox.
func (s *Session) Token() string { return s.token }

// Close ends the session: its token is worth nothing any more.
func (s *Session) Close() {
	s.g.mu.Lock()
	delete(s.g.sessions, sha256.Sum256([]byte(s.token)))
	s.g.mu.Unlock()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
}

// Spent by this session.
func (s *Session) Spent() agent.Spending {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spent
}

// Model that answered last, "" for none.
func (s *Session) Model() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.model
}

// Refused is the last reason why the gateway itself refused a request of this
// session, nil for none: an agent may hide it in words of its own.
func (s *Session) Refused() *agent.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

func (g *Gateway) session(h http.Header) *Session {
	token := h.Get("X-Api-Key")
	if token == "" {
		const bearer = "Bearer "
		if v := h.Get("Authorization"); len(v) > len(bearer) && v[:len(bearer)] == bearer {
			token = v[len(bearer):]
		}
	}
	// The lookup is by hash, so its time says nothing about the tokens there are.
	sum := sha256.Sum256([]byte(token))
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sessions[sum]
}

// enter judges a request to the model and counts it in; leave has to follow a nil.
func (s *Session) enter(ctx context.Context, model string, body []byte) *agent.Error {
	s.before.Lock()
	defer s.before.Unlock()
	s.mu.Lock()
	s.number++
	r := Request{Number: s.number, InFlight: s.inFlight, Model: model, Body: body}
	s.mu.Unlock()
	err := s.judge(ctx, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.refused = err
		return err
	}
	s.inFlight++
	return nil
}

func (s *Session) judge(ctx context.Context, r Request) *agent.Error {
	if s.o.Before != nil {
		if err := s.o.Before(ctx, r); err != nil {
			var ae *agent.Error
			if errors.As(err, &ae) {
				return ae
			}
			return &agent.Error{Class: agent.ClassInfrastructure, Err: err}
		}
	}
	if err := s.o.Account.Refusal(); err != nil {
		return err
	}
	return Priced(s.g.o.Prices, r.Model, s.o.Account.BoundsCost())
}

// Priced refuses a model without a price where a budget in dollars has to be kept:
// it could not be counted.
func Priced(t PriceTable, model string, bounds bool) *agent.Error {
	if _, known := t.Of(model); known || !bounds {
		return nil
	}
	return &agent.Error{Class: agent.ClassInvalid, Err: fmt.Errorf("keep budget.cost_usd: no price is known for model %q", model),
		Hint: "add its price to the file that FLOW_PRICES names, or bound tokens instead (budget.tokens)"}
}

// leave counts an answer that ended, whole or not.
func (s *Session) leave(asked string, m *meter) {
	var spent agent.Spending
	model := asked
	if m != nil && m.seen {
		hour := int64(0)
		spent, hour = m.usage.spending()
		if m.model != "" {
			model = m.model
		}
		if p, known := s.g.o.Prices.Of(model); known {
			spent.CostUSD = p.cost(spent, hour)
		} else if p, known := s.g.o.Prices.Of(asked); known {
			spent.CostUSD = p.cost(spent, hour)
		} else {
			spent.CostUnknown = true
		}
		s.o.Account.Add(spent)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
	if m != nil && m.seen {
		s.spent = s.spent.Plus(spent)
		s.model = model
	}
}
