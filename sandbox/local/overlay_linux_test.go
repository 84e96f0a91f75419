package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/sandboxtest"
)

// overDriver makes every sandbox's workspace an overlay over a source.
type overDriver struct {
	*Driver
	t   testing.TB
	src string
	st  checkpoint.Store // nil: the source's contents are not needed
}

func (d overDriver) Create(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	src, err := checkpoint.NewSource(d.src, checkpoint.ImportOptions{})
	if err != nil {
		return nil, err
	}
	look, err := src.Look(ctx)
	if err != nil {
		return nil, err
	}
	defer look.Drop()
	s.Lower = &sandbox.Lower{Dir: d.src, UID: look.UID(), GID: look.GID(), Fill: look.FillUpper}
	sb, err := d.Driver.Create(ctx, s)
	if errors.Is(err, sandbox.ErrNoOverlay) {
		d.t.Skipf("no overlay on this machine: %v", err)
	}
	if err != nil {
		return nil, err
	}
	m, batch, err := look.Manifest(ctx, nil, d.st)
	if err == nil && batch != nil {
		err = batch.Seal()
	}
	if err != nil {
		return nil, err
	}
	if !sb.(sandbox.Layered).Layered() {
		d.t.Error("it has no overlay")
	}
	sb.(sandbox.Layered).SetLower(m)
	return sb, nil
}

func over(t testing.TB, src string) overDriver {
	t.Helper()
	d := newDriver(t, Options{})
	if !d.chosen.ids.root {
		t.Skip("only root's sandboxes have overlays")
	}
	return overDriver{d, t, src, nil}
}

// TestConformanceOverlay: a workspace that is an overlay is one like every other.
func TestConformanceOverlay(t *testing.T) {
	t.Parallel()
	sandboxtest.Run(t, func(t *testing.T) sandboxtest.Subject {
		s := subject(t, Options{})
		s.Driver, s.Bomb, s.Mounted = over(t, t.TempDir()), false, true
		return s
	})
}

// TestOverlayShowsTheSource: commands own what they see of it, may do with it what they
// like, and it stays as it was; secrets and what is left out are not seen.
func TestOverlayShowsTheSource(t *testing.T) {
	t.Parallel()
	for _, owner := range []int{0, 1000, 4711} {
		src := t.TempDir()
		for name, text := range map[string]string{"a/f": "source", "a/b/g": "deep", ".env": "SECRET", ".flow/x": "state",
			".git/config": "[remote \"o\"]\n\turl = https://me:pw@example.org/r\n", "other": "of somebody else"} {
			p := filepath.Join(src, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o640)); err != nil {
				t.Fatal(err)
			}
		}
		if os.Geteuid() == 0 {
			if err := errors.Join(os.Link(filepath.Join(src, "a/f"), filepath.Join(src, "hard")), chownTree(src, owner), os.Chown(filepath.Join(src, "other"), 99, 99)); err != nil {
				t.Fatal(err)
			}
		}
		before := snapshotOf(t, src)
		st := new(checkpoint.MemStore)
		d := over(t, src)
		d.st = st
		sb, err := d.Create(context.Background(), sandbox.Spec{ID: "t", Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sb.Close(context.Background()) })
		first := snapInto(t, sb, st)
		for _, e := range first.Entries {
			if e.Kind == checkpoint.KindFile && e.Path == "workspace/.env" {
				t.Error(".env came in")
			}
		}
		if got, err := sb.Files().ReadFile("a/f"); err != nil || string(got) != "source" {
			t.Errorf("from the host: %q, %v", got, err)
		}
		const script = `set -e
find . -not -user user | grep . && exit 3
test "$(ls -A | tr '\n' ' ')" = ".git a hard other " || { ls -A; exit 4; }
grep -q pw .git/config && exit 5
echo more >> hard; test "$(cat a/f)" = sourcemore
mv a c; echo new > c/b/h; rm c/b/g; mkdir -p a/b; chmod 700 c
echo changed > other; ln -s /etc/passwd link; touch -d 2001-01-01 c/b`
		if out, res := run(t, sb, script); res.ExitCode != 0 {
			t.Fatalf("owner %d: exit code %d\n%s", owner, res.ExitCode, out)
		}
		second := snapInto(t, sb, st)
		for _, p := range []string{"c/b/h", "a/b", "link"} {
			if second.Lookup("workspace/"+p) == nil {
				t.Errorf("%s is not in the checkpoint", p)
			}
		}
		if e := second.Lookup("workspace/hard"); e == nil || e.HardlinkTo != "workspace/c/f" || second.Lookup("workspace/c/b/g") != nil {
			t.Errorf("hard %+v", e)
		}
		if err := sb.Restore(context.Background(), st, first); err != nil {
			t.Fatal(err)
		}
		if out, res := run(t, sb, `test "$(cat a/f hard a/b/g)" = sourcesourcedeep && ! test -e c && test "$(stat -c %a a)" = 755`); res.ExitCode != 0 {
			t.Errorf("after the restore: %s", out)
		}
		if err := sb.Restore(context.Background(), st, second); err != nil {
			t.Fatal(err)
		}
		if out, res := run(t, sb, `test "$(cat c/f)" = sourcemore && echo x >> c/f && test "$(stat -c %a c)" = 700`); res.ExitCode != 0 {
			t.Errorf("after the second: %s", out)
		}
		if after := snapshotOf(t, src); after.ID() != before.ID() {
			t.Errorf("the source was changed: %v", checkpoint.Diff(before, after))
		}
		if err := sb.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil || strings.Contains(string(mounts), src) {
			t.Errorf("a mount is left: %v", err)
		}
	}
}

func snapshotOf(t *testing.T, dir string) *checkpoint.Manifest {
	t.Helper()
	s, err := checkpoint.NewTracker(dir, checkpoint.Options{}).Snapshot(context.Background(), new(checkpoint.MemStore))
	if err != nil {
		t.Fatal(err)
	}
	return s.Manifest
}

func snapInto(t *testing.T, sb sandbox.Sandbox, st checkpoint.Store) *checkpoint.Manifest {
	t.Helper()
	s, err := sb.Snapshot(context.Background(), st)
	if err == nil && s.Batch != nil {
		err = s.Batch.Seal()
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.Manifest
}
