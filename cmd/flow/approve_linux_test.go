package main

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

const questionFile = `name: question
sandbox: {driver: host}
steps:
  - {id: ok, approve: Go on}
  - {id: after, run: echo after}
`

// TestKillWhileWaiting: a question outlives kill -9 of the process that waited, and so
// does an answer that it never saw.
func TestKillWhileWaiting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "q.yaml", questionFile)
	p := start(t, dir, "run", "q.yaml", "--wait", "--output", "plain")
	p.until("waits for a person")
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.end()
	if out, _ := flow(t, dir, "runs"); !strings.Contains(out, "interrupted") {
		t.Errorf("flow runs after the kill:\n%s", out)
	}
	out, code := flow(t, dir, "approve", "latest", "ok", "--note", "after the kill")
	if code != 0 || !strings.Contains(out, "no process runs it now") {
		t.Fatalf("approve: exit code %d\n%s", code, out)
	}
	out, code = flow(t, dir, "resume", "--output", "plain")
	if code != 0 || !strings.Contains(out, "approved by") || !strings.Contains(out, "after the kill") || strings.Contains(out, "waits for a person") {
		t.Errorf("resume: exit code %d\n%s", code, out)
	}
}

// TestAnsweredOnce: of many who answer at the same time one is heard, and the others
// are told by whom they were beaten.
func TestAnsweredOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "q.yaml", questionFile)
	if out, code := flow(t, dir, "run", "q.yaml"); code != codeWaiting {
		t.Fatalf("run: exit code %d\n%s", code, out)
	}
	var mu sync.Mutex
	var heard, told int
	var all []string
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			cmd := exec.Command(flowBinary(t), "approve", "latest", "ok")
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "FLOW_STATE=")
			out, err := cmd.CombinedOutput()
			mu.Lock()
			defer mu.Unlock()
			all = append(all, string(out))
			switch {
			case err == nil:
				heard++
			case strings.Contains(string(out), "was answered already: approve, by "):
				told++
			}
		})
	}
	wg.Wait()
	if heard != 1 || told != 5 {
		t.Errorf("%d heard, %d told, of 6:\n%s", heard, told, strings.Join(all, ""))
	}
}
