package claudecode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/child"
	"flowrun.dev/flow/sandbox"
)

// UpdateHint says which CLI works.
const UpdateHint = "install Claude Code 2.1.330 or newer; FLOW_CLAUDE names its native binary"

// Probe starts the CLI at path in the sandbox, without a model, and says its version
// and whether it will work: it has to confirm the gate of tool calls.
func Probe(ctx context.Context, sb sandbox.Sandbox, path string) (version string, err error) {
	if err := native(path); err != nil {
		return "", err
	}
	if version, err = askVersion(ctx, sb, path); err != nil {
		return "", err
	}
	r := agent.Request{RunID: "doctor", StepID: "doctor", Attempt: 1, Sandbox: sb}
	policy, err := newPolicy(r)
	if err != nil {
		return version, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := (&Provider{o: Options{Path: path}}).command(r, policy, "http://127.0.0.1:9", "none")
	p, err := start(ctx, sb, cmd)
	if err != nil {
		return version, err
	}
	err = p.send(initialize(nil))
	for ours := false; err == nil && !ours; {
		var line []byte
		if line, err = p.next(); err == nil {
			var h head
			if json.Unmarshal(line, &h) == nil && h.Type == "control_response" {
				ours, err = confirmed(line)
			}
		}
	}
	cancel()
	exit, _ := p.Wait()
	switch {
	case errors.Is(err, io.EOF):
		return version, fmt.Errorf("it ended with exit code %d: %s", exit.ExitCode, p.Stderr())
	case err != nil:
		return version, err
	}
	return version, nil
}

func askVersion(ctx context.Context, sb sandbox.Sandbox, path string) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", child.Place(err)
	}
	defer r.Close()
	res, err := sb.Exec(ctx, sandbox.Cmd{Argv: []string{path, "--version"}, Env: sb.BaseEnv(), Stdout: w, Stderr: w})
	_ = w.Close()
	out, _ := io.ReadAll(io.LimitReader(r, 4<<10)) // a short line; a pipe holds it
	text := string(bytes.TrimSpace(out))
	switch {
	case err != nil:
		return "", err
	case res.ExitCode != 0 || !strings.Contains(text, "Claude Code"):
		return "", fmt.Errorf("`--version` gave exit code %d and %q", res.ExitCode, text)
	}
	version, _, _ := strings.Cut(text, " ")
	return version, nil
}
