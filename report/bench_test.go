package report

import (
	"bytes"
	"io"
	"runtime"
	"testing"

	"flowrun.dev/flow/engine"
)

// output of n bytes in lines like those of a compiler.
func outputOf(n int) []byte {
	line := []byte("internal/server/handler_test.go:120: checking the answer of request number 4711\n")
	return bytes.Repeat(line, n/len(line)+1)[:n]
}

// BenchmarkOutput is 200 MB of a step's output through each reporter, in chunks
// of 256 KB as the redactor hands them on (design: performance).
func BenchmarkOutput(b *testing.B) {
	chunk := outputOf(256 << 10)
	const total = 200 << 20
	for _, kind := range []Kind{Plain, JSON} {
		b.Run(string(kind), func(b *testing.B) {
			b.SetBytes(total)
			b.ReportAllocs()
			for b.Loop() {
				r, err := New(kind, Config{Out: io.Discard})
				if err != nil {
					b.Fatal(err)
				}
				r.Observe(engine.Event{Seq: 1, Body: engine.StepStarted{Step: "build", Attempt: 1}})
				for n := 0; n < total; n += len(chunk) {
					r.Output("build", false, chunk)
				}
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
			}
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(m.Sys)/(1<<20), "MB-sys")
		})
	}
}

// BenchmarkObserve is what an event costs the engine's loop.
func BenchmarkObserve(b *testing.B) {
	for _, kind := range []Kind{Plain, JSON} {
		b.Run(string(kind), func(b *testing.B) {
			r, err := New(kind, Config{Out: io.Discard})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				r.Observe(engine.Event{Seq: 1, Body: engine.StepFinished{Step: "build", Attempt: 1,
					Outcome: engine.Outcome{Status: engine.StepSucceeded}}})
			}
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
