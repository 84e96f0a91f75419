package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"flowrun.dev/flow/agent/agenttest"
)

// TestScriptLongConversation holds a conversation of 2,000 turns (FLOW_LONG; else of 60)
// and compares flow's memory in its course: a turn leaves its messages, which the API
// wants in every request, and nothing else.
func TestScriptLongConversation(t *testing.T) {
	turns, most := 60, int64(40<<20)
	if os.Getenv("FLOW_LONG") != "" {
		turns, most = 2000, 64<<20
	} else {
		t.Parallel()
	}
	dir := t.TempDir()
	write(t, dir, "l.yaml", `name: long
sandbox: {driver: host}
steps:
  - {id: talk, timeout: 20m, agent: {prompt: count, model: claude-haiku-5-5, allowed_tools: [Bash], max_turns: 10000}}
`)
	var script []agenttest.Turn
	for i := range turns - 1 {
		script = append(script, agenttest.Turn{Text: fmt.Sprintf("turn %d", i), Input: 10, Output: 1, Tools: []agenttest.Call{{Name: "Bash", Input: map[string]any{"command": fmt.Sprintf("echo %d > at", i)}}}})
	}
	api := agenttest.NewServer(t, append(script, agenttest.Turn{Text: "done"})...)
	cmd := exec.CommandContext(t.Context(), "flow", "run", "--output", "plain", "l.yaml")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "ANTHROPIC_API_KEY=k-0123456789", "ANTHROPIC_BASE_URL=" + api.URL}
	type sample struct {
		turn     int
		rss      int64
		body     int
		duration time.Duration
	}
	var samples []sample
	begun := time.Now()
	api.Seen = func(n int, r agenttest.Request) {
		if n%(turns/10) == 0 {
			samples = append(samples, sample{n, residentOf(cmd.Process.Pid), len(r.Raw), time.Since(begun)})
		}
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		text := out.String()
		t.Fatalf("%v\n%s", err, text[max(0, len(text)-2000):])
	}
	if n := len(api.Requests()); n != turns || len(samples) < 9 {
		t.Fatalf("%d requests, %d samples", n, len(samples))
	}
	for _, s := range samples {
		t.Logf("turn %4d: %3d MiB resident, request of %4d KiB, %s", s.turn, s.rss>>20, s.body>>10, s.duration.Round(time.Millisecond))
	}
	first, last := samples[1], samples[len(samples)-1]
	if grown := last.rss - first.rss; grown > most {
		t.Errorf("memory grew by %d MiB between turn %d and turn %d, at most %d MiB are expected", grown>>20, first.turn, last.turn, most>>20)
	}
	// What is stored grows with the conversation, not with its square.
	var stored int64
	_ = filepath.WalkDir(filepath.Join(dir, ".flow"), func(_ string, d os.DirEntry, err error) error {
		if err == nil {
			if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
				stored += info.Size()
			}
		}
		return nil
	})
	t.Logf("stored: %d KiB, %d bytes a turn", stored>>10, stored/int64(turns))
	if stored/int64(turns) > 32<<10 {
		t.Errorf("%d bytes are stored for each turn", stored/int64(turns))
	}
}

// residentOf is the memory that a process holds, in bytes.
func residentOf(pid int) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}
