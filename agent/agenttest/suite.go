package agenttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flowrun.dev/flow/agent"
)

// Harness makes a provider whose model gives the scripted turns; the first
// len(r.Continue) of them must not be asked for again. It may change the
// request (the cassette's folder, the step's name).
type Harness func(t *testing.T, turns []Turn, r *agent.Request) agent.Provider

// write is a turn that writes a file.
func write(name, content string) Turn {
	return Turn{Text: "I write " + name, Tools: []Call{{"Write", map[string]any{"file_path": name, "content": content}}}, Input: 10, Output: 5}
}

func command(c string) Call { return Call{"Bash", map[string]any{"command": c}} }

var done = Turn{Text: "All done.", Input: 20, Output: 3, CacheRead: 7, CacheWrite: 9}

type outcome struct {
	res   agent.Result
	err   *agent.Error
	out   string
	turns []agent.Turn
	dir   string
}

// converse runs one scripted conversation in a new sandbox.
func converse(t *testing.T, h Harness, turns []Turn, change func(*agent.Request)) outcome {
	t.Helper()
	sb, dir := Sandbox(t)
	var out bytes.Buffer
	o := outcome{dir: dir}
	r := agent.Request{
		RunID: "run", StepID: "step", Attempt: 1, Prompt: "make it so", Allowed: []string{"Bash", "Read", "Write", "Edit", "Glob", "Grep"},
		Sandbox: sb, Out: &out, Turn: func(turn agent.Turn) error { o.turns = append(o.turns, turn); return nil },
	}
	if change != nil {
		change(&r)
	}
	p := h(t, turns, &r)
	if err := p.Check(r); err != nil {
		t.Fatalf("check: %v", err)
	}
	res, err := p.Converse(t.Context(), r)
	if err != nil && !errors.As(err, &o.err) {
		t.Fatalf("the error is no *agent.Error: %T %v", err, err)
	}
	o.res, o.out = res, out.String()
	return o
}

// Run is the conformance suite of providers.
func Run(t *testing.T, h Harness) { RunExcept(t, h, nil) }

// RunExcept leaves out what except names, with the reason why it has no meaning for
// the provider.
func RunExcept(t *testing.T, h Harness, except map[string]string) {
	run := func(name string, test func(*testing.T, Harness)) {
		t.Run(name, func(t *testing.T) {
			if why := except[name]; why != "" {
				t.Skip(why)
			}
			t.Parallel()
			test(t, h)
		})
	}
	run("conversation", testConversation)
	run("denied", testDenied)
	run("not offered", testNotOffered)
	run("on_denied fail", testOnDenied)
	run("max_turns", testMaxTurns)
	run("stop reasons", testStopReasons)
	run("cut off", testCutOff)
	run("pause", testPause)
	run("turn refused", testTurnRefused)
	run("cancelled", testCancelled)
	run("check", testCheck)
	run("continue", testContinue)
	run("many calls", testManyCalls)
	run("mcp", testMCP)
	run("history", testHistory)
}

func testConversation(t *testing.T, h Harness) {
	o := converse(t, h, []Turn{write("a/b.txt", "ünï <&> \"x\"\n"), {Tools: []Call{command("cat a/b.txt; exit 3")}}, done}, nil)
	if o.err != nil {
		t.Fatal(o.err)
	}
	u := o.res.Usage
	if u.Turns != 3 || u.ToolCalls != 2 || u.InputTokens != 30 || u.OutputTokens != 8 || u.CacheReadTokens != 7 || u.CacheWriteTokens != 9 {
		t.Errorf("usage: %+v", u)
	}
	if o.res.Text != "All done." || o.res.StopReason != "end_turn" || o.res.Model == "" || len(o.res.Denials) != 0 {
		t.Errorf("result: %+v", o.res)
	}
	if b, err := os.ReadFile(filepath.Join(o.dir, "a/b.txt")); err != nil || string(b) != "ünï <&> \"x\"\n" {
		t.Errorf("the file holds %q, %v", b, err)
	}
	if len(o.turns) != 3 || o.turns[0].Index != 0 || o.turns[2].Index != 2 || o.turns[2].Results != nil {
		t.Fatalf("turns: %+v", o.turns)
	}
	for _, turn := range o.turns {
		if !json.Valid(turn.Response) || turn.Results != nil && !json.Valid(turn.Results) {
			t.Errorf("turn %d is not JSON: %s %s", turn.Index, turn.Response, turn.Results)
		}
	}
	if !strings.Contains(string(o.turns[1].Results), "Exit code 3") || !strings.Contains(string(o.turns[1].Results), "ünï <&>") {
		t.Errorf("results: %s", o.turns[1].Results)
	}
	for _, want := range []string{"› make it so\n", "● Write a/b.txt\n", "I write a/b.txt\n", "● Bash cat a/b.txt; exit 3\n", "✗ Exit code 3\n", "All done.\n"} {
		if !strings.Contains(o.out, want) {
			t.Errorf("the rendering lacks %q:\n%s", want, o.out)
		}
	}
}

