package main

import (
	"os/exec"
	"strings"
	"testing"

	"flowrun.dev/flow/agent/agenttest"
)

// notesServer is an MCP server that a sandbox can run: it appends to a file.
const notesServer = `import json, os, sys
for line in sys.stdin:
    m = json.loads(line)
    if "id" not in m:
        continue
    r = {}
    if m["method"] == "initialize":
        r = {"protocolVersion": m["params"]["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": {"name": "notes", "version": "1"}}
    elif m["method"] == "tools/list":
        r = {"tools": [{"name": n, "description": "x", "inputSchema": {"type": "object"}} for n in ["add", "wipe"]]}
    elif m["method"] == "tools/call":
        with open("notes.txt", "a") as f:
            f.write(m["params"]["name"] + " " + m["params"]["arguments"]["text"] + "\n")
        key = [k for k in os.environ if "TOKEN" in k or "API_KEY" in k]
        r = {"content": [{"type": "text", "text": "noted; keys: %s" % key}]}
    print(json.dumps({"jsonrpc": "2.0", "id": m["id"], "result": r}), flush=True)
`

// TestScriptMCPProviders: the server runs in the sandbox, its allowed tool is offered and
// called, the other one neither, for both providers with a model.
func TestScriptMCPProviders(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("no python3")
	}
	for _, provider := range []string{"anthropic", "claude-code"} {
		for _, driver := range killDrivers() {
			t.Run(provider+" "+driver, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				write(t, dir, "notes.py", notesServer)
				write(t, dir, "m.yaml", `name: mcp
sandbox: {driver: `+driver+`}
workspace: {from: .}
defaults: {timeout: 1m}
steps:
  - id: talk
    agent:
      provider: `+provider+`
      model: claude-haiku-5-5
      prompt: go
      allowed_tools: [Read, mcp__notes__add]
      mcp_servers: {notes: {command: [python3, notes.py]}}
  - {id: look, run: cat notes.txt}
`)
				call := func(name string) agenttest.Call {
					return agenttest.Call{Name: "mcp__notes__" + name, Input: map[string]any{"text": "a <b>"}}
				}
				api := agenttest.NewServer(t, agenttest.Turn{Tools: []agenttest.Call{call("add"), call("wipe")}, Input: 5, Output: 5}, agenttest.Turn{Text: "done"})
				out, code := runFlow(t, dir, claudeEnv(t, api), "run", "--output", "plain", "m.yaml")
				if code != 0 || len(api.Requests()) != 2 || !strings.Contains(out, "look | add a <b>\n") || strings.Contains(out, "look | wipe") {
					t.Fatalf("exit %d, %d requests\n%s", code, len(api.Requests()), out)
				}
				var names []string
				for _, tool := range api.Requests()[0].Body.Tools {
					names = append(names, tool.Name)
				}
				if got := strings.Join(names, " "); !strings.Contains(got, "mcp__notes__add") || strings.Contains(got, "wipe") {
					t.Errorf("offered: %s", got)
				}
				if told := string(api.Requests()[1].Raw); !strings.Contains(told, "noted; keys: []") || !strings.Contains(told, "No such tool available: mcp__notes__wipe") {
					t.Errorf("the model was told: %s", told[max(0, len(told)-1500):])
				}
				if !strings.Contains(out, "denied mcp__notes__wipe") {
					t.Errorf("no denial:\n%s", out)
				}
			})
		}
	}
}
