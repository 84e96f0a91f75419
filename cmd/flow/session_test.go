package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"flowrun.dev/flow/agent/agenttest"
)

const sessionFile = `name: sessions
sandbox: {driver: DRIVER}
defaults: {timeout: 2m, agent: {provider: PROVIDER, allowed_tools: [Bash], model: claude-haiku-5-5}, retry: {max_attempts: 2, initial: 10ms}}
steps:
  - {id: plan, agent: Think of a plan}
  - {id: between, run: echo between >> log}
  - {id: build, agent: {prompt: Now do it, session: continue plan}}
  - {id: check, agent: {prompt: Is it good, session: continue build}}
  - {id: look, run: cat log}
`

// sessionTurns are the turns of the steps, one list a step.
func sessionTurns() [][]agenttest.Turn {
	bash := func(c string) []agenttest.Call {
		return []agenttest.Call{{Name: "Bash", Input: map[string]any{"command": c}}}
	}
	return [][]agenttest.Turn{
		{{Text: "I look", Tools: bash("echo plan >> log"), Input: 5, Output: 1}, {Text: "The plan is plum", Input: 5, Output: 1}},
		{{Text: "I build", Tools: bash("echo build >> log"), Input: 5, Output: 1}, {Text: "It is built", Input: 5, Output: 1}},
		{{Text: "It is good", Input: 5, Output: 1}},
	}
}

// TestScriptSession: a step goes on with the conversation of an earlier one, over two
// steps; flow is killed in each request of the second, and resumes.
func TestScriptSession(t *testing.T) {
	t.Parallel()
	for _, provider := range []string{"anthropic", "claude-code"} {
		for k := 0; k <= 2; k++ { // the request of `build` that is killed; 0 for none
			t.Run(fmt.Sprintf("%s kill %d", provider, k), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				write(t, dir, "s.yaml", strings.NewReplacer("PROVIDER", provider, "DRIVER", "host").Replace(sessionFile))
				var script []agenttest.Turn
				for i, step := range sessionTurns() {
					for j, turn := range step {
						if i == 1 && j+1 == k {
							script = append(script, agenttest.Turn{Hold: true})
						}
						script = append(script, turn)
					}
				}
				api := agenttest.NewServer(t, script...)
				env := claudeEnv(t, api)
				var out string
				var code int
				if k == 0 {
					out, code = runFlow(t, dir, env, "run", "--output", "plain", "s.yaml")
				} else {
					killed(t, dir, env, api.Held, "run", "--output", "plain", "s.yaml")
					out, code = runFlow(t, dir, env, "resume", "--output", "plain")
				}
				log, _ := runFlow(t, dir, nil, "logs", "latest", "look", "--raw")
				if code != 0 || len(api.Requests()) != len(script) || log != "plan\nbetween\nbuild\n" {
					t.Fatalf("exit %d, %d requests, want %d, log %q\n%s", code, len(api.Requests()), len(script), log, out)
				}
				last := string(api.Requests()[len(script)-1].Raw)
				for _, word := range []string{"Think of a plan", "echo plan ", "The plan is plum", "Now do it", "echo build ", "It is built", "Is it good"} {
					if n := strings.Count(last, word); n != 1 {
						t.Errorf("the last request holds %q %d times", word, n)
					}
				}
			})
		}
	}
}

// TestScriptSessionRecord: what goes on with another conversation is recorded and played.
func TestScriptSessionRecord(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "s.yaml", strings.NewReplacer("PROVIDER", "anthropic", "DRIVER", "host").Replace(sessionFile))
	var script []agenttest.Turn
	for _, step := range sessionTurns() {
		script = append(script, step...)
	}
	// The API fails within `build`: the second attempt goes on, in the same cassette.
	down := agenttest.Turn{Status: 500, Type: "api_error", Message: "down", Headers: map[string]string{"X-Should-Retry": "false"}}
	api := agenttest.NewServer(t, append(script[:3:3], append([]agenttest.Turn{down}, script[3:]...)...)...)
	env := []string{"ANTHROPIC_API_KEY=k-0123456789", "ANTHROPIC_BASE_URL=" + api.URL}
	if out, code := runFlow(t, dir, env, "run", "--record", "tapes", "--output", "plain", "s.yaml"); code != 0 || !strings.Contains(out, "goes on after turn 1") {
		t.Fatalf("record: exit %d\n%s", code, out)
	}
	if out, code := runFlow(t, dir, nil, "run", "--replay", "tapes", "--output", "plain", "s.yaml"); code != 0 || !strings.Contains(out, "It is good") {
		tape, _ := os.ReadFile(dir + "/tapes/build.yaml")
		t.Fatalf("replay: exit %d\n%s\n%s", code, out, tape)
	}
}
