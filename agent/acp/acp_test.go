package acp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdk "github.com/coder/acp-go-sdk"
	"go.uber.org/goleak"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/acp"
	"flowrun.dev/flow/agent/agenttest"
	"flowrun.dev/flow/agent/gateway"
)

// The test binary is the scripted agent as well.
const scriptEnv = agenttest.ACPScript

type (
	op     = agenttest.ACPOp
	script = agenttest.ACP
)

func TestMain(m *testing.M) {
	if agenttest.ACPMain() {
		return
	}
	goleak.VerifyTestMain(m)
}

const key = "sk-test-real-key-0123456789"

type outcome struct {
	res   agent.Result
	err   *agent.Error
	out   string
	dir   string
	turns []agent.Turn
}

func converse(t *testing.T, s script, change func(*agent.Request)) (o outcome) {
	t.Helper()
	sb, dir := agenttest.Sandbox(t)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r := agent.Request{RunID: "run", StepID: "step", Attempt: 1, Prompt: "make it so", Command: []string{self}, Sandbox: sb, Out: &out,
		Allowed: []string{"Read", "Write", "Bash"}, Env: append(sb.BaseEnv(), scriptEnv+"="+string(text)),
		Turn: func(turn agent.Turn) error { o.turns = append(o.turns, turn); return nil }}
	if change != nil {
		change(&r)
	}
	gw, err := gateway.New(gateway.Options{APIKey: key, BaseURL: "http://127.0.0.1:9"})
	if err != nil {
		t.Fatal(err)
	}
	p := acp.New(acp.Options{Gateway: func() (*gateway.Gateway, error) { return gw, nil }})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Second, errors.New("the test took too long"))
	defer cancel()
	o.res, err = p.Converse(ctx, r)
	if err != nil && !errors.As(err, &o.err) {
		t.Fatalf("the error is no *agent.Error: %T %v", err, err)
	}
	o.out, o.dir = out.String(), dir
	return o
}

// TestConversation: files and commands are the sandbox's; the end is a turn.
func TestConversation(t *testing.T) {
	t.Parallel()
	o := converse(t, script{Ops: []op{
		{Do: "say", Text: "I begin"}, {Do: "write", Path: "a/b.txt", Text: "ünï\n"}, {Do: "read", Path: "a/b.txt"},
		{Do: "run", Text: "cat", Args: []string{"a/b.txt"}}, {Do: "run", Text: "echo 'it is'; exit 4"}, {Do: "run", Text: "sleep 60", Kind: "kill"}, {Do: "say", Text: "All done."},
	}}, nil)
	if o.err != nil {
		t.Fatalf("%v\n%s", o.err, o.out)
	}
	if b, err := os.ReadFile(filepath.Join(o.dir, "a/b.txt")); err != nil || string(b) != "ünï\n" {
		t.Errorf("the file holds %q, %v", b, err)
	}
	if o.res.StopReason != "end_turn" || !strings.HasSuffix(o.res.Text, "All done.") || o.res.Usage.ToolCalls != 5 || o.res.Usage.Turns != 1 || len(o.res.Denials) != 0 {
		t.Errorf("result %+v", o.res)
	}
	for _, want := range []string{"› make it so\n", "I begin\n", "● Write ", "● Bash 'cat' 'a/b.txt'\n", "exit 0: ünï", "exit 4: it is", "signal ", "All done.\n"} {
		if !strings.Contains(o.out, want) {
			t.Errorf("the rendering lacks %q:\n%s", want, o.out)
		}
	}
	if len(o.turns) != 1 || o.turns[0].Prompt != "make it so" || !json.Valid(o.turns[0].Response) {
		t.Fatalf("turns %+v", o.turns)
	}
	again := converse(t, script{Ops: []op{{Do: "exit"}}}, func(r *agent.Request) { r.Continue = o.turns })
	if again.err != nil || again.res.Text != o.res.Text {
		t.Errorf("what was complete: %v, %+v", again.err, again.res)
	}
}

