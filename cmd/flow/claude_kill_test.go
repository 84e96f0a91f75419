package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"flowrun.dev/flow/agent/agenttest"
)

const claudeKillFile = `name: kill
sandbox: {driver: DRIVER}
defaults: {timeout: 2m}
steps:
  - {id: before, run: echo before >> log}
  - {id: talk, retry: {max_attempts: 3, initial: 10ms}, agent: {provider: claude-code, prompt: count, allowed_tools: [Bash], model: claude-haiku-5-5}}
  - {id: after, run: cat log}
`

// claudeKill is a run of three turns with one of them replaced.
type claudeKill struct {
	dir string
	env []string
	api *agenttest.Server
}

// newClaudeKill scripts turns 1 to 3 and an end; before turn k comes extra.
func newClaudeKill(t *testing.T, driver string, k int, extra ...agenttest.Turn) claudeKill {
	t.Helper()
	var script []agenttest.Turn
	for i := 1; i <= 3; i++ {
		if i == k {
			script = append(script, extra...)
		}
		script = append(script, agenttest.Turn{Text: fmt.Sprintf("turn %d", i), Input: 10, Output: 1,
			Tools: []agenttest.Call{{Name: "Bash", Input: map[string]any{"command": fmt.Sprintf("echo %d >> log", i)}}}})
	}
	if k == 4 {
		script = append(script, extra...)
	}
	script = append(script, agenttest.Turn{Text: "done", Input: 10, Output: 1})
	c := claudeKill{dir: t.TempDir(), api: agenttest.NewServer(t, script...)}
	c.env = claudeEnv(t, c.api)
	write(t, c.dir, "k.yaml", strings.Replace(claudeKillFile, "DRIVER", driver, 1))
	return c
}

// check says that every turn was asked for once, but the one that was cut off twice,
// and that the files are those of the turns.
func (c claudeKill) check(t *testing.T, out string, code int) {
	t.Helper()
	requests := c.api.Requests()
	log, _ := runFlow(t, c.dir, nil, "logs", "latest", "after", "--raw")
	if code != 0 || len(requests) != 5 || log != "before\n1\n2\n3\n" {
		t.Fatalf("exit %d, %d requests, want 5, files %q\n%s", code, len(requests), log, out)
	}
	last := string(requests[4].Raw)
	for i := 1; i <= 3; i++ {
		if n := strings.Count(last, fmt.Sprintf(`"echo %d >> log"`, i)); n != 1 {
			t.Errorf("the last request holds turn %d %d times", i, n)
		}
	}
}

// TestScriptClaudeKillFlow kills flow with signal 9 while a request is under way, and
// resumes.
func TestScriptClaudeKillFlow(t *testing.T) {
	t.Parallel()
	for _, driver := range killDrivers() {
		for k := 1; k <= 4; k++ {
			if driver == "host" && k%2 == 0 && os.Getenv("FLOW_LONG") == "" {
				continue
			}
			t.Run(fmt.Sprintf("%s request %d", driver, k), func(t *testing.T) {
				t.Parallel()
				c := newClaudeKill(t, driver, k, agenttest.Turn{Hold: true})
				killed(t, c.dir, c.env, c.api.Held, "run", "--output", "plain", "k.yaml")
				if n := len(c.api.Requests()); n != k {
					t.Fatalf("%d requests before the kill, want %d", n, k)
				}
				out, code := runFlow(t, c.dir, c.env, "resume", "--output", "plain")
				c.check(t, out, code)
			})
		}
	}
}

// TestScriptClaudeKillInTool kills flow while a tool changes files: what it changed is
// undone.
func TestScriptClaudeKillInTool(t *testing.T) {
	t.Parallel()
	for _, driver := range killDrivers() {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			c := newClaudeKill(t, driver, 2, agenttest.Turn{Text: "turn 2", Tools: []agenttest.Call{{Name: "Bash", Input: map[string]any{"command": "echo half >> log; echo now; sleep 5"}}}})
			killed(t, c.dir, c.env, printed2(t, c.dir, c.env), "run", "--output", "plain", "k.yaml")
			out, code := runFlow(t, c.dir, c.env, "resume", "--output", "plain")
			c.check(t, out, code)
		})
	}
}

// TestScriptClaudeKillCLI: the CLI is killed in the middle of a turn. The same run goes
// on after its last complete turn, with the files of that turn.
func TestScriptClaudeKillCLI(t *testing.T) {
	t.Parallel()
	for _, driver := range killDrivers() {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			c := newClaudeKill(t, driver, 3, agenttest.Turn{Text: "turn 3", Tools: []agenttest.Call{{Name: "Bash", Input: map[string]any{"command": "echo half >> log; kill -9 $PPID; sleep 5"}}}})
			out, code := runFlow(t, c.dir, c.env, "run", "--output", "plain", "k.yaml")
			if !strings.Contains(out, "the CLI was ended by a signal: killed") || !strings.Contains(out, "goes on after turn 2") {
				t.Errorf("the output does not say what happened:\n%s", out)
			}
			c.check(t, out, code)
		})
	}
}

// TestScriptClaudeLoseSandbox kills the sandbox's init while a request is under way: the
// run goes on in a new sandbox.
func TestScriptClaudeLoseSandbox(t *testing.T) {
	t.Parallel()
	if !sandboxWorks() {
		t.Skip("no local sandbox")
	}
	c := newClaudeKill(t, "local", 3, agenttest.Turn{Hold: true})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "flow", "run", "--output", "plain", "k.yaml")
	cmd.Dir = c.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "LANG=C.UTF-8"}, c.env...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.api.Held:
		if err := syscall.Kill(initOf(t, cmd.Process.Pid), syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Error("turn 3 was not asked for")
	}
	_ = cmd.Wait()
	c.check(t, out.String(), cmd.ProcessState.ExitCode())
}

// initOf finds the sandbox's init among the children of flow.
func initOf(t *testing.T, flow int) int {
	t.Helper()
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", flow))
	for _, name := range lists {
		text, _ := os.ReadFile(name)
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				continue
			}
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if strings.HasPrefix(string(line), "flow-sandbox") {
				return pid
			}
		}
	}
	t.Fatal("flow has no sandbox")
	return 0
}
