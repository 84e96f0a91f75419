package steps

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// stepDirName is the folder in the home tree through which a step and flow talk
// ($FLOW_OUTPUT, long scripts). It is not in any list of changed files.
const stepDirName = ".flow-step"

// channel is a file that a step writes for flow, named by a variable of its
// environment. Attempts have their own.
type channel struct {
	variable, prefix string
	max              int // bytes
}

// The channels, with the names and the meaning of GitHub's GITHUB_OUTPUT, _ENV, _PATH
// and _STEP_SUMMARY.
var (
	outputChannel  = channel{"FLOW_OUTPUT", "output", 1 << 20}
	envChannel     = channel{"FLOW_ENV", "env", 64 << 10}
	pathChannel    = channel{"FLOW_PATH", "path", 16 << 10}
	summaryChannel = channel{"FLOW_SUMMARY", "summary", 1 << 20}
)

// channelsOf are those that a step gets. A conversation has its outputs from the
// model's words; what a model says must not set the environment of later steps.
func channelsOf(s *workflow.Step) []channel {
	switch {
	case s.Kind != workflow.KindRun:
		return []channel{outputChannel}
	case s.Access.ReadOnly: // what may change nothing does not choose the programs of later steps
		return []channel{outputChannel, envChannel, summaryChannel}
	}
	return []channel{outputChannel, envChannel, pathChannel, summaryChannel}
}

// exprTail is what expressions see of stdout and stderr.
const exprTail = 64 << 10

// homeInside is the home as the sandbox's processes see it: driver host has
// another path than the rest.
func homeInside(sb sandbox.Sandbox) string {
	for _, kv := range sb.BaseEnv() {
		if v, ok := strings.CutPrefix(kv, "HOME="); ok {
			return v
		}
	}
	return sandbox.HomeDir
}

func stepDirInside(sb sandbox.Sandbox) string { return homeInside(sb) + "/" + stepDirName }

func (c channel) name(a engine.Attempt) string {
	return fmt.Sprintf("%s-%s-%d", c.prefix, fileName(a.Step.ID), a.Attempt)
}

// fileName makes a name of a step's id. The id of an instance holds the text of
// its item, which may be anything.
func fileName(step string) string {
	plain := strings.Map(func(r rune) rune {
		if r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, step)
	if plain == step && len(step) <= 100 {
		return step
	}
	sum := sha256.Sum256([]byte(step))
	return plain[:min(len(plain), 40)] + "-" + hex.EncodeToString(sum[:8])
}

func (c channel) inside(sb sandbox.Sandbox, a engine.Attempt) string {
	return stepDirInside(sb) + "/" + c.name(a)
}

// take reads and removes what the step wrote, at most max bytes and one.
func (c channel) take(sb sandbox.Sandbox, a engine.Attempt) ([]byte, error) {
	if sb.Home() == "" {
		return nil, nil
	}
	data, err := takeFile(filepath.Join(sb.Home(), stepDirName), c.name(a), c.max+1)
	if err != nil {
		return nil, fmt.Errorf("read $%s: %w", c.variable, err)
	}
	return data, nil
}

// takeWhole is take for a text that makes no sense when it is cut.
func (c channel) takeWhole(sb sandbox.Sandbox, a engine.Attempt) ([]byte, error) {
	data, err := c.take(sb, a)
	if err == nil && len(data) > c.max {
		err = fmt.Errorf("read $%s: it is larger than %d bytes; write big results to a file in the workspace", c.variable, c.max)
	}
	return data, err
}

// makeStepDir makes the folder with the owner of the home, so that the sandbox's
// user can write there.
func makeStepDir(sb sandbox.Sandbox) error {
	if sb.Home() == "" {
		return nil
	}
	dir := filepath.Join(sb.Home(), stepDirName)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the folder for step outputs: %w", err)
	}
	owner, err := ownerOf(sb.Home())
	if err != nil || owner == nil {
		return err
	}
	if err := os.Lchown(dir, owner.UID, owner.GID); err != nil {
		return fmt.Errorf("make the folder for step outputs: %w", err)
	}
	return nil
}

// takeOutputs reads and removes $FLOW_OUTPUT.
func (h *Host) takeOutputs(sb sandbox.Sandbox, a engine.Attempt) (map[string]any, error) {
	data, err := outputChannel.takeWhole(sb, a)
	if err != nil || data == nil {
		return nil, err
	}
	values, err := parseSettings(outputChannel.variable, data, outputNameOK)
	if err != nil {
		return nil, err
	}
	out := make(map[string]any, len(values))
	for _, s := range values {
		if err := h.holdsSecret(s.Name, s.Value); err != nil {
			return nil, err
		}
		out[s.Name] = s.Value
	}
	return out, nil
}

