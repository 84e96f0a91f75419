package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"flowrun.dev/flow/agent/agenttest"
)

const claudeRecordFile = `name: record
sandbox: {driver: DRIVER}
secrets: [TOKEN_OF_TEST]
defaults: {timeout: 1m, agent: {provider: claude-code, allowed_tools: [Bash, Read, Write], model: claude-haiku-5-5}}
steps:
  - {id: prepare, secrets: [TOKEN_OF_TEST], run: 'echo "token $TOKEN_OF_TEST" > given; echo data > data'}
  - {id: one, retry: {max_attempts: 2, initial: 10ms}, agent: Read what is given}
  - {id: two, agent: {prompt: Go on, session: continue one, allowed_tools: [Read, Write], output_schema: {type: object, required: [n], properties: {n: {type: integer}}}}}
  - {id: after, env: {N: "${{ steps.two.outputs.n }}"}, run: cat made more; echo $N}
`

// TestScriptClaudeRecordReplay records a run of the real CLI against a scripted API (once
// with a failure of it in between), then plays it without a key and without an API: the same
// events, the same files. The CLI is the same; its tools are really executed.
func TestScriptClaudeRecordReplay(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-value-0123456789"
	use := func(name string, input map[string]any) agenttest.Call {
		return agenttest.Call{Name: name, Input: input}
	}
	for _, driver := range append(killDrivers(), "host with a failure") {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			driver, fails := strings.CutSuffix(driver, " with a failure")
			dir := t.TempDir()
			write(t, dir, "r.yaml", strings.Replace(claudeRecordFile, "DRIVER", driver, 1))
			turns := []agenttest.Turn{{Blocks: []string{`{"type":"thinking","thinking":"hm","signature":"c2ln"}`}, Text: "I look",
				Tools: []agenttest.Call{use("Bash", map[string]any{"command": "cat given data; pwd; echo took 0.123s"}), use("Read", map[string]any{"file_path": "data"}), use("WebFetch", map[string]any{})}, Input: 100, Output: 10, CacheRead: 3},
				{Tools: []agenttest.Call{use("Write", map[string]any{"file_path": "made", "content": "made ü\n"})}, Input: 1, Output: 1},
				{Text: "done one", Input: 1, Output: 1},
				{Tools: []agenttest.Call{use("Write", map[string]any{"file_path": "more", "content": "more\n"}), use("Bash", map[string]any{"command": "touch no"})}, Input: 1, Output: 1},
				{Tools: []agenttest.Call{use("StructuredOutput", map[string]any{"n": 7})}, Input: 1, Output: 1}}
			if fails { // the second attempt goes on, in the same cassette
				turns = slices.Insert(turns, 1, agenttest.Turn{Status: 500, Type: "api_error", Message: "down"})
			}
			api := agenttest.NewServer(t, turns...)
			env := []string{"TOKEN_OF_TEST=" + secret, "FLOW_CLAUDE=" + agenttest.Claude(t)}
			key := append(env, "ANTHROPIC_API_KEY=k-0123456789", "ANTHROPIC_BASE_URL="+api.URL)
			recorded, code := runFlow(t, dir, key, "run", "--output", "json", "--record", "tapes", "r.yaml")
			if code != 0 || len(api.Requests()) != len(turns) {
				t.Fatalf("record: exit %d, %d requests\n%s", code, len(api.Requests()), recorded)
			}
			for _, name := range []string{"one.yaml", "two.yaml"} {
				tape := mustRead(t, filepath.Join(dir, "tapes", name))
				for _, bad := range []string{secret, "k-0123456789", dir, "system-reminder", "session_id"} {
					if strings.Contains(tape, bad) {
						t.Errorf("%s holds %q:\n%s", name, bad, tape)
					}
				}
				if !strings.Contains(tape, "provider: claude-code\n") || !strings.Contains(tape, "program: "+agenttest.ClaudeVersion) || strings.Count(tape, "message:") != map[string]int{"one.yaml": 3, "two.yaml": 2}[name] {
					t.Errorf("%s:\n%s", name, tape)
				}
			}
			played, code := runFlow(t, dir, env, "run", "--output", "json", "--replay", "tapes", "r.yaml")
			if code != 0 || len(api.Requests()) != len(turns) {
				t.Fatalf("replay: exit %d, %d requests\n%s", code, len(api.Requests()), played)
			}
			if a, b := comparable(recorded), comparable(played); !fails && !slices.Equal(a, b) {
				t.Errorf("the events differ:\n%s\n--- and\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
			}
			if log, _ := runFlow(t, dir, nil, "logs", "latest", "after", "--raw"); log != "made ü\nmore\n7\n" {
				t.Errorf("the files: %q", log)
			}
			write(t, dir, "r.yaml", strings.NewReplacer("DRIVER", driver, "echo data > data", "echo other > data").Replace(claudeRecordFile))
			out, code := runFlow(t, dir, env, "run", "--output", "plain", "--replay", "tapes", "r.yaml")
			if code != 1 || !regexp.MustCompile(`one\.yaml:\d+: turn 2: the request differs from the recorded one at block \d, character \d+: expected .*data.*, got .*other`).MatchString(out) {
				t.Errorf("another file: exit %d\n%s", code, out)
			}
			// Our own loop would make other requests: the cassette says whose it is.
			write(t, dir, "r.yaml", strings.Replace(strings.Replace(claudeRecordFile, "DRIVER", driver, 1), "provider: claude-code,", "provider: replay, cassette: tapes,", 1))
			if out, code := runFlow(t, dir, env, "run", "--output", "plain", "r.yaml"); code != 2 || !strings.Contains(out, "it was recorded with provider claude-code") {
				t.Errorf("provider replay: exit %d\n%s", code, out)
			}
		})
	}
	if _, err := os.Stat("tapes"); err == nil {
		t.Error("tapes were written into the source tree")
	}
}
