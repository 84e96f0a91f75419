package workflow

import (
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
	"mvdan.cc/sh/v3/syntax"
)

// dangerSigns: a script without one of these words is not parsed.
var dangerSigns = []string{"rm", "mkfs", "dd", "shred", "wipefs", "blkdiscard", "/dev/", "|", "chmod", "chown", "find"}

// ruleDangerousCommand judges the parsed script of a run step.
func ruleDangerousCommand(p *fileParser, l *stepLint) {
	if l.s.Run == nil || l.nodes.run == nil || l.s.AllowDangerous != "" {
		return
	}
	p.dangerousReady(l)
	n := real(l.nodes.run)
	if n.Kind == yaml.SequenceNode {
		var words []string
		for _, x := range n.Content {
			words = append(words, real(x).Value)
		}
		if why := dangerous(words); why != "" {
			p.danger(pos(n), 1, why)
		}
		return
	}
	if l.s.Run.Shell != "bash" && l.s.Run.Shell != "sh" {
		return
	}
	for _, f := range dangers(n.Value) {
		p.danger(p.placeIn(n, f.at), f.width, f.why)
	}
}

func (p *fileParser) danger(at Pos, width int, why string) {
	d := p.found("dangerous-command", at, width, "%s", why)
	d.Hint = "where it is meant, say so on the step:  allow_dangerous: \"why\""
}

// ruleDangerousPrompt looks for the same commands in the lines of a prompt.
func ruleDangerousPrompt(p *fileParser, l *stepLint) {
	if l.s.Agent == nil || l.s.Agent.Prompt == nil {
		return
	}
	for line := range strings.Lines(l.s.Agent.Prompt.Source()) {
		for _, part := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune("`;.,()\n", r) }) {
			words := strings.Fields(part)
			for i := range words {
				if why := dangerous(words[i:]); why != "" {
					p.foundAt("dangerous-prompt", l.nodes.agent, "the prompt names a command: %s", why)
					return
				}
			}
		}
	}
}

// finding is a dangerous place of a script, in bytes.
type finding struct {
	at, width int
	why       string
}

// dangers parses a script and judges its commands. Text that is no shell is not
// judged: the shell will refuse it.
func dangers(script string) []finding {
	if !slices.ContainsFunc(dangerSigns, func(s string) bool { return strings.Contains(script, s) }) {
		return nil
	}
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(blank(script)), "")
	if err != nil {
		return nil
	}
	var out []finding
	add := func(n syntax.Node, why string) {
		at := int(n.Pos().Offset())
		end := min(int(n.End().Offset()), len(script))
		text, _, _ := strings.Cut(script[at:end], "\n")
		out = append(out, finding{at, utf8.RuneCountInString(text), why})
	}
	syntax.Walk(file, func(n syntax.Node) bool {
		switch x := n.(type) {
		case *syntax.CallExpr:
			var words []string
			for _, w := range x.Args {
				words = append(words, plainWord(w))
			}
			if why := dangerous(words); why != "" {
				add(x, why)
			}
		case *syntax.Redirect:
			if x.Word != nil && x.Op != syntax.RdrIn && isDisk(plainWord(x.Word)) {
				add(x, "it writes onto the disk "+plainWord(x.Word))
			}
		case *syntax.FuncDecl:
			if forkBomb(x) {
				add(x, "it is a fork bomb: "+x.Name.Value+" starts itself twice")
			}
		}
		return true
	})
	return out
}

// blank replaces expressions by as many word characters, so that places stay.
func blank(script string) string {
	_, exprs, offsets, bad := split(script)
	if bad >= 0 || len(exprs) == 0 {
		return script
	}
	b := []byte(script)
	for i, e := range exprs {
		for j := offsets[i] - 3; j < offsets[i]+len(e)+2; j++ {
			b[j] = 'x'
		}
	}
	return string(b)
}

