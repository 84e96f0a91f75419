package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/gateway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "sk-real-key-0123456789"

// place is a gateway before an API of the test, with a server in front of it.
type place struct {
	gw  *gateway.Gateway
	url string // of the gateway
}

func start(t *testing.T, api http.HandlerFunc, change func(*gateway.Options)) place {
	t.Helper()
	upstream := httptest.NewServer(api)
	t.Cleanup(upstream.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	o := gateway.Options{APIKey: key, BaseURL: upstream.URL, Transport: transport,
		Prices: gateway.PriceTable{Date: "2026-01-01", Models: map[string]gateway.Price{"m": {Rates: gateway.Rates{Input: 1e6, Output: 2e6, CacheRead: 0.5e6, CacheWrite: 3e6, CacheWrite1h: 4e6}}}}}
	if change != nil {
		change(&o)
	}
	gw, err := gateway.New(o)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(gw)
	t.Cleanup(front.Close)
	return place{gw, front.URL}
}

// ask posts a request with a token and returns status, body and headers.
func (p place) ask(t *testing.T, token, path, body string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", p.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Api-Key", token)
	r.Header.Set("Cookie", "a=b")
	r.Header.Set("Anthropic-Beta", "new-thing")
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, string(b) + "\n" + err.Error(), resp.Header
	}
	return resp.StatusCode, string(b), resp.Header
}

const whole = `{"model":"m","usage":{"input_tokens":2,"output_tokens":3,"cache_read_input_tokens":4,"cache_creation_input_tokens":5,"cache_creation":{"ephemeral_5m_input_tokens":4,"ephemeral_1h_input_tokens":1}}}`

func plainAnswer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, whole)
}

func TestTokens(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []http.Header
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		got = append(got, r.Header.Clone())
		mu.Unlock()
		w.Header().Set("Set-Cookie", "s=1")
		w.Header().Set("Retry-After", "3")
		plainAnswer(w, r)
	}, nil)
	s, other := p.gw.Open(gateway.SessionOptions{Step: "one"}), p.gw.Open(gateway.SessionOptions{Step: "two"})
	if s.Token() == other.Token() || len(s.Token()) < 40 {
		t.Errorf("tokens %q, %q", s.Token(), other.Token())
	}
	status, body, h := p.ask(t, s.Token(), "/v1/messages?beta=true", `{"model":"m","later":{"x":1}}`)
	if status != 200 || body != whole || h.Get("Set-Cookie") != "" || h.Get("Retry-After") != "3" {
		t.Errorf("%d %s %v", status, body, h)
	}
	if len(got) != 1 || got[0].Get("X-Api-Key") != key || got[0].Get("Cookie") != "" || got[0].Get("Anthropic-Beta") != "new-thing" {
		t.Fatalf("the API got %v", got)
	}
	if n := s.Spent().Requests; n != 1 || other.Spent().Requests != 0 {
		t.Errorf("counted %d and %d", n, other.Spent().Requests)
	}
	s.Close()
	for name, token := range map[string]string{"none": "", "the key": key, "a guess": "flow-step-x", "closed": s.Token()} {
		status, body, _ := p.ask(t, token, "/v1/messages", `{"model":"m"}`)
		if status != 401 || strings.Contains(body, key) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	for _, path := range []string{"/", "/v1/models", "/v1/messages/batches", "/v1//messages", "/v1/messages/../files", "/v1/messages/"} {
		if status, _, _ := p.ask(t, other.Token(), path, `{"model":"m"}`); status != 404 && status != 301 && status != http.StatusTemporaryRedirect {
			t.Errorf("%s: %d", path, status)
		}
	}
	if len(got) != 1 {
		t.Errorf("%d requests were forwarded", len(got))
	}
	if status, body, _ := p.ask(t, other.Token(), "/v1/messages", `nonsense`); status != 400 {
		t.Errorf("no JSON: %d %s", status, body)
	}
}

