package anthropic_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/agenttest"
	"flowrun.dev/flow/agent/anthropic"
	"flowrun.dev/flow/agent/gateway"
)

func TestMain(m *testing.M) {
	if agenttest.MCPMain() {
		return
	}
	goleak.VerifyTestMain(m)
}

// options of a provider that talks to a scripted API and does not wait.
func options(t testing.TB, url string) anthropic.Options {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return anthropic.Options{MaxRetries: -1, Gateway: func() (*gateway.Gateway, error) {
		return gateway.New(gateway.Options{APIKey: "k-secret", BaseURL: url, Transport: transport})
	}}
}

// TestConformance runs the suite over the official SDK and real HTTP.
func TestConformance(t *testing.T) {
	t.Parallel()
	agenttest.Run(t, func(t *testing.T, turns []agenttest.Turn, r *agent.Request) agent.Provider {
		r.Model = "claude-test"
		return anthropic.New(options(t, agenttest.NewServer(t, turns[len(r.Continue):]...).URL))
	})
}

// converse holds one conversation with change made to the provider's options.
func converse(t *testing.T, s *agenttest.Server, change func(*anthropic.Options)) (agent.Result, *agent.Error) {
	t.Helper()
	sb, _ := agenttest.Sandbox(t)
	o := options(t, s.URL)
	if change != nil {
		change(&o)
	}
	res, err := anthropic.New(o).Converse(t.Context(), agent.Request{StepID: "step", Prompt: "do it", Allowed: []string{"Bash", "Read"}, Sandbox: sb})
	var ae *agent.Error
	if err != nil && !errors.As(err, &ae) {
		t.Fatalf("the error is no *agent.Error: %T %v", err, err)
	}
	return res, ae
}

// TestErrors: what the API answers, and what becomes of it.
func TestErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		turn  agenttest.Turn
		class agent.Class
		after time.Duration
		words []string
	}{
		{"400", agenttest.Turn{Status: 400, Type: "invalid_request_error", Message: "max_tokens: 9 > 8"}, agent.ClassInvalid, 0, []string{"HTTP 400", "max_tokens: 9 > 8", "req_test_1"}},
		{"401", agenttest.Turn{Status: 401, Type: "authentication_error", Message: "invalid x-api-key"}, agent.ClassInvalid, 0, []string{"HTTP 401", "invalid x-api-key"}},
		{"403", agenttest.Turn{Status: 403, Type: "permission_error", Message: "no"}, agent.ClassInvalid, 0, []string{"permission_error"}},
		{"404", agenttest.Turn{Status: 404, Type: "not_found_error", Message: "model: claude-none"}, agent.ClassInvalid, 0, []string{"model: claude-none"}},
		{"413", agenttest.Turn{Status: 413, Type: "request_too_large", Message: "too big"}, agent.ClassFailed, 0, []string{"too big"}},
		{"429", agenttest.Turn{Status: 429, Type: "rate_limit_error", Message: "slow down", Headers: map[string]string{"Retry-After": "7"}}, agent.ClassRateLimit, 7 * time.Second, []string{"slow down"}},
		{"529", agenttest.Turn{Status: 529, Type: "overloaded_error", Message: "busy"}, agent.ClassRateLimit, 0, []string{"HTTP 529", "busy"}},
		{"500", agenttest.Turn{Status: 500, Type: "api_error", Message: "oops"}, agent.ClassInfrastructure, 0, []string{"HTTP 500"}},
		{"overloaded in the stream", agenttest.Turn{MidError: true, Type: "overloaded_error", Message: "busy"}, agent.ClassRateLimit, 0, []string{"broke off with an error", "busy"}},
		{"error in the stream", agenttest.Turn{MidError: true, Type: "api_error", Message: "oops"}, agent.ClassInfrastructure, 0, []string{"oops"}},
		{"the connection drops", agenttest.Turn{Text: "half of", Drop: true}, agent.ClassInfrastructure, 0, []string{"broke off before its end"}},
		{"the stream ends early", agenttest.Turn{Text: "half of", Cut: true}, agent.ClassInfrastructure, 0, []string{"broke off before its end"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res, err := converse(t, agenttest.NewServer(t, c.turn), nil)
			if err == nil || err.Class != c.class || err.RetryAfter != c.after {
				t.Fatalf("got %+v, want class %s after %v", err, c.class, c.after)
			}
			for _, w := range c.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q lacks %q", err.Error(), w)
				}
			}
			if strings.Contains(err.Error()+err.Hint, "k-secret") {
				t.Error("the key is in the error")
			}
			if res.Usage.Turns != 0 {
				t.Errorf("a broken answer was counted: %+v", res.Usage)
			}
		})
	}
}