// plainWord is a word as far as it is known: quotes are taken off, variables
// stay as $NAME.
func plainWord(w *syntax.Word) string {
	var b strings.Builder
	var parts func(list []syntax.WordPart)
	parts = func(list []syntax.WordPart) {
		for _, p := range list {
			switch x := p.(type) {
			case *syntax.Lit:
				b.WriteString(strings.ReplaceAll(x.Value, `\`, ""))
			case *syntax.SglQuoted:
				b.WriteString(x.Value)
			case *syntax.DblQuoted:
				parts(x.Parts)
			case *syntax.ParamExp:
				if x.Param != nil {
					b.WriteString("$" + x.Param.Value)
				}
			default:
				b.WriteString("$(…)")
			}
		}
	}
	parts(w.Parts)
	return b.String()
}

// wrappers run the command that follows their own options.
var wrappers = []string{"sudo", "env", "nice", "nohup", "time", "exec", "command", "timeout", "xargs", "doas", "busybox"}

// dangerous judges one command; "" for harmless.
func dangerous(words []string) string {
	for len(words) > 0 && slices.Contains(wrappers, path.Base(words[0])) {
		words = words[1:]
		for len(words) > 0 && (strings.HasPrefix(words[0], "-") || strings.Contains(words[0], "=") || isNumber(words[0])) {
			words = words[1:]
		}
	}
	if len(words) == 0 {
		return ""
	}
	name, args := path.Base(words[0]), words[1:]
	switch {
	case name == "rm":
		return dangerousRemove(args)
	case name == "mkfs" || strings.HasPrefix(name, "mkfs.") || name == "mke2fs":
		for _, a := range args {
			if isDisk(a) {
				return name + " makes a new file system on " + a
			}
		}
	case name == "dd":
		for _, a := range args {
			if to, ok := strings.CutPrefix(a, "of="); ok && isDisk(to) {
				return "dd writes onto the disk " + to
			}
		}
	case name == "shred", name == "wipefs", name == "blkdiscard":
		for _, a := range args {
			if isDisk(a) {
				return name + " wipes the disk " + a
			}
		}
	case name == "chmod", name == "chown":
		if recursive(args) && slices.ContainsFunc(args, isRoot) {
			return name + " -R changes the whole system"
		}
	case name == "find":
		if len(args) > 0 && isRoot(args[0]) && slices.Contains(args, "-delete") {
			return "find " + args[0] + " -delete removes files all over the system"
		}
	case name == "sh" || name == "bash" || name == "eval":
		for i, a := range args {
			if name == "eval" || a == "-c" && i+1 < len(args) {
				text := a
				if name != "eval" {
					text = args[i+1]
				}
				if f := dangers(text); len(f) > 0 {
					return f[0].why
				}
			}
		}
	}
	return ""
}

func isNumber(s string) bool { return number().MatchString(strings.TrimRight(s, "smh")) }

// dangerousRemove: a recursive rm of a root.
func dangerousRemove(args []string) string {
	if !recursive(args) {
		return ""
	}
	for _, a := range args {
		if a == "--no-preserve-root" {
			return "rm --no-preserve-root removes everything"
		}
		if isRoot(a) {
			return "rm -r of " + a + " removes everything there"
		}
	}
	return ""
}

func recursive(args []string) bool {
	return slices.ContainsFunc(args, func(a string) bool {
		return a == "--recursive" || strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "--") && strings.ContainsAny(a, "rR")
	})
}

// roots are folders that nobody removes in a step.
var roots = []string{"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/sbin", "/srv", "/sys", "/usr", "/var",
	"~", "$HOME", "$HOME/workspace", "~/workspace"}

// isRoot also takes /*, //, /usr/ and /../ for what they are.
func isRoot(arg string) bool {
	if arg == "" || strings.HasPrefix(arg, "-") {
		return false
	}
	a := strings.TrimSuffix(strings.TrimSuffix(arg, "*"), ".")
	if a == "" || !strings.HasPrefix(a, "/") && !strings.HasPrefix(a, "~") && !strings.HasPrefix(a, "$HOME") {
		return false
	}
	return slices.Contains(roots, path.Clean(a))
}

// isDisk: a device that holds a file system, not /dev/null and its like.
func isDisk(arg string) bool {
	rest, ok := strings.CutPrefix(path.Clean(arg), "/dev/")
	if !ok {
		return false
	}
	for _, p := range []string{"sd", "hd", "vd", "xvd", "nvme", "mmcblk", "disk", "mapper/", "md", "dm-", "loop", "mem", "kmem", "port"} {
		if strings.HasPrefix(rest, p) {
			return true
		}
	}
	return false
}

// forkBomb: a function whose body pipes itself into itself, or starts itself in
// the background.
func forkBomb(f *syntax.FuncDecl) bool {
	calls := 0
	spreads := false
	syntax.Walk(f.Body, func(n syntax.Node) bool {
		switch x := n.(type) {
		case *syntax.CallExpr:
			if len(x.Args) == 1 && plainWord(x.Args[0]) == f.Name.Value {
				calls++
			}
		case *syntax.BinaryCmd:
			spreads = spreads || x.Op == syntax.Pipe
		case *syntax.Stmt:
			spreads = spreads || x.Background
		}
		return true
	})
	return calls >= 2 && spreads
}

// dangerousReady judges the script of `ready`, which is tried again and again.
func (p *fileParser) dangerousReady(l *stepLint) {
	ready := valueOf(l.n, "ready")
	if ready == nil || l.s.Run.Shell != "bash" && l.s.Run.Shell != "sh" {
		return
	}
	n := valueOf(ready, "run")
	if n == nil || real(n).Kind != yaml.ScalarNode {
		return
	}
	n = real(n)
	for _, f := range dangers(n.Value) {
		p.danger(p.placeIn(n, f.at), f.width, f.why)
	}
}