// TestBearer: a token as bearer, and a real one for the API.
func TestBearer(t *testing.T) {
	t.Parallel()
	var auth, apiKey, path string
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		auth, apiKey, path = r.Header.Get("Authorization"), r.Header.Get("X-Api-Key"), r.URL.String()
		plainAnswer(w, r)
	}, func(o *gateway.Options) { o.APIKey, o.AuthToken, o.BaseURL = "", key, o.BaseURL+"/prefix/" })
	s := p.gw.Open(gateway.SessionOptions{})
	r, _ := http.NewRequestWithContext(t.Context(), "POST", "http://nowhere.invalid/v1/messages/count_tokens?a=b", strings.NewReader(`{}`))
	r.Header.Set("Authorization", "Bearer "+s.Token())
	resp, err := s.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if auth != "Bearer "+key || apiKey != "" || path != "/prefix/v1/messages/count_tokens?a=b" || s.Spent().Requests != 0 {
		t.Errorf("auth %q, key %q, path %q, %+v", auth, apiKey, path, s.Spent())
	}
}

// TestNoRedirect: an API that redirects does not get the key sent elsewhere.
func TestNoRedirect(t *testing.T) {
	t.Parallel()
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:1/steal", http.StatusTemporaryRedirect)
	}, nil)
	s := p.gw.Open(gateway.SessionOptions{})
	if status, _, _ := p.ask(t, s.Token(), "/v1/messages", `{"model":"m"}`); status != http.StatusTemporaryRedirect {
		t.Errorf("status %d", status)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	p := start(t, plainAnswer, func(o *gateway.Options) { o.BaseURL = "http://user:pass-word@127.0.0.1:1" })
	s := p.gw.Open(gateway.SessionOptions{})
	status, body, h := p.ask(t, s.Token(), "/v1/messages", `{"model":"m"}`)
	if status != 502 || strings.Contains(body, "pass-word") || !strings.Contains(body, "http://127.0.0.1:1") || h.Get(gateway.RefusedHeader) != "" {
		t.Errorf("%d %s", status, body)
	}
	// A request that never was answered is not in flight any more.
	var in int
	s2 := p.gw.Open(gateway.SessionOptions{Before: func(_ context.Context, r gateway.Request) error { in = r.InFlight; return nil }})
	p.ask(t, s2.Token(), "/v1/messages", `{"model":"m"}`)
	p.ask(t, s2.Token(), "/v1/messages", `{"model":"m"}`)
	if in != 0 {
		t.Errorf("%d requests in flight", in)
	}
}

// sse writes events and flushes each.
func sse(w http.ResponseWriter, events ...string) {
	for _, e := range events {
		_, _ = fmt.Fprintf(w, "event: x\ndata: %s\n\n", e)
		w.(http.Flusher).Flush()
	}
}

const (
	begun = `{"type":"message_start","message":{"model":"m","usage":{"input_tokens":7,"output_tokens":1,"cache_read_input_tokens":2}}}`
	ended = `{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}`
)

// TestStreams: deltas are not held back; what is counted is the last word of the
// answer, however the stream is cut, and what a broken one said.
func TestStreams(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		sse(w, begun)
		<-proceed
		sse(w, `{"type":"content_block_delta","delta":{"text":"message_delta \"usage\":{\"output_tokens\":999}"}}`, ended, `{"type":"message_stop"}`)
	}, nil)
	s := p.gw.Open(gateway.SessionOptions{})
	r, _ := http.NewRequestWithContext(t.Context(), "POST", p.url+"/v1/messages", strings.NewReader(`{"model":"m","stream":true}`))
	r.Header.Set("X-Api-Key", s.Token())
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	for line := ""; !strings.Contains(line, "message_start"); {
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	close(proceed) // only now: the first event has come through
	if _, err := io.Copy(io.Discard, in); err != nil {
		t.Fatal(err)
	}
	want := agent.Spending{Requests: 1, InputTokens: 7, OutputTokens: 9, CacheReadTokens: 2, CostUSD: 7 + 18 + 1}
	if got := s.Spent(); got != want || s.Model() != "m" {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestBrokenStream(t *testing.T) {
	t.Parallel()
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		sse(w, begun)
		panic(http.ErrAbortHandler)
	}, nil)
	recorded := make(chan gateway.Exchange, 2)
	s := p.gw.Open(gateway.SessionOptions{Record: func(e gateway.Exchange) { recorded <- e }})
	_, body, _ := p.ask(t, s.Token(), "/v1/messages", `{"model":"m","stream":true}`)
	got := <-recorded
	if !strings.Contains(body, "unexpected EOF") {
		t.Errorf("the cut answer looks whole: %q", body)
	}
	if n := s.Spent(); n.InputTokens != 7 || n.OutputTokens != 1 {
		t.Errorf("spent %+v", n)
	}
	if len(recorded) != 0 || got.Whole || string(got.Request) != `{"model":"m","stream":true}` || !strings.Contains(string(got.Response), begun) {
		t.Errorf("recorded %+v and %d more", got, len(recorded))
	}
}

