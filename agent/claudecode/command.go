package claudecode

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/sandbox"
)

// command is how the CLI is started.
type command struct {
	argv, env []string
	rights    sandbox.Rights
	token     string
	session   string
	// file is the session file of a conversation that goes on, "" for a new one.
	file string
}

// keyDescriptor is the descriptor from which the CLI reads its token once.
const keyDescriptor = 9

// launch reads the token from stdin and puts it into a pipe that the CLI inherits. A
// process of the same user can read another's environment and arguments, not what
// was in a pipe. The here-document is below PIPE_BUF: dash and bash (5.1 and newer)
// make a pipe of it, not a file.
//
// The CLI reads ~/.bashrc before its tools' first command, and an earlier step may
// have written that: functions and aliases there would give an allowed command
// another meaning. So its own home is a folder that does not exist, and what it
// sources before each command gives the tools theirs back.
var launch = fmt.Sprintf(`IFS= read -r token && mkdir -p "$CLAUDE_CONFIG_DIR" &&
printf 'export HOME="$FLOW_AGENT_HOME"\n' > "$CLAUDE_ENV_FILE" && exec "$@" %d<<END
$token
END
`, keyDescriptor)

func (p *Provider) command(r agent.Request, policy *agent.Policy, url, token string) command {
	session := sessionID(r)
	path := p.o.Path
	if OwnRoot(r.Sandbox.Info().Tier) {
		path = InsidePath
	}
	c := command{env: environment(r, url), token: token, session: session}
	argv := []string{"/bin/sh", "-c", launch, "sh", path,
		"--output-format", "stream-json", "--verbose", "--input-format", "stream-json",
		"--permission-prompt-tool", "stdio", "--permission-mode", "default",
		"--setting-sources", "", "--strict-mcp-config", "--disable-slash-commands",
		"--tools", strings.Join(policy.Offered(), ",")}
	if names := serverNames(r); len(names) > 0 {
		argv = append(argv, "--mcp-config", serverConfig(names))
	}
	if r.OutputSchema != nil {
		argv = append(argv, "--json-schema", string(r.OutputSchema))
	}
	if len(r.Continue)+len(r.History) > 0 {
		c.file = configDir(r) + "/go-on/" + session + ".jsonl"
		argv = append(argv, "--resume", c.file)
	} else {
		argv = append(argv, "--session-id", session)
	}
	if r.Model != "" {
		argv = append(argv, "--model", r.Model)
	}
	if r.System != "" {
		argv = append(argv, "--system-prompt", r.System)
	}
	if r.AppendSystem != "" {
		argv = append(argv, "--append-system-prompt", r.AppendSystem)
	}
	if r.MaxTurns > 0 {
		argv = append(argv, "--max-turns", strconv.Itoa(r.MaxTurns-len(r.Continue)))
	}
	c.argv, c.rights = argv, rights(r)
	return c
}

// rights are the step's, for the CLI and all that it starts; its own folder stays
// writable.
func rights(r agent.Request) sandbox.Rights {
	out := r.Rights
	if own, ok := strings.CutPrefix(configDir(r), homeOf(toolEnv(r))+"/"); ok && out.ReadOnly {
		out.Write = append(slices.Clone(out.Write), "~/"+own+"/")
	}
	return out
}

// settings of the CLI, by environment. Retries are the engine's: it knows the class
// of an error and what a step may cost. What talks to other hosts, remembers between
// sessions or reads instructions from files is off.
var settings = []string{
	"CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR=" + strconv.Itoa(keyDescriptor),
	"CLAUDE_CODE_MAX_RETRIES=0",
	"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
	"CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK=1", // a broken stream would be asked, and paid, again
	"CLAUDE_CODE_DISABLE_REFUSAL_FALLBACK=1",
	"CLAUDE_CODE_DISABLE_REFUSAL_RETRY=1",
	"CLAUDE_CODE_DISABLE_BACKGROUND_TASKS=1", // a turn's processes end with it
	"CLAUDE_CODE_DISABLE_AUTO_MEMORY=1",
	"CLAUDE_CODE_DISABLE_CLAUDE_MDS=1",
	"CLAUDE_CODE_DISABLE_BUNDLED_SKILLS=1",
	"CLAUDE_CODE_DISABLE_FILE_CHECKPOINTING=1",
	"CLAUDE_CODE_DISABLE_TERMINAL_TITLE=1",
	"CLAUDE_CODE_ENTRYPOINT=sdk-go",
	"DISABLE_AUTOUPDATER=1",
}

// configDir is the attempt's own, inside.
func configDir(r agent.Request) string {
	dir := r.StateDir
	if dir == "" {
		dir = homeOf(toolEnv(r))
	}
	return dir + "/claude-" + fileName(r.StepID) + "-" + strconv.Itoa(r.Attempt)
}

// toolEnv is the environment of the tools.
func toolEnv(r agent.Request) []string {
	if r.Env != nil {
		return r.Env
	}
	return r.Sandbox.BaseEnv()
}

func homeOf(env []string) string {
	home := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "HOME="); ok {
			home = v
		}
	}
	return home
}

// environment of the CLI and of its tools. A step's environment must not steer the
// CLI: another base URL, a module that Bun loads before it.
func environment(r agent.Request, url string) []string {
	base, dir := toolEnv(r), configDir(r)
	var env []string
	for _, kv := range base {
		if name, _, _ := strings.Cut(kv, "="); name != "HOME" && !steers(name) {
			env = append(env, kv)
		}
	}
	env = append(env, "ANTHROPIC_BASE_URL="+url, "NO_PROXY=127.0.0.1,localhost", "no_proxy=127.0.0.1,localhost", "SHELL=/bin/bash",
		"CLAUDE_CONFIG_DIR="+dir, "CLAUDE_ENV_FILE="+dir+"/env.sh", "HOME="+dir+"/home", "FLOW_AGENT_HOME="+homeOf(base))
	return append(env, settings...)
}

func steers(name string) bool {
	up := strings.ToUpper(name)
	for _, prefix := range []string{"ANTHROPIC_", "CLAUDE", "BUN_", "API_TIMEOUT", "DISABLE_", "NO_PROXY", "IS_SANDBOX", "OTEL_", "SHELL", "BASH_ENV", "FLOW_AGENT_HOME"} {
		if strings.HasPrefix(up, prefix) {
			return true
		}
	}
	return false
}

var plainName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`) })

// fileName makes a step's id into the name of a folder.
func fileName(id string) string {
	if plainName().MatchString(id) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:8])
}

// sessionID names the conversation, in the form of a UUID, which the CLI wants.
func sessionID(r agent.Request) string {
	return uuid("flow session\x00%s\x00%s\x00%d", r.RunID, r.StepID, r.Attempt)
}

// uuid is made from what it names.
func uuid(format string, a ...any) string {
	sum := sha256.Sum256(fmt.Appendf(nil, format, a...))
	b := sum[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80 // version 8: a scheme of our own
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
