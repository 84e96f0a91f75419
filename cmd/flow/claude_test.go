package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flowrun.dev/flow/agent/agenttest"
)

// claudeEnv runs provider claude-code with the real CLI against a scripted API.
func claudeEnv(t *testing.T, api *agenttest.Server) []string {
	t.Helper()
	return []string{"FLOW_CLAUDE=" + agenttest.Claude(t), "ANTHROPIC_API_KEY=" + claudeKey, "ANTHROPIC_BASE_URL=" + api.URL}
}

const claudeKey = "sk-test-0123456789abcdef"

// claudeQuickstart is the four-step example with the real CLI instead of the cassette.
func claudeQuickstart(t *testing.T, dir string) []agenttest.Turn {
	t.Helper()
	quickstartFile(t, dir)
	file := filepath.Join(dir, "quickstart.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// A model with a price, to see the cost.
	live := strings.Replace(string(text), "provider: replay\n    cassette: quickstart/cassette", "provider: claude-code\n    model: claude-sonnet-5-5", 1)
	if err := os.WriteFile(file, []byte(live), 0o644); err != nil {
		t.Fatal(err)
	}
	return script(t, "../../examples/workflows/quickstart/cassette", "init", "implement")
}

// TestScriptClaudeQuickstart is the four-step example on the real CLI: files are
// written, tests run, what went over the wire is counted and is in the record.
func TestScriptClaudeQuickstart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	turns := claudeQuickstart(t, dir)
	api := agenttest.NewServer(t, turns...)
	out, code := runFlow(t, dir, claudeEnv(t, api), "run", "--output", "plain", "--driver", "host", "quickstart.yaml")
	if code != 0 || !strings.Contains(out, "tests of example.com/wordcount succeeded, sample counted as 2 6 31") {
		t.Fatalf("exit %d\n%s", code, out)
	}
	if n := len(api.Requests()); n != len(turns) {
		t.Errorf("%d requests, want %d", n, len(turns))
	}
	show, _ := runFlow(t, dir, nil, "show", "--json")
	var run struct {
		Steps []struct {
			ID      string  `json:"id"`
			Kind    string  `json:"kind"`
			CostUSD float64 `json:"cost_usd"`
			Changed []struct {
				Path string `json:"path"`
			} `json:"changed"`
		} `json:"steps"`
	}
	if err := json.Unmarshal([]byte(show), &run); err != nil {
		t.Fatalf("%v\n%s", err, show)
	}
	changed := map[string]bool{}
	for _, s := range run.Steps {
		for _, c := range s.Changed {
			changed[c.Path] = true
		}
		if (s.Kind == "agent") != (s.CostUSD > 0) {
			t.Errorf("%s (%s) cost %v", s.ID, s.Kind, s.CostUSD)
		}
	}
	for _, name := range []string{"go.mod", "wordcount.go", "wordcount_test.go", "cmd/wordcount/main.go"} {
		if !changed[name] {
			t.Errorf("%s is not among the changed files:\n%s", name, show)
		}
	}
	log, _ := runFlow(t, dir, nil, "logs", "latest", "implement")
	if !strings.Contains(log, "● Write wordcount.go\n") || !strings.Contains(log, "● Bash go test") {
		t.Errorf("the log of implement:\n%s", log)
	}
}

// TestScriptClaudeKey: in the local sandbox, with the CLI bound from a folder of the
// host. The key reaches the API; neither it nor the step's token is in the
// environment, the arguments, the open files or the home of any process inside.
func TestScriptClaudeKey(t *testing.T) {
	t.Parallel()
	if !sandboxWorks() {
		t.Skip("no local sandbox")
	}
	const look = `cat /proc/*/environ /proc/*/cmdline /proc/*/fd/9 ~/.flow-step/*/.claude.json ~/.flow-step/*/*/*/* | tr '\0' '\n' > seen; ` +
		`ls -l /proc/[0-9]*/fd/0 > fds; cat /proc/$PPID/fd/0 < /dev/null; wc -c < seen`
	dir := t.TempDir()
	write(t, dir, "k.yaml", `name: key
defaults: {timeout: 1m}
steps:
  - {id: one, agent: {prompt: go, provider: claude-code, allowed_tools: [Bash, Write]}}
  - {id: two, run: "! grep -nE 'sk-test|flow-step-[A-Za-z0-9_-]{20}' seen; test $(wc -c < seen) -gt 1000; cat hello; ! test -w /flow/claude-code/claude; grep -c socket: fds"}
`)
	api := agenttest.NewServer(t, agenttest.Turn{Tools: []agenttest.Call{
		{Name: "Write", Input: map[string]any{"file_path": "hello", "content": "from the CLI\n"}},
		{Name: "Bash", Input: map[string]any{"command": look}},
	}}, agenttest.Turn{Text: "done"})
	out, code := runFlow(t, dir, claudeEnv(t, api), "run", "--output", "plain", "--driver", "local", "k.yaml")
	if code != 0 || !strings.Contains(out, "from the CLI") {
		t.Fatalf("exit %d\n%s", code, out)
	}
	requests := api.Requests()
	for _, r := range requests {
		if r.Header.Get("X-Api-Key") != claudeKey {
			t.Errorf("the API got the key %q", r.Header.Get("X-Api-Key"))
		}
		if s := string(r.Raw); strings.Contains(s, claudeKey) || strings.Contains(s, "flow-step-") {
			t.Error("a key or a token is in a request: a tool could read it")
		}
	}
	if len(requests) != 2 {
		t.Fatalf("%d requests", len(requests))
	}
	if s := string(requests[1].Raw); !strings.Contains(s, "No such device or address") {
		t.Errorf("the CLI's stdin could be opened: %s", s[max(0, len(s)-2000):])
	}
}

