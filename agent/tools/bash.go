package tools

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of Bash, Claude Code's.
const (
	bashDefault = 120 * time.Second
	bashMax     = 600 * time.Second
	bashChars   = 30_000
)

var bashSpec = Spec{
	Name: "Bash",
	Description: "Runs a bash command in the workspace and returns its output (stdout and stderr together, at most 30,000 characters: the beginning and the end). " +
		"Where the step's rules allow every command, the working directory, variables, functions and aliases stay for the next call, as in one shell; otherwise each call starts in the workspace. " +
		"Every process that a call started ends with it. The step's rules may allow some commands only: a denial says why.",
	InputSchema: json.RawMessage(`{"type":"object","properties":{` +
		`"command":{"type":"string","description":"The command to run"},` +
		`"timeout":{"type":"number","description":"Milliseconds until the command is ended (default 120000, at most 600000)"},` +
		`"description":{"type":"string","description":"What the command does, in a few words"}},` +
		`"required":["command"],"additionalProperties":false}`),
}

type bashInput struct {
	Command     string  `json:"command"`
	Timeout     float64 `json:"timeout"`     // ms
	Description string  `json:"description"` // shown to people by the rendering
}

func (s *Set) bash(ctx context.Context, in bashInput) (string, error) {
	if strings.TrimSpace(in.Command) == "" {
		return "", failf("InputValidationError: command is empty")
	}
	if strings.ContainsRune(in.Command, 0) {
		return "", failf("InputValidationError: command holds a NUL byte")
	}
	limit := bashDefault
	if in.Timeout != 0 {
		limit = time.Duration(in.Timeout * float64(time.Millisecond))
		if in.Timeout < 1 || in.Timeout > float64(bashMax/time.Millisecond) {
			return "", failf("InputValidationError: timeout is in milliseconds, from 1 to %d", bashMax/time.Millisecond)
		}
	}
	timeout := errors.New("the command's time is over")
	tctx, cancel := context.WithTimeoutCause(ctx, limit, timeout)
	defer cancel()
	// 4 bytes a character at most; both ends are cut to characters below.
	out := &bounded{max: 4 * bashChars}
	res, note, err := s.inShell(tctx, in.Command, out)
	text := clip(out, bashChars) + note
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case errors.Is(err, timeout):
		return "", failf("%s", strings.TrimLeft(text+fmt.Sprintf("\nCommand timed out after %v", limit), "\n"))
	case err != nil:
		return "", err
	case res.ExitCode != 0:
		return "", failf("Exit code %d\n%s", res.ExitCode, text)
	}
	return text, nil
}

// clip makes output into text of at most limit characters: its beginning and end.
func clip(b *bounded, limit int) string {
	if !b.cut() {
		text := strings.ToValidUTF8(string(b.bytes()), "\uFFFD")
		if n := utf8.RuneCountInString(text); n > limit {
			r := []rune(text)
			return fmt.Sprintf("%s\n\n… %d characters left out …\n\n%s", string(r[:limit/2]), n-limit, string(r[n-limit/2:]))
		}
		return strings.TrimRight(text, "\n")
	}
	head := []rune(strings.ToValidUTF8(string(b.head), "\uFFFD"))
	tail := []rune(strings.ToValidUTF8(string(b.tail), "\uFFFD"))
	head, tail = head[:min(len(head), limit/2)], tail[max(0, len(tail)-limit/2):]
	left := b.total - int64(len(string(head))+len(string(tail)))
	return fmt.Sprintf("%s\n\n… about %d bytes left out …\n\n%s", string(head), left, string(tail))
}
