package tools

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"flowrun.dev/flow/sandbox"
)

// maxShell bounds a shell's state, in bytes. A larger one is not kept, and the model
// is told.
const maxShell = 256 << 10

// shellScript runs a command as the next one of a shell that lives on: it takes the
// state on stdin, and gives the new one on stderr, after the command's end. The
// command's own stdin is empty, its stdout and stderr are both stdout. Words that the
// shell sets by itself, and those that a place sets (a conversation may go on in
// another one, whose home has another name), are no state. A command that replaces the shell or its EXIT
// trap leaves the state as it was. It starts few programs: the state is saved after every
// call, and one sed for each variable took ten times as long as all the rest.
const shellScript = `exec 9>&2 2>&1
__flow_state=$(cat)
exec </dev/null
shopt -s expand_aliases
eval "$__flow_state" 2>/dev/null
unset __flow_state
__flow_save() {
  local v __flow_names=()
  trap - EXIT
  {
    case $PWD/ in
    "$HOME"/*) printf 'cd -- "$HOME"/%q\n' "${PWD#"$HOME"}" ;;
    *) printf 'cd -- %q\n' "$PWD" ;;
    esac
    for v in $(compgen -v); do
      case $v in
      BASH*|COMP_*|DIRSTACK|EPOCH*|EUID|FLOW*|FUNCNAME|GROUPS|HISTCMD|HOME|IFS|LINENO|OLDPWD|OPTERR|OPTIND|PIPESTATUS|PPID|PWD|RANDOM|SECONDS|SHELLOPTS|SHLVL|SRANDOM|TMPDIR|UID|_|__flow*|v) ;;
      *) __flow_names+=("$v") ;;
      esac
    done
    declare -p "${__flow_names[@]}"
    alias -p
    for v in $(compgen -A function); do
      [ "$v" = __flow_save ] || declare -f "$v"
    done
  } >&9 2>/dev/null
}
trap '__flow_code=$?; __flow_save; exit $__flow_code' EXIT
eval "$1"
`

// inShell runs the command of a Bash call; stdout and stderr go to out. The note is
// for the model.
func (s *Set) inShell(ctx context.Context, command string, out *bounded) (sandbox.Result, string, error) {
	if !s.policy.OpenBash() {
		// The judge knows paths relative to the workspace only, so a narrow rule's call
		// starts there, and nothing that an earlier one set changes what it does.
		res, err := s.execTo(ctx, []string{"bash", "-c", command}, nil, out, nil)
		return res, "", err
	}
	sink := &bounded{max: maxShell + 1}
	res, err := s.execTo(ctx, []string{"bash", "-c", shellScript, "bash", command}, strings.NewReader(s.shell), out, sink)
	if err != nil {
		return res, "", err
	}
	if sink.cut() {
		return res, fmt.Sprintf("\n(the shell's variables and functions take more than %d bytes and were not kept for the next call)", maxShell), nil
	}
	if next := string(sink.bytes()); strings.HasPrefix(next, "cd -- ") {
		s.shell = next
	}
	return res, "", nil
}

// shellState is what a conversation that goes on needs of the tools.
type shellState struct {
	Shell string `json:"shell"`
}

// State of the tools between calls, nil for none.
func (s *Set) State() json.RawMessage {
	if s.shell == "" {
		return nil
	}
	raw, _ := json.Marshal(shellState{s.shell}) // a string always encodes
	return raw
}

// SetState brings back what State gave; anything else is no state.
func (s *Set) SetState(raw json.RawMessage) {
	var st shellState
	if json.Unmarshal(raw, &st) == nil {
		s.shell = st.Shell
	}
}
