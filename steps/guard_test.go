package steps

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/host"
)

// TestGuardPutsBack runs a command that may write out/ only, on a driver that bounds
// nothing, and looks at what is left.
func TestGuardPutsBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, script string
		back         []string
	}{
		{"nothing", `cat a >/dev/null`, nil},
		{"allowed", `echo x > out/f; mkdir out/d; chmod 700 out; mkdir -p new/er; echo y > new/er/f`, nil},
		{"content", `echo x > a`, []string{"a"}},
		{"mode", `chmod 777 a`, []string{"a"}},
		{"time", `touch -d 2001-01-01 a`, []string{"a"}},
		{"new", `echo x > b; mkdir -p m/n; echo x > m/n/o`, []string{"b", "m", "m/n", "m/n/o"}},
		{"removed", `rm -r d`, []string{"d", "d/e"}},
		{"moved", `mv a out/a`, []string{"a"}},
		{"a folder became a file", `rm -r d; echo x > d`, []string{"d", "d/e"}},
		{"a file became a folder", `rm a; mkdir -p a/b; echo x > a/b/c`, []string{"a", "a/b", "a/b/c"}},
		{"a link", `rm a; ln -s /etc/passwd a`, []string{"a"}},
		{"home", `echo x > "$HOME/.rc"; echo x > "$HOME/.new"`, []string{"~/.new", "~/.rc"}},
		{"links between both", `ln a out/a; echo x > out/a`, []string{"a"}},
		{"beside the folder that may be made", `mkdir new; echo x > new/f`, []string{"new/f"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			sb, err := host.New(host.Options{Path: os.Getenv("PATH")}).Create(ctx, sandbox.Spec{ID: "guard", Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer sb.Close(ctx)
			sh := func(script string) {
				t.Helper()
				if res, err := sb.Exec(ctx, sandbox.Cmd{Argv: []string{"sh", "-ec", script}, Env: sb.BaseEnv(), Stderr: os.Stderr}); err != nil || res.ExitCode != 0 {
					t.Fatalf("%s: %+v, %v", script, res, err)
				}
			}
			sh(`echo one > a; mkdir d out; echo two > d/e; echo rc > "$HOME/.rc"; chmod 644 a`)
			rights := sandbox.Rights{ReadOnly: true, Write: []string{"out/", "new/er/"}}
			g := newGuard(sb, &checkpoint.MemStore{})
			if err := g.before(ctx); err != nil {
				t.Fatal(err)
			}
			sh(c.script)
			back, err := g.after(ctx, rights)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(back, c.back) {
				t.Errorf("put back %q, want %q", back, c.back)
			}
			// Outside of what may change, the tree is what it was.
			fresh := checkpoint.NewTracker(sb.Home(), checkpoint.Options{})
			snap, err := fresh.Snapshot(ctx, g.store)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range checkpoint.Diff(g.was, snap.Manifest) {
				if !d.DirTimeOnly && !mayChange(d, rights.Write) {
					t.Errorf("%s of %s is left", d.Op, d.Path)
				}
			}
			if _, err := os.Stat(filepath.Join(sb.Home(), "workspace", "a")); err != nil {
				t.Error(err)
			}
		})
	}
}
