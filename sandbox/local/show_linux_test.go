package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flowrun.dev/flow/sandbox"
)

// TestMounts: a program in a private folder of the host runs inside, and neither it
// nor a shown folder can be changed.
func TestMounts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	tool := filepath.Join(dir, "tool")
	if err := os.WriteFile(tool, []byte("#!/bin/sh\necho shown\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	sub := filepath.Join(dir, "folder")
	if err := errors.Join(os.Mkdir(sub, 0o777), os.Chmod(sub, 0o777), os.WriteFile(filepath.Join(sub, "a"), []byte("text"), 0o666)); err != nil {
		t.Fatal(err)
	}
	sb := newSandbox(t, sandbox.Spec{Mounts: []sandbox.Mount{{Host: tool, To: "/flow/bin/tool"}, {Host: sub, To: "/data"}}})
	out, res := run(t, sb, "/flow/bin/tool; cat /data/a; ls /flow/bin")
	if res.ExitCode != 0 || out != "shown\ntexttool\n" {
		t.Errorf("exit code %d, %q", res.ExitCode, out)
	}
	for _, script := range []string{"echo x > /flow/bin/tool", "rm /flow/bin/tool", "echo x > /flow/bin/other", "echo x > /data/a", "echo x > /data/b", "mkdir /flow/x"} {
		if out, res := run(t, sb, script); res.ExitCode == 0 {
			t.Errorf("%s: succeeded: %s", script, out)
		}
	}
}

func TestBadMounts(t *testing.T) {
	t.Parallel()
	d := newDriver(t, Options{})
	for want, mounts := range map[string][]sandbox.Mount{
		"is not absolute":     {{Host: "x", To: "/flow/x"}},
		"clean absolute path": {{Host: "/usr", To: "/flow/../etc"}},
		"the sandbox's own":   {{Host: "/usr", To: "/home/user/x"}},
		"is shown there":      {{Host: "/usr", To: "/flow/a"}, {Host: "/usr", To: "/flow/a/b"}},
		"no such file":        {{Host: "/no-such-file", To: "/flow/a"}},
	} {
		_, err := d.Create(context.Background(), sandbox.Spec{ID: "test", Dir: t.TempDir(), Mounts: mounts})
		var se *sandbox.Error
		if !errors.As(err, &se) || se.Class != sandbox.ClassInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want an invalid one with %q", mounts, err, want)
		}
	}
}
