package main

import (
	"encoding/json"
	"os"
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
