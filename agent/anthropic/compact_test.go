package anthropic_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/agenttest"
	"flowrun.dev/flow/agent/anthropic"
)

// TestCompaction: when the API says that a conversation is too long, old results are left
// out, in pairs with their calls, and it goes on; a resume makes the very same requests.
func TestCompaction(t *testing.T) {
	t.Parallel()
	long := agenttest.Turn{Status: 400, Type: "invalid_request_error", Message: "prompt is too long: 205000 tokens > 200000 maximum"}
	var script []agenttest.Turn
	for i := range 10 {
		script = append(script, agenttest.Turn{Tools: []agenttest.Call{{Name: "Bash", Input: map[string]any{"command": fmt.Sprintf("seq %d0000 %d0300", i+1, i+1)}}}})
	}
	script = append(script, long, agenttest.Turn{Tools: []agenttest.Call{{Name: "Bash", Input: map[string]any{"command": "seq 1000"}}}}, agenttest.Turn{Text: "done"})
	api := agenttest.NewServer(t, script...)
	sb, _ := agenttest.Sandbox(t)
	var turns []agent.Turn
	var out strings.Builder
	r := agent.Request{StepID: "step", Prompt: "do it", Allowed: []string{"Bash"}, Sandbox: sb, Out: &out, Turn: func(turn agent.Turn) error { turns = append(turns, turn); return nil }}
	res, err := anthropic.New(options(t, api.URL)).Converse(t.Context(), r)
	if err != nil || res.Text != "done" || len(turns) != 12 || !strings.Contains(out.String(), "old results of tools are left out") {
		t.Fatalf("%v, %+v, %d turns\n%s", err, res, len(turns), out.String())
	}
	requests := api.Requests()
	refused, shorter, after := requests[10].Raw, requests[11].Raw, requests[12].Raw
	if len(shorter) >= len(refused) || turns[10].Compacted == nil || turns[10].Compacted.LeftOut == 0 || turns[9].Compacted != nil {
		t.Errorf("%d bytes after %d, %+v", len(shorter), len(refused), turns[10].Compacted)
	}
	paired(t, requests[11])
	paired(t, requests[12])
	if strings.Count(string(after), "were left out") != turns[10].Compacted.LeftOut {
		t.Errorf("what was left out came back")
	}
	// Killed before the last request: the resumed one is the same.
	again := agenttest.NewServer(t, agenttest.Turn{Text: "done"})
	r.Continue, r.Turn, r.Sandbox = turns[:11], nil, sb
	if _, err := anthropic.New(options(t, again.URL)).Converse(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if got := again.Requests()[0].Raw; string(got) != string(after) {
		t.Errorf("the resumed request has %d bytes, want the %d of before", len(got), len(after))
	}
	// Nothing is left that could be left out: a clear error.
	api = agenttest.NewServer(t, long, long, long, long)
	r.Continue = nil
	_, err = anthropic.New(options(t, api.URL)).Converse(t.Context(), r)
	var ae *agent.Error
	if !errors.As(err, &ae) || ae.Class != agent.ClassFailed || !strings.Contains(ae.Error(), "no longer fits into the model's context window") || !strings.Contains(ae.Hint, "smaller task") || len(api.Requests()) != 1 {
		t.Errorf("%v, %d requests", err, len(api.Requests()))
	}
}

// paired: every result follows the message with its call.
func paired(t *testing.T, r agenttest.Request) {
	t.Helper()
	calls := map[string]bool{}
	for _, m := range r.Body.Messages {
		next := map[string]bool{}
		for _, b := range m.Content {
			var kind, id, of string
			_ = json.Unmarshal(b["type"], &kind)
			_ = json.Unmarshal(b["id"], &id)
			_ = json.Unmarshal(b["tool_use_id"], &of)
			switch kind {
			case "tool_use":
				next[id] = true
			case "tool_result":
				if !calls[of] {
					t.Errorf("the result %s has no call before it", of)
				}
				delete(calls, of)
			}
		}
		if len(calls) > 0 {
			t.Errorf("calls without results: %v", calls)
		}
		calls = next
	}
}