func testDenied(t *testing.T, h Harness) {
	o := converse(t, h, []Turn{{Tools: []Call{command("touch x"), command("echo yes")}}, done},
		func(r *agent.Request) { r.Allowed = []string{"Bash(echo:*)"} })
	if o.err != nil {
		t.Fatal(o.err)
	}
	if len(o.res.Denials) != 1 || o.res.Denials[0].Tool != "Bash" || !strings.Contains(o.res.Denials[0].Input, "touch x") || o.res.Denials[0].Reason == "" {
		t.Errorf("denials: %+v", o.res.Denials)
	}
	if !strings.Contains(string(o.turns[0].Results), "Permission denied: ") || !strings.Contains(string(o.turns[0].Results), "yes") {
		t.Errorf("results: %s", o.turns[0].Results)
	}
	if !strings.Contains(o.out, "✗ denied Bash touch x: ") {
		t.Errorf("rendering:\n%s", o.out)
	}
	absent(t, o.dir, "x")
}

func absent(t *testing.T, dir, name string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s exists: %v", name, err)
	}
}

func testNotOffered(t *testing.T, h Harness) {
	o := converse(t, h, []Turn{write("x", "y"), {Tools: []Call{{"WebFetch", map[string]any{"url": "http://x"}}}}, done},
		func(r *agent.Request) { r.Allowed = []string{"Read"} })
	if o.err != nil {
		t.Fatal(o.err)
	}
	if len(o.res.Denials) != 2 || !strings.Contains(string(o.turns[0].Results), "No such tool available: Write") {
		t.Errorf("denials %+v, results %s", o.res.Denials, o.turns[0].Results)
	}
	absent(t, o.dir, "x")
}

func testOnDenied(t *testing.T, h Harness) {
	o := converse(t, h, []Turn{write("x", "y"), done}, func(r *agent.Request) { r.Allowed, r.OnDenied = []string{"Read"}, "fail" })
	if o.err == nil || o.err.Class != agent.ClassDenied || len(o.turns) != 1 || len(o.res.Denials) != 1 {
		t.Errorf("error %v, %d turns, denials %v", o.err, len(o.turns), o.res.Denials)
	}
}

func testMaxTurns(t *testing.T, h Harness) {
	o := converse(t, h, []Turn{write("x", "1"), write("x", "2"), write("x", "3")}, func(r *agent.Request) { r.MaxTurns = 2 })
	if o.err == nil || o.err.Class != agent.ClassFailed || !strings.Contains(o.err.Error(), "max_turns: 2") || len(o.turns) != 2 {
		t.Errorf("error %v, %d turns", o.err, len(o.turns))
	}
	if o := converse(t, h, []Turn{write("x", "1"), done}, func(r *agent.Request) { r.MaxTurns = 2 }); o.err != nil {
		t.Errorf("the last allowed turn may end the conversation: %v", o.err)
	}
}

func testStopReasons(t *testing.T, h Harness) {
	for reason, want := range map[string]agent.Class{"end_turn": "", "stop_sequence": "", "refusal": agent.ClassFailed} {
		stopsFor(t, h, reason, want)
	}
}

