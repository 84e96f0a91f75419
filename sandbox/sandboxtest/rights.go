package sandboxtest

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"flowrun.dev/flow/sandbox"
)

// shWith is sh with rights.
func (p *place) shWith(r sandbox.Rights, script string, args ...string) (string, sandbox.Result) {
	p.Helper()
	out := p.output()
	res, err := p.Exec(p.ctx(), sandbox.Cmd{Argv: append([]string{"sh", "-c", script, "sh"}, args...), Env: p.BaseEnv(),
		Rights: r, Stdout: out.w, Stderr: out.w})
	text := out.text()
	if err != nil {
		p.Fatalf("exec %q with %+v: %v\n%s", script, r, err, text)
	}
	return text, res
}

func (p *place) capabilities() sandbox.Capabilities {
	p.Helper()
	caps, err := p.subject.Driver.Probe(p.ctx())
	if err != nil {
		p.Fatal(err)
	}
	return caps
}

// refused checks that an exec with such rights is not run at all.
func (p *place) refused(r sandbox.Rights) {
	p.Helper()
	mark := p.must("mktemp")
	_, err := p.Exec(p.ctx(), sandbox.Cmd{Argv: []string{"rm", strings.TrimSpace(mark)}, Env: p.BaseEnv(), Rights: r})
	if err == nil {
		p.Errorf("rights %+v: no error", r)
		return
	}
	p.wantClass(err, sandbox.ClassInvalid)
	p.must(`rm "$1"`, strings.TrimSpace(mark)) // it still exists
}

// testRights: what cannot be enforced is refused; what is accepted is enforced.
func testRights(t *testing.T, p *place) {
	if !p.capabilities().PathRights {
		p.refused(sandbox.Rights{ReadOnly: true})
		p.refused(sandbox.Rights{ReadOnly: true, Write: []string{"out/"}})
		return
	}
	p.must(`echo one > file; echo two > other; mkdir -p src/deep "$HOME/.cache"; echo x > src/deep/f; ln -s src link; ln -s /etc/passwd pw
		echo cfg > "$HOME/.rc"; chmod 600 other; mkdir open; echo in > open/f`)
	const sum = `find "$HOME" -path '*/open' -prune -o -path '*/made' -prune -o -type f -print -exec cat {} + | sort; find "$HOME" -path '*/made' -prune -o -type l -print | sort`
	before := p.must(sum)
	modes := p.must(`stat -c '%n %a %Y' file other src`)
	readOnly := sandbox.Rights{ReadOnly: true}
	some := sandbox.Rights{ReadOnly: true, Write: []string{"open/", "made/here/", "src/deep/f"}}
	for _, c := range []struct {
		name   string
		rights sandbox.Rights
		script string
		works  bool
	}{
		{"read", readOnly, `cat file src/deep/f "$HOME/.rc" >/dev/null && ls && test -x /bin/sh`, true},
		{"scratch", readOnly, `f=$(mktemp) && echo x > "$f" && rm "$f" && echo x > "$TMPDIR/y"`, true},
		{"append", readOnly, `echo x >> file`, false},
		{"truncate", readOnly, `: > file`, false},
		{"create", readOnly, `echo x > new`, false},
		{"create in home", readOnly, `echo x > "$HOME/new"`, false},
		{"settings in home", readOnly, `echo x > "$HOME/.rc"`, false},
		{"remove", readOnly, `rm -f file`, false},
		{"mkdir", readOnly, `mkdir d`, false},
		{"rmdir", readOnly, `rm -rf src`, false},
		{"rename", readOnly, `mv file file2`, false},
		{"exchange by rename", readOnly, `mv -f other file`, false},
		{"rename out", readOnly, `mv file "$TMPDIR/file"`, false},
		{"move in", readOnly, `echo x > "$TMPDIR/n" && mv "$TMPDIR/n" n`, false},
		{"link", readOnly, `ln file "$TMPDIR/hard" && echo x > "$TMPDIR/hard"`, false},
		{"symlink", readOnly, `ln -s file sym`, false},
		{"write through symlink", readOnly, `ln -sf "$PWD/file" "$TMPDIR/to" && echo x > "$TMPDIR/to"`, false},
		{"write through /proc/self/cwd", readOnly, `echo x > /proc/self/cwd/file`, false},
		{"write through /proc/self/root", readOnly, `echo x > "/proc/self/root$PWD/file"`, false},
		{"read-write descriptor", readOnly, `exec 5<>file && echo x >&5`, false},
		{"reopen a descriptor", readOnly, `exec 5<file && echo x > /proc/self/fd/5`, false},
		{"reopen as another", readOnly, `exec 5<file && echo x > /dev/fd/5`, false},
		{"fifo", readOnly, `mkfifo pipe`, false},
		{"mount over", readOnly, `mount -t tmpfs x . && echo x > new`, false},
		{"remount", readOnly, `mount -o remount,rw "$HOME"`, false},
		{"unmount", readOnly, `umount -l "$HOME" || umount -l .`, false},
		{"a namespace of its own", readOnly, `unshare -Urm sh -c 'mount -o remount,rw "$HOME" && echo x > file'`, false},
		{"dd", readOnly, `dd if=/dev/zero of=file bs=1 count=1 conv=notrunc`, false},

		{"in a writable folder", some, `echo y > open/f && mkdir open/d && mv open/f open/d/g && ln open/d/g open/h && rm -r open/d && mv open/h open/f`, true},
		{"in a folder that was made", some, `echo y > made/here/f`, true},
		{"in a writable file", some, `cat src/deep/f > src/deep/f.x`, false},
		{"a writable file", some, `c=$(cat src/deep/f) && echo "$c" > src/deep/f`, true},
		{"remove a writable file", some, `rm -f src/deep/f`, false},
		{"beside", some, `echo y > made/x`, false},
		{"outside", some, `echo y > file`, false},
		{"move out of it", some, `mv open/f f`, false},
		{"move into it", some, `mv file open/file`, false},
		{"link into it", some, `ln file open/hard && echo y > open/hard`, false},
		{"symlink in it", some, `ln -sf ../file open/sym; echo y > open/sym`, false},
		{"dotdot", some, `echo y > open/../file`, false},
		{"rename the folder", some, `mv open closed`, false},
		{"replace the folder", some, `rm -rf open && ln -s src open`, false},
	} {
		text, res := p.shWith(c.rights, "{ "+c.script+"\n} 2>&1 </dev/null")
		if (res.ExitCode == 0) != c.works {
			t.Errorf("%s: exit code %d, want success %v\n%s", c.name, res.ExitCode, c.works, text)
		}
	}
	if !p.subject.LooseModes {
		for _, script := range []string{`chmod 777 file`, `chmod 644 other`, `touch file`, `touch -d 2001-01-01 file`} {
			if text, res := p.shWith(readOnly, script); res.ExitCode == 0 {
				t.Errorf("%s: succeeded %s", script, text)
			}
		}
		if got := p.must(`stat -c '%n %a %Y' file other src`); got != modes {
			t.Errorf("modes and times before:\n%safter:\n%s", modes, got)
		}
	}
	if after := p.must(sum); after != before {
		t.Errorf("the home before:\n%s\nand after:\n%s", before, after)
	}
	// Everything is as it was for the next command.
	p.must(`echo x > file && echo x > "$HOME/.rc"`)
}

