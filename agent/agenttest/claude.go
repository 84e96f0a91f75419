package agenttest

import (
	"os"
	"path/filepath"
	"testing"
)

// ClaudeVersion is the version of the real CLI that tests run.
const ClaudeVersion = "2.1.330"

// Claude is the path of the real Claude Code CLI: FLOW_TEST_CLAUDE, or where
// scripts/claude-cli puts it. The test is skipped where there is none.
func Claude(t testing.TB) string {
	t.Helper()
	path := os.Getenv("FLOW_TEST_CLAUDE")
	if path == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Skipf("no real CLI: %v", err)
		}
		path = filepath.Join(cache, "flow-test", "claude-code-"+ClaudeVersion, "claude")
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no real CLI (make claude installs it): %v", err)
	}
	return path
}
