package agent

import (
	"fmt"
	"regexp"
	"strings"
	"sync"

	"mvdan.cc/sh/v3/syntax"
)

// Limits of what is judged: longer or deeper command lines are denied.
const (
	maxCommand = 64 << 10
	maxDepth   = 32
)

// shellJudge judges one command line. Its methods return the reason of a denial,
// or "". They know every node by name; what they do not know is denied.
type shellJudge struct {
	p *Policy
	// open: Bash is allowed as a whole, and only disallow rules bound it.
	open  bool
	moved bool // a cd makes relative redirects unknowable
	depth int
}

// OpenBash says whether Bash may run every command, so that no call is judged by what
// it says.
func (p *Policy) OpenBash() bool {
	return p.wholly(p.allowed, "Bash") && !p.scoped(p.denied, "Bash", "Write", "Edit", "Read")
}

func (p *Policy) judgeBash(command string) string {
	j := &shellJudge{p: p, open: p.wholly(p.allowed, "Bash")}
	if p.OpenBash() {
		return ""
	}
	return j.script(command)
}

func (j *shellJudge) script(text string) string {
	if len(text) > maxCommand {
		return fmt.Sprintf("the command is longer than %d bytes and is not judged", maxCommand)
	}
	if err := plainText(text); err != nil {
		return err.Error()
	}
	if j.depth++; j.depth > maxDepth {
		return "the command is nested too deeply to be judged"
	}
	defer func() { j.depth-- }()
	file, err := parseShell(text)
	if err != nil {
		return "the command cannot be parsed: " + err.Error()
	}
	syntax.Walk(file, func(n syntax.Node) bool {
		if call, ok := n.(*syntax.CallExpr); ok {
			for _, a := range call.Args {
				switch w := resolve(a); w.text {
				case "cd", "pushd", "popd":
					j.moved = true
				}
			}
		}
		return true
	})
	return j.stmts(file.Stmts)
}

func (j *shellJudge) stmts(list []*syntax.Stmt) string {
	for _, s := range list {
		if why := j.stmt(s); why != "" {
			return why
		}
	}
	return ""
}

func (j *shellJudge) stmt(s *syntax.Stmt) string {
	if s == nil {
		return ""
	}
	if j.depth++; j.depth > 8*maxDepth {
		return "the command is nested too deeply to be judged"
	}
	defer func() { j.depth-- }()
	if s.Coprocess || s.Disown {
		return "this way of starting a process in the background is not judged"
	}
	for _, r := range s.Redirs {
		if why := j.redirect(r); why != "" {
			return why
		}
	}
	if s.Cmd == nil {
		return ""
	}
	return j.command(s.Cmd)
}

func (j *shellJudge) command(c syntax.Command) string {
	switch c := c.(type) {
	case *syntax.CallExpr:
		return j.call(c)
	case *syntax.Subshell:
		return j.stmts(c.Stmts)
	case *syntax.Block:
		return j.stmts(c.Stmts)
	case *syntax.BinaryCmd:
		return firstOf(j.stmt(c.X), func() string { return j.stmt(c.Y) })
	case *syntax.IfClause:
		for ; c != nil; c = c.Else {
			if why := firstOf(j.stmts(c.Cond), func() string { return j.stmts(c.Then) }); why != "" {
				return why
			}
		}
		return ""
	case *syntax.WhileClause:
		return firstOf(j.stmts(c.Cond), func() string { return j.stmts(c.Do) })
	case *syntax.ForClause:
		return j.loop(c)
	case *syntax.CaseClause:
		return j.caseOf(c)
	case *syntax.FuncDecl:
		return j.stmt(c.Body)
	case *syntax.TimeClause:
		return j.stmt(c.Stmt)
	}
	if j.open {
		return j.inside(c)
	}
	return "this shell construct is not judged (" + construct(c) + "); use plain commands"
}

// inside judges the commands within a node that executes nothing by itself. Only
// for disallow rules: `[[ a[$(x)] -eq 1 ]]` and the like evaluate text as code.
func (j *shellJudge) inside(n syntax.Node) string {
	why := ""
	syntax.Walk(n, func(n syntax.Node) bool {
		if s, ok := n.(*syntax.Stmt); ok && why == "" {
			why = j.stmt(s)
			return false
		}
		return why == ""
	})
	return why
}

func construct(c syntax.Command) string {
	switch c.(type) {
	case *syntax.ArithmCmd, *syntax.LetClause:
		return "arithmetic"
	case *syntax.TestClause:
		return "[["
	case *syntax.DeclClause:
		return "declare or export"
	case *syntax.CoprocClause:
		return "coproc"
	}
	return fmt.Sprintf("%T", c)
}

func firstOf(why string, next func() string) string {
	if why != "" {
		return why
	}
	return next()
}

