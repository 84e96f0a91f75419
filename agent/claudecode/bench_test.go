package claudecode_test

import (
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/agenttest"
)

// BenchmarkTurns measures what a turn costs without the model's time, ours against the
// bare CLI, in one run: the difference of a long and a short conversation, in ms/turn.
// Ours judges the call and passes the gateway; turns are not stored here.
func BenchmarkTurns(b *testing.B) {
	cli := agenttest.Claude(b)
	const short, long = 2, 32
	script := func(turns int) (out []agenttest.Turn) {
		for range turns - 1 {
			out = append(out, shell("true"))
		}
		return append(out, agenttest.Turn{Text: "done"})
	}
	for name, run := range map[string]func(b *testing.B, turns int){
		"ours": func(b *testing.B, turns int) {
			api := agenttest.NewServer(b, script(turns)...)
			sb, _ := agenttest.Sandbox(b)
			_, err := newProvider(b, cli, api.URL).Converse(b.Context(), agent.Request{RunID: "r", StepID: "s", Attempt: 1, Prompt: "go", Allowed: []string{"Bash"}, Sandbox: sb, Out: io.Discard})
			if err != nil {
				b.Fatal(err)
			}
		},
		"bare": func(b *testing.B, turns int) {
			api := agenttest.NewServer(b, script(turns)...)
			dir := b.TempDir()
			cmd := exec.CommandContext(b.Context(), cli, "-p", "go", "--output-format", "stream-json", "--verbose", "--setting-sources", "", "--strict-mcp-config",
				"--tools", "Bash", "--allowedTools", "Bash")
			cmd.Dir = dir
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "CLAUDE_CONFIG_DIR=" + dir + "/config", "ANTHROPIC_BASE_URL=" + api.URL, "ANTHROPIC_API_KEY=k",
				"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "CLAUDE_CODE_MAX_RETRIES=0"}
			if out, err := cmd.CombinedOutput(); err != nil || len(api.Requests()) != turns {
				b.Fatalf("%v, %d requests\n%s", err, len(api.Requests()), out)
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			took := func(turns int) time.Duration {
				begun := time.Now()
				run(b, turns)
				return time.Since(begun)
			}
			var first, all time.Duration
			for b.Loop() {
				s := took(short)
				first += s
				all += took(long) - s
			}
			b.ReportMetric(float64(all.Microseconds())/1000/float64(long-short)/float64(b.N), "ms/turn")
			b.ReportMetric(float64(first.Microseconds())/1000/float64(b.N), "ms/start")
		})
	}
}
