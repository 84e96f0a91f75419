package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"flowrun.dev/flow/agent/agenttest"
)

// appendTurn adds a line to the file log.
func appendTurn(n int) agenttest.Turn {
	return agenttest.Turn{Text: fmt.Sprintf("turn %d", n), Input: 10, Output: 1,
		Tools: []agenttest.Call{{Name: "Bash", Input: map[string]any{"command": fmt.Sprintf("echo %d >> log; n=$((${n:-0} + 1))", n)}}}}
}

const killFile = `name: kill
sandbox: {driver: DRIVER}
defaults: {timeout: 2m}
steps:
  - {id: before, run: echo before >> log}
  - {id: talk, agent: {prompt: count, allowed_tools: [Bash], model: claude-haiku-5-5, budget: {tokens: 1000}}}
  - {id: after, run: cat log}
`

// killed starts a run, waits until the API has got a request that it does not answer
// (or ready exists), and kills flow with signal 9.
func killed(t *testing.T, dir string, env []string, wait <-chan struct{}, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "flow", args...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8"}, env...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-wait:
	case err := <-ended:
		t.Fatalf("flow ended before it was killed: %v\n%s", err, out.String())
	case <-time.After(60 * time.Second):
		t.Error("the moment to kill flow did not come")
	}
	_ = cmd.Process.Kill()
	<-ended
}

// drivers on which conversations are killed.
func killDrivers() []string {
	if sandboxWorks() {
		return []string{"host", "local"}
	}
	return []string{"host"}
}

// TestScriptKillInRequest kills flow at each of a conversation's requests: the resume
// asks for that turn again and for no other, with the files of the turn before.
func TestScriptKillInRequest(t *testing.T) {
	t.Parallel()
	const turns = 3
	for _, driver := range killDrivers() {
		for k := 1; k <= turns+1; k++ {
			t.Run(fmt.Sprintf("%s request %d", driver, k), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				write(t, dir, "k.yaml", strings.Replace(killFile, "DRIVER", driver, 1))
				var script []agenttest.Turn
				for i := 1; i <= turns+1; i++ {
					if i == k {
						script = append(script, agenttest.Turn{Hold: true})
					}
					if i <= turns {
						script = append(script, appendTurn(i))
					}
				}
				script = append(script, agenttest.Turn{Text: "done", Input: 10, Output: 1})
				api := agenttest.NewServer(t, script...)
				env := []string{"ANTHROPIC_API_KEY=k-0123456789", "ANTHROPIC_BASE_URL=" + api.URL}
				killed(t, dir, env, api.Held, "run", "--output", "plain", "k.yaml")
				if n := len(api.Requests()); n != k {
					t.Fatalf("%d requests before the kill, want %d", n, k)
				}
				out, code := runFlow(t, dir, env, "resume", "--output", "plain")
				if code != 0 {
					t.Fatalf("resume: exit %d\n%s", code, out)
				}
				requests := api.Requests()
				if len(requests) != turns+2 {
					t.Errorf("%d requests in all, want %d: one for each turn, and the killed one again\n%s", len(requests), turns+2, out)
				}
				for i := k; i < len(requests); i++ {
					if got, want := len(requests[i].Body.Messages), 2*i-1; got != want {
						t.Errorf("request %d has %d messages, want %d", i+1, got, want)
					}
				}
				log, _ := runFlow(t, dir, nil, "logs", "latest", "after", "--raw")
				if log != "before\n1\n2\n3\n" {
					t.Errorf("the files at the end: %q\n%s", log, out)
				}
				// Every complete answer is in the accounts of the run: tokens of its events.
				show, _ := runFlow(t, dir, nil, "show", "--json")
				if !strings.Contains(show, `"status": "succeeded"`) || strings.Contains(out, "before ·") {
					t.Errorf("%s\n%s", out, show)
				}
			})
		}
	}
}

