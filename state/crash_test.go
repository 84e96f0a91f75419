package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
)

// helperEnv makes the test binary the process that is killed: its value is the
// state directory.
const helperEnv = "FLOW_STATE_TEST_HELPER"

// helper owns a run and stores steps until it is killed. It prints each step's
// number once its Append has returned: what was promised.
func helper() int {
	ctx := background()
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s, err := Open(os.Getenv(helperEnv), Options{})
	if err != nil {
		return fail(err)
	}
	var o *Owner
	run, err := s.Resolve(ctx, "latest")
	if err != nil {
		o, err = s.CreateRun(ctx, engine.RunStarted{RunID: NewRunID()}, RunExtra{})
	} else if o, err = s.Acquire(ctx, run); err == nil {
		err = helperResume(s, o)
	}
	if err != nil {
		return fail(err)
	}
	for {
		if err := helperStep(s, o); err != nil {
			return fail(err)
		}
		fmt.Println(o.LastSeq())
	}
}

// helperResume resets what was in flight.
func helperResume(s *Store, o *Owner) error {
	infos, err := s.Steps(background(), o.RunID())
	if err != nil {
		return err
	}
	r := engine.RunResumed{Attempt: o.row.attempt + 1}
	for _, st := range infos {
		if st.Status != engine.StepSucceeded {
			r.Reset = append(r.Reset, engine.StepReset{Step: st.Step, Reason: "interrupted"})
		}
	}
	return o.Append(background(), events(r))
}

// helperStep is one step with a changed tree, contents in a row and in a pack,
// and a log that is short or long.
func helperStep(s *Store, o *Owner) error {
	ctx := background()
	step := fmt.Sprintf("step_%d", o.LastSeq())
	if err := o.Append(ctx, events(started(step, 1))); err != nil {
		return err
	}
	w, err := s.OpenLog(o.RunID(), step, 1)
	if err != nil {
		return err
	}
	if err := w.Write(Stdout, noise(1+rand.IntN(2*logInline))); err != nil {
		return err
	}
	ref, err := w.Finish()
	if err != nil {
		return err
	}
	b, err := s.Begin(ctx)
	if err != nil {
		return err
	}
	m := &checkpoint.Manifest{}
	for i := range 1 + rand.IntN(4) {
		content := noise(1 + rand.IntN(inlineTotal))
		h := checkpoint.Hash(sha256.Sum256(content))
		if err := b.Put(h, content); err != nil {
			return err
		}
		m.Entries = append(m.Entries, checkpoint.Entry{Path: fmt.Sprintf("file_%d", i), Kind: checkpoint.KindFile, Mode: 0o644, Size: int64(len(content)), Hash: h})
	}
	var before *checkpoint.Manifest
	if c := o.Checkpoint(); c != "" {
		if before, err = s.Manifest(ctx, c); err != nil {
			return err
		}
	}
	id, err := s.StageCheckpoint(ctx, o.RunID(), checkpoint.Snapshot{Manifest: m, Changes: checkpoint.Diff(before, m), Batch: b}, o.Checkpoint())
	if err != nil {
		return err
	}
	f := finished(step, 1, engine.StepSucceeded)
	f.Checkpoint, f.Outcome.Log = id, ref
	return o.Append(ctx, events(f))
}

// TestKilled kills a process that stores steps, again and again, at random
// moments, and looks at what is there: nothing that was promised is missing, and
// nothing is half there.
func TestKilled(t *testing.T) {
	t.Parallel()
	rounds := 50
	if testing.Short() {
		rounds = 5
	}
	dir := filepath.Join(t.TempDir(), DirName)
	promised := 0
	for round := range rounds {
		promised = max(promised, killOne(t, dir, round))
		s, err := OpenReadOnly(dir, Options{})
		must(t, err)
		checkKilled(t, s, promised)
		must(t, s.Close())
		if t.Failed() {
			return
		}
	}
	s, err := Open(dir, Options{})
	must(t, err)
	defer s.Close()
	if _, err := s.RemoveOrphans(t.Context()); err != nil {
		t.Error(err)
	}
	checkKilled(t, s, promised)
	t.Logf("%d rounds, %d events promised", rounds, promised)
}

// killOne lets the helper store a few steps, kills it at a random moment of one,
// and returns the last number that it promised.
func killOne(t *testing.T, dir string, round int) int {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), helperEnv+"="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	last, seen, want := 0, 0, 1+rand.IntN(6)
	var kill *time.Timer
	for lines.Scan() {
		if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
			t.Errorf("the helper says %q", lines.Text())
		}
		if seen++; seen == want {
			kill = time.AfterFunc(time.Duration(rand.IntN(4000))*time.Microsecond, func() { cmd.Process.Kill() })
		}
	}
	err = cmd.Wait()
	if kill != nil {
		kill.Stop()
	}
	if err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("round %d: the helper ended by itself: %v\n%s", round, err, stderr.String())
	}
	return last
}

func checkKilled(t *testing.T, s *Store, promised int) {
	t.Helper()
	ctx := t.Context()
	must(t, s.CheckIntegrity(ctx))
	run, err := s.Resolve(ctx, "latest")
	must(t, err)
	info, err := s.Run(ctx, run)
	must(t, err)
	if info.Status != engine.RunInterrupted {
		t.Errorf("the run is %s", info.Status)
	}
	evs, err := s.Events(ctx, run, 0) // checks that there is no gap
	must(t, err)
	if len(evs) < promised {
		t.Errorf("%d events are stored, %d were promised", len(evs), promised)
	}
	// The projections equal a fold.
	want := map[string]engine.StepStatus{}
	records := 0
	newest := ""
	for _, e := range evs {
		switch b := e.Body.(type) {
		case engine.StepStarted:
			want[b.Step] = engine.StepInterrupted // if nothing follows
			records++
		case engine.StepFinished:
			want[b.Step] = b.Outcome.Status
			newest = b.Checkpoint
			checkFinished(t, s, &b)
		case engine.RunResumed:
			for _, r := range b.Reset {
				want[r.Step] = engine.StepPending
			}
		}
	}
	if info.Checkpoint != newest {
		t.Errorf("the newest checkpoint is %s, the events say %s", info.Checkpoint, newest)
	}
	got := steps(t, s, run)
	for step, status := range want {
		if got[step].Status != status {
			t.Errorf("step %s is %s, the events say %s", step, got[step].Status, status)
		}
	}
	recs, err := s.Records(ctx, run)
	must(t, err)
	if len(got) != len(want) || len(recs) != records {
		t.Errorf("%d steps and %d records, the events say %d and %d", len(got), len(recs), len(want), records)
	}
}

// checkFinished: a step that is done has its files and its log.
func checkFinished(t *testing.T, s *Store, b *engine.StepFinished) {
	t.Helper()
	m, err := s.Manifest(t.Context(), b.Checkpoint)
	if err != nil {
		t.Error(err)
		return
	}
	for _, e := range m.Entries {
		if _, err := read(t, s, e.Hash); err != nil {
			t.Errorf("step %s: %v", b.Step, err)
		}
	}
	if out, _, err := readLog(t, s, b.Outcome.Log); err != nil || len(out) == 0 {
		t.Errorf("step %s: a log of %d bytes, %v", b.Step, len(out), err)
	}
}
