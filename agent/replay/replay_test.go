package replay_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"gopkg.in/yaml.v3"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/agenttest"
	"flowrun.dev/flow/agent/replay"
)

func TestMain(m *testing.M) {
	if agenttest.MCPMain() {
		return
	}
	goleak.VerifyTestMain(m)
}

// TestConformance writes each script as a cassette.
func TestConformance(t *testing.T) {
	t.Parallel()
	agenttest.Run(t, func(t *testing.T, turns []agenttest.Turn, r *agent.Request) agent.Provider {
		var list []map[string]any
		for _, turn := range turns {
			m := map[string]any{"usage": map[string]any{"input_tokens": turn.Input, "output_tokens": turn.Output, "cache_read_tokens": turn.CacheRead, "cache_write_tokens": turn.CacheWrite}}
			if turn.Text != "" {
				m["text"] = turn.Text
			}
			if turn.StopReason != "" {
				m["stop_reason"] = turn.StopReason
			}
			var tools []map[string]any
			for _, c := range turn.Tools {
				tools = append(tools, map[string]any{"name": c.Name, "input": c.Input})
			}
			if tools != nil {
				m["tools"] = tools
			}
			list = append(list, m)
		}
		text, err := yaml.Marshal(map[string]any{"cassette": 1, "origin": replay.OriginHand, "model": "none", "turns": list})
		if err != nil {
			t.Fatal(err)
		}
		r.Cassette = t.TempDir()
		if err := os.WriteFile(filepath.Join(r.Cassette, r.StepID+".yaml"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		return replay.New()
	})
}

const head = "cassette: 1\norigin: written by hand\nmodel: none\n"

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":   "the file is empty",
		head: "there are no turns",
		"cassette: 2\norigin: x\nturns: [{text: a}]":                          "plays version 1",
		"cassette: 1\norigin: recorded by hand\nmodel: m\nturns: [{text: a}]": `origin is "recorded by hand"`,
		"cassette: 1\norigin: recorded\nturns: [{text: a}]":                   "model is missing",
		head + "turns:\n  - text: a\n    txet: b\n":                           "line 6: field txet not found",
		head + "turns:\n  - text: a\n    text: b\n":                           "line 6",
		head + "extra: 1\nturns: [{text: a}]\n":                               "line 4: field extra not found",
		head + "turns:\n  - text: [a]\n":                                      "line 5",
		head + "turns:\n  - text: a\n  - text: b\n":                           "line 5: the conversation ends here (end_turn), but there are more turns",
		head + "turns:\n  - text: a\n    stop_reason: over\n":                 `line 5: stop_reason is "over"`,
		head + "turns:\n  - text: a\n    stop_reason: tool_use\n":             "do not go together",
		head + "turns:\n  - tools: [{name: Read}]\n    stop_reason: end_turn": "do not go together",
		head + "turns:\n  - stop_reason: end_turn\n":                          "neither text nor tools",
		head + "turns:\n  - tools: [{input: {}}]\n":                           "line 5: tool 1: name is missing",
		head + "turns:\n  - tools: [{name: Read, input: {a: .nan}}]\n":        "the input is not JSON",
		head + "turns: [{text: a}]\n---\nx: 1\n":                              "more than one document",
		head + "turns: [{text: a}\n":                                          "line ",
	} {
		_, err := replay.Parse("c.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "c.yaml") {
			t.Errorf("%q:\ngot  %v\nwant %s", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "replay.") {
			t.Errorf("a Go type in the message: %v", err)
		}
	}
}

// TestMismatch: what differs is an error that shows both sides.
func TestMismatch(t *testing.T) {
	t.Parallel()
	const read = "turns:\n  - tools: [{name: Read, input: {file_path: no}}]\n"
	for name, c := range map[string]struct{ text, want string }{
		"tools":         {"turns:\n  - text: a\n    expect: {tools: [Write, Read]}\n", "c.yaml:5: turn 1: the request differs: expected the tools [Read Write], got [Read]"},
		"result":        {read + "  - expect: {last_result_contains: package main}\n    text: b\n", `c.yaml:6: turn 2: the request differs: expected the last results to contain "package main", got: "File does not exist."`},
		"one turn more": {read, "it has 1 turns and turn 2 was asked for; the last results were: \"File does not exist.\""},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "c.yaml"), []byte(head+c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		sb, _ := agenttest.Sandbox(t)
		_, err := replay.New().Converse(t.Context(), agent.Request{StepID: "c", Prompt: "x", Allowed: []string{"Read"}, Cassette: dir, Sandbox: sb})
		var ae *agent.Error
		if !errors.As(err, &ae) || ae.Class != agent.ClassInvalid || ae.Hint == "" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", name, err, c.want)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rec.yaml"), []byte("cassette: 1\norigin: recorded\nmodel: big\nturns: [{request: {digest: d, added: a}, message: '{\"content\": []}'}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		r    agent.Request
		want string
	}{
		{agent.Request{StepID: "rec", Cassette: dir}, ""},
		{agent.Request{StepID: "rec", Cassette: dir, Model: "big"}, ""},
		{agent.Request{StepID: "rec", Cassette: dir, Model: "small"}, "recorded with model big"},
		{agent.Request{StepID: "none", Cassette: dir}, "no such file"},
		{agent.Request{StepID: "rec"}, "names none"},
		{agent.Request{StepID: "../rec", Cassette: dir}, "no such file"},
		{agent.Request{StepID: "rec", Cassette: filepath.Join(dir, "rec.yaml")}, "not a directory"},
	} {
		err := replay.New().Check(c.r)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: got %v, want %q", c.r, err, c.want)
		}
	}
}

// FuzzParse: no cassette, however broken, panics.
func FuzzParse(f *testing.F) {
	f.Add([]byte(head + "turns:\n  - tools: [{name: Read, input: {a: {1: 2}}}]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := replay.Parse("c.yaml", text); err == nil && len(c.Turns) == 0 {
			t.Error("a cassette without turns")
		}
	})
}
