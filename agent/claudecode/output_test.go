package claudecode_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/agenttest"
)

// TestOutput: output_schema by the CLI's own tool, with our reminders and our check.
func TestOutput(t *testing.T) {
	t.Parallel()
	give := func(v any) agenttest.Turn {
		return agenttest.Turn{Tools: []agenttest.Call{{Name: "StructuredOutput", Input: v}}}
	}
	good, bad := give(map[string]any{"found": 3}), give(map[string]any{"found": "three"})
	talk := agenttest.Turn{Text: "I found three."}
	for name, c := range map[string]struct {
		turns []agenttest.Turn
		want  string // of the value, or of the error
		asked int
	}{
		"at once":       {[]agenttest.Turn{good, talk}, `{"found":3}`, 1},
		"after a tool":  {[]agenttest.Turn{shell("true"), good, talk}, `{"found":3}`, 2},
		"after a wrong": {[]agenttest.Turn{bad, good, talk}, `{"found":3}`, 2},
		"reminded":      {[]agenttest.Turn{talk, good, talk}, `{"found":3}`, 2},
		"never":         {[]agenttest.Turn{talk, talk, talk, talk, talk, talk, talk, talk}, "without the result that output_schema asks for", 3},
		"always wrong":  {[]agenttest.Turn{bad, bad, bad, bad, bad, bad, bad, bad, bad, bad}, "output that its schema accepts", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, api := provider(t, c.turns)
			sb, _ := agenttest.Sandbox(t)
			var turns []agent.Turn
			r := agent.Request{RunID: "run", StepID: "step", Attempt: 1, Prompt: "count", Allowed: []string{"Bash"}, Sandbox: sb,
				OutputSchema: json.RawMessage(`{"type":"object","required":["found"],"properties":{"found":{"type":"integer"}}}`),
				Turn:         func(turn agent.Turn) error { turns = append(turns, turn); return nil }}
			res, err := p.Converse(t.Context(), r)
			n := len(api.Requests())
			if c.want[0] != '{' {
				var ae *agent.Error
				if !errors.As(err, &ae) || ae.Class != agent.ClassFailed || !strings.Contains(ae.Error(), c.want) {
					t.Errorf("%v, %d requests", err, n)
				}
				return
			}
			if err != nil || string(res.Structured) != c.want || len(res.Denials) != 0 {
				t.Fatalf("%v, %s, %+v, %d requests, last %s", err, res.Structured, res.Denials, n, api.Requests()[n-1].Raw)
			}
			t.Logf("%d requests, %d turns", n, len(turns))
			// A resume after the end asks for nothing.
			r.Continue, r.Attempt = turns, 2
			again, err := p.Converse(t.Context(), r)
			if err != nil || string(again.Structured) != c.want || len(api.Requests()) != n {
				t.Errorf("again: %v, %s, %d requests", err, again.Structured, len(api.Requests()))
			}
		})
	}
}
