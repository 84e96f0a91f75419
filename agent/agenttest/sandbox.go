package agenttest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/host"
)

// Sandbox is a sandbox of driver host in a temporary directory, closed at the
// test's end. It returns the real workspace directory as well.
func Sandbox(t testing.TB) (sandbox.Sandbox, string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sb, err := host.New(host.Options{Path: os.Getenv("PATH")}).Create(t.Context(), sandbox.Spec{ID: "test", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sb.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return sb, filepath.Join(sb.Home(), "workspace")
}
