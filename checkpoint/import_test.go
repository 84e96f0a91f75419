package checkpoint

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMatcher(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		patterns string
		path     string
		dir      bool
		out      bool
	}{
		{"node_modules/", "node_modules", true, true},
		{"node_modules/", "a/node_modules", true, true},
		{"node_modules/", "node_modules", false, false},
		{"node_modules/", "a/node_modules/x/y", false, true},
		{"*.o", "x.o", false, true},
		{"*.o", "a/b/x.o", false, true},
		{"*.o", "x.oo", false, false},
		{"build/out", "build/out", true, true},
		{"build/out", "a/build/out", true, false},
		{"/vendor", "vendor", true, true},
		{"/vendor", "a/vendor", true, false},
		{"docs/**/*.pdf", "docs/a/b/c.pdf", false, true},
		{"docs/**/*.pdf", "docs/c.pdf", false, true},
		{"docs/*.pdf", "docs/a/c.pdf", false, false},
		{"a,b", "a", false, true},
		{"", ".flow", true, true},
		{"", "sub/.flow/flow.db", false, true},
		{"", ".env", false, true},
		{"", "a/.env.local", false, true},
		{"", ".env.example", false, false},
		{"", ".env.sample", false, false},
		{"", "x/.env.template", false, false},
		{"", ".envrc", false, false},
		{"", ".environment", false, false},
	} {
		var ps []string
		if c.patterns != "" {
			ps = strings.Split(c.patterns, ",")
		}
		out, err := Matcher(ps)
		must(t, err)
		if got := out(c.path, c.dir); got != c.out {
			t.Errorf("%q leaves out %q (dir %v): %v, want %v", c.patterns, c.path, c.dir, got, c.out)
		}
	}
	_, err := Matcher([]string{"!keep", "ok", "", "/", "a[", "../x"})
	for _, want := range []string{`"!keep"`, `""`, `"/"`, `"a["`, `"../x"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the mistakes do not name %s: %v", want, err)
		}
	}
}

func TestGitConfigLosesItsCredentials(t *testing.T) {
	t.Parallel()
	const in = `[core]
	bare = false ; a comment
[remote "origin"]
	url = https://user:hunter2@example.com/repo.git
	pushurl = "https://hunter2@example.com/repo.git"
	fetch = +refs/heads/*:refs/remotes/origin/*
[remote "odd"]
	url = https://u:hun@ter2@example.com/r.git
[remote "s"]
	url = ssh://git:hunter2@example.com/r.git
	url = git@example.com:r.git
[http]
	extraHeader = Authorization: \
	  Basic hunter2
	sslVerify = true
[http "https://example.com"] extraheader = hunter2
	proxy = http://p:hunter2@proxy:3128
[credential]
	helper = store --file hunter2
[credential "https://example.com"]
	username = hunter2
[url "https://hunter2@example.com/"]
	insteadOf = gh:
[sendemail]
	smtpPass = hunter2
[gitlab]
	token = hunter2
[branch "main"]
	remote = origin
`
	const want = `[core]
	bare = false ; a comment
[remote "origin"]
	url = https://example.com/repo.git
	pushurl = "https://example.com/repo.git"
	fetch = +refs/heads/*:refs/remotes/origin/*
[remote "odd"]
	url = https://example.com/r.git
[remote "s"]
	url = ssh://git@example.com/r.git
	url = git@example.com:r.git
[http]
	sslVerify = true
[http "https://example.com"]
	proxy = http://proxy:3128
[url "https://example.com/"]
	insteadOf = gh:
[sendemail]
[gitlab]
[branch "main"]
	remote = origin
`
	if got := string(cleanGitConfig([]byte(in))); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	src := tempRoot(t)
	write(t, src, "a/file", "content")
	write(t, src, "a/tool", "#!")
	must(t, os.Chmod(filepath.Join(src, "a/tool"), 0o755))
	write(t, src, "node_modules/x/y", "no")
	write(t, src, ".env", "SECRET=1")
	write(t, src, ".env.example", "SECRET=")
	write(t, src, ".flow/flow.db", "no")
	write(t, src, ".git/config", "[remote \"o\"]\n\turl = https://tok@example.com/r\n")
	write(t, src, "sub/.git/modules/m/config", "[credential]\n\thelper = x\n")
	must(t, os.Symlink("/etc/shadow", filepath.Join(src, "shadow")))
	must(t, os.Symlink("nowhere", filepath.Join(src, "dangling")))
	must(t, os.Link(filepath.Join(src, "a/file"), filepath.Join(src, "hard")))
	must(t, unix.Mkfifo(filepath.Join(src, "fifo"), 0o644))
	must(t, unix.Mknod(filepath.Join(src, "sock"), unix.S_IFSOCK|0o644, 0))
	must(t, os.Chtimes(filepath.Join(src, "a"), time.Time{}, time.Unix(77, 123)))
	before := fresh(t, src)

	dst := filepath.Join(t.TempDir(), "ws")
	o := ImportOptions{Exclude: []string{"node_modules/"}}
	rep, err := Import(context.Background(), src, dst, o)
	must(t, err)
	sameTree(t, fresh(t, src), before)
	got := fresh(t, dst)
	want, err := SourceManifest(context.Background(), src, o, "")
	must(t, err)
	sameTree(t, got, want)
	if got.ID() != want.ID() {
		t.Error("the manifest of the source is not that of the import")
	}
	for _, p := range []string{".env", ".flow", "node_modules", "fifo", "sock"} {
		if got.Lookup(p) != nil {
			t.Errorf("%s came in", p)
		}
	}
	if e := got.Lookup("hard"); e == nil || e.HardlinkTo != "a/file" {
		t.Errorf("the hardlink came in as %+v", e)
	}
	if b, _ := os.ReadFile(filepath.Join(dst, ".git/config")); strings.Contains(string(b), "tok") {
		t.Errorf("credentials came in: %s", b)
	}
	if len(rep.Skipped) != 2 || len(rep.Cleaned) != 2 || rep.Symlinks != 2 || rep.Files != 6 {
		t.Errorf("the report says %+v", rep)
	}
	if _, err := Import(context.Background(), src, filepath.Join(src, "a/inside"), o); err == nil {
		t.Error("an import into its own source began")
	}
}

func TestImportOfRandomTreesEqualsTheSource(t *testing.T) {
	t.Parallel()
	for seed := range uint64(15) {
		src := tempRoot(t)
		m := &mutator{t: t, root: src, r: rand.New(rand.NewPCG(seed, 21))}
		for range 80 {
			m.step()
		}
		// A user's source is readable; what is not is an error, tested below.
		_ = filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
			if d != nil && d.Type()&fs.ModeSymlink == 0 {
				return os.Chmod(p, 0o755)
			}
			return nil
		})
		dst := filepath.Join(tempRoot(t), "ws")
		_, err := Import(context.Background(), src, dst, ImportOptions{})
		must(t, err)
		want, err := SourceManifest(context.Background(), src, ImportOptions{}, "")
		must(t, err)
		sameTree(t, fresh(t, dst), want)
	}
}

func TestImportDoesNotChangeAnUnreadableSource(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	src := tempRoot(t)
	write(t, src, "d/locked", "x")
	must(t, os.Chmod(filepath.Join(src, "d/locked"), 0))
	_, err := Import(context.Background(), src, filepath.Join(t.TempDir(), "ws"), ImportOptions{})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "d/locked") {
		t.Errorf("import of an unreadable file: %v", err)
	}
}

func TestStatCacheSurvivesARestart(t *testing.T) {
	t.Parallel()
	root := tempRoot(t)
	m := &mutator{t: t, root: root, r: rand.New(rand.NewPCG(5, 5))}
	for range 60 {
		m.step()
	}
	st := &MemStore{}
	tr := NewTracker(root, Options{})
	first := snap(t, tr, st)
	file := filepath.Join(t.TempDir(), "cache")
	must(t, tr.SaveCache(file))
	again := NewTracker(root, Options{})
	must(t, again.LoadCache(file))
	if s := snap(t, again, st); len(s.Changes) != 0 || s.Manifest.ID() != first.Manifest.ID() || s.Batch != nil {
		t.Errorf("changes after a restart: %v", s.Changes)
	}
	write(t, root, "later", "x")
	must(t, again.LoadCache(file))
	if s := snap(t, again, st); s.Manifest.Lookup("later") == nil {
		t.Error("a new file is missing")
	}
	// The store lost everything: what is known must come again.
	must(t, again.LoadCache(file))
	empty := &MemStore{}
	s := snap(t, again, empty)
	must(t, NewTracker(tempRoot(t), Options{}).Restore(context.Background(), empty, s.Manifest))

	b, err := os.ReadFile(file)
	must(t, err)
	for i := 0; i < len(b); i += 97 {
		bad := append([]byte{}, b...)
		bad[i] ^= 0x40
		must(t, os.WriteFile(file, bad, 0o600))
		if err := again.LoadCache(file); !errors.Is(err, ErrBadCache) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
	if err := again.LoadCache(file + "-none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no cache: %v", err)
	}
	if s := snap(t, again, empty); len(s.Changes) != 0 {
		t.Errorf("a bad cache changed the tracker: %v", s.Changes)
	}
}
