package replay_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/agenttest"
	"flowrun.dev/flow/agent/replay"
	"flowrun.dev/flow/sandbox"
)

const quickstart = "../../examples/workflows/quickstart/cassette"

// The allowlists of examples/workflows/quickstart.yaml.
var (
	initTools      = []string{"Bash", "Read", "Write", "Glob"}
	implementTools = []string{"Read", "Write", "Edit", "Glob", "Grep", "Bash(go test:*)", "Bash(go vet:*)"}
)

// goEnv is the example's environment; the build cache is the machine's, for speed.
func goEnv(t *testing.T, sb sandbox.Sandbox) []string {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the quickstart builds a Go program, and there is no go on PATH")
	}
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	return append(sb.BaseEnv(), "GOCACHE="+strings.TrimSpace(string(cache)), "GOFLAGS=-mod=mod", "GOTOOLCHAIN=local", "GOPROXY=off", "CGO_ENABLED=0")
}

func play(t *testing.T, sb sandbox.Sandbox, env []string, folder, step string, allowed []string) (agent.Result, string, error) {
	t.Helper()
	var out bytes.Buffer
	res, err := replay.New().Converse(t.Context(), agent.Request{StepID: step, Prompt: "build it", Allowed: allowed, Cassette: folder, Sandbox: sb, Env: env, Out: &out})
	return res, out.String(), err
}

// shell runs the example's `test` step in the workspace.
func shell(t *testing.T, dir string, env []string, script string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestQuickstart plays both conversations for real: the program that results
// compiles, passes its tests and counts.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	sb, dir := agenttest.Sandbox(t)
	env := goEnv(t, sb)
	for _, s := range []struct {
		step    string
		allowed []string
		calls   int
	}{{"init", initTools, 7}, {"implement", implementTools, 11}} {
		res, out, err := play(t, sb, env, quickstart, s.step, s.allowed)
		if err != nil {
			t.Fatalf("%s: %v\n%s", s.step, err, out)
		}
		if len(res.Denials) != 0 || res.Usage.ToolCalls != s.calls || res.StopReason != "end_turn" {
			t.Errorf("%s: %d calls, denials %v, stop %s", s.step, res.Usage.ToolCalls, res.Denials, res.StopReason)
		}
		if s.step == "implement" && !strings.Contains(out, "✗ Exit code 1") {
			t.Errorf("the first version did not fail its tests:\n%s", out)
		}
	}
	if out, err := shell(t, dir, env, "go vet ./... && go test -count=1 ./..."); err != nil {
		t.Fatalf("the result does not pass its tests: %v\n%s", err, out)
	}
	out, err := shell(t, dir, env, `go build -o ../wordcount ./cmd/wordcount && printf 'a b\nc\n' | ../wordcount`)
	if err != nil || strings.Join(strings.Fields(out), " ") != "2 3 6" {
		t.Errorf("the program says %q, %v", out, err)
	}

	// That the checks are no show: a broken file fails them.
	file := filepath.Join(dir, "wordcount.go")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{{"package wordcount", "pakcage wordcount"}, {"c.Lines++", "c.Lines += 2"}} {
		if err := os.WriteFile(file, bytes.Replace(text, []byte(c[0]), []byte(c[1]), 1), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := shell(t, dir, env, "go vet ./... && go test -count=1 ./..."); err == nil {
			t.Errorf("with %q the tests still pass:\n%s", c[1], out)
		}
	}
}

// TestQuickstartWithoutWrite: the tool is not offered, the call is not executed, the
// file is not there, and the conversation does not end well.
func TestQuickstartWithoutWrite(t *testing.T) {
	t.Parallel()
	sb, dir := agenttest.Sandbox(t)
	res, out, err := play(t, sb, goEnv(t, sb), quickstart, "init", []string{"Bash", "Read", "Glob"})
	var ae *agent.Error
	if !errors.As(err, &ae) || ae.Class != agent.ClassInvalid || !strings.Contains(err.Error(), "No such tool available: Write") {
		t.Errorf("got %v\n%s", err, out)
	}
	if len(res.Denials) != 3 || res.Denials[0].Tool != "Write" {
		t.Errorf("denials: %v", res.Denials)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("go.mod: %v", err)
	}
}

// TestQuickstartBrokenCassette: one word of the program changed in the conversation.
func TestQuickstartBrokenCassette(t *testing.T) {
	t.Parallel()
	sb, _ := agenttest.Sandbox(t)
	env := goEnv(t, sb)
	folder := t.TempDir()
	for _, step := range []string{"init", "implement"} {
		text, err := os.ReadFile(filepath.Join(quickstart, step+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if step == "implement" {
			changed := bytes.Replace(text, []byte("unicode.IsSpace(char)"), []byte("unicode.IsDigit(char)"), 1)
			if bytes.Equal(changed, text) {
				t.Fatal("nothing was changed")
			}
			text = changed
		}
		if err := os.WriteFile(filepath.Join(folder, step+".yaml"), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, out, err := play(t, sb, env, folder, "init", initTools); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, out, err := play(t, sb, env, folder, "implement", implementTools); err == nil || !strings.Contains(err.Error(), "FAIL") {
		t.Errorf("the broken program passed: %v\n%s", err, out)
	}
}
