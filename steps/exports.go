package steps

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/go-multierror"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
)

// homeMark stands for the home in what is stored of $FLOW_ENV and $FLOW_PATH: a
// resumed run has it at another path with driver host. No value holds a NUL otherwise.
const homeMark = "\x00"

const (
	// maxEnvValue is below what Linux takes as one variable (128 KiB).
	maxEnvValue = 60 << 10
	// maxExported bounds what all earlier steps together give one step: beyond, no
	// program would start (the kernel takes 2 MiB with the arguments).
	maxExported = 512 << 10
)

// ownNames are the variables that $FLOW_ENV cannot set: those that flow or the sandbox
// sets, and those that make programs load or run other code. It is no fence around a
// step that may write the workspace; it keeps a slip, and what a step prints from
// elsewhere, from taking the later steps over.
var ownNames = regexp.MustCompile(`^(FLOW|FLOW_.*|HOME|USER|LOGNAME|SHELL|TMPDIR|IFS|ENV|BASH_ENV|BASHOPTS|SHELLOPTS|PROMPT_COMMAND|PS4|` +
	`LD_.*|DYLD_.*|NODE_OPTIONS|PYTHONSTARTUP|PYTHONHOME|PERL5OPT|PERL5DB|RUBYOPT|JAVA_TOOL_OPTIONS|JDK_JAVA_OPTIONS|_JAVA_OPTIONS|` +
	`GIT_SSH|GIT_SSH_COMMAND|GIT_EXEC_PATH|GIT_CONFIG.*|HTTPS?_PROXY|ALL_PROXY|NO_PROXY|https?_proxy|all_proxy|no_proxy|` +
	`SSL_CERT_FILE|SSL_CERT_DIR|CURL_CA_BUNDLE|REQUESTS_CA_BUNDLE|NODE_EXTRA_CA_CERTS|GIT_SSL_.*)$`)

var envNameOK = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// takeChannels reads what the step wrote for flow. A mistake in it fails a step that
// succeeded; one that failed keeps its own error.
func (h *Host) takeChannels(sb sandbox.Sandbox, a engine.Attempt, out engine.Outcome) engine.Outcome {
	var errs *multierror.Error
	var err error
	out.Outputs, err = h.takeOutputs(sb, a)
	errs = multierror.Append(errs, err)
	out.Exports, err = h.takeExports(sb, a)
	errs = multierror.Append(errs, err)
	out.Summary, err = h.takeSummary(sb, a)
	errs = multierror.Append(errs, err)
	errs.ErrorFormat = oneLine
	if err := errs.ErrorOrNil(); err != nil && out.Status == engine.StepSucceeded {
		out.Status, out.Class, out.Error = engine.StepFailed, engine.ClassInvalid, h.cfg.Redact.String(err.Error())
	}
	return out
}

func oneLine(list []error) string {
	words := make([]string, len(list))
	for i, err := range list {
		words[i] = err.Error()
	}
	return strings.Join(words, "; ")
}

// takeExports reads $FLOW_ENV and $FLOW_PATH.
func (h *Host) takeExports(sb sandbox.Sandbox, a engine.Attempt) (*engine.Exports, error) {
	x := &engine.Exports{}
	env, err := envChannel.takeWhole(sb, a)
	if err != nil {
		return nil, err
	}
	if len(env) > 0 {
		if x.Env, err = parseSettings(envChannel.variable, env, h.envNameOK); err != nil {
			return nil, err
		}
	}
	for i, s := range x.Env {
		switch secret, found := h.cfg.Redact.Contains([]byte(s.Value)); {
		case found:
			return nil, fmt.Errorf("read $FLOW_ENV: %s holds the secret %s; what a step sets is stored: give later steps the secret by `secrets:`", s.Name, secret)
		case strings.ContainsRune(s.Value, 0):
			return nil, fmt.Errorf("read $FLOW_ENV: the value of %s holds a NUL byte", s.Name)
		case !utf8.ValidString(s.Value):
			return nil, fmt.Errorf("read $FLOW_ENV: the value of %s is not UTF-8", s.Name)
		case len(s.Value) > maxEnvValue:
			return nil, fmt.Errorf("read $FLOW_ENV: the value of %s is larger than %d bytes; write it to a file in the workspace", s.Name, maxEnvValue)
		}
		x.Env[i].Value = strings.ReplaceAll(s.Value, homeInside(sb), homeMark)
	}
	if a.Step.Access.ReadOnly {
		return nonEmpty(x), nil
	}
	if x.Path, err = h.takePath(sb, a); err != nil {
		return nil, err
	}
	return nonEmpty(x), nil
}

