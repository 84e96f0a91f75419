package claudecode_test

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/agenttest"
)

// ask holds one conversation with the real CLI and everything allowed.
func ask(t *testing.T, p agent.Provider, change func(*agent.Request)) (agent.Result, *agent.Error, string) {
	t.Helper()
	sb, _ := agenttest.Sandbox(t)
	var out bytes.Buffer
	r := agent.Request{RunID: "run", StepID: "step", Attempt: 1, Prompt: "make it so", Allowed: []string{"Bash", "Read", "Write"}, Sandbox: sb, Out: &out}
	if change != nil {
		change(&r)
	}
	res, err := p.Converse(t.Context(), r)
	var ae *agent.Error
	if err != nil && !errors.As(err, &ae) {
		t.Fatalf("the error is no *agent.Error: %T %v", err, err)
	}
	return res, ae, out.String()
}

func shell(command string) agenttest.Turn {
	return agenttest.Turn{Tools: []agenttest.Call{{Name: "Bash", Input: map[string]any{"command": command}}}}
}

// TestOutcomes: every way in which a conversation ends, on the real CLI.
func TestOutcomes(t *testing.T) {
	end := agenttest.Turn{Text: "done", Input: 5, Output: 5}
	status := func(code int, kind string) []agenttest.Turn {
		return []agenttest.Turn{{Status: code, Type: kind, Message: "the API's words", Headers: map[string]string{"Retry-After": "7"}}, end}
	}
	for name, c := range map[string]struct {
		turns    []agenttest.Turn
		class    agent.Class
		text     string
		requests int
	}{
		"success": {[]agenttest.Turn{end}, "", "", 1},
		// The CLI tries again without what the API may not have understood; the script,
		// which is empty, answers each time with 400.
		"400":                 {nil, agent.ClassInvalid, "no more turns", -1},
		"401":                 {status(401, "authentication_error"), agent.ClassInvalid, "HTTP 401 Unauthorized: authentication_error: the API's words", 1},
		"403":                 {status(403, "permission_error"), agent.ClassInvalid, "HTTP 403", 1},
		"404, no such model":  {status(404, "not_found_error"), agent.ClassInvalid, "HTTP 404", 1},
		"413":                 {status(413, "request_too_large"), agent.ClassInvalid, "HTTP 413", 1},
		"429":                 {status(429, "rate_limit_error"), agent.ClassRateLimit, "HTTP 429", 1},
		"529":                 {status(529, "overloaded_error"), agent.ClassRateLimit, "HTTP 529", 1},
		"500":                 {status(500, "api_error"), agent.ClassInfrastructure, "HTTP 500", 1},
		"error in the middle": {[]agenttest.Turn{{MidError: true, Type: "overloaded_error", Message: "x"}, end}, agent.ClassRateLimit, "overloaded_error", 1},
		// An answer that ends without saying so: the CLI goes on from what came.
		"cut, then on":        {[]agenttest.Turn{{Text: "half", Cut: true}, end}, "", "", 2},
		"refusal":             {[]agenttest.Turn{{Text: "no", StopReason: "refusal"}, end}, agent.ClassFailed, "refused", 1},
		"pause":               {[]agenttest.Turn{{Text: "wait", StopReason: "pause_turn"}, end}, "", "", 2},
		"max_tokens, then on": {[]agenttest.Turn{{Text: "half", StopReason: "max_tokens"}, end}, "", "", 2},
		"SIGKILL":             {[]agenttest.Turn{shell("kill -KILL $PPID; sleep 5"), end}, agent.ClassInfrastructure, "signal: killed", 1},
		"SIGTERM":             {[]agenttest.Turn{shell("kill -TERM $PPID; sleep 5"), end}, agent.ClassInfrastructure, "signal: terminated", 1},
		"SIGHUP":              {[]agenttest.Turn{shell("kill -HUP $PPID; sleep 5"), end}, agent.ClassInfrastructure, "signal: hangup", 1},
		"SIGINT":              {[]agenttest.Turn{shell("kill -INT $PPID; sleep 5"), end}, agent.ClassInfrastructure, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, api := provider(t, c.turns)
			res, err, out := ask(t, p, nil)
			if (err == nil) != (c.class == "") || err != nil && (err.Class != c.class || !strings.Contains(err.Error(), c.text)) {
				t.Errorf("got %v, want class %q with %q\n%s", err, c.class, c.text, out)
			}
			if n := len(api.Requests()); n != c.requests && (c.requests >= 0 || n > 10) {
				t.Errorf("%d requests, want %d: retries are the engine's", n, c.requests)
			}
			switch {
			case err == nil:
				if res.Text != "done" || res.Usage.InputTokens == 0 {
					t.Errorf("result %+v", res)
				}
			case c.class == agent.ClassRateLimit && name != "error in the middle":
				if err.RetryAfter != 7*time.Second {
					t.Errorf("Retry-After: %v", err.RetryAfter)
				}
			}
		})
	}
}

// TestDropped: a connection that breaks in an answer. Whether the CLI ends, or asks
// once more by itself, depends on how much of the answer it had read by then
// (seen on 2.1.330). Both have to come out
// whole: the error of what broke, or the answer to the second request.
func TestDropped(t *testing.T) {
	t.Parallel()
	p, api := provider(t, []agenttest.Turn{{Text: "half", Drop: true}, {Text: "done", Input: 5, Output: 5}})
	res, err, out := ask(t, p, nil)
	switch n := len(api.Requests()); {
	case err != nil && n == 1:
		if err.Class != agent.ClassInfrastructure || !strings.Contains(err.Error(), "broke off") {
			t.Errorf("got %v, want class %q with %q\n%s", err, agent.ClassInfrastructure, "broke off", out)
		}
	case err == nil && n == 2:
		if res.Text != "done" || res.Usage.InputTokens == 0 {
			t.Errorf("asked again: result %+v", res)
		}
	default:
		t.Errorf("%d requests and error %v: neither ended nor asked once more\n%s", n, err, out)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	cli := agenttest.Claude(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + ln.Addr().String()
	ln.Close() // nobody is there any more
	_, ae, _ := ask(t, newProvider(t, cli, url), nil)
	if ae == nil || ae.Class != agent.ClassInfrastructure || !strings.Contains(ae.Error(), "connection refused") {
		t.Errorf("got %v", ae)
	}
}
