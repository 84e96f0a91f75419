package state

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"flowrun.dev/flow/engine"
)

func steps(t testing.TB, s *Store, run string) map[string]StepInfo {
	t.Helper()
	list, err := s.Steps(t.Context(), run)
	must(t, err)
	out := map[string]StepInfo{}
	for _, st := range list {
		out[st.Step] = st
	}
	return out
}

// TestProjection walks a run with a retry, a skip, an interruption and a resume.
func TestProjection(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	interrupted := finished("test", 1, engine.StepInterrupted)
	put(t, o, started("build", 1))
	put(t, o, finished("build", 1, engine.StepFailed), engine.RetryScheduled{Step: "build", Attempt: 2, At: at(9), Reason: "exit code 1"})
	put(t, o, started("build", 2))
	put(t, o, finished("build", 2, engine.StepSucceeded), engine.StepSkipped{Step: "docs"}, started("test", 1))
	put(t, o, interrupted, engine.StepNotRun{Step: "deploy", Reason: "the run was interrupted"},
		engine.RunFinished{Status: engine.RunInterrupted, Cause: "sigint"})
	got := steps(t, s, o.RunID())
	for step, want := range map[string]engine.StepStatus{
		"build": engine.StepSucceeded, "docs": engine.StepIsSkipped, "test": engine.StepInterrupted, "deploy": engine.StepIsNotRun} {
		if got[step].Status != want {
			t.Errorf("step %s is %s, want %s", step, got[step].Status, want)
		}
	}
	r, err := s.Run(t.Context(), o.RunID())
	must(t, err)
	if r.Status != engine.RunInterrupted || r.Cause != "sigint" || r.Finished.IsZero() {
		t.Errorf("the run is %+v", r)
	}
	put(t, o, engine.RunResumed{Attempt: 2, Reset: []engine.StepReset{{Step: "test", Reason: "interrupted"}, {Step: "deploy", Reason: "not run"}}})
	if got = steps(t, s, o.RunID()); got["test"].Status != engine.StepPending || got["test"].Attempt != 1 || got["deploy"].Status != engine.StepPending {
		t.Errorf("after the resume: %+v", got)
	}
	put(t, o, started("test", 2))
	put(t, o, finished("test", 2, engine.StepSucceeded), started("deploy", 1))
	put(t, o, finished("deploy", 1, engine.StepSucceeded), engine.RunFinished{Status: engine.RunSucceeded})
	if r, err = s.Run(t.Context(), o.RunID()); err != nil || r.Status != engine.RunSucceeded || r.Attempt != 2 || r.Cause != "" {
		t.Errorf("at the end: %+v, %v", r, err)
	}
	recs, err := s.Records(t.Context(), o.RunID())
	must(t, err)
	if len(recs) != 5 {
		t.Errorf("%d records, want 5", len(recs))
	}
	must(t, s.CheckIntegrity(t.Context()))
}

// TestRecordWhole: everything of an outcome comes back.
func TestRecordWhole(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	want := engine.Outcome{
		Status: engine.StepFailed, Class: engine.ClassExitCode, ExitCode: 3, Error: "exit code 3", Command: "make \x00 \"it\"",
		Outputs: map[string]any{"n": 1.5, "s": "x"}, Stdout: engine.Excerpt{Head: "head", Tail: "tail", Bytes: 5000},
		Stderr: engine.Excerpt{Head: "ünïcode 漢", Bytes: 20}, Started: at(5), Duration: 7 * time.Second, SandboxID: "sb",
		ChangedCount: 2, Changed: []engine.FileChange{{Path: "a", Op: "added"}, {Path: "~/b", Op: "deleted"}}, Leftover: 1, MaxRSS: 99,
		Agent: &engine.AgentUsage{Provider: "anthropic", Model: "m", Turns: 3, CostUSD: 0.25, Denials: []engine.Denial{{Tool: "Bash", Input: "rm", Reason: "not allowed"}}},
	}
	put(t, o, started("build", 1))
	put(t, o, engine.StepFinished{Step: "build", Attempt: 1, Outcome: want})
	recs, err := s.Records(t.Context(), o.RunID())
	must(t, err)
	if !reflect.DeepEqual(recs[0].Outcome, want) {
		t.Errorf("came back as\n%+v, want\n%+v", recs[0].Outcome, want)
	}
	evs, err := s.Events(t.Context(), o.RunID(), 2)
	must(t, err)
	if len(evs) != 1 || !reflect.DeepEqual(evs[0].Body.(engine.StepFinished).Outcome, want) {
		t.Errorf("the event came back as %+v", evs)
	}
}