// TestScriptKillInTool kills flow while a tool changes files: the turn is not
// complete, so what it changed is undone, and it is asked for again.
func TestScriptKillInTool(t *testing.T) {
	t.Parallel()
	for _, driver := range killDrivers() {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, "k.yaml", strings.Replace(killFile, "DRIVER", driver, 1))
			half := agenttest.Turn{Text: "turn 2", Tools: []agenttest.Call{
				{Name: "Bash", Input: map[string]any{"command": "echo half >> log; rm -f gone"}},
				{Name: "Bash", Input: map[string]any{"command": "echo now; sleep 5"}}}}
			first := appendTurn(1)
			first.Tools = append(first.Tools, agenttest.Call{Name: "Bash", Input: map[string]any{"command": "printf x > gone"}})
			last := appendTurn(2)
			last.Tools = append(last.Tools, agenttest.Call{Name: "Bash", Input: map[string]any{"command": "cat gone; echo n=$n"}})
			api := agenttest.NewServer(t, first, half, last, agenttest.Turn{Text: "done"})
			env := []string{"ANTHROPIC_API_KEY=k-0123456789", "ANTHROPIC_BASE_URL=" + api.URL}
			killed(t, dir, env, printed2(t, dir, env), "run", "--output", "plain", "k.yaml")
			out, code := runFlow(t, dir, env, "resume", "--output", "plain")
			if code != 0 || len(api.Requests()) != 4 {
				t.Fatalf("exit %d, %d requests\n%s", code, len(api.Requests()), out)
			}
			log, _ := runFlow(t, dir, nil, "logs", "latest", "after", "--raw")
			if log != "before\n1\n2\n" {
				t.Errorf("the files at the end: %q\n%s", log, out)
			}
			// The shell's variables are those of the last complete turn, too.
			requests := api.Requests()
			if last := string(requests[3].Raw); !strings.Contains(last, `xn=2`) {
				t.Errorf("the last request lacks the file and the variable of turn 1: %s", last)
			}
		})
	}
}

// TestScriptRetryContinues: an attempt that the API's failure ended goes on in the
// next one, within the same run.
func TestScriptRetryContinues(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "k.yaml", strings.NewReplacer("DRIVER", "host", "{id: talk, ", "{id: talk, retry: {max_attempts: 3, initial: 10ms}, ").Replace(killFile))
	down := agenttest.Turn{Status: 500, Type: "api_error", Message: "down", Headers: map[string]string{"X-Should-Retry": "false"}}
	api := agenttest.NewServer(t, appendTurn(1), down, appendTurn(2), down, agenttest.Turn{Text: "done"})
	env := []string{"ANTHROPIC_API_KEY=k-0123456789", "ANTHROPIC_BASE_URL=" + api.URL}
	out, code := runFlow(t, dir, env, "run", "--output", "plain", "k.yaml")
	log, _ := runFlow(t, dir, nil, "logs", "latest", "after", "--raw")
	if code != 0 || len(api.Requests()) != 5 || log != "before\n1\n2\n" || !strings.Contains(out, "· goes on after turn 1") {
		t.Fatalf("exit %d, %d requests, log %q\n%s", code, len(api.Requests()), log, out)
	}
	if n := len(api.Requests()[4].Body.Messages); n != 5 {
		t.Errorf("the last request has %d messages", n)
	}
}

// printed2 is closed when the log of the run says that the second tool call of turn 2
// has begun.
func printed2(t *testing.T, dir string, env []string) <-chan struct{} {
	c := make(chan struct{})
	ctx := t.Context()
	go func() {
		for ctx.Err() == nil {
			cmd := exec.CommandContext(ctx, "flow", "logs", "latest", "talk")
			cmd.Dir = dir
			cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, env...)
			out, _ := cmd.Output()
			if strings.Contains(string(out), "echo now; sleep 5") {
				close(c)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return c
}

// TestScriptLoseSandbox kills the sandbox's init while a request is under way whose answer
// calls a tool: the run goes on in a new sandbox, at the last complete turn.
func TestScriptLoseSandbox(t *testing.T) {
	t.Parallel()
	if !sandboxWorks() {
		t.Skip("no local sandbox")
	}
	dir := t.TempDir()
	write(t, dir, "k.yaml", strings.NewReplacer("DRIVER", "local", "{id: talk, ", "{id: talk, retry: {max_attempts: 3, initial: 10ms}, ").Replace(killFile))
	api := agenttest.NewServer(t, appendTurn(1), appendTurn(2), appendTurn(2), agenttest.Turn{Text: "done", Input: 10, Output: 1})
	var bodies []int
	var cmd *exec.Cmd
	api.Seen = func(n int, r agenttest.Request) {
		bodies = append(bodies, len(r.Body.Messages))
		if n == 2 { // its answer calls a tool in a sandbox that is no more
			_ = syscall.Kill(initOf(t, cmd.Process.Pid), syscall.SIGKILL)
		}
	}
	cmd = exec.CommandContext(t.Context(), "flow", "run", "--output", "plain", "k.yaml")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "ANTHROPIC_API_KEY=k-0123456789", "ANTHROPIC_BASE_URL=" + api.URL}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	log, _ := runFlow(t, dir, nil, "logs", "latest", "after", "--raw")
	if err != nil || log != "before\n1\n2\n" || len(bodies) != 4 || bodies[2] != 3 {
		t.Fatalf("%v, requests with %v messages, log %q\n%s", err, bodies, log, out.String())
	}
}
