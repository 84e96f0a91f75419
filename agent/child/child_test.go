package child_test

import (
	"io"
	"testing"

	"go.uber.org/goleak"

	"flowrun.dev/flow/agent/agenttest"
	"flowrun.dev/flow/agent/child"
	"flowrun.dev/flow/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestWriteAfterEnd: a program that has ended is no error of a write, also when it left
// something unread: then the system says that the connection was reset. How it ended is
// said by Wait.
func TestWriteAfterEnd(t *testing.T) {
	t.Parallel()
	sb, _ := agenttest.Sandbox(t)
	for name, script := range map[string]string{"all is read": "read a; read b; exit 3", "something is unread": "read a; exit 3"} {
		p, err := child.Start(t.Context(), sb, sandbox.Cmd{Argv: []string{"sh", "-c", script}, Env: sb.BaseEnv()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(p, "a\nb\n"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		<-p.Done()
		for range 2 {
			if _, err := io.WriteString(p, "c\n"); err != nil {
				t.Errorf("%s: a write after the end: %v", name, err)
			}
		}
		if exit, err := p.Wait(); err != nil || exit.ExitCode != 3 {
			t.Errorf("%s: %+v, %v", name, exit, err)
		}
	}
}
