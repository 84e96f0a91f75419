package agent

import (
	"regexp"
	"strings"
	"sync"
)

// inner is what a wrapper runs: words or a script, or why it cannot be told.
type inner struct {
	at       int // index of the inner program's word, 0 when unknown
	words    []word
	script   string
	isScript bool
	query    bool // runs nothing: `command -v go`
	why      string
}

// wrappers are programs and builtins whose arguments are a command. What cannot
// be told is denied, also where a pattern names the wrapper: Bash(env:*) must not
// be a way to everything. A pattern that names the inner program too
// (Bash(timeout 60 go test:*)) allows it.
var wrappers = map[string]func([]word) inner{
	"command": unwrapCommand, "builtin": skipFlags("", ""),
	"nohup": skipFlags("", ""), "nice": skipFlags("", "n"), "time": skipFlags("p", ""),
	"timeout": unwrapTimeout, "stdbuf": skipFlags("", "ioe"), "setsid": skipFlags("wfc", ""),
	"env": skipFlags("", ""), "xargs": unwrapXargs,
	"sh": unwrapShell, "bash": unwrapShell, "dash": unwrapShell, "ash": unwrapShell, "ksh": unwrapShell,
	"mksh": unwrapShell, "zsh": unwrapShell, "rbash": unwrapShell,

	"eval": hidden, "exec": hidden, "source": hidden, ".": hidden, "trap": hidden, "alias": hidden,
	"sudo": hidden, "su": hidden, "doas": hidden, "pkexec": hidden, "runuser": hidden, "setpriv": hidden,
	"chroot": hidden, "unshare": hidden, "nsenter": hidden, "bwrap": hidden, "systemd-run": hidden,
	"ssh": hidden, "script": hidden, "watch": hidden, "parallel": hidden, "entr": hidden, "at": hidden,
	"batch": hidden, "crontab": hidden, "flock": hidden, "ionice": hidden, "taskset": hidden, "chrt": hidden,
	"strace": hidden, "ltrace": hidden, "gdb": hidden, "prlimit": hidden, "busybox": hidden, "toybox": hidden,
	"expect": hidden, "unbuffer": hidden, "rlwrap": hidden, "socat": hidden, "tmux": hidden, "screen": hidden,
	"start-stop-daemon": hidden, "fish": hidden, "csh": hidden, "tcsh": hidden, "rsh": hidden,
	"setarch": hidden, "linux32": hidden, "linux64": hidden, "i386": hidden, "uname26": hidden, "numactl": hidden, "eatmydata": hidden,
	"proxychains": hidden, "proxychains4": hidden, "torsocks": hidden, "torify": hidden, "firejail": hidden, "proot": hidden, "fakechroot": hidden,
	"valgrind": hidden, "perf": hidden, "heaptrack": hidden, "catchsegv": hidden, "gdbserver": hidden, "lldb": hidden, "rr": hidden,
	"runcon": hidden, "sg": hidden, "newgrp": hidden, "ssh-agent": hidden, "sshpass": hidden, "gpg-agent": hidden, "logsave": hidden, "capsh": hidden, "aa-exec": hidden,
	"su-exec": hidden, "gosu": hidden, "tini": hidden, "dumb-init": hidden, "chpst": hidden, "softlimit": hidden, "setuidgid": hidden, "s6-setuidgid": hidden,
	"watchexec": hidden, "nodemon": hidden, "daemonize": hidden, "dtach": hidden, "abduco": hidden, "tsp": hidden, "nq": hidden, "chronic": hidden, "ts": hidden,
	"mispipe": hidden, "ifne": hidden, "zrun": hidden, "hyperfine": hidden, "pwsh": hidden, "nu": hidden, "xonsh": hidden, "elvish": hidden, "ld.so": hidden,
	"ld-linux-x86-64.so.2": hidden, "ld-linux-aarch64.so.1": hidden, "ld-musl-x86_64.so.1": hidden, "run-parts": hidden,
	"cpulimit": hidden, "faketime": hidden, "fakeroot": hidden, "dbus-run-session": hidden, "xvfb-run": hidden,

	// Builtins that change what the shell's next words mean, or evaluate text in
	// their arguments as code (an array's index).
	"enable": hidden, "hash": hidden, "bind": hidden, "complete": hidden, "compgen": hidden, "fc": hidden,
	"declare": hidden, "typeset": hidden, "local": hidden, "export": hidden, "readonly": hidden, "let": hidden,
	"unset": hidden, "read": hidden, "mapfile": hidden, "readarray": hidden, "getopts": hidden, "shopt": hidden,
	"coproc": hidden,
}