// TestAppendRefuses: what does not fit is an error, and nothing of it is stored.
func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	type list []engine.Body
	for _, c := range []struct {
		name   string
		before list
		bodies list
	}{
		{"finish what did not start", nil, list{finished("build", 1, engine.StepSucceeded)}},
		{"start twice", list{started("build", 1)}, list{started("build", 2)}},
		{"start a step that is done", list{started("build", 1), finished("build", 1, engine.StepSucceeded)}, list{started("build", 2)}},
		{"finish another attempt", list{started("build", 1)}, list{finished("build", 2, engine.StepSucceeded)}},
		{"finish twice", list{started("build", 1), finished("build", 1, engine.StepFailed)}, list{finished("build", 1, engine.StepSucceeded)}},
		{"retry what succeeded", list{started("build", 1), finished("build", 1, engine.StepSucceeded)}, list{engine.RetryScheduled{Step: "build", Attempt: 2}}},
		{"skip what runs", list{started("build", 1)}, list{engine.StepSkipped{Step: "build"}}},
		{"attempt again after a reset, same number", list{started("build", 1), engine.RunResumed{Attempt: 2, Reset: []engine.StepReset{{Step: "build"}}}}, list{started("build", 1)}},
		{"a status that is none", list{started("build", 1)}, list{finished("build", 1, "fine")}},
		{"a run status that is none", nil, list{engine.RunFinished{Status: "fine"}}},
		{"a pointer", nil, list{&engine.SandboxClosed{ID: "x"}}},
		{"an unknown checkpoint", nil, list{engine.WorkspaceImported{Checkpoint: "abc.1.nonce"}}},
		{"no checkpoint's id", nil, list{engine.WorkspaceImported{Checkpoint: "abc"}}},
		{"an unknown log", list{started("build", 1)}, list{engine.StepFinished{Step: "build", Attempt: 1, Outcome: engine.Outcome{Status: engine.StepSucceeded, Log: LogRef("abc", "build", 1)}}}},
		{"good, then bad", nil, list{started("build", 1), engine.SandboxClosed{ID: "x"}, started("build", 1)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			o := create(t, s)
			if len(c.before) > 0 {
				put(t, o, c.before...)
			}
			seq, before := o.LastSeq(), steps(t, s, o.RunID())
			if err := o.Append(t.Context(), events(c.bodies...)); err == nil {
				t.Fatal("it was stored")
			}
			evs, err := s.Events(t.Context(), o.RunID(), 0)
			must(t, err)
			if o.LastSeq() != seq || int64(len(evs)) != seq || !reflect.DeepEqual(steps(t, s, o.RunID()), before) {
				t.Error("a part of it was stored")
			}
			put(t, o, engine.SandboxClosed{ID: "x"}) // the owner can go on
			must(t, s.CheckIntegrity(t.Context()))
		})
	}
}

func TestAppendNumbers(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	evs := []engine.Event{{Seq: 5, At: at(1), Body: engine.SandboxClosed{ID: "x"}}}
	if err := o.Append(t.Context(), evs); err == nil {
		t.Error("a gap was stored")
	}
	evs[0].Seq = 2
	must(t, o.Append(t.Context(), evs))
	evs = events(engine.SandboxClosed{ID: "x"}, engine.SandboxClosed{ID: "y"})
	must(t, o.Append(t.Context(), evs))
	if evs[1].Seq != 4 {
		t.Errorf("the number filled in is %d", evs[1].Seq)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if err := o.Append(ctx, events(engine.SandboxClosed{ID: "z"})); !errors.Is(err, why) {
		t.Errorf("with a cancelled context: %v", err)
	}
	must(t, o.Append(t.Context(), nil))
	if o.LastSeq() != 4 {
		t.Errorf("the last event is %d", o.LastSeq())
	}
}

// TestAcceptedChanges: the steps of the old definition are no rows of the new one;
// their records stay.
func TestAcceptedChanges(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	put(t, o, started("build", 1))
	put(t, o, finished("build", 1, engine.StepSucceeded), started("old", 1))
	put(t, o, finished("old", 1, engine.StepFailed), engine.RunFinished{Status: engine.RunFailed})
	o.SetKinds(map[string]string{"build": "run", "new": "agent"})
	put(t, o, engine.RunResumed{Attempt: 2, Text: []byte("steps: []"), Removed: []string{"old"}}, started("new", 1))
	got := steps(t, s, o.RunID())
	if _, ok := got["old"]; ok || len(got) != 2 || got["build"].Status != engine.StepSucceeded {
		t.Errorf("the steps are %+v", got)
	}
	recs, err := s.Records(t.Context(), o.RunID())
	must(t, err)
	if len(recs) != 3 || recs[2].Kind != "agent" {
		t.Errorf("the records are %+v", recs)
	}
}