func testCutOff(t *testing.T, h Harness) {
	for _, reason := range []string{"max_tokens", "model_context_window_exceeded"} {
		stopsFor(t, h, reason, agent.ClassFailed)
	}
}

func stopsFor(t *testing.T, h Harness, reason string, want agent.Class) {
	t.Helper()
	o := converse(t, h, []Turn{{Text: "words", StopReason: reason, Input: 1}}, nil)
	if (o.err == nil) != (want == "") || o.err != nil && o.err.Class != want {
		t.Errorf("%s: got %v, want class %q", reason, o.err, want)
	}
	if o.res.StopReason != reason || o.res.Usage.InputTokens != 1 || len(o.turns) != 1 {
		t.Errorf("%s: result %+v, %d turns", reason, o.res, len(o.turns))
	}
}

func testPause(t *testing.T, h Harness) {
	o := converse(t, h, []Turn{{Text: "one moment", StopReason: "pause_turn"}, done}, nil)
	if o.err != nil || o.res.Usage.Turns != 2 || o.res.Text != "All done." {
		t.Errorf("pause_turn: %+v, %v", o.res, o.err)
	}
}

func testTurnRefused(t *testing.T, h Harness) {
	full := errors.New("the disk is full")
	o := converse(t, h, []Turn{write("x", "1"), write("x", "2")}, func(r *agent.Request) { r.Turn = func(agent.Turn) error { return full } })
	if o.err == nil || !errors.Is(o.err, full) || o.res.Usage.Turns != 1 {
		t.Errorf("error %v, %+v", o.err, o.res.Usage)
	}
}

func testCancelled(t *testing.T, h Harness) {
	sb, dir := Sandbox(t)
	cause := errors.New("the step's time is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	r := agent.Request{StepID: "step", Prompt: "wait", Allowed: []string{"Bash"}, Sandbox: sb, Out: cancelOn{"● Bash", func() { cancel(cause) }}}
	p := h(t, []Turn{{Tools: []Call{command("sleep 60; touch late")}}, done}, &r)
	res, err := p.Converse(ctx, r)
	if !errors.Is(err, cause) || res.Usage.Turns != 1 {
		t.Errorf("got %v, %+v", err, res.Usage)
	}
	absent(t, dir, "late")
}

// cancelOn calls a function when a text is written.
type cancelOn struct {
	text string
	then func()
}

func (c cancelOn) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(c.text)) {
		c.then()
	}
	return len(p), nil
}

func testCheck(t *testing.T, h Harness) {
	for name, change := range map[string]func(*agent.Request){
		"a rule that does not parse":    func(r *agent.Request) { r.Allowed = []string{"Bash(a; b)"} },
		"a tool that is not there":      func(r *agent.Request) { r.Allowed = []string{"Read", "WebSearch"} },
		"an unknown word for on_denied": func(r *agent.Request) { r.OnDenied = "ask" },
	} {
		r := agent.Request{StepID: "step", Prompt: "x", Allowed: []string{"Read"}}
		p := h(t, []Turn{done}, &r)
		if err := p.Check(r); err != nil {
			t.Fatalf("a good request: %v", err)
		}
		change(&r)
		var ae *agent.Error
		if err := p.Check(r); !errors.As(err, &ae) || ae.Class != agent.ClassInvalid {
			t.Errorf("%s: got %v", name, err)
		}
		if p.Name() == "" {
			t.Error("the provider has no name")
		}
	}
}

// testManyCalls: calls of one answer run in their order.
func testManyCalls(t *testing.T, h Harness) {
	var calls []Call
	for _, c := range "abcdefgh" {
		calls = append(calls, command("printf "+string(c)+" >> order"))
	}
	o := converse(t, h, []Turn{{Tools: calls}, done}, nil)
	if b, err := os.ReadFile(filepath.Join(o.dir, "order")); err != nil || string(b) != "abcdefgh" || o.err != nil {
		t.Errorf("order %q, %v, %v", b, err, o.err)
	}
}

