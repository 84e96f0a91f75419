package agent

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// escapes judges the words after the first `covered`, which a pattern named. Where
// the step may write any file, so may a program.
func escapes(name string, words []word, covered int, mayWrite bool) string {
	p, ok := programs()[name]
	if !ok {
		return ""
	}
	rest := words[covered:]
	for _, w := range rest {
		switch {
		case len(p.flags)+len(p.writes) > 0 && !w.known && w.mayBeFlag():
			return fmt.Sprintf("an argument of %s that is only known at run time could be a flag that runs other commands; write it out, or begin it with ./", name)
		case slices.ContainsFunc(p.flags, func(f string) bool { return isFlag(w.text, f) }):
			return fmt.Sprintf("%s %s can run other commands or write files; a pattern has to name it", name, w)
		case !mayWrite && (slices.ContainsFunc(p.writes, func(f string) bool { return isFlag(w.text, f) }) || bundled(w.text, p.bundle)):
			return fmt.Sprintf("%s %s writes a file of its choice; allow Write, or name the argument in a pattern", name, w)
		case w.known && slices.Contains(p.words, w.text):
			return fmt.Sprintf("%s %s can run other commands; a pattern has to name it", name, w)
		}
	}
	if p.args == nil {
		return ""
	}
	if name == "git" && covered > 1 { // the sub-command is the pattern's
		rest = append(slices.Clone(words[1:covered]), rest...)
	}
	if why := p.args(rest); why != "" {
		return fmt.Sprintf("%s %s", name, why)
	}
	return ""
}

// isFlag: --flag, --flag=value, and the beginnings of a long flag, which GNU's and
// git's parsers complete. Single letters of -x style count with a value attached.
func isFlag(arg, flag string) bool {
	name, _, _ := strings.Cut(arg, "=")
	if name == flag {
		return true
	}
	if strings.HasPrefix(flag, "--") {
		return len(name) > 3 && strings.HasPrefix(flag, name)
	}
	return len(flag) == 2 && strings.HasPrefix(arg, flag) && !strings.HasPrefix(arg, "--")
}

// bundled: one of the letters in a word of short flags only, -sSfLo.
func bundled(arg, letters string) bool {
	return letters != "" && bundleForm().MatchString(arg) && strings.ContainsAny(arg[1:], letters)
}

var bundleForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^-[A-Za-z]{2,}$`) })

// shortFlag finds letters in a bundle: -az -e → -aze.
func shortFlag(letters ...byte) func([]word) string {
	return func(words []word) string {
		for _, w := range words {
			if len(w.text) < 2 || w.text[0] != '-' || w.text[1] == '-' {
				continue
			}
			for _, letter := range letters {
				if strings.IndexByte(w.text, letter) > 0 {
					return fmt.Sprintf("%s may hold -%c, which can run other commands or write files", w, letter)
				}
			}
		}
		return ""
	}
}

// noResponseFile refuses @file, which holds arguments that are not seen, and what
// hands a plugin to the linker.
func noResponseFile(words []word) string {
	for _, w := range words {
		if strings.HasPrefix(w.text, "@") || !w.known && w.text == "" || strings.HasPrefix(w.text, "-W") && strings.Contains(w.text, "plugin") {
			return "with the arguments of " + w.String() + " is not judged"
		}
	}
	return ""
}

// ofGit judges git's arguments: the options before the sub-command, and what a few
// sub-commands take.
func ofGit(words []word) string {
	if why := gitGlobals(words); why != "" {
		return why
	}
	for _, w := range words {
		// A transport that is a command: git clone ext::'sh -c …'.
		if transport().MatchString(w.text) {
			return w.String() + " names a transport that runs a program"
		}
	}
	for i, w := range words {
		if !strings.HasPrefix(w.text, "-") {
			if slices.Contains([]string{"clone", "init", "rebase", "help"}, w.text) {
				return gitShort(w.text, words[i+1:])
			}
			return ""
		}
	}
	return ""
}

var transport = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(^|=)(ext|fd)::`) })

