package agenttest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	sdk "github.com/coder/acp-go-sdk"
)

// ACPOp is one thing that the scripted agent does; what it learns it says.
type ACPOp struct {
	Do      string // say, read, write, run, permit, self (writes without asking), hang, exit
	Path    string
	Text    string
	Args    []string
	Env     []string
	Kind    sdk.ToolKind
	Options []sdk.PermissionOptionKind
}

// ACP is the script of an agent that speaks the Agent Client Protocol.
type ACP struct {
	Ops     []ACPOp
	Stop    sdk.StopReason
	Version int
}

type scriptedAgent struct {
	s    ACP
	conn *sdk.AgentSideConnection
	dir  string
}

// ACPScript is the variable with the JSON of an ACP that makes a test binary an agent.
const ACPScript = "TEST_ACP_SCRIPT"

// ACPMain is called by TestMain: true when the process was the scripted agent.
func ACPMain() bool {
	text := os.Getenv(ACPScript)
	if text == "" {
		return false
	}
	a := &scriptedAgent{}
	if err := json.Unmarshal([]byte(text), &a.s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	a.conn = sdk.NewAgentSideConnection(a, os.Stdout, os.Stdin)
	<-a.conn.Done()
	return true
}

func (a *scriptedAgent) Initialize(_ context.Context, q sdk.InitializeRequest) (sdk.InitializeResponse, error) {
	v := q.ProtocolVersion
	if a.s.Version != 0 {
		v = sdk.ProtocolVersion(a.s.Version)
	}
	return sdk.InitializeResponse{ProtocolVersion: v, AuthMethods: []sdk.AuthMethod{}}, nil
}

func (a *scriptedAgent) NewSession(_ context.Context, q sdk.NewSessionRequest) (sdk.NewSessionResponse, error) {
	a.dir = q.Cwd
	return sdk.NewSessionResponse{SessionId: "s"}, nil
}

func (a *scriptedAgent) Prompt(ctx context.Context, q sdk.PromptRequest) (sdk.PromptResponse, error) {
	for i, o := range a.s.Ops {
		text := a.do(ctx, i, o)
		err := a.conn.SessionUpdate(ctx, sdk.SessionNotification{SessionId: q.SessionId, Update: sdk.UpdateAgentMessageText(text + "\n")})
		if err != nil {
			return sdk.PromptResponse{}, err
		}
	}
	stop := a.s.Stop
	if stop == "" {
		stop = sdk.StopReasonEndTurn
	}
	return sdk.PromptResponse{StopReason: stop}, nil
}

func (a *scriptedAgent) do(ctx context.Context, i int, o ACPOp) string {
	at := o.Path
	if at != "" && !filepath.IsAbs(at) {
		at = filepath.Join(a.dir, at)
	}
	why := func(err error) string {
		raw, _ := json.Marshal(err)
		return "refused: " + string(raw)
	}
	switch o.Do {
	case "say":
		return o.Text
	case "env":
		return os.Getenv(o.Text)
	case "read":
		r, err := a.conn.ReadTextFile(ctx, sdk.ReadTextFileRequest{SessionId: "s", Path: at})
		if err != nil {
			return why(err)
		}
		return r.Content
	case "write":
		if _, err := a.conn.WriteTextFile(ctx, sdk.WriteTextFileRequest{SessionId: "s", Path: at, Content: o.Text}); err != nil {
			return why(err)
		}
		return "written"
	case "self":
		if err := os.WriteFile(at, []byte(o.Text), 0o644); err != nil {
			return err.Error()
		}
		return "written by itself"
	case "run":
		q := sdk.CreateTerminalRequest{SessionId: "s", Command: o.Text, Args: o.Args}
		for _, kv := range o.Env {
			name, value, _ := strings.Cut(kv, "=")
			q.Env = append(q.Env, sdk.EnvVariable{Name: name, Value: value})
		}
		t, err := a.conn.CreateTerminal(ctx, q)
		if err != nil {
			return why(err)
		}
		if o.Kind == "kill" {
			if _, err := a.conn.KillTerminal(ctx, sdk.KillTerminalRequest{SessionId: "s", TerminalId: t.TerminalId}); err != nil {
				return why(err)
			}
		}
		exit, err := a.conn.WaitForTerminalExit(ctx, sdk.WaitForTerminalExitRequest{SessionId: "s", TerminalId: t.TerminalId})
		if err != nil {
			return why(err)
		}
		out, err := a.conn.TerminalOutput(ctx, sdk.TerminalOutputRequest{SessionId: "s", TerminalId: t.TerminalId})
		if err != nil {
			return why(err)
		}
		if exit.Signal != nil {
			return "signal " + *exit.Signal
		}
		return fmt.Sprintf("exit %d: %s", *exit.ExitCode, out.Output)
	case "permit":
		call := sdk.ToolCallUpdate{ToolCallId: sdk.ToolCallId(fmt.Sprint(i)), Kind: &o.Kind}
		if o.Text != "" {
			call.RawInput = map[string]any{"command": o.Text}
		}
		if at != "" {
			call.Locations = []sdk.ToolCallLocation{{Path: at}}
		}
		q := sdk.RequestPermissionRequest{SessionId: "s", ToolCall: call, Options: []sdk.PermissionOption{}}
		for _, k := range o.Options {
			q.Options = append(q.Options, sdk.PermissionOption{Kind: k, Name: string(k), OptionId: sdk.PermissionOptionId(k)})
		}
		r, err := a.conn.RequestPermission(ctx, q)
		if err != nil {
			return why(err)
		}
		if r.Outcome.Selected != nil {
			return string(r.Outcome.Selected.OptionId)
		}
		return "cancelled"
	case "hang":
		<-ctx.Done()
	case "exit":
		fmt.Fprintln(os.Stderr, "the agent's last words")
		os.Exit(3)
	}
	return ""
}

func (a *scriptedAgent) Authenticate(context.Context, sdk.AuthenticateRequest) (sdk.AuthenticateResponse, error) {
	return sdk.AuthenticateResponse{}, nil
}
func (a *scriptedAgent) Cancel(context.Context, sdk.CancelNotification) error { return nil }
func (a *scriptedAgent) CloseSession(context.Context, sdk.CloseSessionRequest) (sdk.CloseSessionResponse, error) {
	return sdk.CloseSessionResponse{}, nil
}
func (a *scriptedAgent) ListSessions(context.Context, sdk.ListSessionsRequest) (sdk.ListSessionsResponse, error) {
	return sdk.ListSessionsResponse{}, nil
}
func (a *scriptedAgent) ResumeSession(context.Context, sdk.ResumeSessionRequest) (sdk.ResumeSessionResponse, error) {
	return sdk.ResumeSessionResponse{}, nil
}
func (a *scriptedAgent) SetSessionConfigOption(context.Context, sdk.SetSessionConfigOptionRequest) (sdk.SetSessionConfigOptionResponse, error) {
	return sdk.SetSessionConfigOptionResponse{}, nil
}
func (a *scriptedAgent) SetSessionMode(context.Context, sdk.SetSessionModeRequest) (sdk.SetSessionModeResponse, error) {
	return sdk.SetSessionModeResponse{}, nil
}

var _ sdk.Agent = (*scriptedAgent)(nil)
