package claudecode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/child"
	"flowrun.dev/flow/agent/loop"
	"flowrun.dev/flow/sandbox"
)

// goOn is what the CLI is asked when it continues a conversation: it wants a prompt.
const goOn = "The session was interrupted and goes on now: the files are as they were after your last tool results. Continue with the task."

// restore takes the complete turns of a conversation that goes on. over is true when
// the last of them was its end: nothing is asked for again.
func (c *conversation) restore() (over bool, err error) {
	turns := c.r.Continue
	if len(turns) == 0 {
		c.screen.Prompt(c.r.Prompt)
		return false, nil
	}
	again := "begin it anew with flow resume --from " + c.r.StepID
	if turns[0].Prompt != c.r.Prompt {
		return false, invalid("what the prompt is made of has changed; "+again, "continue the conversation: it began with another prompt")
	}
	var last answer
	for i, t := range turns {
		if t.Index != i {
			return false, invalid(again, "continue the conversation: turn %d: it is stored as turn %d", i+1, t.Index+1)
		}
		if last, err = read(t.Response); err != nil {
			return false, invalid(again, "continue the conversation: turn %d: %w", i+1, err)
		}
		if t.Results != nil && !json.Valid(t.Results) {
			return false, invalid(again, "continue the conversation: turn %d: its results are damaged", i+1)
		}
	}
	c.index = len(turns)
	c.res.Text, c.res.StopReason = last.text, last.StopReason
	if last.Model != "" {
		c.res.Model = last.Model
	}
	c.screen.Note(fmt.Sprintf("goes on after turn %d", len(turns)))
	switch last.StopReason {
	case loop.StopToolUse:
		if c.output != nil && last.output != nil && c.output.Check(last.output) == nil {
			c.res.Structured = last.output
			return true, nil
		}
	case loop.StopEndTurn, loop.StopSequence:
		return len(last.calls) == 0 && c.output == nil, nil
	case loop.StopRefusal:
		return false, loop.StopError(last.StopReason)
	}
	if c.r.MaxTurns > 0 && c.index >= c.r.MaxTurns {
		return false, maxTurns(c.r.MaxTurns)
	}
	return false, nil
}

// sessionLine is one message of the CLI's session file, with what it needs to read it
// back (measured).
type sessionLine struct {
	Parent    *string         `json:"parentUuid"`
	Sidechain bool            `json:"isSidechain"`
	Type      string          `json:"type"`
	Message   json.RawMessage `json:"message"`
	UUID      string          `json:"uuid"`
	Timestamp string          `json:"timestamp"`
	UserType  string          `json:"userType"`
	Dir       string          `json:"cwd"`
	Session   string          `json:"sessionId"`
	Version   string          `json:"version"`
}

// sessionFile makes the file from which the CLI resumes, out of the host's own copy of
// the conversation: the one that the CLI wrote inside could have been changed there.
func sessionFile(r agent.Request, session, dir string) ([]byte, error) {
	var out []byte
	var parent *string
	add := func(kind string, message json.RawMessage) error {
		id := uuid("flow message\x00%s\x00%d", session, len(out))
		line, err := json.Marshal(sessionLine{Parent: parent, Type: kind, Message: message, UUID: id, UserType: "external", Dir: dir, Session: session,
			Timestamp: time.Unix(0, 0).UTC().Format(time.RFC3339), Version: "2.1.330"})
		if err != nil {
			return err
		}
		out, parent = append(append(out, line...), '\n'), &id
		return nil
	}
	user := func(content any) (json.RawMessage, error) {
		return json.Marshal(map[string]any{"role": "user", "content": content})
	}
	var err error
	for _, t := range slices.Concat(r.History, r.Continue) {
		if t.Prompt != "" {
			prompt, perr := user([]map[string]string{{"type": "text", "text": t.Prompt}})
			err = errors.Join(err, perr, add("user", prompt))
		}
		err = errors.Join(err, add("assistant", t.Response))
		if t.Results != nil {
			results, uerr := user(t.Results)
			err = errors.Join(err, uerr, add("user", results))
		}
	}
	return out, err
}

// putSession writes the session file into the sandbox.
func putSession(ctx context.Context, sb sandbox.Sandbox, env []string, name string, content []byte) error {
	r, w, err := os.Pipe()
	if err != nil {
		return child.Place(err)
	}
	written := make(chan error, 1)
	go func() {
		_, err := w.Write(content)
		written <- errors.Join(err, w.Close())
	}()
	const script = `mkdir -p "$(dirname "$1")" && exec cat > "$1"`
	res, err := sb.Exec(ctx, sandbox.Cmd{Argv: []string{"/bin/sh", "-c", script, "sh", name}, Env: env, Stdin: r, Grace: child.Grace})
	_ = r.Close() // the writer's end, if the command read less
	werr := <-written
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case res.ExitCode != 0 || werr != nil:
		return child.Place(fmt.Errorf("write the conversation into the sandbox: exit code %d, %w", res.ExitCode, errors.Join(werr)))
	}
	return nil
}