func hidden([]word) inner {
	return inner{why: "what it does cannot be judged; run the command itself"}
}

// from is the command that begins at word i.
func from(words []word, i int) inner {
	if i >= len(words) {
		return inner{why: "no command follows"}
	}
	return inner{at: i, words: words[i:]}
}

// skipFlags unwraps `wrapper [-f] [-v VALUE] command …`: flags are single letters
// without, values with a value. Any other flag or an assignment is not judged.
func skipFlags(flags, values string) func([]word) inner {
	return func(words []word) inner {
		i := 1
		for ; i < len(words); i++ {
			w := words[i]
			if !w.known {
				return inner{why: "the arguments before its command are only known at run time"}
			}
			if !strings.HasPrefix(w.text, "-") {
				break
			}
			switch {
			case w.text == "--":
				return plainStart(words, i+1)
			case len(w.text) == 2 && strings.Contains(flags, w.text[1:]):
			case len(w.text) == 2 && strings.Contains(values, w.text[1:]):
				i++
			case len(w.text) > 2 && w.text[1] != '-' && strings.Contains(values, w.text[1:2]):
			default:
				return inner{why: "its flag " + w.text + " is not judged"}
			}
		}
		return plainStart(words, i)
	}
}

// plainStart refuses `env A=b command`.
func plainStart(words []word, i int) inner {
	if i < len(words) && strings.Contains(words[i].text, "=") {
		return inner{why: "the setting " + words[i].String() + " can change what a command does"}
	}
	return from(words, i)
}

func unwrapCommand(words []word) inner {
	if len(words) > 1 && words[1].known && (words[1].text == "-v" || words[1].text == "-V") {
		return inner{query: true}
	}
	return skipFlags("p", "")(words)
}

var durationForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9]*\.?[0-9]+[smhd]?$`) })

func unwrapTimeout(words []word) inner {
	i := 1
	for ; i < len(words) && words[i].known && strings.HasPrefix(words[i].text, "-"); i++ {
		switch w := words[i].text; {
		case w == "-k", w == "-s":
			i++
		case w == "-v", w == "--foreground", w == "--preserve-status", w == "--verbose",
			strings.HasPrefix(w, "--kill-after="), strings.HasPrefix(w, "--signal="):
		default:
			return inner{why: "its flag " + w + " is not judged"}
		}
	}
	if i >= len(words) || !words[i].known || !durationForm().MatchString(words[i].text) {
		return inner{why: "its duration is not a plain one"}
	}
	return from(words, i+1)
}

// unwrapXargs: the words that xargs appends come from its input.
func unwrapXargs(words []word) inner {
	i := 1
	for ; i < len(words) && strings.HasPrefix(words[i].text, "-"); i++ {
		switch w := words[i].text; {
		case !words[i].known:
			return inner{why: "its flags are only known at run time"}
		case w == "-0", w == "-r", w == "-t", w == "-0r", w == "-r0", w == "--null", w == "--no-run-if-empty":
		case w == "-n", w == "-P", w == "-L":
			i++
		case xargsNumber().MatchString(w):
		default:
			return inner{why: "its flag " + w + " is not judged"}
		}
	}
	in := from(words, i)
	if in.why == "" {
		in.words = append(append([]word(nil), in.words...), word{})
	}
	return in
}

var xargsNumber = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^-[nPL][0-9]+$`) })

var shellFlags = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^-[eux]*c$`) })

// unwrapShell judges the script of `sh -c SCRIPT`. A shell that reads a file or
// its input runs what cannot be seen here; -l and -i read start-up files.
func unwrapShell(words []word) inner {
	i := 1
	for i < len(words) && words[i].known && (words[i].text == "-e" || words[i].text == "-u" || words[i].text == "-x") {
		i++
	}
	if i < len(words) && words[i].known && !strings.HasPrefix(words[i].text, "-") {
		// A script file: allowed by a pattern that names it (Bash(sh build.sh:*)).
		return inner{at: i, why: "what is in " + words[i].text + " cannot be judged; name it in a pattern, or run the commands themselves"}
	}
	if i+1 >= len(words) || !words[i].known || !shellFlags().MatchString(words[i].text) {
		return inner{why: "only `sh -c` with a script of plain text is judged"}
	}
	if !words[i+1].known {
		return inner{why: "its script is only known at run time"}
	}
	return inner{script: words[i+1].text, isScript: true}
}
