package acp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	sdk "github.com/coder/acp-go-sdk"

	"flowrun.dev/flow/agent/child"
	"flowrun.dev/flow/sandbox"
)

const (
	maxTerminals  = 64
	defaultOutput = 1 << 20
	maxOutput     = 16 << 20
)

// terminal is a command that the agent runs in the sandbox.
type terminal struct {
	cancel context.CancelCauseFunc
	done   chan struct{}

	mu        sync.Mutex
	limit     int
	out       []byte
	truncated bool
	exit      sandbox.Result // valid after done
}

// Write keeps the end of the output, as the protocol wants.
func (t *terminal) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.out = append(t.out, b...)
	if over := len(t.out) - t.limit; over > 0 {
		t.out, t.truncated = append(t.out[:0], t.out[over:]...), true
	}
	return len(b), nil
}

func (t *terminal) status() *sdk.TerminalExitStatus {
	select {
	case <-t.done:
	default:
		return nil
	}
	s := &sdk.TerminalExitStatus{}
	if t.exit.Signal != 0 {
		s.Signal = sdk.Ptr(syscall.Signal(t.exit.Signal).String())
	} else {
		s.ExitCode = sdk.Ptr(t.exit.ExitCode)
	}
	return s
}

// CreateTerminal runs a command, when the policy allows the command line that its
// words make. Its environment is the step's: settings of the agent's could give an
// allowed command another meaning.
func (c *client) CreateTerminal(_ context.Context, q sdk.CreateTerminalRequest) (sdk.CreateTerminalResponse, error) {
	command := q.Command
	argv := []string{"bash", "-c", q.Command}
	if len(q.Args) > 0 {
		argv = append([]string{q.Command}, q.Args...)
		command = quoted(argv)
	}
	input := encode(map[string]any{"command": command})
	d := c.policy.Judge("Bash", input)
	switch {
	case !d.Allow:
		return sdk.CreateTerminalResponse{}, c.denied("Bash", input, d.Reason)
	case len(q.Env) > 0:
		return sdk.CreateTerminalResponse{}, c.denied("Bash", input, "settings of the environment can change what a command does: "+q.Env[0].Name)
	}
	// Not the request's context: a terminal outlives the answer. endTerminals ends it.
	run, cancel := context.WithCancelCause(context.Background())
	t := &terminal{limit: defaultOutput, done: make(chan struct{}), cancel: cancel}
	if q.OutputByteLimit != nil && *q.OutputByteLimit >= 0 {
		t.limit = min(*q.OutputByteLimit, maxOutput)
	}
	dir := ""
	if q.Cwd != nil {
		dir = *q.Cwd
	}
	c.mu.Lock()
	if len(c.terminals) >= maxTerminals {
		c.mu.Unlock()
		cancel(nil)
		return sdk.CreateTerminalResponse{}, sdk.NewInvalidParams(map[string]string{"error": fmt.Sprintf("more than %d terminals", maxTerminals)})
	}
	c.next++
	id := "terminal-" + strconv.Itoa(c.next)
	c.terminals[id] = t
	c.mu.Unlock()
	c.called("Bash", input)
	return sdk.CreateTerminalResponse{TerminalId: id}, c.run(run, t, sandbox.Cmd{Argv: argv, Env: c.env, Dir: dir, Rights: c.r.Rights, Grace: child.Grace})
}

// run starts the terminal's command; it ends by itself, by KillTerminal, or with the
// conversation.
func (c *client) run(ctx context.Context, t *terminal, cmd sandbox.Cmd) error {
	r, w, err := os.Pipe()
	if err != nil {
		t.cancel(err)
		close(t.done)
		return child.Place(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	var words sync.WaitGroup
	words.Go(func() {
		_, _ = io.Copy(t, r) // until the command and ours have closed it
		_ = r.Close()
	})
	go func() {
		defer close(t.done)
		res, err := c.r.Sandbox.Exec(ctx, cmd)
		_ = w.Close()
		words.Wait()
		if err != nil {
			_, _ = io.WriteString(t, err.Error())
			res.ExitCode = 126
		}
		t.exit = res
		t.cancel(nil)
	}()
	return nil
}

func (c *client) terminal(id string) (*terminal, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.terminals[id]
	if t == nil {
		return nil, sdk.NewInvalidParams(map[string]string{"error": errNoTerminal.Error() + ": " + id})
	}
	return t, nil
}

// TerminalOutput is what came so far.
func (c *client) TerminalOutput(_ context.Context, q sdk.TerminalOutputRequest) (sdk.TerminalOutputResponse, error) {
	t, err := c.terminal(q.TerminalId)
	if err != nil {
		return sdk.TerminalOutputResponse{}, err
	}
	status := t.status()
	t.mu.Lock()
	defer t.mu.Unlock()
	return sdk.TerminalOutputResponse{Output: strings.ToValidUTF8(string(t.out), "\uFFFD"), Truncated: t.truncated, ExitStatus: status}, nil
}

// WaitForTerminalExit waits for the command's end.
func (c *client) WaitForTerminalExit(ctx context.Context, q sdk.WaitForTerminalExitRequest) (sdk.WaitForTerminalExitResponse, error) {
	t, err := c.terminal(q.TerminalId)
	if err != nil {
		return sdk.WaitForTerminalExitResponse{}, err
	}
	select {
	case <-t.done:
	case <-ctx.Done():
		return sdk.WaitForTerminalExitResponse{}, context.Cause(ctx)
	}
	s := t.status()
	return sdk.WaitForTerminalExitResponse{ExitCode: s.ExitCode, Signal: s.Signal}, nil
}

var errKilled = errors.New("the agent ended the command")

// KillTerminal ends the command; its output stays.
func (c *client) KillTerminal(_ context.Context, q sdk.KillTerminalRequest) (sdk.KillTerminalResponse, error) {
	t, err := c.terminal(q.TerminalId)
	if err != nil {
		return sdk.KillTerminalResponse{}, err
	}
	t.cancel(errKilled)
	return sdk.KillTerminalResponse{}, nil
}

// ReleaseTerminal ends the command and forgets it.
func (c *client) ReleaseTerminal(_ context.Context, q sdk.ReleaseTerminalRequest) (sdk.ReleaseTerminalResponse, error) {
	t, err := c.terminal(q.TerminalId)
	if err != nil {
		return sdk.ReleaseTerminalResponse{}, err
	}
	t.cancel(errKilled)
	<-t.done
	c.mu.Lock()
	delete(c.terminals, q.TerminalId)
	c.mu.Unlock()
	return sdk.ReleaseTerminalResponse{}, nil
}

// endTerminals ends what still runs and waits for it.
func (c *client) endTerminals() {
	c.mu.Lock()
	list := c.terminals
	c.terminals = map[string]*terminal{}
	c.mu.Unlock()
	for _, t := range list {
		t.cancel(errEnded)
		<-t.done
	}
}