// testContinue: a conversation goes on after each of its turns; what was complete is
// neither asked for nor executed again.
func testContinue(t *testing.T, h Harness) {
	script := []Turn{
		{Tools: []Call{command("echo 1 >> log; x=7"), {"WebFetch", map[string]any{"url": "http://x"}}}},
		{Text: "one moment", Tools: []Call{command("true")}},
		{Tools: []Call{command("echo 2$x >> log")}},
		done,
	}
	whole := converse(t, h, script, nil)
	if whole.err != nil || len(whole.turns) != len(script) || whole.turns[0].Prompt == "" || whole.turns[1].Prompt != "" {
		t.Fatalf("%v, %d turns", whole.err, len(whole.turns))
	}
	for k := 1; k <= len(script); k++ {
		o := converse(t, h, script, func(r *agent.Request) { r.Continue = whole.turns[:k] })
		if o.err != nil || o.res.Text != "All done." || o.res.StopReason != "end_turn" || o.res.Usage.Turns != len(script)-k {
			t.Errorf("after turn %d: %v, %+v", k, o.err, o.res)
		}
		if len(o.turns) != len(script)-k || len(o.turns) > 0 && o.turns[0].Index != k {
			t.Errorf("after turn %d: recorded %+v", k, o.turns)
		}
		log, _ := os.ReadFile(filepath.Join(o.dir, "log"))
		if want := map[bool]string{true: "27\n", false: ""}[k < 3]; string(log) != want {
			t.Errorf("after turn %d: the log holds %q, want %q", k, log, want)
		}
	}
	for name, change := range map[string]func(*agent.Request){
		"another prompt": func(r *agent.Request) { r.Prompt = "something else" },
		"a gap":          func(r *agent.Request) { r.Continue = []agent.Turn{whole.turns[0], whole.turns[2]} },
		"damage":         func(r *agent.Request) { r.Continue[0].Response = json.RawMessage(`{"content":7}`) },
	} {
		o := converse(t, h, script, func(r *agent.Request) {
			r.Continue = append([]agent.Turn(nil), whole.turns[:2]...)
			change(r)
		})
		if o.err == nil || o.err.Class != agent.ClassInvalid || o.err.Hint == "" || o.res.Usage.Turns != 0 {
			t.Errorf("%s: %v, %+v", name, o.err, o.res)
		}
	}
}

// scripted is the scripted MCP server as a program: the test binary itself (MCPMain).
func scripted(t *testing.T, how string) agent.MCPServer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return agent.MCPServer{Name: "srv", Command: []string{self}, Env: []string{MCPScript + "=" + how, "GIVEN=by the server's env"}}
}

