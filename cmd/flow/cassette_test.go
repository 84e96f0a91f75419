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

const recordFile = `name: record
sandbox: {driver: DRIVER}
secrets: [TOKEN_OF_TEST]
defaults: {timeout: 1m, agent: {allowed_tools: [Bash, Read, Write], model: claude-haiku-5-5}}
steps:
  - {id: prepare, secrets: [TOKEN_OF_TEST], run: 'echo "token $TOKEN_OF_TEST" > given; echo data > data'}
  - {id: one, agent: Read what is given}
  - {id: two, agent: {prompt: Go on, allowed_tools: [Read, Write]}}
  - {id: after, run: cat made more}
`

// TestScriptRecordReplay records a run against a scripted API, then plays it without
// a key: the same events, the same files.
func TestScriptRecordReplay(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-value-0123456789"
	const thinking = `{"type":"thinking","thinking":"hm","signature":"c2ln"}`
	use := func(name string, input map[string]any) agenttest.Call {
		return agenttest.Call{Name: name, Input: input}
	}
	for _, driver := range killDrivers() {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, "r.yaml", strings.Replace(recordFile, "DRIVER", driver, 1))
			api := agenttest.NewServer(t,
				agenttest.Turn{Blocks: []string{thinking}, Text: "I look", Tools: []agenttest.Call{use("Bash", map[string]any{"command": "cat given data; pwd; x=5; echo took 0.123s"}), use("WebFetch", map[string]any{})}, Input: 100, Output: 10, CacheRead: 3},
				agenttest.Turn{Tools: []agenttest.Call{use("Write", map[string]any{"file_path": "made", "content": "made ü\n"}), use("Bash", map[string]any{"command": "echo $x $RANDOM >/dev/null; echo $x"})}, Input: 1, Output: 1},
				agenttest.Turn{Text: "done one", Input: 1, Output: 1},
				agenttest.Turn{Tools: []agenttest.Call{use("Read", map[string]any{"file_path": "made"}), use("Write", map[string]any{"file_path": "more", "content": "more\n"}), use("Bash", map[string]any{"command": "touch no"})}, Input: 1, Output: 1},
				agenttest.Turn{Text: "done two", Input: 1, Output: 1})
			env := []string{"TOKEN_OF_TEST=" + secret}
			key := append(env, "ANTHROPIC_API_KEY=k-0123456789", "ANTHROPIC_BASE_URL="+api.URL)
			recorded, code := runFlow(t, dir, key, "run", "--output", "json", "--record", "tapes", "r.yaml")
			if code != 0 {
				t.Fatalf("record: exit %d\n%s", code, recorded)
			}
			for _, name := range []string{"one.yaml", "two.yaml"} {
				tape, err := os.ReadFile(filepath.Join(dir, "tapes", name))
				if err != nil || strings.Contains(string(tape), secret) || strings.Contains(string(tape), "k-0123456789") || strings.Contains(string(tape), dir) {
					t.Errorf("%s: %v\n%s", name, err, tape)
				}
				if name == "one.yaml" && (!strings.Contains(string(tape), "***REDACTED***") || !strings.Contains(string(tape), "origin: recorded")) {
					t.Errorf("%s:\n%s", name, tape)
				}
			}
			played, code := runFlow(t, dir, env, "run", "--output", "json", "--replay", "tapes", "r.yaml")
			if code != 0 || len(api.Requests()) != 5 {
				t.Fatalf("replay: exit %d, %d requests\n%s", code, len(api.Requests()), played)
			}
			if a, b := comparable(recorded), comparable(played); !slices.Equal(a, b) {
				t.Errorf("the events differ:\n%s\n--- and\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
			}
			// What goes another way than the recording is said, with the place.
			write(t, dir, "r.yaml", strings.NewReplacer("DRIVER", driver, "echo data > data", "echo other > data").Replace(recordFile))
			out, code := runFlow(t, dir, env, "run", "--output", "plain", "--replay", "tapes", "r.yaml")
			if code != 1 || !regexp.MustCompile(`one\.yaml:\d+: turn 2: the request differs from the recorded one at block \d, character \d+: expected .*data.*, got .*other`).MatchString(out) {
				t.Errorf("another file: exit %d\n%s", code, out)
			}
			write(t, dir, "r.yaml", strings.NewReplacer("DRIVER", driver, "[Bash, Read, Write]", "[Bash, Read]").Replace(recordFile))
			if out, _ = runFlow(t, dir, env, "run", "--output", "plain", "--replay", "tapes", "r.yaml"); !strings.Contains(out, "in its tools: expected [Bash Read Write], got [Bash Read]") {
				t.Errorf("another allowlist:\n%s", out)
			}
			write(t, dir, "r.yaml", strings.NewReplacer("DRIVER", driver, "Go on", "Go back").Replace(recordFile))
			if out, _ = runFlow(t, dir, env, "run", "--output", "plain", "--replay", "tapes", "r.yaml"); !strings.Contains(out, `two.yaml:`) || !strings.Contains(out, "Go back") {
				t.Errorf("another prompt:\n%s", out)
			}
		})
	}
}

// comparable are the run's events without what is another in every run: names of
// runs, times, ids; and without money, which a replay does not cost.
func comparable(events string) []string {
	for _, r := range []struct{ pattern, by string }{
		{`"at":"[^"]*"`, ""}, {`"started":"[^"]*"`, ""}, {`"duration(_seconds)?":[0-9.e-]+`, ""}, {`"run(_id)?":"[^"]*"`, ""},
		{`,?"cost_usd":[0-9.e-]+`, ""}, {`"max_rss":\d+`, ""}, {`,?"usage":\{[^{}]*\}`, ""}, {`"data":"[0-9a-f]{64}"`, ""}, {`[a-z0-9]{10}-1`, ""},
		{`(log/)?[a-z0-9]{10}(\.\d+\.[a-z0-9]{8}|/[a-z]+/\d)`, ""}, {`"provider":"[^"]*"`, ""}, {`"(record|replay)":"[^"]*",?`, ""}, {`"id":"[^"]*",?`, ""},
	} {
		events = regexp.MustCompile(r.pattern).ReplaceAllString(events, r.by)
	}
	lines := strings.Split(strings.TrimSpace(events), "\n")
	// The sandbox's event comes with the next batch, whenever that is.
	return slices.DeleteFunc(lines, func(l string) bool {
		return strings.Contains(l, `"type":"output"`) || strings.Contains(l, `"type":"sandbox_`) || strings.Contains(l, `"type":"workspace_`) || strings.Contains(l, `"type":"result"`)
	})
}
