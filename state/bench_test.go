package state

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
)

// BenchmarkAppend is what a sequential step costs here: its end, its checkpoint's
// row, its record and the start of the next one, in one durable transaction.
// Target (performance): 0.35 ms, flat at 10,000 steps.
func BenchmarkAppend(b *testing.B) {
	for _, steps := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("after=%d", steps), func(b *testing.B) {
			s := open(b)
			o := create(b, s)
			put(b, o, started(stepName(0), 1))
			m := &checkpoint.Manifest{Entries: []checkpoint.Entry{{Path: "a", Kind: checkpoint.KindDir, Mode: 0o755}}}
			parent := ""
			n := 0
			appendOne := func() {
				id, err := s.StageCheckpoint(b.Context(), o.RunID(), checkpoint.Snapshot{Manifest: m}, parent)
				must(b, err)
				f := finished(stepName(n), 1, engine.StepSucceeded)
				f.Checkpoint = id
				f.Outcome.Command = "true"
				f.Outcome.SandboxID = "sb1"
				f.Outcome.Duration = time.Millisecond
				put(b, o, f, engine.ConditionEvaluated{Step: stepName(n + 1), Value: true}, started(stepName(n+1), 1))
				parent = id
				n++
			}
			for range steps {
				appendOne()
			}
			b.ReportAllocs()
			for b.Loop() {
				appendOne()
			}
		})
	}
}

// BenchmarkSync is the floor below BenchmarkAppend: 24 KiB written over and synced.
func BenchmarkSync(b *testing.B) {
	f, err := os.Create(b.TempDir() + "/f")
	must(b, err)
	defer f.Close()
	p := make([]byte, 24<<10)
	i := 0
	for b.Loop() {
		_, err := f.WriteAt(p, int64(i%100)*int64(len(p)))
		must(b, err)
		must(b, f.Sync())
		i++
	}
}

// BenchmarkLog writes 200 MB. Targets: 0.15 s for repetitive text, flat memory.
func BenchmarkLog(b *testing.B) {
	text := []byte(strings.Repeat("=== RUN   TestSomething/with_a_name\n--- PASS: TestSomething/with_a_name (0.00s)\n", 4000))[:256<<10]
	noise := make([]byte, 256<<10)
	x := uint64(88172645463325252)
	for i := range noise {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		noise[i] = byte(x >> 32)
	}
	for _, c := range []struct {
		name string
		p    []byte
	}{{"text", text}, {"noise", noise}} {
		b.Run(c.name, func(b *testing.B) {
			s := open(b)
			o := create(b, s)
			b.SetBytes(200 << 20)
			b.ReportAllocs()
			attempt := 0
			for b.Loop() {
				attempt++
				w, err := s.OpenLog(o.RunID(), "build", attempt)
				must(b, err)
				for range (200 << 20) / len(c.p) {
					must(b, w.Write(Stdout, c.p))
				}
				_, err = w.Finish()
				must(b, err)
				b.StopTimer()
				must(b, os.RemoveAll(s.RunDir(o.RunID())))
				b.StartTimer()
			}
		})
	}
}

// BenchmarkOpen is what a command pays before its first query, on existing state.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir() + "/.flow"
	s, err := Open(dir, Options{})
	must(b, err)
	must(b, s.Close())
	for b.Loop() {
		s, err := Open(dir, Options{})
		must(b, err)
		must(b, s.Close())
	}
}

// BenchmarkCreateRun is what a run pays before its first step.
func BenchmarkCreateRun(b *testing.B) {
	s := open(b)
	for b.Loop() {
		o, err := s.CreateRun(b.Context(), engine.RunStarted{RunID: NewRunID(), Text: make([]byte, 1000)}, RunExtra{})
		must(b, err)
		must(b, o.Close())
	}
}

// BenchmarkRun is a whole run of n steps: open, create, append, close.
func BenchmarkRun(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir() + "/.flow"
			for b.Loop() {
				s, err := Open(dir, Options{})
				must(b, err)
				o, err := s.CreateRun(b.Context(), engine.RunStarted{RunID: NewRunID(), Text: make([]byte, 1000)}, RunExtra{})
				must(b, err)
				put(b, o, started(stepName(0), 1))
				for i := range n {
					put(b, o, finished(stepName(i), 1, engine.StepSucceeded), started(stepName(i+1), 1))
				}
				must(b, o.Close())
				must(b, s.Close())
			}
		})
	}
}
