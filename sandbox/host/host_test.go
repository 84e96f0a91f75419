package host_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"flowrun.dev/flow/sandbox/host"
	"flowrun.dev/flow/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	t.Parallel()
	sandboxtest.Run(t, func(*testing.T) sandboxtest.Subject {
		return sandboxtest.Subject{
			Driver:   host.New(host.Options{Path: os.Getenv("PATH")}),
			ExtraEnv: []string{"FLOW_EXEC_ID"},
		}
	})
}