// takeFile reads a file that a step wrote, up to max bytes, and removes it. The step
// is not trusted: the folder and the name may be links, fifos or huge, so nothing is
// followed and nothing blocks.
func takeFile(dir, name string, max int) ([]byte, error) {
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil, nil
		}
		return nil, err
	}
	defer unix.Close(d)
	fd, err := unix.Openat(d, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	defer unix.Unlinkat(d, name, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("the step replaced it by something that is not a file")
	}
	return io.ReadAll(io.LimitReader(f, int64(max)))
}

// parseSettings reads `name=value` lines and `name<<DELIMITER` blocks, in order; of
// one name the last one stays. variable is the channel's, for errors.
func parseSettings(variable string, data []byte, nameOK func(name string) error) ([]engine.EnvSet, error) {
	var out []engine.EnvSet
	index := map[string]int{}
	set := func(name, value string, line int) error {
		if err := nameOK(name); err != nil {
			return fmt.Errorf("read $%s line %d: %w", variable, line, err)
		}
		if i, ok := index[name]; ok {
			out[i].Value = value
			return nil
		}
		index[name] = len(out)
		out = append(out, engine.EnvSet{Name: name, Value: value})
		return nil
	}
	lines := strings.Split(string(bytes.TrimSuffix(data, []byte("\n"))), "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSuffix(lines[i], "\r")
		if strings.TrimSpace(line) == "" {
			continue
		}
		eq, here := strings.Index(line, "="), strings.Index(line, "<<")
		if here > 0 && (eq < 0 || here < eq) {
			name, delim, start := line[:here], line[here+2:], i
			var block []string
			for i++; i < len(lines) && strings.TrimSuffix(lines[i], "\r") != delim; i++ {
				block = append(block, lines[i])
			}
			if delim == "" || i == len(lines) {
				return nil, fmt.Errorf("read $%s line %d: `%s<<%s` is never closed by a line %q", variable, start+1, name, delim, delim)
			}
			if err := set(name, strings.Join(block, "\n"), start+1); err != nil {
				return nil, err
			}
			continue
		}
		if eq < 0 {
			return nil, fmt.Errorf("read $%s line %d: expected name=value or name<<DELIMITER", variable, i+1)
		}
		if err := set(line[:eq], line[eq+1:], i+1); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func outputNameOK(name string) error {
	for i, r := range name {
		if r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || i > 0 && (r >= '0' && r <= '9' || r == '-') {
			continue
		}
		return errors.New("an output's name has letters, digits, _ and -, and starts with a letter")
	}
	if name == "" {
		return errors.New("the name before = is missing")
	}
	return nil
}

// holdsSecret refuses an output that carries a secret: outputs are stored and
// shown (design: sandbox, checkpoints and redaction).
func (h *Host) holdsSecret(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("store output %s: %w", name, err)
	}
	if s, ok := v.(string); ok {
		b = append(b, s...)
	}
	if secret, found := h.cfg.Redact.Contains(b); found {
		return fmt.Errorf("output %s holds the secret %s; outputs are stored and shown: pass secrets by `secrets:` instead", name, secret)
	}
	return nil
}

// selfView is `self` in outputs.
func (h *Host) selfView(a engine.Attempt, out engine.Outcome, ref string) (*workflow.StepView, error) {
	v := &workflow.StepView{Status: string(out.Status), ExitCode: out.ExitCode, Outputs: out.Outputs,
		Duration: out.Duration.Seconds(), Attempts: a.Attempt}
	for _, o := range a.Step.Outputs {
		for _, r := range o.Expr.Refs() {
			if r.Step != "self" {
				continue
			}
			var err error
			switch r.Field {
			case "stdout":
				v.Stdout, err = h.tail(ref, Stdout)
			case "stderr":
				v.Stderr, err = h.tail(ref, Stderr)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

func (h *Host) tail(ref string, s Stream) (string, error) {
	if ref == "" {
		return "", nil
	}
	b, err := h.cfg.Logs.Tail(context.Background(), ref, s, exprTail)
	if err != nil {
		return "", fmt.Errorf("read the step's output: %w", err)
	}
	return string(b), nil
}

// Output serves expressions; see engine.Runner.
func (h *Host) Output(ctx context.Context, _ string, _ int, log string, stderr bool) (string, error) {
	if log == "" {
		return "", nil
	}
	s := Stdout
	if stderr {
		s = Stderr
	}
	b, err := h.cfg.Logs.Tail(ctx, log, s, exprTail)
	return string(b), err
}

// ownerOf is the owner that files brought in from outside must have, nil when
// this process could not change it anyway.
func ownerOf(path string) (*checkpoint.Owner, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	st, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("read the owner of the home: %w", err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	return &checkpoint.Owner{UID: int(sys.Uid), GID: int(sys.Gid)}, nil
}
