package tools

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/sandbox"
)

// Spec is how a tool is offered to the model.
type Spec struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	InputSchema json.RawMessage `json:"input_schema"`
}

// Result of a call, for the model.
type Result struct {
	Text    string
	IsError bool
	// Denied is the reason when rules refused the call after links were followed.
	Denied string
}

// Set executes tools in one sandbox. It is not for several goroutines at once.
type Set struct {
	sb     sandbox.Sandbox
	env    []string
	policy *agent.Policy
	rights sandbox.Rights
	shell  string // what a later call's shell begins with; see State
}

// New returns the tools of a conversation. env is the environment of their
// processes; nil is the sandbox's own.
func New(sb sandbox.Sandbox, env []string, p *agent.Policy) *Set {
	if env == nil {
		env = sb.BaseEnv()
	}
	return &Set{sb: sb, env: env, policy: p}
}

// WithRights bounds what the tools' processes may do; it returns s.
func (s *Set) WithRights(r sandbox.Rights) *Set {
	s.rights = r
	return s
}

// tool is one row of the table.
type tool struct {
	spec Spec
	run  func(*Set, context.Context, json.RawMessage) (Result, error)
}

// table lists the tools; the order is that of the documentation.
func table() []tool {
	return []tool{
		{bashSpec, with((*Set).bash)},
		{readSpec, with((*Set).read)},
		{writeSpec, with((*Set).write)},
		{editSpec, with((*Set).edit)},
		{globSpec, with((*Set).glob)},
		{grepSpec, with((*Set).grep)},
	}
}

// Names of the tools that exist.
func Names() []string {
	var names []string
	for _, t := range table() {
		names = append(names, t.spec.Name)
	}
	return names
}

// Specs of the named tools, in the order of names; ok is false when one does not exist.
func Specs(names []string) (specs []Spec, missing []string) {
	for _, name := range names {
		found := false
		for _, t := range table() {
			if t.spec.Name == name {
				specs, found = append(specs, t.spec), true
			}
		}
		if !found {
			missing = append(missing, name)
		}
	}
	return specs, missing
}

// Run executes one call, which was judged already.
func (s *Set) Run(ctx context.Context, name string, input json.RawMessage) (Result, error) {
	for _, t := range table() {
		if t.spec.Name == name {
			return t.run(s, ctx, input)
		}
	}
	return failure("No such tool available: %s", name), nil
}

// callError is a failure that is a result for the model, not of the place.
type callError struct{ text, denied string }

func (e *callError) Error() string { return e.text }

func failf(format string, a ...any) error { return &callError{text: fmt.Sprintf(format, a...)} }

func failure(format string, a ...any) Result {
	return Result{Text: fmt.Sprintf(format, a...), IsError: true}
}

// with decodes the input, and makes a callError a result.
func with[In any](run func(*Set, context.Context, In) (string, error)) func(*Set, context.Context, json.RawMessage) (Result, error) {
	return func(s *Set, ctx context.Context, input json.RawMessage) (Result, error) {
		var in In
		dec := json.NewDecoder(bytes.NewReader(input))
		dec.DisallowUnknownFields()
		err := dec.Decode(&in)
		if err == nil && dec.More() {
			err = errors.New("more than one JSON value")
		}
		if err != nil {
			return failure("InputValidationError: %s", strings.TrimPrefix(err.Error(), "json: ")), nil
		}
		text, err := run(s, ctx, in)
		var ce *callError
		switch {
		case errors.As(err, &ce):
			return Result{Text: ce.text, IsError: true, Denied: ce.denied}, nil
		case err != nil:
			return Result{}, err
		case ctx.Err() != nil:
			return Result{}, context.Cause(ctx)
		}
		return Result{Text: text}, nil
	}
}