// loopName: names that no program reads from its environment, so that
// `for PATH in …` changes nothing but the loop.
var loopName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9]*$`) })

func (j *shellJudge) loop(c *syntax.ForClause) string {
	iter, ok := c.Loop.(*syntax.WordIter)
	if !ok {
		if j.open {
			return j.inside(c)
		}
		return "this shell construct is not judged (arithmetic for)"
	}
	if !j.open && !loopName().MatchString(iter.Name.Value) {
		return fmt.Sprintf("a loop over %s could change a setting of the commands in it; use a short lower-case name", iter.Name.Value)
	}
	return firstOf(j.words(iter.Items), func() string { return j.stmts(c.Do) })
}

func (j *shellJudge) caseOf(c *syntax.CaseClause) string {
	if why := j.word(c.Word); why != "" {
		return why
	}
	for _, item := range c.Items {
		if why := firstOf(j.words(item.Patterns), func() string { return j.stmts(item.Stmts) }); why != "" {
			return why
		}
	}
	return ""
}

func (j *shellJudge) call(c *syntax.CallExpr) string {
	for _, a := range c.Assigns {
		if !j.open {
			return fmt.Sprintf("the assignment of %s can change what a command does (PATH, LD_PRELOAD, GOFLAGS …); write the value into the command", a.Name.Value)
		}
		if why := j.inside(a); why != "" {
			return why
		}
	}
	if why := j.words(c.Args); why != "" {
		return why
	}
	if len(c.Args) == 0 {
		return ""
	}
	words := make([]word, len(c.Args))
	for i, a := range c.Args {
		words[i] = resolve(a)
	}
	return j.simple(words)
}

func (j *shellJudge) words(list []*syntax.Word) string {
	for _, w := range list {
		if why := j.word(w); why != "" {
			return why
		}
	}
	return ""
}

// word judges what expanding a word would execute.
func (j *shellJudge) word(w *syntax.Word) string {
	if w == nil {
		return ""
	}
	return j.parts(w.Parts)
}

func (j *shellJudge) parts(parts []syntax.WordPart) string {
	for _, part := range parts {
		if why := j.part(part); why != "" {
			return why
		}
	}
	return ""
}

func (j *shellJudge) part(part syntax.WordPart) string {
	switch part := part.(type) {
	case *syntax.Lit, *syntax.SglQuoted, *syntax.ExtGlob:
		return ""
	case *syntax.DblQuoted:
		return j.parts(part.Parts)
	case *syntax.CmdSubst:
		if part.TempFile || part.ReplyVar {
			return "this form of command substitution is not judged"
		}
		return j.stmts(part.Stmts)
	case *syntax.ProcSubst:
		return j.stmts(part.Stmts)
	case *syntax.ParamExp:
		return j.param(part)
	}
	if j.open {
		return j.inside(part)
	}
	return "arithmetic is not judged, as the shell evaluates text in it as code"
}

func (j *shellJudge) param(e *syntax.ParamExp) string {
	if j.open {
		return j.inside(e)
	}
	if e.Excl || e.Index != nil || e.Slice != nil || e.Names != 0 || e.NestedParam != nil || len(e.Modifiers) > 0 || e.Flags != nil {
		return "this form of parameter expansion is not judged; use $name"
	}
	if e.Repl != nil {
		return firstOf(j.word(e.Repl.Orig), func() string { return j.word(e.Repl.With) })
	}
	if e.Exp == nil {
		return ""
	}
	switch e.Exp.Op {
	case syntax.AssignUnset, syntax.AssignUnsetOrNull:
		return "an assignment by ${name:=…} can change what a command does"
	case syntax.OtherParamOps:
		return "${name@…} evaluates text as code and is not judged"
	}
	return j.word(e.Exp.Word)
}

// redirect: writing needs an allowed Write of that path; reading is refused only
// by a disallow rule; bash's /dev/tcp is a network, not a file.
func (j *shellJudge) redirect(r *syntax.Redirect) string {
	if why := firstOf(j.word(r.Word), func() string { return j.word(r.Hdoc) }); why != "" {
		return why
	}
	if r.N != nil && strings.HasPrefix(r.N.Value, "{") && !j.open {
		return "a redirect into a variable is not judged"
	}
	var write bool
	switch r.Op {
	case syntax.Hdoc, syntax.DashHdoc, syntax.WordHdoc:
		return ""
	case syntax.RdrIn:
	case syntax.DplIn:
		if isDescriptor(resolve(r.Word)) {
			return ""
		}
		return "a redirect from this descriptor is not judged"
	case syntax.DplOut:
		if isDescriptor(resolve(r.Word)) {
			return ""
		}
		write = true
	default: // > >> >| <> &> &>>
		write = true
	}
	return j.redirectPath(resolve(r.Word), write)
}

func isDescriptor(w word) bool { return w.known && descriptorForm().MatchString(w.text) }

var descriptorForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([0-9]+-?|-)$`) })

func (j *shellJudge) redirectPath(w word, write bool) string {
	if !w.known {
		if write || j.p.scoped(j.p.denied, "Read") || !j.open && w.text == "" {
			return "a redirect to or from a path that is only known at run time is not judged; write the path out"
		}
	}
	if strings.HasPrefix(w.text, "/dev/tcp/") || strings.HasPrefix(w.text, "/dev/udp/") {
		return "a redirect to " + w.String() + " is a network connection"
	}
	switch w.text {
	case "/dev/null", "/dev/stdout", "/dev/stderr", "/dev/stdin":
		return ""
	}
	if j.moved && !strings.HasPrefix(w.text, "/") {
		if write || j.p.scoped(j.p.denied, "Read") {
			return "a relative redirect after cd is not judged; write the absolute path"
		}
	}
	if !write {
		if j.p.Readable("Read", w.text) {
			return ""
		}
		return w.text + " is covered by disallowed_tools"
	}
	if j.open && !j.p.scoped(j.p.denied, "Write", "Edit") {
		return ""
	}
	if j.open {
		return j.p.deniedWrite(w.text)
	}
	if why := j.p.JudgePath("Write", w.text); why != "" {
		return "the redirect writes " + w.text + ": " + why
	}
	return ""
}

// deniedWrite judges disallow rules only.
func (p *Policy) deniedWrite(name string) string {
	full := p.Resolve(name)
	for _, r := range p.denied {
		if r.Spec != "" && (r.Tool == "Write" || r.Tool == "Edit") && r.deniesPath(full) {
			return fmt.Sprintf("the redirect writes %s, which is covered by disallowed_tools %s", name, r)
		}
	}
	return ""
}
