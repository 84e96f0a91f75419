package engine

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// allBodies has one of each type, every field set.
func allBodies() []Body {
	return []Body{
		RunStarted{RunID: "r", Workflow: "w", Path: "w.yaml", Text: []byte("name: w\xff"), Files: map[string][]byte{"p.md": {0, 1}},
			Inputs: map[string]any{"lang": "go"}, Options: Options{Driver: "host", Provider: "replay", Replay: "c", Grace: time.Second, Until: "a", Apply: "never"},
			FlowVersion: "1", SourceManifest: "m"},
		RunResumed{Attempt: 2, Reset: []StepReset{{Step: "a", Reason: "it failed"}}, Checkpoint: "c", Text: []byte("t"), Files: map[string][]byte{"f": []byte("x")}},
		SandboxCreated{ID: "s", Driver: "local", Tier: "namespaces"},
		SandboxClosed{ID: "s"},
		WorkspaceImported{Checkpoint: "c", Files: 3},
		ConditionEvaluated{Step: "a", Value: true, Error: "e"},
		StepSkipped{Step: "a"},
		StepNotRun{Step: "a", Reason: "because"},
		StepStarted{Step: "a", Attempt: 1},
		StepFinished{Step: "a", Attempt: 1, Checkpoint: "c", Outcome: Outcome{Status: StepFailed, Class: ClassDenied, ExitCode: 3, Error: "e",
			RetryAfter: time.Second, Outputs: map[string]any{"x": "y"}, Command: "true", Stdout: Excerpt{Head: "h", Tail: "t", Bytes: 9},
			Log: "l", Started: epoch, Duration: time.Minute, SandboxID: "s", ChangedCount: 1, Changed: []FileChange{{Path: "p", Op: "added"}},
			Leftover: 1, MaxRSS: 2, Agent: &AgentUsage{Provider: "p", CostUSD: 0.5, Denials: []Denial{{Tool: "Bash"}}}}},
		TurnCompleted{Step: "a", Attempt: 1, TurnAt: TurnAt{Conversation: 1, Turn: 3, Checkpoint: "c", Data: "d"},
			InputTokens: 1, OutputTokens: 2, CacheReadTokens: 3, CacheWriteTokens: 4, CostUSD: 0.5},
		Egress{Step: "a", Attempt: 1, Host: "example.com", Port: 443, Verdict: "refused", Reason: "r", Count: 2, Sent: 3, Received: 4},
		RetryScheduled{Step: "a", Attempt: 2, At: epoch, Reason: "r"},
		ForeachExpanded{Step: "a", Keys: []string{"x"}, Items: []any{map[string]any{"n": 1.0}}},
		BatchStarted{Step: "a", N: 2},
		StepSlow{Step: "a", Attempt: 1, After: time.Minute},
		SourceChanged{Paths: []string{"p"}, Count: 2},
		IterationStarted{Step: "a", N: 3},
		UntilEvaluated{Step: "a", N: 3, Value: true},
		StopRequested{Step: "a", Rest: true, Status: StepCancelled, Reason: "r"},
		ApprovalRequested{Step: "a", Message: "m", Choices: []string{"x"}, Expires: epoch, Error: "e"},
		ApprovalAnswered{Step: "a", Request: 4, Choice: "x", By: "b", Note: "n", At: epoch},
		BackgroundEnded{Step: "a", Attempt: 1, Early: true, ExitCode: 3, Error: "e", Log: "l", Stdout: Excerpt{Head: "h", Bytes: 1}},
		WorkflowCalled{Step: "a", Inputs: map[string]any{"x": 1.0}, Error: "e"},
		CancelRequested{Cause: "sigint"},
		RunFinished{Status: RunFailed, Class: ClassDenied, Cause: "c"},
	}
}

func TestCodecRoundTrip(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, b := range allBodies() {
		typ, data, err := Encode(b)
		if err != nil {
			t.Fatal(err)
		}
		seen[typ] = true
		got, err := Decode(typ, data)
		if err != nil || !reflect.DeepEqual(got, b) {
			t.Errorf("%s: got %+v, %v, want %+v", typ, got, err, b)
		}
		if _, err := Decode(typ, []byte(strings.Replace(string(data), "{", `{"later":1,`, 1))); err != nil {
			t.Errorf("%s: a field of a newer version is refused: %v", typ, err)
		}
		if _, err := Decode(typ, data[:len(data)-1]); err == nil {
			t.Errorf("%s: broken JSON is accepted", typ)
		}
	}
	for typ := range bodies {
		if !seen[typ] {
			t.Errorf("type %s is in the table and not in this test", typ)
		}
	}
}

type strange struct{}

func (strange) Type() string { return "strange" }

func TestCodecUnknown(t *testing.T) {
	t.Parallel()
	var unknown *UnknownEventError
	if _, err := Decode("strange", []byte("{}")); !errors.As(err, &unknown) || unknown.Type != "strange" {
		t.Errorf("Decode = %v", err)
	}
	if _, _, err := Encode(strange{}); !errors.As(err, &unknown) {
		t.Errorf("Encode = %v", err)
	}
	if _, _, err := Encode(nil); err == nil {
		t.Error("Encode(nil) is no error")
	}
}