// Judge judges a call as Run would, with the links of its path followed, without
// executing it: for providers whose own process executes the tools.
func (s *Set) Judge(ctx context.Context, name string, input json.RawMessage) (agent.Decision, error) {
	d := s.policy.Judge(name, input)
	switch name {
	case "Read", "Write", "Edit", "Glob", "Grep":
	default:
		return d, nil
	}
	if !d.Allow || !s.policy.Scoped(name) {
		return d, nil
	}
	at, err := agent.PathOf(name, input)
	if err == nil {
		_, err = s.resolved(ctx, name, at)
	}
	var ce *callError
	switch {
	case errors.As(err, &ce):
		return agent.Decision{Reason: cmp.Or(ce.denied, ce.text)}, nil
	case err != nil:
		return agent.Decision{}, err
	}
	return d, nil
}

// inside makes a model's path into one for programs, relative to the workspace
// where it is in the home: HomeDir does not exist with driver host. It begins with
// "./", "../" or "/", so that no program takes it for a flag.
func (s *Set) inside(name string) string {
	full := s.policy.Resolve(name)
	switch {
	case full == sandbox.WorkspaceDir:
		return "."
	case strings.HasPrefix(full, sandbox.WorkspaceDir+"/"):
		return "./" + full[len(sandbox.WorkspaceDir)+1:]
	case full == sandbox.HomeDir:
		return ".."
	case strings.HasPrefix(full, sandbox.HomeDir+"/"):
		return "../" + full[len(sandbox.HomeDir)+1:]
	}
	return full
}

// resolved is inside's path with links followed, and judged again, for tools whose
// rules depend on the path. The file itself need not exist.
func (s *Set) resolved(ctx context.Context, tool, name string) (string, error) {
	inner := s.inside(name)
	if strings.ContainsRune(name, 0) {
		return "", failf("The path holds a NUL byte")
	}
	if !s.policy.Scoped(tool) {
		return inner, nil
	}
	// Every missing folder is made by us, so it is no link: follow what exists.
	const script = `p=$1; rest=
while [ ! -e "$p" ] && [ ! -L "$p" ]; do
  rest="/$(basename -- "$p")$rest"
  q=$(dirname -- "$p"); [ "$q" != "$p" ] || break; p=$q
done
r=$(readlink -f -- "$p") || { echo "cannot follow the links of $1" >&2; exit 66; }
printf '%s\0%s%s\0' "$(pwd -P)" "$r" "$rest"`
	out, err := s.sh(ctx, script, nil, inner)
	if err != nil {
		return "", err
	}
	parts := strings.Split(string(out), "\x00")
	if len(parts) != 3 {
		return "", failf("Cannot follow the links of %s", name)
	}
	workspace, real := parts[0], path.Clean(parts[1])
	logical := real
	if home := path.Dir(workspace); real == workspace || strings.HasPrefix(real, workspace+"/") {
		logical = sandbox.WorkspaceDir + real[len(workspace):]
	} else if strings.HasPrefix(real, home+"/") {
		logical = sandbox.HomeDir + real[len(home):]
	}
	if why := s.policy.JudgePath(tool, logical); why != "" {
		why = fmt.Sprintf("%s leads to %s: %s", name, logical, why)
		return "", &callError{text: "Permission denied: " + why, denied: why}
	}
	return s.inside(logical), nil
}

// sh runs a script of ours with arguments, returns its output, and makes a failure
// with a message of the script a result.
func (s *Set) sh(ctx context.Context, script string, stdin io.Reader, args ...string) ([]byte, error) {
	out := &bounded{max: maxInternal}
	argv := append([]string{"sh", "-c", script, "sh"}, args...)
	res, stderr, err := s.exec(ctx, argv, stdin, out)
	if err != nil {
		return nil, err
	}
	if res.ExitCode != 0 {
		return nil, failf("%s", message(stderr, res))
	}
	if out.cut() {
		return nil, failf("The answer of the sandbox is larger than %d bytes", maxInternal)
	}
	return out.bytes(), nil
}

// message is what a program said, or how it ended.
func message(stderr string, res sandbox.Result) string {
	if text := strings.TrimSpace(stderr); text != "" {
		return text
	}
	return fmt.Sprintf("exit code %d", res.ExitCode)
}