// TestScriptClaudeRights is the third wall on the real CLI: what an allowed program
// does is bounded by the system, in the local sandbox.
func TestScriptClaudeRights(t *testing.T) {
	t.Parallel()
	if !sandboxWorks() {
		t.Skip("no local sandbox")
	}
	dir := t.TempDir()
	write(t, dir, "r.yaml", `name: rights
sandbox: {driver: local}
defaults: {timeout: 1m}
steps:
  - {id: script, run: "mkdir src; printf 'echo x > src/in; echo x > out; echo x > ~/.bashrc; ls' > act.sh"}
  - {id: talk, agent: {provider: claude-code, prompt: go, allowed_tools: ["Edit(./src/**)", "Bash(sh act.sh)"]}}
  - {id: look, run: "cat src/in; ls -A ~ .; ! test -e out; ! test -e ~/.bashrc"}
`)
	api := agenttest.NewServer(t, agenttest.Turn{Tools: []agenttest.Call{{Name: "Bash", Input: map[string]any{"command": "sh act.sh"}}}}, agenttest.Turn{Text: "done"})
	out, code := runFlow(t, dir, claudeEnv(t, api), "run", "--output", "plain", "r.yaml")
	if code != 0 || len(api.Requests()) != 2 || !strings.Contains(out, "look | x") {
		t.Fatalf("exit %d, %d requests\n%s", code, len(api.Requests()), out)
	}
	if told := string(api.Requests()[1].Raw); strings.Count(told, "Read-only file system") != 2 {
		t.Errorf("the model is not told what the system refused: %s", told[max(0, len(told)-1500):])
	}
}

// TestScriptClaudeExits: the class of an API error is the run's exit code.
func TestScriptClaudeExits(t *testing.T) {
	t.Parallel()
	for kind, c := range map[string]struct {
		status, code int
	}{"rate_limit_error": {429, 6}, "overloaded_error": {529, 6}, "api_error": {500, 3}} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, "e.yaml", `name: exits
sandbox: {driver: host}
defaults: {timeout: 1m}
steps:
  - {id: talk, retry: {max_attempts: 1}, agent: {provider: claude-code, prompt: go, allowed_tools: [Read]}}
`)
			api := agenttest.NewServer(t, agenttest.Turn{Status: c.status, Type: kind, Message: "later", Headers: map[string]string{"Retry-After": "1"}})
			out, code := runFlow(t, dir, claudeEnv(t, api), "run", "--output", "plain", "e.yaml")
			if code != c.code || len(api.Requests()) != 1 {
				t.Errorf("exit %d, want %d, %d requests\n%s", code, c.code, len(api.Requests()), out)
			}
		})
	}
}

// TestScriptClaudeLandlock: where namespaces are refused the CLI stays where it is, and
// works from there. Its key, and those of what runs beside it, cannot be read.
func TestScriptClaudeLandlock(t *testing.T) {
	t.Parallel()
	if !landlockWorks() {
		t.Skip("no landlock on this machine, or no way to refuse namespaces")
	}
	dir := t.TempDir()
	write(t, dir, "l.yaml", `name: landlock
defaults: {timeout: 1m}
steps:
  - {id: one, agent: {prompt: go, provider: claude-code, allowed_tools: [Bash, Write]}}
  - {id: two, run: "cat hello; ! grep -nE 'sk-test' seen; ! (: >> '`+agenttest.Claude(t)+`') 2>/dev/null"}
`)
	api := agenttest.NewServer(t, agenttest.Turn{Tools: []agenttest.Call{
		{Name: "Write", Input: map[string]any{"file_path": "hello", "content": "from the CLI\n"}},
		{Name: "Bash", Input: map[string]any{"command": "cat /proc/$PPID/environ /proc/1/environ; env > seen; true"}},
	}}, agenttest.Turn{Text: "done"})
	cmd := exec.Command("refuse-namespaces", flowBinary(t), "run", "--output", "plain", "l.yaml")
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "FLOW_STATE=", "LANG=C.UTF-8"), claudeEnv(t, api)...)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "sandbox local (landlock)") || !strings.Contains(string(out), "from the CLI") {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := len(api.Requests()); n != 2 {
		t.Errorf("%d requests", n)
	}
}
