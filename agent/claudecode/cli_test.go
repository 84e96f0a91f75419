package claudecode_test

import (
	"net/http"
	"testing"

	"go.uber.org/goleak"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/agenttest"
	"flowrun.dev/flow/agent/claudecode"
	"flowrun.dev/flow/agent/gateway"
)

func TestMain(m *testing.M) {
	if agenttest.MCPMain() {
		return
	}
	goleak.VerifyTestMain(m)
}

const realKey = "sk-test-real-key-0123456789"

// provider drives the real CLI against a scripted API.
func provider(t *testing.T, turns []agenttest.Turn) (*claudecode.Provider, *agenttest.Server) {
	t.Helper()
	cli := agenttest.Claude(t)
	api := agenttest.NewServer(t, turns...)
	return newProvider(t, cli, api.URL), api
}

// newProvider reaches the API at url with the key that must not enter a sandbox.
func newProvider(t testing.TB, cli, url string) *claudecode.Provider {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	gw, err := gateway.New(gateway.Options{BaseURL: url, APIKey: realKey, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return claudecode.New(claudecode.Options{Path: cli, Gateway: func() (*gateway.Gateway, error) { return gw, nil }})
}

func TestConformance(t *testing.T) {
	agenttest.RunExcept(t, func(t *testing.T, turns []agenttest.Turn, r *agent.Request) agent.Provider {
		p, _ := provider(t, turns[len(r.Continue):])
		return p
	}, map[string]string{
		"cut off":  "the CLI asks the model to go on by itself (TestOutcomes has what follows)",
		"continue": "the CLI's Bash has no variables that last (TestContinue)",
	})
}