// TestJudged: requests that the policy does not allow, and the agent is told.
func TestJudged(t *testing.T) {
	t.Parallel()
	both := []sdk.PermissionOptionKind{sdk.PermissionOptionKindAllowAlways, sdk.PermissionOptionKindAllowOnce, sdk.PermissionOptionKindRejectOnce}
	for name, c := range map[string]struct {
		allowed []string
		op      op
		want    string
		denied  string // the tool
	}{
		"write, not allowed":        {[]string{"Read"}, op{Do: "write", Path: "x", Text: "x"}, "Permission denied", "Write"},
		"write, beside the pattern": {[]string{"Write(./out/**)"}, op{Do: "write", Path: "x", Text: "x"}, "Permission denied", "Write"},
		"write, by a detour":        {[]string{"Write(./out/**)"}, op{Do: "write", Path: "out/../x", Text: "x"}, "Permission denied", "Write"},
		"write, through a link":     {[]string{"Write(./out/**)"}, op{Do: "write", Path: "out/link/x", Text: "x"}, "Permission denied", "Write"},
		"write, allowed":            {[]string{"Write(./out/**)"}, op{Do: "write", Path: "out/x", Text: "x"}, "written", ""},
		"read, not allowed":         {[]string{"Write"}, op{Do: "read", Path: "secret"}, "Permission denied", "Read"},
		"run, not allowed":          {[]string{"Read"}, op{Do: "run", Text: "touch", Args: []string{"x"}}, "Permission denied", "Bash"},
		"run, with settings":        {[]string{"Bash"}, op{Do: "run", Text: "ls", Env: []string{"LD_PRELOAD=./x.so"}}, "settings of the environment", "Bash"},
		"permit, allowed":           {[]string{"Bash"}, op{Do: "permit", Kind: sdk.ToolKindExecute, Text: "make", Options: both}, "allow_once", ""},
		"permit, not allowed":       {[]string{"Read"}, op{Do: "permit", Kind: sdk.ToolKindExecute, Text: "make", Options: both}, "reject_once", "Bash"},
		"permit, a file":            {[]string{"Edit(./src/**)"}, op{Do: "permit", Kind: sdk.ToolKindEdit, Path: "src/a", Options: both}, "allow_once", ""},
		"permit, another file":      {[]string{"Edit(./src/**)"}, op{Do: "permit", Kind: sdk.ToolKindEdit, Path: "a", Options: both}, "reject_once", "Edit"},
		"permit, delete":            {[]string{"Edit"}, op{Do: "permit", Kind: sdk.ToolKindDelete, Path: "a", Options: both}, "reject_once", "Write"},
		"permit, no file named":     {[]string{"Edit"}, op{Do: "permit", Kind: sdk.ToolKindEdit, Options: both}, "reject_once", "Edit"},
		"permit, the web":           {[]string{"Bash"}, op{Do: "permit", Kind: sdk.ToolKindFetch, Options: both}, "reject_once", "fetch"},
		"permit, something":         {[]string{"Bash"}, op{Do: "permit", Kind: sdk.ToolKindOther, Text: "x", Options: both}, "reject_once", "other"},
		"permit for always only":    {[]string{"Bash"}, op{Do: "permit", Kind: sdk.ToolKindExecute, Text: "make", Options: both[:1]}, "cancelled", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outside := t.TempDir()
			o := converse(t, script{Ops: []op{c.op}}, func(r *agent.Request) {
				r.Allowed = c.allowed
				dir := filepath.Join(r.Sandbox.Home(), "workspace")
				for link, to := range map[string]string{"out/link": outside, "secret": "/etc/passwd"} {
					if err := errors.Join(os.MkdirAll(filepath.Join(dir, "out"), 0o755), os.Symlink(to, filepath.Join(dir, link))); err != nil {
						t.Fatal(err)
					}
				}
			})
			if o.err != nil || !strings.Contains(o.res.Text, c.want) {
				t.Errorf("%v, the agent was told %q, want %q", o.err, o.res.Text, c.want)
			}
			var denied []string
			for _, d := range o.res.Denials {
				denied = append(denied, d.Tool)
			}
			if strings.Join(denied, " ") != c.denied {
				t.Errorf("denials %+v, want of %q", o.res.Denials, c.denied)
			}
			if left, _ := os.ReadDir(outside); len(left) != 0 {
				t.Errorf("written through a link: %v", left)
			}
		})
	}
	o := converse(t, script{Ops: []op{{Do: "write", Path: "x", Text: "x"}, {Do: "say", Text: "on and on"}}}, func(r *agent.Request) { r.Allowed, r.OnDenied = []string{"Read"}, "fail" })
	if o.err == nil || o.err.Class != agent.ClassDenied || len(o.turns) != 0 {
		t.Errorf("on_denied: fail: %v, %d turns", o.err, len(o.turns))
	}
}

