package claudecode_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/agenttest"
)

// TestContinue: a conversation goes on after each of its turns, in a sandbox that knows
// nothing of it: what was complete is neither asked for nor executed again, and the
// model is told it as it was.
func TestContinue(t *testing.T) {
	t.Parallel()
	script := []agenttest.Turn{
		{Text: "first", Tools: []agenttest.Call{{Name: "Bash", Input: map[string]any{"command": "echo 1 >> log"}}, {Name: "WebFetch", Input: map[string]any{"url": "http://x"}}}},
		shell("echo 2 >> log"),
		shell("echo 3 >> log"),
		{Text: "All done."},
	}
	type outcome struct {
		res      agent.Result
		err      *agent.Error
		turns    []agent.Turn
		log      string
		requests []agenttest.Request
	}
	converse := func(turns []agenttest.Turn, change func(*agent.Request)) (o outcome) {
		t.Helper()
		p, api := provider(t, turns)
		sb, dir := agenttest.Sandbox(t)
		r := agent.Request{RunID: "run", StepID: "step", Attempt: 1, Prompt: "count", Allowed: []string{"Bash"}, Sandbox: sb,
			Turn: func(turn agent.Turn) error { o.turns = append(o.turns, turn); return nil }}
		change(&r)
		res, err := p.Converse(t.Context(), r)
		if err != nil && !errors.As(err, &o.err) {
			t.Fatal(err)
		}
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		o.res, o.log, o.requests = res, strings.ReplaceAll(string(log), "\n", ""), api.Requests()
		return o
	}
	whole := converse(script, func(*agent.Request) {})
	if whole.err != nil || len(whole.turns) != len(script) || whole.turns[0].Prompt != "count" || whole.log != "123" {
		t.Fatalf("%v, log %q, turns %+v", whole.err, whole.log, whole.turns)
	}
	for k := 1; k <= len(script); k++ {
		o := converse(script[k:], func(r *agent.Request) { r.Continue, r.Attempt = whole.turns[:k], 2 })
		if o.err != nil || o.res.Text != "All done." || o.res.StopReason != "end_turn" || o.res.Usage.Turns != len(script)-k || len(o.requests) != len(script)-k {
			t.Errorf("after turn %d: %v, %d requests, %+v", k, o.err, len(o.requests), o.res)
		}
		if len(o.turns) != len(script)-k || len(o.turns) > 0 && o.turns[0].Index != k {
			t.Errorf("after turn %d: recorded %+v", k, o.turns)
		}
		if o.log != "123"[min(k, 3):] {
			t.Errorf("after turn %d: the log holds %q", k, o.log)
		}
		if len(o.requests) == 0 {
			continue
		}
		// What the model is told: the prompt, each answer and each result, once.
		raw := string(o.requests[0].Raw)
		for i, turn := range whole.turns {
			var m struct {
				Content []struct{ ID string }
			}
			if err := json.Unmarshal(turn.Response, &m); err != nil {
				t.Fatal(err)
			}
			for _, b := range m.Content {
				if b.ID == "" {
					continue
				}
				if n := strings.Count(raw, `"`+b.ID+`"`); n != map[bool]int{true: 2, false: 0}[i < k] {
					t.Errorf("after turn %d: the call %s of turn %d is there %d times", k, b.ID, i+1, n)
				}
			}
		}
	}
	for name, change := range map[string]func(*agent.Request){
		"another prompt": func(r *agent.Request) { r.Prompt = "something else" },
		"a gap":          func(r *agent.Request) { r.Continue = []agent.Turn{whole.turns[0], whole.turns[2]} },
		"damage":         func(r *agent.Request) { r.Continue[0].Response = json.RawMessage(`{"content":7}`) },
		"max_turns":      func(r *agent.Request) { r.MaxTurns = 2 },
	} {
		o := converse(script, func(r *agent.Request) {
			r.Continue = append([]agent.Turn(nil), whole.turns[:2]...)
			change(r)
		})
		if o.err == nil || o.err.Hint == "" || len(o.requests) != 0 {
			t.Errorf("%s: %v, %d requests", name, o.err, len(o.requests))
		}
	}
}