// gitShort: -c is a setting of clone only, -u its upload-pack, -i of rebase an
// editor, and help shows pages with a program of the settings.
func gitShort(sub string, words []word) string {
	letters := map[string]string{"clone": "cu", "rebase": "ixe", "help": "wmi"}[sub]
	for _, w := range words {
		if letters != "" && len(w.text) > 1 && w.text[0] == '-' && w.text[1] != '-' && strings.ContainsAny(w.text[1:], letters) ||
			sub == "rebase" && (isFlag(w.text, "--interactive") || isFlag(w.text, "--edit-todo")) {
			return sub + " " + w.String() + " can run other commands; a pattern has to name it"
		}
	}
	return ""
}

// gitGlobals: options before the sub-command. `git -c alias.x='!touch w' x` ran a
// command in Claude Code under Bash(git:*) (measured).
func gitGlobals(words []word) string {
	for _, w := range words {
		if !w.known {
			return "has a sub-command that is only known at run time"
		}
		if !strings.HasPrefix(w.text, "-") {
			return ""
		}
		if !slices.Contains([]string{"--no-pager", "-P", "--version", "--help", "-h", "--no-optional-locks", "--literal-pathspecs"}, w.text) {
			if globalGit().MatchString(w.text) {
				return w.text + " changes settings that can run other commands; a pattern has to name it"
			}
		}
	}
	return ""
}

var globalGit = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(-c|-C|--(git-dir|work-tree|namespace|super-prefix|list-cmds|attr-source|bare|paginate)|-p)`)
})

// noBundledTar: tar's first word may be flags without a dash (tar cIf prog).
func noBundledTar(words []word) string {
	if len(words) == 0 {
		return ""
	}
	if !words[0].known {
		return "has flags that are only known at run time"
	}
	if strings.ContainsAny(words[0].text, "IF") && !strings.Contains(words[0].text, "/") && !strings.HasPrefix(words[0].text, "--") {
		return words[0].text + " may hold -I or -F, which run other commands"
	}
	return firstOf(shortFlag('I')(words), func() string { return shortFlag('F')(words) })
}

// noSettings: make SHELL=… and CC=… run what they name.
func noSettings(words []word) string {
	for _, w := range words {
		if strings.Contains(w.text, "=") || !w.known {
			return "takes the setting " + w.String() + ", which can run other commands; a pattern has to name it"
		}
	}
	return ""
}

// oneFile: a second operand is the file that is written.
func oneFile(words []word) string {
	operands := 0
	for _, w := range words {
		if !strings.HasPrefix(w.text, "-") {
			operands++
		}
		if operands > 1 || !w.known {
			return "may write its second file " + w.String() + "; a pattern has to name it"
		}
	}
	return ""
}

func nothingMore(what string) func([]word) string {
	return func([]word) string {
		return "is " + what + " that runs other commands; a pattern has to name the whole command"
	}
}

// awkScript: an awk program is not parsed; what can run commands or write is denied.
func awkScript(words []word) string {
	for _, w := range words {
		if !w.known || strings.ContainsAny(w.text, "|>@") || strings.Contains(w.text, "system") ||
			strings.Contains(w.text, "getline") || strings.HasPrefix(w.text, "-") && !strings.HasPrefix(w.text, "-F") {
			return "with " + w.String() + " may run commands or write files and is not judged"
		}
	}
	return ""
}

var plainSed = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([0-9$]+(,[0-9$]+)?|/[^/\\]*/)?[pdq]$|^s/[^/\\]*/[^/\\]*/g?p?$`)
})

// sedScript: sed has e (run) and w (write) commands; only the plainest scripts pass.
func sedScript(words []word) string {
	script := false
	for _, w := range words {
		switch {
		case !w.known:
			return "with an argument that is only known at run time is not judged"
		case strings.HasPrefix(w.text, "-"):
			if !slices.Contains([]string{"-n", "-E", "-r", "-e", "-s", "-u"}, w.text) {
				return w.text + " may write files and is not judged"
			}
			if w.text == "-e" {
				script = false
			}
		case !script:
			if !plainSed().MatchString(w.text) {
				return "with the script " + w.text + " may run commands or write files and is not judged"
			}
			script = true
		}
	}
	return ""
}
