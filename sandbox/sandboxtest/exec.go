package sandboxtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"flowrun.dev/flow/sandbox"
)

func testProbe(t *testing.T, p *place) {
	caps, err := p.subject.Driver.Probe(p.ctx())
	if err != nil {
		t.Fatal(err)
	}
	if caps.Driver != p.subject.Driver.Name() || caps.Tier == "" {
		t.Errorf("capabilities = %+v", caps)
	}
	if caps.PathRights {
		return
	}
	for _, r := range []sandbox.Rights{{ReadOnly: true}, {Write: []string{"a"}}} {
		_, err = p.Exec(p.ctx(), sandbox.Cmd{Argv: []string{"true"}, Env: p.BaseEnv(), Rights: r})
		p.wantClass(err, sandbox.ClassInvalid)
	}
}

func testInfo(t *testing.T, p *place) {
	info := p.Info()
	if info.ID != p.id || info.Driver != p.subject.Driver.Name() || info.Tier == "" {
		t.Errorf("info = %+v", info)
	}
	if home := p.Home(); home != "" {
		if st, err := os.Stat(filepath.Join(home, "workspace")); err != nil || !st.IsDir() {
			t.Errorf("no workspace in %s: %v", home, err)
		}
	}
	select {
	case <-p.Done():
		t.Error("done before it was closed")
	default:
	}
}

func testBaseEnv(t *testing.T, p *place) {
	var names []string
	for _, kv := range p.BaseEnv() {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || value == "" {
			t.Errorf("entry %q has no value", kv)
		}
		names = append(names, name)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(p.subject.MoreEnv, name) })
	slices.Sort(names)
	want := []string{"HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER"}
	if !slices.Equal(names, want) {
		t.Errorf("names = %v, want %v", names, want)
	}
	p.must(`test -d "$HOME" && test -w "$HOME" && test -w "$TMPDIR" && test "$(pwd -P)" = "$(cd "$HOME/workspace" && pwd -P)" && echo x > "$TMPDIR/x" && "$SHELL" -c true`)
	p.BaseEnv()[0] = "changed"
	if slices.Contains(p.BaseEnv(), "changed") {
		t.Error("a caller can change the environment of others")
	}
}

func testEnvironment(t *testing.T, p *place) {
	t.Helper()
	env := []string{"B=two words", "A=", "NEWLINE=a\nb", "EQ=a=b"}
	out := p.output()
	res, err := p.Exec(p.ctx(), sandbox.Cmd{Argv: []string{"/usr/bin/env", "-0"}, Env: env, Stdout: out.w, Stderr: out.w})
	got := strings.Split(strings.TrimSuffix(out.text(), "\x00"), "\x00")
	if err != nil || res.ExitCode != 0 {
		t.Fatalf("%+v, %v: %q", res, err, got)
	}
	got = slices.DeleteFunc(got, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(p.subject.ExtraEnv, name)
	})
	if !slices.Equal(got, env) {
		t.Errorf("environment = %q, want %q", got, env)
	}
}

func testLargeEnvironment(t *testing.T, p *place) {
	env := p.BaseEnv()
	const n, size = 20, 50_000
	for i := range n {
		env = append(env, fmt.Sprintf("BIG%d=%s", i, strings.Repeat(strconv.Itoa(i%10), size)))
	}
	out := p.output()
	res, err := p.Exec(p.ctx(), sandbox.Cmd{Argv: []string{"sh", "-c", "env | grep ^BIG | wc -c; echo ${#BIG7} ${#BIG19}"}, Env: env, Stdout: out.w, Stderr: out.w})
	text := strings.Fields(out.text())
	want := []string{strconv.Itoa(n*size + len("BIG0=\n")*n + 10), strconv.Itoa(size), strconv.Itoa(size)}
	if err != nil || res.ExitCode != 0 || !slices.Equal(text, want) {
		t.Errorf("%+v, %v: %q, want %q", res, err, text, want)
	}
}

func testLongArguments(t *testing.T, p *place) {
	args := make([]string, 100)
	for i := range args {
		args[i] = strings.Repeat("x", 10_000)
	}
	if got := p.must(`echo $# ${#1} ${#100}`, args...); got != "100 10000 10000\n" {
		t.Errorf("got %q", got)
	}
	// The kernel takes 128 KiB an argument.
	text, res := p.sh(`exec "$@"`, "true")
	if res.ExitCode != 0 {
		t.Fatalf("%+v %q", res, text)
	}
	out := p.output()
	res, err := p.Exec(p.ctx(), sandbox.Cmd{Argv: []string{"echo", strings.Repeat("x", 200_000)}, Env: p.BaseEnv(), Stderr: out.w})
	if text := out.text(); err != nil || res.ExitCode != 126 || !strings.Contains(text, "argument list too long") {
		t.Errorf("too long an argument: %+v, %v, %q", res, err, text)
	}
}