// TestBudget: one answer passes a budget, the next request is refused, and the
// refusal is one that no client repeats.
func TestBudget(t *testing.T) {
	t.Parallel()
	forwarded := 0
	p := start(t, func(w http.ResponseWriter, r *http.Request) { forwarded++; plainAnswer(w, r) }, nil)
	// One answer costs 2 + 6 + 2 + 12 + 4 dollars and 14 tokens.
	run := agent.NewAccount("the run", agent.Budget{Tokens: 20}, agent.Spending{}, nil)
	step := agent.NewAccount("step one", agent.Budget{CostUSD: 20}, agent.Spending{}, run)
	s := p.gw.Open(gateway.SessionOptions{Account: step})
	if status, body, _ := p.ask(t, s.Token(), "/v1/messages", `{"model":"m"}`); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if c := step.Spent().CostUSD; math.Abs(c-26) > 1e-9 {
		t.Errorf("cost %v", c)
	}
	status, body, h := p.ask(t, s.Token(), "/v1/messages", `{"model":"m"}`)
	var e struct{ Error struct{ Message string } }
	if json.Unmarshal([]byte(body), &e) != nil || status != 403 || h.Get("X-Should-Retry") != "false" || h.Get(gateway.RefusedHeader) != "budget" ||
		e.Error.Message != "flow: the budget of step one is spent: cost_usd: 26.0000 of 20.0000 (passed by 6.0000); raise the budget in the file, then `flow resume --accept-changes`" {
		t.Errorf("%d %v %s", status, h, body)
	}
	if r := s.Refused(); r == nil || r.Class != agent.ClassBudget {
		t.Errorf("refused %v", r)
	}
	// Another step of the run has what the run has left: one answer more.
	other := p.gw.Open(gateway.SessionOptions{Account: agent.NewAccount("step two", agent.Budget{}, agent.Spending{}, run)})
	if status, _, _ := p.ask(t, other.Token(), "/v1/messages", `{"model":"m"}`); status != 200 {
		t.Errorf("status %d", status)
	}
	if status, body, _ := p.ask(t, other.Token(), "/v1/messages", `{"model":"m"}`); status != 403 || !strings.Contains(body, "the budget of the run is spent: tokens: 28 of 20") {
		t.Errorf("%d %s", status, body)
	}
	if forwarded != 2 {
		t.Errorf("%d requests were forwarded", forwarded)
	}
	// What earlier attempts spent counts.
	late := p.gw.Open(gateway.SessionOptions{Account: agent.NewAccount("step three", agent.Budget{Tokens: 10}, agent.Spending{InputTokens: 10}, nil)})
	if status, _, _ := p.ask(t, late.Token(), "/v1/messages", `{"model":"m"}`); status != 403 {
		t.Errorf("status %d", status)
	}
}

// TestNoPrice: a budget in dollars needs a price; one in tokens does not.
func TestNoPrice(t *testing.T) {
	t.Parallel()
	p := start(t, plainAnswer, nil)
	s := p.gw.Open(gateway.SessionOptions{Account: agent.NewAccount("x", agent.Budget{CostUSD: 1}, agent.Spending{}, nil)})
	if status, body, _ := p.ask(t, s.Token(), "/v1/messages", `{"model":"unknown"}`); status != 400 || !strings.Contains(body, `no price is known for model \"unknown\"`) {
		t.Errorf("%d %s", status, body)
	}
	free := p.gw.Open(gateway.SessionOptions{Account: agent.NewAccount("x", agent.Budget{Tokens: 100}, agent.Spending{}, nil)})
	if status, _, _ := p.ask(t, free.Token(), "/v1/messages", `{"model":"unknown"}`); status != 200 {
		t.Errorf("status %d", status)
	}
}

