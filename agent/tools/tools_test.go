package tools_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/agenttest"
	"flowrun.dev/flow/agent/tools"
	"flowrun.dev/flow/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type input = map[string]any

// place is a set of tools in a sandbox of its own.
type place struct {
	t   *testing.T
	set *tools.Set
	dir string // the real workspace
}

func newPlace(t *testing.T, allowed ...string) place {
	t.Helper()
	sb, dir := agenttest.Sandbox(t)
	return placeIn(t, sb, dir, allowed, nil)
}

func placeIn(t *testing.T, sb sandbox.Sandbox, dir string, allowed, disallowed []string) place {
	t.Helper()
	if allowed == nil {
		allowed = tools.Names()
	}
	p, err := agent.NewPolicy(allowed, disallowed)
	if err != nil {
		t.Fatal(err)
	}
	return place{t, tools.New(sb, nil, p.WithHome(sb.Home())), dir}
}

func (p place) run(tool string, in input) tools.Result {
	p.t.Helper()
	raw, err := json.Marshal(in)
	if err != nil {
		p.t.Fatal(err)
	}
	res, err := p.set.Run(p.t.Context(), tool, raw)
	if err != nil {
		p.t.Fatalf("%s %v: %v", tool, in, err)
	}
	return res
}

func (p place) file(name, text string) {
	p.t.Helper()
	full := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p place) holds(name string) string {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// row is one call with its result: all of it, or what it contains when want begins
// with "…".
type row struct {
	tool  string
	in    input
	want  string
	fails bool
}

func (p place) table(rows []row) {
	p.t.Helper()
	for _, r := range rows {
		got := p.run(r.tool, r.in)
		part, contains := strings.CutPrefix(r.want, "…")
		if got.IsError != r.fails || contains && !strings.Contains(got.Text, part) || !contains && got.Text != r.want {
			p.t.Errorf("%s %v:\n got %q (error %v)\nwant %q (error %v)", r.tool, r.in, got.Text, got.IsError, r.want, r.fails)
		}
	}
}

func TestBash(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.table([]row{
		{"Bash", input{"command": "echo out; echo err >&2; echo out"}, "out\nerr\nout", false},
		{"Bash", input{"command": "echo why; exit 3"}, "Exit code 3\nwhy", true},
		{"Bash", input{"command": "no-such-program"}, "…Exit code 127", true},
		{"Bash", input{"command": "if"}, "…syntax error", true},
		{"Bash", input{"command": "kill -9 $$"}, "…Exit code 137", true},
		{"Bash", input{"command": "cat"}, "", false}, // stdin is empty
		{"Bash", input{"command": `printf 'a\377b'`}, "a\uFFFDb", false},
		{"Bash", input{"command": "sleep 20", "timeout": 50}, "…Command timed out after 50ms", true},
		{"Bash", input{"command": "echo before; sleep 20", "timeout": 400}, "…Command timed out after 400ms", true},
		{"Bash", input{"command": " "}, "…command is empty", true},
		{"Bash", input{"command": "a\x00b"}, "…NUL byte", true},
		{"Bash", input{"command": "true", "timeout": 600_001}, "…from 1 to 600000", true},
		{"Bash", input{"command": "true", "run_in_background": true}, `InputValidationError: unknown field "run_in_background"`, true},
		{"Bash", input{"cmd": "true"}, `InputValidationError: unknown field "cmd"`, true},
	})
	for _, script := range []string{"yes 0123456789 | head -c 500000", "printf 'ü%.0s' {1..31000}", "head -c 3000000 /dev/zero | tr '\\0' x; printf END"} {
		res := p.run("Bash", input{"command": "printf BEGIN; " + script + "; printf END"})
		if n := len([]rune(res.Text)); n > 30_200 || !strings.HasPrefix(res.Text, "BEGIN") || !strings.HasSuffix(res.Text, "END") || !strings.Contains(res.Text, "left out …") {
			t.Errorf("%s: %d characters, %.40q … %q", script, n, res.Text, res.Text[max(0, len(res.Text)-20):])
		}
	}
}

// TestShellState: what stays from call to call, and what does not.
func TestShellState(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	if err := os.Mkdir(filepath.Join(p.dir, "sub dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.table([]row{
		{"Bash", input{"command": "cd 'sub dir'; a=1; export B='two words'; c=(x 'y z'); f() { echo f $1; }; alias g='echo g'"}, "", false},
		{"Bash", input{"command": `basename "$PWD"; echo $a "$B" "${c[1]}"; f 7; g 8; env | grep ^B=`}, "sub dir\n1 two words y z\nf 7\ng 8\nB=two words", false},
		{"Bash", input{"command": "a=2; exit 4"}, "Exit code 4\n", true},
		{"Bash", input{"command": "echo $a; unset a; unset -f f"}, "2", false},
		{"Bash", input{"command": "echo [$a]; type f >/dev/null 2>&1 || echo no f"}, "[]\nno f", false},
		{"Bash", input{"command": "B=3; exec true"}, "", false}, // the shell is gone before it could say
		{"Bash", input{"command": `echo "$B"`}, "two words", false},
		{"Bash", input{"command": "B=3; sleep 9", "timeout": 200}, "…Command timed out after 200ms", true},
		{"Bash", input{"command": `echo "$B"`}, "two words", false},
		{"Bash", input{"command": "set -e; false; echo not reached"}, "Exit code 1\n", true},
		{"Bash", input{"command": "false; echo reached"}, "reached", false}, // options are the call's own
		{"Bash", input{"command": "rm -rf \"$PWD\"; cd /; d='$(echo evil)'"}, "", false},
		{"Bash", input{"command": `pwd; echo "$d"`}, "/\n$(echo evil)", false},
		{"Bash", input{"command": "big=$(head -c 300000 /dev/zero | tr '\\0' x)"}, "…were not kept for the next call", false},
		{"Bash", input{"command": `pwd; echo [${#big}]`}, "/\n[0]", false},
	})
	// A conversation that goes on has it, too.
	again := newPlace(t)
	again.set.SetState(p.set.State())
	again.table([]row{{"Bash", input{"command": `pwd; echo "$d"`}, "/\n$(echo evil)", false}})
	// File tools stay in the workspace whatever the shell does.
	p.table([]row{{"Write", input{"file_path": "w", "content": "x"}, "File created successfully at: w", false}})
	_ = p.holds("w")

	narrow := newPlace(t, "Bash(cd:*)", "Bash(pwd)", "Bash(echo:*)")
	narrow.table([]row{
		{"Bash", input{"command": "cd /"}, "", false},
		{"Bash", input{"command": "pwd"}, narrow.dir, false},
	})
	if narrow.set.State() != nil {
		t.Error("a narrow rule's shell has state")
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.file("a.txt", "one\ntwo\r\nthree")
	p.file("empty", "")
	p.file("nl", "\n")
	p.file("bin", "a\x00b")
	p.file("latin", "gr\xfcn\n")
	p.file("wide", strings.Repeat("ü", 2500)+"\nnext\n")
	var many strings.Builder
	for i := 1; i <= 2500; i++ {
		fmt.Fprintf(&many, "line %d\n", i)
	}
	p.file("many", many.String())
	if err := syscall.Mkfifo(filepath.Join(p.dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a.txt", filepath.Join(p.dir, "link")); err != nil {
		t.Fatal(err)
	}
	p.table([]row{
		{"Read", input{"file_path": "a.txt"}, "     1\tone\n     2\ttwo\n     3\tthree", false},
		{"Read", input{"file_path": p.dir + "/a.txt", "offset": 2, "limit": 1}, "     2\ttwo\n… there is more: read on with offset 3", false},
		{"Read", input{"file_path": "link", "offset": 3}, "     3\tthree", false},
		{"Read", input{"file_path": "a.txt", "offset": 9}, "The file has 3 lines; offset 9 is behind its end.", true},
		{"Read", input{"file_path": "empty"}, "(the file exists and is empty)", false},
		{"Read", input{"file_path": "nl"}, "     1\t", false},
		{"Read", input{"file_path": "bin"}, "bin is a binary file and is not shown.", true},
		{"Read", input{"file_path": "latin"}, "     1\tgr\uFFFDn", false},
		{"Read", input{"file_path": "wide", "limit": 1}, "     1\t" + strings.Repeat("ü", 2000) + "… (line cut)\n… there is more: read on with offset 2", false},
		{"Read", input{"file_path": "many"}, "…  2000\tline 2000\n… there is more: read on with offset 2001", false},
		{"Read", input{"file_path": "many", "offset": 2499, "limit": 9999}, "  2499\tline 2499\n  2500\tline 2500", false},
		{"Read", input{"file_path": "."}, "EISDIR: illegal operation on a directory, read", true},
		{"Read", input{"file_path": "none"}, "File does not exist.", true},
		{"Read", input{"file_path": "fifo"}, "Not a regular file.", true},
		{"Read", input{"file_path": "-n"}, "File does not exist.", true},
		{"Read", input{}, "…file_path is missing", true},
		{"Read", input{"file_path": "a.txt", "offset": -1}, "…positive", true},
		{"Read", input{"file_path": "a.txt", "pages": "1"}, `…unknown field "pages"`, true},
	})
}

func TestWrite(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.file("run.sh", "old")
	if err := os.Chmod(filepath.Join(p.dir, "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("run.sh", filepath.Join(p.dir, "link")); err != nil {
		t.Fatal(err)
	}
	text := "ünï <&> $(x) `y` \\n\x00\r\nno newline"
	p.table([]row{
		{"Write", input{"file_path": "new/deep/-f.txt", "content": text}, "File created successfully at: new/deep/-f.txt", false},
		{"Write", input{"file_path": "link", "content": "new"}, "The file link has been updated.", false},
		{"Write", input{"file_path": "empty", "content": ""}, "File created successfully at: empty", false},
		{"Write", input{"file_path": "new", "content": "x"}, "…is a directory", true},
		{"Write", input{"file_path": "run.sh/x", "content": "x"}, "…", true},
		{"Write", input{"file_path": "x"}, "…content is missing", true},
		{"Write", input{"content": "x"}, "…file_path is missing", true},
		{"Write", input{"file_path": "a\x00b", "content": "x"}, "The path holds a NUL byte", true},
	})
	if p.holds("new/deep/-f.txt") != text || p.holds("run.sh") != "new" || p.holds("empty") != "" {
		t.Errorf("the files hold %q, %q, %q", p.holds("new/deep/-f.txt"), p.holds("run.sh"), p.holds("empty"))
	}
	st, err := os.Lstat(filepath.Join(p.dir, "run.sh"))
	if err != nil || st.Mode() != 0o755 {
		t.Errorf("the mode is %v, %v", st.Mode(), err)
	}
	if st, err := os.Lstat(filepath.Join(p.dir, "link")); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", st, err)
	}
	left, _ := filepath.Glob(filepath.Join(p.dir, ".flow-write-*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestEdit(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.file("a", "one two one\n\ttab $& \\1\r\nend")
	p.table([]row{
		{"Edit", input{"file_path": "a", "old_string": "one", "new_string": "1"}, "Found 2 matches of the string to replace, but replace_all is false. Give more of its surroundings, or set replace_all.\nString: one", true},
		{"Edit", input{"file_path": "a", "old_string": "three", "new_string": "3"}, "String to replace not found in file.\nString: three", true},
		{"Edit", input{"file_path": "a", "old_string": "one two", "new_string": "one two"}, "No changes to make: old_string and new_string are exactly the same.", true},
		{"Edit", input{"file_path": "a", "old_string": "", "new_string": "x"}, "…old_string is empty", true},
		{"Edit", input{"file_path": "none", "old_string": "a", "new_string": "b"}, "File does not exist.", true},
		{"Edit", input{"file_path": "a", "old_string": "x"}, "…are needed", true},
		{"Edit", input{"file_path": "a", "old_string": "\ttab $& \\1\r\n", "new_string": "\t$1 & \\0\r\n"}, "The file a has been updated.", false},
		{"Edit", input{"file_path": "a", "old_string": "one", "new_string": "", "replace_all": true}, "The file a has been updated: 2 occurrences were replaced.", false},
	})
	if got, want := p.holds("a"), " two \n\t$1 & \\0\r\nend"; got != want {
		t.Errorf("the file holds %q, want %q", got, want)
	}
}

func TestGlob(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for _, name := range []string{"b.go", "a.go", "sub/c.go", "sub/deep/d.ts", ".hidden", ".git/config", "we ird\nname.md"} {
		p.file(name, "x")
	}
	for i := range 120 {
		p.file(fmt.Sprintf("many/%03d.txt", i), "")
	}
	p.table([]row{
		{"Glob", input{"pattern": "*.go"}, "a.go\nb.go", false},
		{"Glob", input{"pattern": "**/*.{go,ts}"}, "a.go\nb.go\nsub/c.go\nsub/deep/d.ts", false},
		{"Glob", input{"pattern": "*", "path": "sub"}, "sub/c.go", false},
		{"Glob", input{"pattern": "sub/*"}, "sub/c.go", false},
		{"Glob", input{"pattern": p.dir + "/sub/**"}, "sub/c.go\nsub/deep/d.ts", false},
		{"Glob", input{"pattern": ".h*"}, ".hidden", false},
		{"Glob", input{"pattern": "**/config"}, "No files found", false},
		{"Glob", input{"pattern": ".git/*"}, ".git/config", false},
		{"Glob", input{"pattern": "none/**"}, "No files found", false},
		{"Glob", input{"pattern": "many/*"}, "…many/099.txt\n(the first 100 of 120 files; use a narrower pattern)", false},
		{"Glob", input{"pattern": "[", "path": "sub"}, "…is not a glob pattern", true},
	})
}

func TestGrep(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.file("a.go", "package a\n\nfunc Foo() {}\nfunc foo() {}\n")
	p.file("sub/b.go", "before\nFoo\nafter\n")
	p.file("sub/c.ts", "Foo Foo\n")
	p.file("bin", "Foo\x00")
	p.file(".git/x", "Foo")
	p.file("-e", "dash")
	var many strings.Builder
	for i := range 400 {
		fmt.Fprintf(&many, "hit %d\n", i)
	}
	p.file("many", many.String())
	p.table([]row{
		{"Grep", input{"pattern": "Foo"}, "a.go\nsub/b.go\nsub/c.ts\n", false},
		{"Grep", input{"pattern": "foo", "-i": true, "output_mode": "count", "glob": "*.go"}, "a.go:2\nsub/b.go:1\n", false},
		{"Grep", input{"pattern": "^Foo$", "output_mode": "content", "-C": 1}, "sub/b.go-1-before\nsub/b.go:2:Foo\nsub/b.go-3-after\n", false},
		{"Grep", input{"pattern": "Foo", "output_mode": "content", "-n": false, "path": "sub", "glob": "**/*.ts"}, "sub/c.ts:Foo Foo\n", false},
		{"Grep", input{"pattern": "dash", "path": "-e"}, "-e\n", false},
		{"Grep", input{"pattern": "--version"}, "No matches found", false},
		{"Grep", input{"pattern": "nowhere"}, "No matches found", false},
		{"Grep", input{"pattern": "x", "glob": "*.none"}, "No files found", false},
		{"Grep", input{"pattern": "hit", "output_mode": "content"}, "…many:250:hit 249\n(the first 250 lines; raise head_limit or narrow the search)", false},
		{"Grep", input{"pattern": "hit", "output_mode": "content", "head_limit": 1}, "many:1:hit 0\n(the first 1 lines; raise head_limit or narrow the search)", false},
		{"Grep", input{"pattern": "("}, "…", true},
		{"Grep", input{"pattern": "x", "output_mode": "json"}, "…output_mode is", true},
		{"Grep", input{"pattern": "x", "-A": -1, "output_mode": "content"}, "…-A is from 0", true},
	})
}

// TestLinks: a rule for a folder does not lead out of it, by no link.
func TestLinks(t *testing.T) {
	t.Parallel()
	sb, dir := agenttest.Sandbox(t)
	p := placeIn(t, sb, dir, []string{"Read(./src/**)", "Write(./src/**)", "Edit(./src/**)", "Glob(./src/**)", "Grep(./src/**)"}, []string{"Read(./src/secret)"})
	p.file("src/ok", "ok\n")
	p.file("src/secret", "hidden\n")
	p.file("out/file", "outside\n")
	for name, to := range map[string]string{"src/dir": "../out", "src/file": "../out/file", "src/hole": "../out/new", "src/s": "secret"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		tool   string
		in     input
		denied bool
	}{
		{"Read", input{"file_path": "src/ok"}, false},
		{"Read", input{"file_path": "src/file"}, true},
		{"Read", input{"file_path": "src/dir/file"}, true},
		{"Read", input{"file_path": "src/s"}, true},
		{"Write", input{"file_path": "src/hole", "content": "x"}, true},
		{"Write", input{"file_path": "src/dir/x/y", "content": "x"}, true},
		{"Write", input{"file_path": "src/a/b/c", "content": "x"}, false},
		{"Edit", input{"file_path": "src/file", "old_string": "outside", "new_string": "inside"}, true},
		{"Glob", input{"pattern": "*", "path": "src/dir"}, true},
		{"Grep", input{"pattern": "outside", "path": "src/dir"}, true},
	} {
		res := p.run(c.tool, c.in)
		if (res.Denied != "") != c.denied || c.denied != strings.HasPrefix(res.Text, "Permission denied: ") {
			t.Errorf("%s %v: %+v, want denied %v", c.tool, c.in, res, c.denied)
		}
	}
	if p.holds("out/file") != "outside\n" {
		t.Error("the file outside was changed")
	}
	if res := p.run("Grep", input{"pattern": "hidden", "path": "src", "output_mode": "content"}); strings.Contains(res.Text, "hidden") {
		t.Errorf("a search shows what must not be read: %+v", res)
	}
}

// TestUnknown: a tool that is not there, and input that is no JSON object.
func TestUnknown(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	if res := p.run("Fetch", nil); !res.IsError || res.Text != "No such tool available: Fetch" {
		t.Errorf("%+v", res)
	}
	for _, raw := range []string{``, `[]`, `"x"`, `{} {}`, `{"file_path":1}`, `{"file_path":"x"`} {
		res, err := p.set.Run(t.Context(), "Read", json.RawMessage(raw))
		if err != nil || !res.IsError || !strings.HasPrefix(res.Text, "InputValidationError: ") {
			t.Errorf("%q: %+v, %v", raw, res, err)
		}
	}
	specs, missing := tools.Specs([]string{"Read", "None"})
	if len(specs) != 1 || len(missing) != 1 || !json.Valid(specs[0].InputSchema) {
		t.Errorf("%v, %v", specs, missing)
	}
}
