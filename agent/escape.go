package agent

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// program describes how arguments of an otherwise harmless program make it run
// another one or write a file of their choice. A prefix pattern (Bash(git:*)) does
// not grant that; a pattern that spells the argument out does.
//
// The table names what is known to be used that way. It narrows; it is not the
// boundary, which is the sandbox.
type program struct {
	flags []string // long flags count with their unambiguous beginnings too
	words []string // sub-commands
	// args judges the arguments that the pattern does not cover.
	args func([]word) string
}

var programs = map[string]program{
	"find": {flags: []string{"-exec", "-execdir", "-ok", "-okdir", "-delete", "-fprint", "-fprint0", "-fprintf", "-fls"}},
	"fd":   {flags: []string{"-x", "-X", "--exec", "--exec-batch"}},
	"git": {
		flags: []string{"--exec", "-x", "--extcmd", "--open-files-in-pager", "-O", "--upload-pack", "--receive-pack", "--ext-diff", "--textconv", "--output", "-o",
			"--config-env", "--exec-path", "--template", "--config"},
		words: []string{"bisect", "submodule", "filter-branch", "config", "difftool", "mergetool", "daemon", "shell", "hook", "web--browse", "instaweb", "for-each-repo"},
		args:  gitGlobals,
	},
	"go":      {flags: []string{"-exec", "--exec", "-toolexec", "--toolexec", "-vettool", "--vettool", "-ldflags", "--ldflags", "-gccgoflags", "--gccgoflags", "-C", "--C", "-modfile", "--modfile", "-overlay", "--overlay"}},
	"tar":     {flags: []string{"--to-command", "--checkpoint-action", "-I", "--use-compress-program", "--rsh-command", "--info-script", "--new-volume-script", "-F", "--rmt-command"}, args: noBundledTar},
	"rsync":   {flags: []string{"-e", "--rsh", "--rsync-path"}, args: shortFlag('e')},
	"sort":    {flags: []string{"--compress-program", "-o", "--output", "-T", "--files0-from"}, args: shortFlag('o')},
	"rg":      {flags: []string{"--pre", "--hostname-bin", "-z", "--search-zip"}, args: shortFlag('z')},
	"ctags":   {flags: []string{"--options", "--_xformat"}},
	"man":     {flags: []string{"-P", "--pager", "-H", "--html", "-B"}},
	"less":    {args: nothingMore("an interactive pager")},
	"more":    {args: nothingMore("an interactive pager")},
	"vi":      {args: nothingMore("an editor")},
	"vim":     {args: nothingMore("an editor")},
	"ed":      {args: nothingMore("an editor")},
	"make":    {flags: []string{"--eval", "-E"}, args: noSettings},
	"gmake":   {flags: []string{"--eval", "-E"}, args: noSettings},
	"cargo":   {flags: []string{"--config"}},
	"npm":     {flags: []string{"--script-shell", "--node-options", "--globalconfig", "--userconfig"}},
	"docker":  {args: nothingMore("a way to another machine")},
	"printf":  {flags: []string{"-v"}, args: shortFlag('v')},
	"test":    {flags: []string{"-v", "-R"}},
	"[":       {flags: []string{"-v", "-R"}},
	"wget":    {flags: []string{"--use-askpass", "--execute", "-e", "--config"}, args: shortFlag('e')},
	"curl":    {flags: []string{"-K", "--config"}, args: shortFlag('K')},
	"zip":     {flags: []string{"-TT", "--unzip-command"}},
	"split":   {flags: []string{"--filter"}},
	"awk":     {args: awkScript},
	"gawk":    {args: awkScript},
	"mawk":    {args: awkScript},
	"sed":     {args: sedScript},
	"protoc":  {flags: []string{"--plugin"}},
	"gcc":     {flags: []string{"-wrapper", "-B", "-specs", "--specs", "-fplugin"}},
	"openssl": {flags: []string{"-engine", "-provider", "-provider-path"}},
}

// escapes judges the words after the first `covered`, which a pattern named.
func escapes(name string, words []word, covered int) string {
	p, ok := programs[name]
	if !ok {
		return ""
	}
	rest := words[covered:]
	for _, w := range rest {
		switch {
		case len(p.flags) > 0 && !w.known && w.mayBeFlag():
			return fmt.Sprintf("an argument of %s that is only known at run time could be a flag that runs other commands; write it out, or begin it with ./", name)
		case slices.ContainsFunc(p.flags, func(f string) bool { return isFlag(w.text, f) }):
			return fmt.Sprintf("%s %s can run other commands or write files; a pattern has to name it", name, w)
		case w.known && slices.Contains(p.words, w.text):
			return fmt.Sprintf("%s %s can run other commands; a pattern has to name it", name, w)
		}
	}
	if p.args == nil || name == "git" && covered > 1 {
		return "" // git's global flags come before the sub-command
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

// shortFlag finds a letter in a bundle: -az -e → -aze.
func shortFlag(letter byte) func([]word) string {
	return func(words []word) string {
		for _, w := range words {
			if len(w.text) > 1 && w.text[0] == '-' && w.text[1] != '-' && strings.IndexByte(w.text, letter) > 0 {
				return fmt.Sprintf("%s may hold -%c, which can run other commands or write files", w, letter)
			}
		}
		return ""
	}
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
