package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flowrun.dev/flow/agent/agenttest"
)

// TestScriptACP: a third provider through the real program, with a scripted agent.
func TestScriptACP(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script, err := json.Marshal(agenttest.ACP{Ops: []agenttest.ACPOp{
		{Do: "write", Path: "out/made", Text: "by an ACP agent\n"},
		{Do: "write", Path: "elsewhere", Text: "x"},
		{Do: "run", Text: "touch", Args: []string{"w"}},
		{Do: "say", Text: "The file is made."},
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := `name: acp
sandbox: {driver: host}
defaults: {timeout: 1m}
steps:
  - id: talk
    env: {` + agenttest.ACPScript + `: '` + string(script) + `'}
    agent: {provider: acp, command: ["` + self + `"], prompt: make it, allowed_tools: [Read, "Write(./out/**)"]}
  - id: look
    run: cat out/made; ls
`
	write(t, dir, "acp.yaml", file)
	out, code := runFlow(t, dir, nil, "run", "--output", "plain", "acp.yaml")
	if code != 0 || !strings.Contains(out, "by an ACP agent") || !strings.Contains(out, "The file is made.") || !strings.Contains(out, "2 denied calls") || strings.Contains(out, "look | elsewhere") {
		t.Fatalf("exit %d\n%s", code, out)
	}
	write(t, dir, "acp.yaml", strings.Replace(file, "[Read, \"Write(./out/**)\"]", "[\"Bash(go test:*)\"]", 1))
	if out, code := runFlow(t, dir, nil, "run", "--output", "plain", "acp.yaml"); code != 2 || !strings.Contains(out, "keep the patterns of Bash") {
		t.Errorf("rules that cannot be kept: exit %d\n%s", code, out)
	}
}

// TestScriptACPLocal: in the local sandbox the agent is a program of the workspace. What
// it writes without asking is bounded by the system.
func TestScriptACPLocal(t *testing.T) {
	t.Parallel()
	if !sandboxWorks() {
		t.Skip("no local sandbox")
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "agent"), binary, 0o755); err != nil {
		t.Fatal(err)
	}
	script, err := json.Marshal(agenttest.ACP{Ops: []agenttest.ACPOp{
		{Do: "write", Path: "out/made", Text: "by an ACP agent\n"},
		{Do: "write", Path: "elsewhere", Text: "x"},
		{Do: "self", Path: "out/self", Text: "x"},
		{Do: "self", Path: "behind", Text: "x"},
		{Do: "read", Path: "given"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "given", "what was given\n")
	write(t, dir, "acp.yaml", `name: acp
sandbox: {driver: local}
workspace: {from: .}
defaults: {timeout: 1m}
steps:
  - id: talk
    env: {`+agenttest.ACPScript+`: '`+string(script)+`'}
    agent: {provider: acp, command: [./agent], prompt: make it, allowed_tools: [Read, "Write(./out/**)"]}
  - {id: look, run: "cat out/made out/self; ! test -e elsewhere; ! test -e behind; echo as it should be"}
`)
	out, code := runFlow(t, dir, nil, "run", "--output", "plain", "acp.yaml")
	if code != 0 || !strings.Contains(out, "by an ACP agent") || !strings.Contains(out, "what was given") || !strings.Contains(out, "as it should be") || !strings.Contains(out, "1 denied call") {
		t.Fatalf("exit %d\n%s", code, out)
	}
	if !strings.Contains(out, "read-only file system") {
		t.Errorf("the agent was not told that the system refused:\n%s", out)
	}
}