// TestKey: what the agent sees is the address of the gateway and a token.
func TestKey(t *testing.T) {
	t.Parallel()
	o := converse(t, script{Ops: []op{{Do: "env", Text: "ANTHROPIC_API_KEY"}, {Do: "env", Text: "ANTHROPIC_BASE_URL"}}}, nil)
	if o.err != nil || !strings.HasPrefix(o.res.Text, "flow-step-") || strings.Contains(o.res.Text, key) || !strings.Contains(o.res.Text, "http://127.0.0.1:") {
		t.Errorf("%v, the agent sees %q", o.err, o.res.Text)
	}
}

func TestEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		s      script
		change func(*agent.Request)
		class  agent.Class
		text   string
	}{
		"refusal":          {script{Stop: sdk.StopReasonRefusal}, nil, agent.ClassFailed, "refused"},
		"max_tokens":       {script{Stop: sdk.StopReasonMaxTokens}, nil, agent.ClassFailed, "cut off"},
		"its own limit":    {script{Stop: sdk.StopReasonMaxTurnRequests}, nil, agent.ClassFailed, "limit of requests"},
		"cancelled":        {script{Stop: sdk.StopReasonCancelled}, nil, agent.ClassInfrastructure, "cancelled"},
		"it ends":          {script{Ops: []op{{Do: "exit"}}}, nil, agent.ClassInfrastructure, "the agent's last words"},
		"another protocol": {script{Version: 77}, nil, agent.ClassInvalid, "version 77"},
		"no such program":  {script{}, func(r *agent.Request) { r.Command = []string{"no-such-agent"} }, agent.ClassInvalid, "127"},
		"no protocol":      {script{}, func(r *agent.Request) { r.Command = []string{"echo", "hello"} }, agent.ClassInfrastructure, "initialize"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := converse(t, c.s, c.change)
			if o.err == nil || o.err.Class != c.class || !strings.Contains(o.err.Error(), c.text) {
				t.Errorf("got %v, want class %s with %q", o.err, c.class, c.text)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	sb, _ := agenttest.Sandbox(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(script{Ops: []op{{Do: "run", Text: "echo begun; sleep 60", Kind: ""}, {Do: "hang"}}})
	cause := errors.New("the step's time is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	r := agent.Request{RunID: "run", StepID: "step", Attempt: 1, Prompt: "x", Command: []string{self}, Sandbox: sb, Allowed: []string{"Bash"},
		Env: append(sb.BaseEnv(), scriptEnv+"="+string(text)), Out: writer(func(b []byte) {
			if bytes.Contains(b, []byte("sleep 60")) {
				cancel(cause)
			}
		})}
	p := acp.New(acp.Options{Gateway: func() (*gateway.Gateway, error) { return nil, errors.New("there is no key") }})
	if _, err := p.Converse(ctx, r); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

func TestCheck(t *testing.T) {
	t.Parallel()
	p := acp.New(acp.Options{})
	good := agent.Request{StepID: "s", Command: []string{"x"}, Allowed: []string{"Bash", "Read", "Write(./out/**)", "Edit(./src/**)"}}
	if err := p.Check(good); err != nil {
		t.Errorf("a good request: %v", err)
	}
	for want, change := range map[string]func(*agent.Request){
		"names no command":     func(r *agent.Request) { r.Command = nil },
		"the patterns of Bash": func(r *agent.Request) { r.Allowed = []string{"Bash(go test:*)"} },
		"the patterns of Read": func(r *agent.Request) { r.Disallowed = []string{"Read(.env)"} },
		"has no WebSearch":     func(r *agent.Request) { r.Allowed = []string{"WebSearch"} },
		"parse allowed_tools":  func(r *agent.Request) { r.Allowed = []string{"Bash("} },
		"on_denied":            func(r *agent.Request) { r.OnDenied = "ask" },
		"record the":           func(r *agent.Request) { r.Record = "cassettes" },
		"set model":            func(r *agent.Request) { r.Model = "m" },
	} {
		r := good
		change(&r)
		var ae *agent.Error
		if err := p.Check(r); !errors.As(err, &ae) || ae.Class != agent.ClassInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("want an invalid one with %q, got %v", want, err)
		}
	}
}
