package mcp

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/child"
	"flowrun.dev/flow/sandbox"
)

// leaveTime is how long a program may take to end by itself once its input is closed.
const leaveTime = time.Second

// run starts a server's program in the sandbox. life is the conversation's, ctx the
// start's.
func run(life, ctx context.Context, r agent.Request, m agent.MCPServer) (*server, error) {
	env := r.Env
	if env == nil {
		env = r.Sandbox.BaseEnv()
	}
	life, cancel := context.WithCancel(life)
	p, err := child.Start(life, r.Sandbox, sandbox.Cmd{Argv: m.Command, Env: slices.Concat(env, m.Env), Rights: r.Rights})
	if err != nil {
		cancel()
		return nil, &agent.Error{Class: agent.ClassInfrastructure, Err: fmt.Errorf("start the MCP server %s: %w", m.Name, err)}
	}
	s := &server{name: m.Name}
	s.close = func() {
		defer cancel()
		p.Finish()
		select {
		case <-p.Done():
		case <-time.After(leaveTime):
		}
		cancel()
		_, _ = p.Wait() // how it ends now changes nothing
	}
	s.words = func() string {
		select {
		case <-p.Done():
		case <-time.After(leaveTime): // its output may have ended before it
			return ""
		}
		exit, err := p.Wait()
		return ended(m.Command[0], exit, err, p.Stderr())
	}
	if err := s.connect(ctx, &sdk.IOTransport{Reader: p.IO, Writer: p.IO, MaxLineLength: maxMessage}, workspace(r.Sandbox)); err != nil {
		failed := s.failure(ctx, "start", err)
		if failed.Class == agent.ClassInfrastructure && p.Stderr() != "" {
			failed.Err = fmt.Errorf("%w; it said: %s", failed.Err, lastLines(p.Stderr()))
		}
		s.session = nil // Connect has closed it
		s.close()
		return nil, failed
	}
	return s, nil
}

// ended is how a program ended, for people.
func ended(program string, exit sandbox.Result, err error, stderr string) string {
	if err != nil {
		return err.Error()
	}
	text := fmt.Sprintf("%s ended with exit code %d", program, exit.ExitCode)
	if exit.Signal != 0 {
		text = fmt.Sprintf("%s was ended by signal %d", program, exit.Signal)
	}
	if stderr != "" {
		text += ": " + lastLines(stderr)
	}
	return text
}

// lastLines is the end of what a program said, on one line.
func lastLines(stderr string) string {
	lines := strings.Split(stderr, "\n")
	lines = lines[max(0, len(lines)-5):]
	text := []rune(strings.Join(lines, " | "))
	if len(text) > 500 {
		text = append([]rune("…"), text[len(text)-500:]...)
	}
	return string(text)
}
