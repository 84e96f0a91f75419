package anthropic_test

import (
	"context"
	"encoding/json"
	"io"
	"os/exec"
	"testing"
	"time"

	sdk "github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/agenttest"
	"flowrun.dev/flow/agent/anthropic"
)

// BenchmarkTurns measures what a turn costs without the model's time, ours against a loop
// over the bare SDK, in one run: the difference of a long and a short conversation, in
// ms/turn. Ours judges the call, passes the gateway and keeps the shell's state; the bare
// loop runs the same command. Turns are not stored here.
func BenchmarkTurns(b *testing.B) {
	const short, long = 2, 102
	script := func(turns int) (out []agenttest.Turn) {
		for range turns - 1 {
			out = append(out, agenttest.Turn{Tools: []agenttest.Call{{Name: "Bash", Input: map[string]any{"command": "true"}}}, Input: 1, Output: 1})
		}
		return append(out, agenttest.Turn{Text: "done"})
	}
	for _, c := range []struct {
		name string
		run  func(b *testing.B, turns int)
	}{
		{"ours", func(b *testing.B, turns int) {
			api := agenttest.NewServer(b, script(turns)...)
			sb, _ := agenttest.Sandbox(b)
			_, err := anthropic.New(options(b, api.URL)).Converse(b.Context(), agent.Request{StepID: "s", Prompt: "go", Allowed: []string{"Bash"}, Sandbox: sb, Out: io.Discard})
			if err != nil || len(api.Requests()) != turns {
				b.Fatalf("%v, %d requests", err, len(api.Requests()))
			}
		}},
		{"bare", func(b *testing.B, turns int) {
			api := agenttest.NewServer(b, script(turns)...)
			if err := bare(b.Context(), api.URL, b.TempDir()); err != nil || len(api.Requests()) != turns {
				b.Fatalf("%v, %d requests", err, len(api.Requests()))
			}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			took := func(turns int) time.Duration {
				begun := time.Now()
				c.run(b, turns)
				return time.Since(begun)
			}
			var all time.Duration
			for b.Loop() {
				all -= took(short)
				all += took(long)
			}
			b.ReportMetric(float64(all.Microseconds())/1000/float64(long-short)/float64(b.N), "ms/turn")
		})
	}
}

// bare is the loop that one writes with the SDK alone.
func bare(ctx context.Context, url, dir string) error {
	client := sdk.NewMessageService(option.WithBaseURL(url), option.WithAPIKey("k"), option.WithMaxRetries(0))
	params := sdk.MessageNewParams{Model: "claude-test", MaxTokens: 32000, Messages: []sdk.MessageParam{sdk.NewUserMessage(sdk.NewTextBlock("go"))},
		Tools: []sdk.ToolUnionParam{{OfTool: &sdk.ToolParam{Name: "Bash", InputSchema: sdk.ToolInputSchemaParam{Properties: map[string]any{"command": map[string]string{"type": "string"}}}}}}}
	for {
		stream := client.NewStreaming(ctx, params)
		var m sdk.Message
		for stream.Next() {
			if err := m.Accumulate(stream.Current()); err != nil {
				return err
			}
		}
		if err := stream.Err(); err != nil {
			return err
		}
		params.Messages = append(params.Messages, m.ToParam())
		var results []sdk.ContentBlockParamUnion
		for _, c := range m.Content {
			if c.Type != "tool_use" {
				continue
			}
			var in struct{ Command string }
			if err := json.Unmarshal(c.Input, &in); err != nil {
				return err
			}
			cmd := exec.CommandContext(ctx, "bash", "-c", in.Command)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			results = append(results, sdk.NewToolResultBlock(c.ID, string(out), err != nil))
		}
		if len(results) == 0 {
			return nil
		}
		params.Messages = append(params.Messages, sdk.NewUserMessage(results...))
	}
}
