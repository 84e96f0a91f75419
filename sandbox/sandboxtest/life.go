package sandboxtest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/sandbox"
)

func testFiles(t *testing.T, p *place) {
	p.must(`echo hi > a; mkdir -p d/e .hidden; echo x > d/e/f.go; echo y > d/g.go; echo z > .hidden/h.go
		ln -s a in; ln -s d dirlink; ln -s d/e/f.go l.go; mkdir x.go; head -c 1048576 /dev/zero > most; head -c 1048577 /dev/zero > more; : > empty; ln -s loop loop`)
	files := p.Files()
	for name, want := range map[string]string{"a": "hi\n", "in": "hi\n", "d/e/f.go": "x\n", "dirlink/g.go": "y\n", "empty": "", "most": strings.Repeat("\x00", 1<<20)} {
		if b, err := files.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	for _, name := range []string{"more", "d", ".", "loop"} {
		if b, err := files.ReadFile(name); err == nil {
			t.Errorf("%s: %d bytes and no error", name, len(b))
		}
	}
	if _, err := files.ReadFile("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	for pattern, want := range map[string][]string{
		"**/*.go": {".hidden/h.go", "d/e/f.go", "d/g.go", "l.go"}, "*": {"a", "empty", "in", "l.go", "more", "most"},
		"d/{e/f,g}.go": {"d/e/f.go", "d/g.go"}, "none*": nil, "./a": {"a"}, "a": {"a"}, "d": nil,
	} {
		if got, err := files.Glob(pattern); err != nil || !slices.Equal(got, want) {
			t.Errorf("glob %s = %v, %v; want %v", pattern, got, err, want)
		}
	}
	for _, pattern := range []string{"", "/etc/*", "../*", "d/../../*", "a[", ".."} {
		if got, err := files.Glob(pattern); err == nil {
			t.Errorf("glob %q = %v and no error", pattern, got)
		}
	}
}

// testFilesBeneath: the workspace is hostile, the reader is not inside.
func testFilesBeneath(t *testing.T, p *place) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("host secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.must(`ln -s "$1" abs; ln -s /etc/passwd passwd; ln -s ../../../../../../../../etc/passwd up; ln -s .. parent; ln -s / root
		mkdir d; ln -s ../.. d/deep; echo home > "$HOME/h"; ln -s ../h sibling; ln -s /proc/self/environ magic; mkfifo fifo`, secret)
	files := p.Files()
	for _, name := range []string{"abs", "passwd", "up", "parent/h", "root/etc/passwd", "d/deep/h", "sibling", "magic", "root" + secret} {
		if b, err := files.ReadFile(name); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %q, %v; want fs.ErrPermission", name, b, err)
		}
	}
	for _, name := range []string{"../h", "/etc/passwd", "d/../../h", "", "..", "d//x"} {
		if b, err := files.ReadFile(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %q, %v; want fs.ErrInvalid", name, b, err)
		}
	}
	if b, err := files.ReadFile("fifo"); err == nil {
		t.Errorf("fifo: %q and no error", b)
	}
	if got, err := files.Glob("**"); err != nil || len(got) != 0 {
		t.Errorf("glob: %v, %v", got, err)
	}
	if p.subject.Mounted {
		return
	}
	// The workspace itself is swapped for a link.
	p.must(`cd .. && mv workspace away && ln -s "$1" workspace`, filepath.Dir(secret))
	if b, err := files.ReadFile("secret"); err == nil {
		t.Errorf("through a swapped workspace: %q", b)
	}
	if out, err := p.Exec(p.ctx(), sandbox.Cmd{Argv: []string{"sh", "-c", "rm workspace && mv away workspace"}, Env: p.BaseEnv(), Dir: sandbox.HomeDir}); err != nil || out.ExitCode != 0 {
		t.Fatalf("%+v, %v", out, err)
	}
}

func testCheckpoints(t *testing.T, p *place) {
	if p.Home() == "" {
		t.Skip("the tree does not lie on this host")
	}
	st := &checkpoint.MemStore{}
	snap := func() checkpoint.Snapshot {
		t.Helper()
		s, err := p.Snapshot(p.ctx(), st)
		if err != nil {
			t.Fatal(err)
		}
		if s.Batch != nil {
			if err := s.Batch.Seal(); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	p.must(`echo one > a; printf '#!/bin/sh\necho run\n' > x; chmod 755 x; mkdir -p d/empty; ln -s a link; chmod 600 a; echo h > "$HOME/h"; mkdir "$HOME/.cache"; chmod 700 d`)
	first := snap()
	p.must(`echo two > a; echo new > d/new; rm x; rmdir d/empty; rm link; ln -s x link; rm "$HOME/h"`)
	second := snap()
	ops := map[string]checkpoint.Op{}
	for _, c := range second.Changes {
		ops[c.Path] = c.Op
	}
	for path, op := range map[string]checkpoint.Op{"workspace/a": checkpoint.OpModified, "workspace/d/new": checkpoint.OpAdded,
		"workspace/x": checkpoint.OpDeleted, "workspace/d/empty": checkpoint.OpDeleted, "h": checkpoint.OpDeleted} {
		if ops[path] != op {
			t.Errorf("change of %s = %q, want %q (all: %v)", path, ops[path], op, ops)
		}
	}
	// Put back, also into a sandbox that knows nothing, and used by commands.
	other := &place{T: t, subject: p.subject}
	other.create()
	for _, to := range []*place{p, other} {
		if err := to.Restore(to.ctx(), st, first.Manifest); err != nil {
			t.Fatal(err)
		}
		if got := to.must(`cat a "$HOME/h"; ./x; test -d d/empty; readlink link; test ! -e d/new && echo more >> a && echo w > d/w && rm x && rmdir d/empty && : > "$HOME/.cache/f"`); got != "one\nh\nrun\na\n" {
			t.Errorf("restored: %q", got)
		}
		if err := to.Restore(to.ctx(), st, first.Manifest); err != nil {
			t.Fatal(err)
		}
		again, err := to.Snapshot(to.ctx(), st)
		if err != nil || again.Manifest.ID() != first.Manifest.ID() {
			t.Errorf("the restored tree is another: %v", err)
		}
		if again.Batch != nil {
			again.Batch.Abort()
		}
	}
}

func testClose(t *testing.T, p *place) {
	p.must("echo x > kept")
	ended, cancel := context.WithCancel(context.Background())
	cancel() // no reason to leave anything behind
	for range 2 {
		if err := p.Close(ended); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-p.Done():
	default:
		t.Error("closed, but not done")
	}
	_, err := p.Exec(p.ctx(), sandbox.Cmd{Argv: []string{"true"}, Env: p.BaseEnv()})
	if err == nil {
		t.Fatal("exec after close: no error")
	}
	p.wantClass(err, sandbox.ClassInvalid)
	if home := p.Home(); home != "" && !p.subject.Mounted {
		if b, err := os.ReadFile(filepath.Join(home, "workspace/kept")); err != nil || string(b) != "x\n" {
			t.Errorf("the tree after close: %q, %v", b, err)
		}
		// A later sandbox of the run goes on with it.
		sb, err := p.subject.Driver.Create(p.ctx(), sandbox.Spec{ID: "next", Dir: filepath.Dir(home)})
		if err != nil {
			t.Fatal(err)
		}
		next := &place{T: t, subject: p.subject, Sandbox: sb}
		next.must("cat kept && echo y >> kept")
		if err := sb.Close(p.ctx()); err != nil {
			t.Fatal(err)
		}
	}
}

func testCloseEndsExecs(t *testing.T, p *place) {
	mark := marker()
	s := p.start(patience, stubborn+`echo ready; while :; do sleep 0.01; done`, mark)
	p.until("the tree grows", func() bool { return len(survivors(mark)) >= 5 })
	if err := p.Close(p.ctx()); err != nil {
		t.Fatal(err)
	}
	p.gone(mark)
	p.wait(s, promptly)
	if s.err == nil {
		t.Errorf("the exec that was running: %+v and no error", s.res)
	}
}

func testLoss(t *testing.T, p *place) {
	if p.subject.Lose == nil {
		t.Skip("this driver has nothing that can be lost")
	}
	mark := marker()
	s := p.start(patience, stubborn+`echo ready; while :; do sleep 0.01; done`, mark)
	p.subject.Lose(t, p.Sandbox)
	p.wait(s, promptly)
	if s.err == nil {
		t.Fatalf("exec in a lost sandbox: %+v and no error", s.res)
	}
	p.wantClass(s.err, sandbox.ClassInfrastructure)
	<-p.Done()
	p.gone(mark)
	_, err := p.Exec(p.ctx(), sandbox.Cmd{Argv: []string{"true"}, Env: p.BaseEnv()})
	p.wantClass(err, sandbox.ClassInfrastructure)
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