func nonEmpty(x *engine.Exports) *engine.Exports {
	if x.Empty() {
		return nil
	}
	return x
}

// envNameOK refuses what $FLOW_ENV cannot set.
func (h *Host) envNameOK(name string) error {
	switch {
	case name == "PATH":
		return errors.New("PATH is set by writing folders to $FLOW_PATH, one a line")
	case !envNameOK.MatchString(name):
		return errors.New("a variable's name has letters, digits and underscores, and starts with no digit")
	case ownNames.MatchString(name):
		return fmt.Errorf("%s cannot be set for later steps; give it to the step that needs it by `env:`", name)
	}
	for _, s := range h.cfg.Workflow.Secrets {
		if s.Name == name {
			return fmt.Errorf("%s is the name of a secret", name)
		}
	}
	return nil
}

func (h *Host) takePath(sb sandbox.Sandbox, a engine.Attempt) ([]string, error) {
	data, err := pathChannel.takeWhole(sb, a)
	if err != nil {
		return nil, err
	}
	var out []string
	for i, line := range strings.Split(string(data), "\n") {
		dir := strings.TrimSuffix(line, "\r")
		if strings.TrimSpace(dir) == "" {
			continue
		}
		bad := func(why string) ([]string, error) { return nil, fmt.Errorf("read $FLOW_PATH line %d: %s", i+1, why) }
		if secret, found := h.cfg.Redact.Contains([]byte(dir)); found {
			return bad("it holds the secret " + secret)
		}
		switch {
		case !path.IsAbs(dir):
			return bad("a folder is named by its absolute path: a relative one would mean something else in each step")
		case strings.ContainsAny(dir, ":\x00") || !utf8.ValidString(dir):
			return bad("a folder of PATH has no colon, no NUL byte, and is UTF-8")
		}
		out = append(out, strings.ReplaceAll(path.Clean(dir), homeInside(sb), homeMark))
	}
	return out, nil
}

// takeSummary reads $FLOW_SUMMARY: redacted, cut where it is too long. It is for
// people, so that nothing of it fails a step but a file that is none.
func (h *Host) takeSummary(sb sandbox.Sandbox, a engine.Attempt) (string, error) {
	data, err := summaryChannel.take(sb, a)
	if err != nil || len(data) == 0 {
		return "", err
	}
	cut := len(data) > summaryChannel.max
	if cut {
		data = data[:summaryChannel.max]
	}
	text := strings.ReplaceAll(strings.ToValidUTF8(string(data), "\uFFFD"), "\x00", "\uFFFD")
	text = h.cfg.Redact.String(text)
	if cut {
		text += fmt.Sprintf("\n\n*(cut after %d bytes)*\n", summaryChannel.max)
	}
	return text, nil
}

// exported puts what earlier steps set into a step's environment, over the file's
// settings and below the step's own.
func exported(e *environ, sb sandbox.Sandbox, x engine.Exports) error {
	size := 0
	for _, s := range x.Env {
		v := strings.ReplaceAll(s.Value, homeMark, homeInside(sb))
		size += len(s.Name) + len(v)
		e.set(s.Name, v)
	}
	if size > maxExported {
		return fmt.Errorf("earlier steps set %d bytes of variables by $FLOW_ENV; a step can be given %d", size, maxExported)
	}
	return nil
}

// prepended is PATH with the folders of $FLOW_PATH in front, the last one first.
func prepended(e *environ, sb sandbox.Sandbox, x engine.Exports) {
	if len(x.Path) == 0 {
		return
	}
	var dirs []string
	seen := map[string]bool{}
	for i := len(x.Path) - 1; i >= 0; i-- {
		if dir := strings.ReplaceAll(x.Path[i], homeMark, homeInside(sb)); !seen[dir] {
			seen[dir] = true
			dirs = append(dirs, dir)
		}
	}
	if now := e.get("PATH"); now != "" {
		dirs = append(dirs, now)
	}
	e.set("PATH", strings.Join(dirs, ":"))
}