// testMCP: tools of a server are offered and called by the rules of the others.
func testMCP(t *testing.T, h Harness) {
	call := func(name string, in map[string]any) Call { return Call{"mcp__srv__" + name, in} }
	script := []Turn{
		{Tools: []Call{call("echo", map[string]any{"text": "hällo <&>"}), call("env", map[string]any{"name": "GIVEN"}), call("fail", map[string]any{})}},
		{Tools: []Call{call("write_file", map[string]any{"name": "by-server", "text": "x"}), call("hidden", map[string]any{}), call("large", map[string]any{})}},
		done,
	}
	o := converse(t, h, script, func(r *agent.Request) {
		r.MCPServers = []agent.MCPServer{scripted(t, "serve")}
		r.Allowed = []string{"Read", "mcp__srv__*"}
		r.Disallowed = []string{"mcp__srv__hidden"}
	})
	if o.err != nil {
		t.Fatal(o.err)
	}
	if len(o.turns) != 3 {
		t.Fatalf("%d turns", len(o.turns))
	}
	for _, want := range []string{"echo: hällo <&>", "GIVEN=by the server's env", "it failed as asked"} {
		if !strings.Contains(string(o.turns[0].Results), want) {
			t.Errorf("the results lack %q: %s", want, o.turns[0].Results)
		}
	}
	if s := string(o.turns[1].Results); strings.Contains(s, "never") || len(s) > 200<<10 { // 1 MB was given
		t.Errorf("results of turn 2: %d bytes", len(s))
	}
	if b, err := os.ReadFile(filepath.Join(o.dir, "by-server")); err != nil || string(b) != "x" {
		t.Errorf("the server's file: %q, %v", b, err)
	}
	if len(o.res.Denials) != 1 || o.res.Denials[0].Tool != "mcp__srv__hidden" {
		t.Errorf("denials: %+v", o.res.Denials)
	}
	if o.res.Usage.ToolCalls != 6 || !strings.Contains(o.out, "● mcp__srv__echo") || !strings.Contains(o.out, "✗ it failed as asked") {
		t.Errorf("%+v\n%s", o.res.Usage, o.out)
	}
	for how, want := range map[string]string{"refuse": "exit code 3: the server's last words", "many": "more than 256 tools"} {
		o := converse(t, h, script, func(r *agent.Request) {
			r.MCPServers, r.Allowed = []agent.MCPServer{scripted(t, how)}, []string{"mcp__srv"}
		})
		if o.err == nil || !strings.Contains(o.err.Error(), want) || !strings.Contains(o.err.Error(), "MCP server srv") || o.res.Usage.Turns != 0 {
			t.Errorf("%s: %v, %+v", how, o.err, o.res.Usage)
		}
	}
	o = converse(t, h, script, func(r *agent.Request) {
		r.MCPServers, r.Allowed = []agent.MCPServer{{Name: "srv", Command: []string{"no-such-program"}}}, []string{"mcp__srv"}
	})
	if o.err == nil || o.err.Class != agent.ClassInvalid || !strings.Contains(o.err.Error(), "no-such-program") {
		t.Errorf("a program that is not there: %v", o.err)
	}
	o = converse(t, h, script, func(r *agent.Request) {
		r.MCPServers, r.Allowed = []agent.MCPServer{scripted(t, "serve")}, []string{"mcp__srv__ecko"}
	})
	if o.err == nil || o.err.Class != agent.ClassInvalid || !strings.Contains(o.err.Error(), "no MCP server has mcp__srv__ecko") {
		t.Errorf("a tool that is not there: %v", o.err)
	}
	// A server that dies is told to the model, which may go on.
	o = converse(t, h, []Turn{{Tools: []Call{call("echo", map[string]any{"text": "x"})}}, done}, func(r *agent.Request) {
		r.MCPServers, r.Allowed = []agent.MCPServer{scripted(t, "die")}, []string{"mcp__srv"}
	})
	if o.err != nil || !strings.Contains(string(o.turns[0].Results), "exit code 4: the server dies") {
		t.Errorf("a server that dies: %v, %+v", o.err, o.turns)
	}
}

// testHistory: a new conversation goes on with an earlier one. It has its own turns, its
// own limits, and the earlier one is neither asked for nor executed again.
func testHistory(t *testing.T, h Harness) {
	first := converse(t, h, []Turn{{Text: "I look", Tools: []Call{command("echo one >> log")}}, {Text: "The word is plum."}}, nil)
	if first.err != nil {
		t.Fatal(first.err)
	}
	script := []Turn{{Tools: []Call{command("echo two >> log")}}, done}
	second := converse(t, h, script, func(r *agent.Request) {
		r.History, r.Prompt, r.StepID, r.MaxTurns = first.turns, "and now", "second", 2
	})
	if second.err != nil || second.res.Text != "All done." || second.res.Usage.Turns != 2 {
		t.Fatalf("%v, %+v", second.err, second.res)
	}
	if log, _ := os.ReadFile(filepath.Join(second.dir, "log")); string(log) != "two\n" {
		t.Errorf("the log holds %q", log)
	}
	if len(second.turns) != 2 || second.turns[0].Index != 0 || second.turns[0].Prompt != "and now" {
		t.Errorf("recorded %+v", second.turns)
	}
	// Stopped in its middle, it goes on with both.
	again := converse(t, h, script, func(r *agent.Request) {
		r.History, r.Prompt, r.StepID = first.turns, "and now", "second"
		r.Continue, r.Attempt = second.turns[:1], 2
	})
	if again.err != nil || again.res.Usage.Turns != 1 || len(again.turns) != 1 || again.turns[0].Index != 1 {
		t.Errorf("%v, %+v, recorded %+v", again.err, again.res.Usage, again.turns)
	}
}
