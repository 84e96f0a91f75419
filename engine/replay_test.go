package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flowrun.dev/flow/workflow"
)

// recorded is one line of testdata/replay/*.jsonl. The first line's event holds
// the definition. Files here are never edited: runs that an older flow wrote have
// to replay for ever. A changed event adds a file (FLOW_RECORD).
type recorded struct {
	Seq  int64           `json:"seq"`
	At   time.Time       `json:"at"`
	Type string          `json:"type"`
	Body json.RawMessage `json:"body"`
}

func TestRecordedRunsReplay(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"1-failed-then-resumed.jsonl": "succeeded attempt 2: a=succeeded/1 b=succeeded/2 c=skipped/0 f=succeeded/2",
		"1-interrupted.jsonl":         "interrupted attempt 1: a=interrupted/1 b=not_run/0 c=not_run/0 f=succeeded/1",
	}
	files, err := filepath.Glob("testdata/replay/*.jsonl")
	if err != nil || len(files) != len(want) {
		t.Fatalf("%d recorded runs, want %d (%v)", len(files), len(want), err)
	}
	for _, file := range files {
		plan, events := readRecorded(t, file)
		run, err := Replay(plan, events)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		got := fmt.Sprintf("%s attempt %d:", run.Status, run.Attempt)
		for i, n := range run.Nodes {
			got += fmt.Sprintf(" %s=%s/%d", plan.Nodes[i].Step.ID, n.Status, n.Attempts)
		}
		if got != want[filepath.Base(file)] {
			t.Errorf("%s: %s, want %s", file, got, want[filepath.Base(file)])
		}
	}
}

func readRecorded(t *testing.T, file string) (*workflow.Plan, []Event) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var events []Event
	for line := range bytes.Lines(raw) {
		var r recorded
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		body, err := Decode(r.Type, r.Body)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		events = append(events, Event{Seq: r.Seq, At: r.At, Body: body})
	}
	return parsed(t, string(events[0].Body.(RunStarted).Text)), events
}

func parsed(t *testing.T, text string) *workflow.Plan {
	t.Helper()
	w, err := workflow.Parse("w.yaml", []byte(text), workflow.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return workflow.BuildPlan(w)
}

const recordedText = `name: w
env: {COLOR: "${{ inputs.color }}"}
inputs: {color: {type: string, default: red, enum: [red, blue]}}
steps:
  - {id: a, run: make}
  - {id: b, run: make test, env: {OUT: "${{ steps.a.stdout }}"}}
  - {id: c, if: 'steps.a.exit_code == 3 || env.COLOR == "blue"', run: "true"}
finally:
  - {id: f, run: "echo ${{ steps.b.status }}"}
`

// TestLoopWithParsedWorkflow drives real expressions, and is where the recorded
// runs come from: FLOW_RECORD names the folder to write them to.
func TestLoopWithParsedWorkflow(t *testing.T) {
	t.Parallel()
	plan := parsed(t, recordedText)
	j, vars, fail := &fakeJournal{}, map[string]workflow.Vars{}, true
	f := &fakeRunner{
		output: func(step string, stderr bool) (string, error) { return fmt.Sprintf("%s %v", step, stderr), nil },
		step: func(_ context.Context, a Attempt, _ func(Body)) Outcome {
			vars[a.Step.ID] = a.Vars
			if a.Step.ID == "b" && fail {
				return Outcome{Status: StepFailed, Class: ClassExitCode, ExitCode: 2, Error: "exit status 2"}
			}
			return Outcome{Status: StepSucceeded, Log: "log-" + a.Step.ID}
		},
	}
	opening := RunStarted{RunID: "r1", Workflow: "w", Text: []byte(recordedText), Inputs: map[string]any{"color": "red"}}
	run := NewRun(plan)
	l := &Loop{Run: run, Journal: j, Runner: f, Clock: newFakeClock(), Opening: opening}
	if status, err := l.Drive(t.Context()); err != nil || status != RunFailed {
		t.Fatalf("Drive = %s, %v", status, err)
	}
	if got := vars["b"].Steps["a"].Stdout; got != "a false" {
		t.Errorf("steps.a.stdout in b is %q", got)
	}
	if got := vars["a"]; got.Env["COLOR"] != "red" || len(got.Steps) != 0 {
		t.Errorf("a sees env %v, steps %v", got.Env, got.Steps)
	}
	if got := vars["f"].Steps["b"].Status; got != "failed" || vars["f"].Success || !vars["f"].Failure {
		t.Errorf("f sees b as %q, success %v", got, vars["f"].Success)
	}
	fail = false
	b, err := PlanResume(plan, run, ResumeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l = &Loop{Run: run, Journal: j, Runner: f, Clock: newFakeClock(), Opening: b}
	if status, err := l.Drive(t.Context()); err != nil || status != RunSucceeded {
		t.Fatalf("resume = %s, %v", status, err)
	}
	record(t, "1-failed-then-resumed.jsonl", j.all())

	started, end := make(chan string, 9), map[string]chan Outcome{"f": make(chan Outcome, 1)}
	j = &fakeJournal{}
	opening.Options.Grace = 10 * time.Second
	l = &Loop{Run: NewRun(plan), Journal: j, Runner: blockingRunner(started, end), Clock: newFakeClock(), Opening: opening}
	finished := drive(l, t.Context())
	wait(t, started, "a")
	l.Interrupt("sigint")
	end["f"] <- Outcome{Status: StepSucceeded}
	if got := wait(t, finished, "the end"); got.status != RunInterrupted || got.err != nil {
		t.Fatalf("Drive = %+v", got)
	}
	record(t, "1-interrupted.jsonl", j.all())
}

func record(t *testing.T, name string, events []Event) {
	t.Helper()
	dir := os.Getenv("FLOW_RECORD")
	if dir == "" {
		return
	}
	var out strings.Builder
	for _, e := range events {
		typ, body, err := Encode(e.Body)
		if err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(recorded{Seq: e.Seq, At: e.At, Type: typ, Body: body})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s\n", line)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