// testRightsRequests: writable paths that are wrong, or that lead elsewhere.
func testRightsRequests(t *testing.T, p *place) {
	if !p.capabilities().PathRights {
		t.Skip("this driver bounds no paths")
	}
	p.must(`ln -s / root; ln -s .. up; ln -s "$HOME" home; ln -s file dangling; mkdir d; ln -s ../.. d/deep; echo x > f; mkfifo fifo; ln -s /etc etc`)
	for _, name := range []string{"", "/", "/etc/", "..", "../", "../x/", "d/../../x/", "~", "~/", "~/../", "./", ".", "d//x/", "a\x00b",
		"root/", "root/etc/", "up/", "home/", "dangling", "dangling/", "d/deep/", "etc/", "missing", "d/missing", "f/", "f/x/"} {
		p.refused(sandbox.Rights{ReadOnly: true, Write: []string{name}})
	}
	if text := p.must(`ls -A; ls -A d`); text != "d\ndangling\netc\nf\nfifo\nhome\nroot\nup\ndeep\n" {
		t.Errorf("something was made: %q", text)
	}
	if text, res := p.shWith(sandbox.Rights{ReadOnly: true, Write: []string{"~/.cache/deep/", "d/"}}, `echo x > "$HOME/.cache/deep/f" && echo x > d/f && ! mkdir "$HOME/x"`); res.ExitCode != 0 {
		t.Errorf("home: %s", text)
	}
}

// testSockets: NoSockets, whatever the sandbox has.
func testSockets(t *testing.T, p *place) {
	if !p.capabilities().SocketRights {
		p.refused(sandbox.Rights{NoSockets: true})
		return
	}
	if _, res := p.sh("command -v bash"); res.ExitCode != 0 {
		t.Skip("no bash inside")
	}
	const connect = `bash -c ': < /dev/tcp/127.0.0.1/1' 2>&1`
	if text, _ := p.shWith(sandbox.Rights{NoSockets: true}, connect); !strings.Contains(text, "Permission denied") {
		t.Errorf("without sockets: %s", text)
	}
}

// testApart: two commands at the same time hold each to its own rights, and see
// nothing of each other.
func testApart(t *testing.T, p *place) {
	caps := p.capabilities()
	if !caps.Apart {
		t.Skip("this driver does not keep commands apart")
	}
	mark := marker()
	ctx, cancel := context.WithCancel(context.Background())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var res sandbox.Result
	go func() {
		defer close(done)
		defer w.Close()
		res, err = p.Exec(ctx, sandbox.Cmd{Argv: []string{"sh", "-c", `exec 7<>secret; echo "$$"; while :; do sleep 0.01; done`, "sh", mark},
			Env: append(p.BaseEnv(), "CANARY="+mark), Stdout: w})
	}()
	p.Cleanup(func() {
		cancel()
		<-done
		r.Close()
	})
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 64)
	n, err := r.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(line[:n]))
	for _, rights := range []sandbox.Rights{{}, {ReadOnly: caps.PathRights}, {NoSockets: caps.SocketRights}} {
		text, _ := p.shWith(rights, `for f in environ cmdline mem maps status fd/7 root/etc/passwd cwd/secret; do cat "/proc/$1/$f" 2>/dev/null && echo "got $f"; done
			for f in fd root cwd task; do ls "/proc/$1/$f/" 2>/dev/null && echo "listed $f"; done
			for f in exe root cwd fd/7 ns/uts; do readlink "/proc/$1/$f" 2>/dev/null && echo "read $f"; done
			grep -l "$2" /proc/[0-9]*/environ 2>/dev/null
			for s in 0 CONT STOP KILL; do kill -$s "$1" 2>/dev/null && echo "sent $s"; done; true`, pid, "CANARY="+mark)
		if text != "" {
			t.Errorf("with %+v a command got at its sibling:\n%s", rights, text)
		}
		p.shWith(rights, `kill -KILL -1; kill -KILL 0`) // itself and nobody else
	}
	select {
	case <-done:
		t.Errorf("the sibling ended: %+v, %v", res, err)
	default:
	}
}