// TestBefore: a request is held until Before has answered, and may be refused.
func TestBefore(t *testing.T) {
	t.Parallel()
	inside, proceed := make(chan struct{}), make(chan struct{})
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		inside <- struct{}{}
		<-proceed
		plainAnswer(w, r)
	}, nil)
	var seen []gateway.Request
	s := p.gw.Open(gateway.SessionOptions{Before: func(_ context.Context, r gateway.Request) error {
		seen = append(seen, r)
		if r.Number == 3 {
			return errors.New("the turn could not be stored")
		}
		return nil
	}})
	var wg sync.WaitGroup
	wg.Go(func() { p.ask(t, s.Token(), "/v1/messages", `{"model":"m"}`) })
	<-inside
	wg.Go(func() { p.ask(t, s.Token(), "/v1/messages", `{"model":"m"}`) })
	<-inside
	close(proceed)
	wg.Wait()
	status, body, h := p.ask(t, s.Token(), "/v1/messages", `{"model":"m"}`)
	if status != 503 || !strings.Contains(body, "the turn could not be stored") || h.Get("X-Should-Retry") != "false" {
		t.Errorf("%d %s", status, body)
	}
	if len(seen) != 3 || seen[0].InFlight != 0 || seen[1].InFlight != 1 || seen[2].InFlight != 0 || seen[2].Number != 3 || seen[0].Model != "m" {
		t.Errorf("seen %+v", seen)
	}
}

func TestPrices(t *testing.T) {
	t.Parallel()
	base := gateway.Prices()
	for _, name := range []string{"claude-sonnet-5-5", "claude-sonnet-5-5-20261001", "claude-opus-5-5[1m]", "claude-haiku-5-5-latest"} {
		if _, ok := base.Of(name); !ok {
			t.Errorf("no price for %s", name)
		}
	}
	if _, ok := base.Of("claude-sonnet-9"); ok {
		t.Error("a price for a model that is not in the table")
	}
	for model, p := range base.Models {
		if p.Input <= 0 || p.Output <= p.Input || p.CacheRead >= p.Input || p.CacheWrite <= p.Input {
			t.Errorf("%s: %+v", model, p)
		}
	}
	own, err := gateway.ParsePrices("f", []byte("date: 2026-11-01\nmodels:\n  mine: {input: 1, output: 2, long_from: 10, long: {input: 3, output: 4}}\n"), base)
	if err != nil || own.Date != "2026-11-01" || len(own.Models) != len(base.Models)+1 || own.Models["mine"].Long.Output != 4 {
		t.Errorf("%+v, %v", own, err)
	}
	for text, want := range map[string]string{
		"models: {a: {input: 1}}":                              "date is",
		"date: 2026-01-01\nmodels: {a: {inptu: 1}}":            "inptu",
		"date: 2026-01-01\nmodels: {a: {input: -1}}":           "negative",
		"date: 2026-01-01\nmodels: {a: {long_from: 5}}":        "go together",
		"date: 2026-01-01\nmodels: {a: {input: many dollars}}": "line 2",
	} {
		if _, err := gateway.ParsePrices("f", []byte(text), base); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// TestLongPrompt: above the bound the whole request costs more.
func TestLongPrompt(t *testing.T) {
	t.Parallel()
	for input, want := range map[int]float64{100_000: 0.010005, 100_001: 0.0500255} {
		p := start(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(w, `{"model":"claude-haiku-5-5","usage":{"input_tokens":%d,"output_tokens":10}}`, input)
		}, func(o *gateway.Options) { o.Prices = gateway.PriceTable{} })
		s := p.gw.Open(gateway.SessionOptions{})
		p.ask(t, s.Token(), "/v1/messages", `{"model":"claude-haiku-5-5"}`)
		if got := s.Spent().CostUSD; math.Abs(got-want) > 1e-9 {
			t.Errorf("%d tokens cost %v, want %v", input, got, want)
		}
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	for _, o := range []gateway.Options{{}, {APIKey: key, BaseURL: "nonsense"}, {APIKey: key, BaseURL: "ftp://x"}, {APIKey: key, BaseURL: "http://"}} {
		if _, err := gateway.New(o); err == nil || strings.Contains(err.Error(), key) {
			t.Errorf("%+v: %v", o.BaseURL, err)
		}
	}
}
