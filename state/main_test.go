package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"flowrun.dev/flow/engine"
)

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		os.Exit(helper())
	}
	goleak.VerifyTestMain(m)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), DirName), Options{Command: "flow test"})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func create(t testing.TB, s *Store) *Owner {
	t.Helper()
	o, err := s.CreateRun(t.Context(), engine.RunStarted{RunID: NewRunID(), Workflow: "demo", Path: "demo.yaml", Text: []byte("steps: []"), FlowVersion: "test"},
		RunExtra{Kinds: map[string]string{"build": "run"}})
	must(t, err)
	t.Cleanup(func() { must(t, o.Close()) })
	return o
}

func at(i int) time.Time { return time.Unix(1_700_000_000, int64(i)).UTC() }

// events gives the bodies their times; Append fills in the numbers.
func events(bodies ...engine.Body) []engine.Event {
	out := make([]engine.Event, len(bodies))
	for i, b := range bodies {
		out[i] = engine.Event{At: at(i), Body: b}
	}
	return out
}

func put(t testing.TB, o *Owner, bodies ...engine.Body) {
	t.Helper()
	must(t, o.Append(t.Context(), events(bodies...)))
}

func started(step string, attempt int) engine.Body {
	return engine.StepStarted{Step: step, Attempt: attempt}
}

func finished(step string, attempt int, status engine.StepStatus) engine.StepFinished {
	return engine.StepFinished{Step: step, Attempt: attempt, Outcome: engine.Outcome{Status: status, Started: at(0)}}
}

// background for clean-up and helper processes.
func background() context.Context { return context.Background() }

func wantIs(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("the error is %v, want %v in its chain", err, want)
	}
}

func stepName(i int) string { return fmt.Sprintf("step_%d", i) }