// testDescriptors opens a file without O_CLOEXEC before the sandbox is made, as a
// careless caller of flow does.
func testDescriptors(t *testing.T, p *place) {
	name := filepath.Join(t.TempDir(), "host-secret")
	if err := os.WriteFile(name, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Open(name, syscall.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	p.create()
	// Not by listing the directory, which the tier landlock does not allow.
	text := p.must(`i=0; while [ $i -lt 1024 ]; do
		if l=$(readlink /proc/self/fd/$i) || [ -e /proc/$$/fd/$i ]; then echo "$i $l"; fi; i=$((i+1))
		[ $i -lt 64 ] || [ -n "$l" ] || i=$((i+15)); done`)
	if strings.Contains(text, "host-secret") {
		t.Errorf("the caller's descriptor is visible:\n%s", text)
	}
	for line := range strings.Lines(text) {
		switch n, _, _ := strings.Cut(line, " "); n {
		case "0", "1", "2":
		default:
			t.Errorf("a descriptor besides the three: %s", line)
		}
	}
}

func testStdio(t *testing.T, p *place) {
	in := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(in, []byte("from the file"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(in)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, errs := p.output(), p.output()
	res, err := p.Exec(p.ctx(), sandbox.Cmd{Argv: []string{"sh", "-c", "cat; echo oops >&2; exit 3"}, Env: p.BaseEnv(), Stdin: f, Stdout: out.w, Stderr: errs.w})
	if got, gotErr := out.text(), errs.text(); err != nil || res.ExitCode != 3 || got != "from the file" || gotErr != "oops\n" {
		t.Errorf("%+v, %v, stdout %q, stderr %q", res, err, got, gotErr)
	}
	// Nil is /dev/null: at its end at once, and writable.
	if res, err = p.Exec(p.ctx(), sandbox.Cmd{Argv: []string{"sh", "-c", `test -z "$(cat)" && echo x && echo y >&2`}, Env: p.BaseEnv()}); err != nil || res.ExitCode != 0 {
		t.Errorf("with nothing: %+v, %v", res, err)
	}
	// No controlling terminal, whatever the caller has.
	if _, res := p.sh("exec 3</dev/tty"); res.ExitCode == 0 {
		t.Error("the command has the caller's terminal")
	}
}

func testLargeOutput(t *testing.T, p *place) {
	const size = 8 << 20
	out := p.output()
	res, err := p.Exec(p.ctx(), sandbox.Cmd{Argv: []string{"sh", "-c", "head -c " + strconv.Itoa(size) + " /dev/zero"}, Env: p.BaseEnv(), Stdout: out.w})
	if n := len(out.text()); err != nil || res.ExitCode != 0 || n != size {
		t.Errorf("%+v, %v: %d bytes, want %d", res, err, n, size)
	}
}

func testExitCodes(t *testing.T, p *place) {
	for _, c := range []struct {
		script       string
		code, signal int
	}{
		{"true", 0, 0}, {"exit 1", 1, 0}, {"exit 255", 255, 0},
		{"kill -TERM $$", 143, 15}, {"kill -KILL $$", 137, 9}, {"kill -SEGV $$", 139, 11},
	} {
		if _, res := p.sh(c.script); res.ExitCode != c.code || res.Signal != c.signal || res.Killed || res.Leftover != 0 {
			t.Errorf("%s: %+v", c.script, res)
		}
	}
}

func testLookup(t *testing.T, p *place) {
	p.must(`mkdir -p bin sub; printf '#!/bin/sh\necho first $1\n' > bin/tool; chmod +x bin/tool
		printf 'echo script $1\n' > sub/plain; chmod +x sub/plain; echo x > bin/data; mkdir bin/dir; mkdir -m 0 closed
		printf '#!/no/such/interpreter\n' > sub/broken; chmod +x sub/broken
		chmod 700 bin "$HOME/workspace"`)
	ws := ""
	for _, kv := range p.BaseEnv() {
		if home, ok := strings.CutPrefix(kv, "HOME="); ok {
			ws = home + "/workspace"
		}
	}
	path := "PATH=/no/such:" + ws + "/bin:/usr/bin:/bin"
	for _, c := range []struct {
		argv []string
		env  string
		dir  string
		code int
		want string
	}{
		{[]string{"tool", "a"}, path, "", 0, "first a\n"},
		{[]string{"./tool", "a"}, path, sandbox.WorkspaceDir + "/bin", 0, "first a\n"},
		{[]string{"bin/tool", "a"}, path, sandbox.WorkspaceDir, 0, "first a\n"},
		{[]string{"tool", "a"}, "PATH=bin", sandbox.WorkspaceDir, 0, "first a\n"},
		{[]string{"tool", "a"}, "PATH=", sandbox.WorkspaceDir + "/bin", 127, "tool: command not found\n"},
		{[]string{"tool", "a"}, "PATH=:", sandbox.WorkspaceDir + "/bin", 0, "first a\n"},
		{[]string{"sub/plain", "a"}, path, "", 0, "script a\n"},
		{[]string{"no-such"}, path, "", 127, "no-such: command not found\n"},
		{[]string{"no-such"}, "PATH=" + ws + "/closed:/usr/bin", "", 127, "no-such: command not found\n"},
		{[]string{"./no-such"}, path, "", 127, "./no-such: no such file or directory\n"},
		{[]string{"sub/broken"}, path, "", 127, "sub/broken: no such file or directory\n"},
		{[]string{"data"}, path, "", 126, "data: permission denied\n"},
		{[]string{"bin/data"}, path, "", 126, "bin/data: permission denied\n"},
		{[]string{"bin/dir"}, path, "", 126, "bin/dir: permission denied\n"},
		{[]string{"echo", "no PATH"}, "X=1", "", 0, "no PATH\n"},
	} {
		out := p.output()
		res, err := p.Exec(p.ctx(), sandbox.Cmd{Argv: c.argv, Env: []string{c.env}, Dir: c.dir, Stdout: out.w, Stderr: out.w})
		if text := out.text(); err != nil || res.ExitCode != c.code || text != c.want {
			t.Errorf("%q with %s in %q: exit code %d, %v, %q; want %d, %q", c.argv, c.env, c.dir, res.ExitCode, err, text, c.code, c.want)
		}
	}
}

func testBadRequests(t *testing.T, p *place) {
	p.must("echo x > file")
	for name, c := range map[string]sandbox.Cmd{
		"no program":         {},
		"empty program":      {Argv: []string{""}},
		"relative directory": {Argv: []string{"true"}, Dir: "a"},
		"missing directory":  {Argv: []string{"true"}, Dir: sandbox.WorkspaceDir + "/no/such"},
		"a file":             {Argv: []string{"true"}, Dir: sandbox.WorkspaceDir + "/file"},
		"NUL in an argument": {Argv: []string{"echo", "a\x00b"}},
		"NUL in a variable":  {Argv: []string{"true"}, Env: []string{"A=a\x00b"}},
	} {
		if c.Env == nil {
			c.Env = p.BaseEnv()
		}
		if _, err := p.Exec(p.ctx(), c); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			p.wantClass(err, sandbox.ClassInvalid)
		}
	}
	p.must("true") // and it still works
}

func testUsage(t *testing.T, p *place) {
	_, res := p.sh("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
	if res.UserTime <= 0 || res.MaxRSS <= 100<<10 || res.PID <= 0 {
		t.Errorf("result = %+v", res)
	}
}

// testState: one sandbox is one place.
func testState(t *testing.T, p *place) {
	p.must(`echo ws > f; echo home > "$HOME/f"; echo tmp > "$TMPDIR/f"; mkdir d`)
	if got := p.must(`cat f "$HOME/f" "$TMPDIR/f"; cd d && pwd >/dev/null`); got != "ws\nhome\ntmp\n" {
		t.Errorf("got %q", got)
	}
}

func testManyAtOnce(t *testing.T, p *place) {
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			out := p.output()
			n := strconv.Itoa(i)
			res, err := p.Exec(p.ctx(), sandbox.Cmd{Argv: []string{"sh", "-c", `echo $N; (echo sub $N); exit $N`}, Env: append(p.BaseEnv(), "N="+n), Stdout: out.w})
			if text := out.text(); err != nil || res.ExitCode != i || text != n+"\nsub "+n+"\n" || res.Leftover != 0 {
				t.Errorf("%d: %+v, %v, %q", i, res, err, text)
			}
		})
	}
	wg.Wait()
}

func testCancelledBefore(t *testing.T, p *place) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	res, err := p.Exec(ctx, sandbox.Cmd{Argv: []string{"sh", "-c", "echo x > ran"}, Env: p.BaseEnv()})
	if err != nil || !res.Killed || res.ExitCode == 0 {
		t.Errorf("%+v, %v", res, err)
	}
	p.must("test ! -e ran")
}
