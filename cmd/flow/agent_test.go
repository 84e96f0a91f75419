package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flowrun.dev/flow/agent/agenttest"
	replayer "flowrun.dev/flow/agent/replay"
)

// runFlow runs flow (this test binary as the program, see TestMain) in dir with its
// own environment, and returns its output and exit code.
func runFlow(t *testing.T, dir string, env []string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "flow", args...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8"}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatalf("flow %s: %v", strings.Join(args, " "), err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// script makes a scripted API's turns of the quickstart's cassette.
func script(t *testing.T, dir string, steps ...string) []agenttest.Turn {
	t.Helper()
	var turns []agenttest.Turn
	for _, step := range steps {
		c, err := replayer.Load(dir, step)
		if err != nil {
			t.Fatal(err)
		}
		for _, ct := range c.Turns {
			turn := agenttest.Turn{Text: ct.Text, StopReason: ct.StopReason, Input: 100, Output: 10}
			for _, call := range ct.Tools {
				turn.Tools = append(turn.Tools, agenttest.Call{Name: call.Name, Input: call.Input})
			}
			turns = append(turns, turn)
		}
	}
	return turns
}

// quickstartFile is the example with the machine's build cache, for speed.
func quickstartFile(t *testing.T, dir string) {
	t.Helper()
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Skipf("the quickstart builds a Go program, and there is no go: %v", err)
	}
	text, err := os.ReadFile("../../examples/workflows/quickstart.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "quickstart.yaml", strings.Replace(string(text), "  GOTOOLCHAIN:", "  GOCACHE: "+strings.TrimSpace(string(cache))+"\n  GOTOOLCHAIN:", 1))
}

// TestScriptQuickstartLive drives the same file against a Messages API through the
// official SDK: the key goes to the API, and nowhere else.
func TestScriptQuickstartLive(t *testing.T) {
	t.Parallel()
	const key = "sk-test-0123456789abcdef"
	for _, c := range []struct{ variable, header, want string }{
		{"ANTHROPIC_API_KEY", "X-Api-Key", key},
		{"ANTHROPIC_AUTH_TOKEN", "Authorization", "Bearer " + key},
	} {
		t.Run(c.variable, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			quickstartFile(t, dir)
			turns := script(t, "../../examples/workflows/quickstart/cassette", "init", "implement")
			// What a tool can see is in the transcript.
			turns[0].Tools[0].Input = map[string]any{"command": "go version && ls -A && env"}
			api := agenttest.NewServer(t, turns...)
			out, code := runFlow(t, dir, []string{c.variable + "=" + key, "ANTHROPIC_BASE_URL=" + api.URL},
				"run", "--driver", "host", "--output", "plain", "--provider", "anthropic", "quickstart.yaml")
			if code != 0 || !strings.Contains(out, "tests of example.com/wordcount succeeded") {
				t.Fatalf("exit %d\n%s", code, out)
			}
			requests := api.Requests()
			if len(requests) != len(turns) {
				t.Errorf("%d requests, want %d", len(requests), len(turns))
			}
			for i, r := range requests {
				if r.Header.Get(c.header) != c.want {
					t.Fatalf("request %d: %s is %q", i, c.header, r.Header.Get(c.header))
				}
				if bytes.Contains(r.Raw, []byte(key)) {
					t.Errorf("request %d: the key is in the body, so a tool could see it", i)
				}
			}
			holdsNot(t, dir, key)
			show, _ := runFlow(t, dir, nil, "show", "latest", "--json")
			if strings.Contains(out+show, key) {
				t.Error("the key was printed")
			}
		})
	}
}

// holdsNot fails when a file below dir holds the text.
func holdsNot(t *testing.T, dir, text string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(name)
		if bytes.Contains(b, []byte(text)) {
			t.Errorf("%s holds %q", name, text)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestScriptAgentErrors: what the API answers becomes the right exit code.
func TestScriptAgentErrors(t *testing.T) {
	t.Parallel()
	const file = "name: one\nsandbox: {driver: host}\nsteps:\n  - {id: one, timeout: 1m, retry: {max_attempts: 1}, agent: {prompt: do it, allowed_tools: [Read], max_turns: 2}}\n"
	for _, c := range []struct {
		name  string
		turns []agenttest.Turn
		code  int
		want  string
	}{
		{"401", []agenttest.Turn{{Status: 401, Type: "authentication_error", Message: "invalid x-api-key"}}, 1, "check ANTHROPIC_API_KEY"},
		{"400", []agenttest.Turn{{Status: 400, Type: "invalid_request_error", Message: "max_tokens: too large"}}, 1, "max_tokens: too large"},
		{"refusal", []agenttest.Turn{{Text: "no", StopReason: "refusal"}}, 1, "the model refused to answer"},
		{"max_turns", []agenttest.Turn{readTurn, readTurn}, 1, "did not end within max_turns: 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, "one.yaml", file)
			api := agenttest.NewServer(t, c.turns...)
			out, code := runFlow(t, dir, []string{"ANTHROPIC_API_KEY=k-0123456789", "ANTHROPIC_BASE_URL=" + api.URL}, "run", "--output", "plain", "one.yaml")
			if code != c.code || !strings.Contains(out, c.want) {
				t.Errorf("exit %d, want %d and %q\n%s", code, c.code, c.want, out)
			}
		})
	}
}

var readTurn = agenttest.Turn{Tools: []agenttest.Call{{Name: "Read", Input: map[string]any{"file_path": "x"}}}}

// TestScriptReminder: a conversation that ends without the value of output_schema is
// reminded, and fails in the end; files of context_files are in the system prompt.
func TestScriptReminder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "one.yaml", `name: one
sandbox: {driver: host}
steps:
  - {id: prepare, run: echo "Use tabs." > AGENTS.md}
  - id: one
    timeout: 1m
    agent: {prompt: do it, allowed_tools: [Read], context_files: [AGENTS.md], output_schema: {type: object}}
`)
	end := agenttest.Turn{Text: "done"}
	api := agenttest.NewServer(t, end, end, end)
	env := []string{"ANTHROPIC_API_KEY=k-0123456789", "ANTHROPIC_BASE_URL=" + api.URL}
	out, code := runFlow(t, dir, env, "run", "--output", "plain", "one.yaml")
	if code != 1 || !strings.Contains(out, "the conversation ended without the result that output_schema asks for, after 2 reminders") {
		t.Errorf("exit %d\n%s", code, out)
	}
	requests := api.Requests()
	if len(requests) != 3 || !strings.Contains(string(requests[2].Raw), "Call the tool StructuredOutput now") {
		t.Fatalf("%d requests", len(requests))
	}
	if s := requests[0].Body.System[0].Text; !strings.Contains(s, "<file path=\"AGENTS.md\">\nUse tabs.\n</file>") {
		t.Errorf("the system prompt: %s", s)
	}
	write(t, dir, "one.yaml", strings.Replace(mustRead(t, filepath.Join(dir, "one.yaml")), "[AGENTS.md]", "[NONE.md]", 1))
	if out, code := runFlow(t, dir, env, "run", "--output", "plain", "one.yaml"); code == 0 || !strings.Contains(out, "read context_files: ") || !strings.Contains(out, "NONE.md") {
		t.Errorf("exit %d\n%s", code, out)
	}
}

func mustRead(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