// TestUnreachable: nobody listens.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	s := agenttest.NewServer(t)
	_, err := converse(t, s, func(o *anthropic.Options) { *o = options(t, "http://127.0.0.1:1") })
	if err == nil || err.Class != agent.ClassInfrastructure || !strings.Contains(err.Error(), "http://127.0.0.1:1") || err.Hint == "" {
		t.Errorf("got %+v", err)
	}
}

// TestRetries: a broken stream and a busy server are asked again, by the SDK and by
// us, and the answer then counts once.
func TestRetries(t *testing.T) {
	t.Parallel()
	s := agenttest.NewServer(t,
		agenttest.Turn{Status: 529, Type: "overloaded_error", Headers: map[string]string{"Retry-After-Ms": "1"}},
		agenttest.Turn{Text: "half", Cut: true},
		agenttest.Turn{Text: "whole", Input: 5, Output: 2})
	res, err := converse(t, s, func(o *anthropic.Options) { o.MaxRetries = 2 })
	if err != nil || res.Text != "whole" || res.Usage.Turns != 1 || res.Usage.InputTokens != 5 || len(s.Requests()) != 3 {
		t.Errorf("%+v, %v, %d requests", res, err, len(s.Requests()))
	}
}

// TestCancelledRequest: the end of ctx ends a request that nobody answers.
func TestCancelledRequest(t *testing.T) {
	t.Parallel()
	s := agenttest.NewServer(t, agenttest.Turn{Hold: true})
	sb, _ := agenttest.Sandbox(t)
	cause := errors.New("stopped from outside")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-s.Held; cancel(cause) }()
	_, err := anthropic.New(options(t, s.URL)).Converse(ctx, agent.Request{StepID: "step", Prompt: "wait", Allowed: []string{"Read"}, Sandbox: sb})
	if !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

// TestRequestBody: what is sent is cached, and blocks unknown to us go back as they came.
func TestRequestBody(t *testing.T) {
	t.Parallel()
	const thinking = `{"type":"thinking","thinking":"hm","signature":"c2ln","later":{"x":1}}`
	s := agenttest.NewServer(t,
		agenttest.Turn{Blocks: []string{thinking}, Text: "I look", Tools: []agenttest.Call{{Name: "Bash", Input: map[string]any{"command": "echo hi"}}}},
		agenttest.Turn{Text: "done"})
	if _, err := converse(t, s, nil); err != nil {
		t.Fatal(err)
	}
	rs := s.Requests()
	if len(rs) != 2 {
		t.Fatalf("%d requests", len(rs))
	}
	for i, r := range rs {
		last := r.Body.Messages[len(r.Body.Messages)-1]
		if r.Body.System[0].CacheControl == nil || last.Content[len(last.Content)-1]["cache_control"] == nil {
			t.Errorf("request %d is not marked for the cache", i)
		}
		if n := strings.Count(string(r.Raw), "cache_control"); n != 2 {
			t.Errorf("request %d has %d cache marks", i, n)
		}
		if r.Header.Get("Anthropic-Version") == "" || !r.Body.Stream {
			t.Errorf("request %d: %v", i, r.Header)
		}
	}
	m := rs[1].Body.Messages
	if len(m) != 3 || m[1].Role != "assistant" || len(m[1].Content) != 3 {
		t.Fatalf("messages: %+v", m)
	}
	var signature string
	if json.Unmarshal(m[1].Content[0]["signature"], &signature) != nil || signature != "c2ln" || string(m[1].Content[0]["later"]) != `{"x":1}` {
		t.Errorf("the thinking block went back as %v", m[1].Content[0])
	}
}
