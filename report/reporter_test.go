package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"flowrun.dev/flow/engine"
)

func mustNew(t *testing.T, k Kind, cfg Config) Reporter {
	t.Helper()
	r, err := New(k, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func started(r Reporter, steps ...string) {
	for i, s := range steps {
		r.Observe(engine.Event{Seq: int64(i + 1), At: day(), Body: engine.StepStarted{Step: s, Attempt: 1}})
	}
}

// gate is a reader that stands still until it is opened.
type gate struct {
	open    chan struct{}
	reached chan struct{} // closed at the first write
	once    sync.Once
	mu      sync.Mutex
	got     bytes.Buffer
}

func newGate() *gate { return &gate{open: make(chan struct{}), reached: make(chan struct{})} }

func (g *gate) Write(p []byte) (int, error) {
	g.once.Do(func() { close(g.reached) })
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.got.Write(p)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		kind Kind
		term Terminal
		want string
	}{
		"unknown":           {"pretty", Terminal{}, "not one of tui, plain, json"},
		"tui to a pipe":     {TUI, Terminal{}, "no terminal"},
		"tui on a dumb one": {TUI, Terminal{Is: true, Dumb: true}, "TERM=dumb"},
	} {
		if _, err := New(tc.kind, Config{Out: io.Discard, Terminal: tc.term}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A reader that stands still: Observe goes on, Output waits, nothing is lost.
func TestSlowReaderBlocksOutputOnly(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{Plain, JSON} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			g := newGate()
			r := mustNew(t, kind, Config{Out: g})
			started(r, "a")
			<-g.reached
			const chunks = 40 // 100 KB each: four times the buffer
			text := bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), 1000)
			done := make(chan int)
			go func() {
				for range chunks {
					r.Output("a", false, text)
				}
				close(done)
			}()
			for i := range 10_000 {
				r.Observe(engine.Event{Seq: int64(i), At: day(), Body: engine.StepSkipped{Step: fmt.Sprint("s", i)}})
			}
			select {
			case <-done:
				t.Fatal("4 MB went into a buffer of 1 MB")
			default:
			}
			close(g.open)
			<-done
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(g.got.String(), strings.Repeat("x", 99)); n != chunks*1000 {
				t.Errorf("%d lines of %d", n, chunks*1000)
			}
			if n := strings.Count(g.got.String(), "skipped"); n < 10_000 {
				t.Errorf("%d events of 10000", n)
			}
		})
	}
}

// Asked to stop, a run is not held up by a reader that stands still.
func TestStopWithStuckReader(t *testing.T) {
	t.Parallel()
	g := newGate()
	r := mustNew(t, Plain, Config{Out: g})
	started(r, "a")
	<-g.reached
	r.Observe(engine.Event{Seq: 2, At: day(), Body: engine.CancelRequested{Cause: "sigint"}})
	begin := time.Now()
	text := outputOf(100_000)
	for range 40 {
		r.Output("a", false, text)
	}
	err := r.Close()
	if !errors.Is(err, errStuck) {
		t.Errorf("close: %v", err)
	}
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("held up for %v", d)
	}
	close(g.open) // the writing goroutine ends
}

// failing writes nothing after the first call.
type failing struct{ calls int }

func (f *failing) Write(p []byte) (int, error) {
	f.calls++
	return 0, syscall.EPIPE
}

func TestReaderGone(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{Plain, JSON, TUI} {
		f := &failing{}
		r := mustNew(t, kind, Config{Out: f, Terminal: Terminal{Is: true, Height: 10}})
		started(r, "a")
		for range 100 {
			r.Output("a", false, outputOf(100_000))
		}
		for range 2 {
			if err := r.Close(); !errors.Is(err, syscall.EPIPE) {
				t.Errorf("%s: close: %v", kind, err)
			}
		}
		if f.calls != 1 {
			t.Errorf("%s: %d writes to a closed pipe", kind, f.calls)
		}
	}
}

// TestConcurrent: many steps write at the same time (run with -race). Lines are
// whole and complete, whatever the cuts.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := mustNew(t, Plain, Config{Out: &out})
	const steps, lines = 8, 500
	for i := range steps {
		started(r, fmt.Sprint("s", i))
	}
	var wg sync.WaitGroup
	for i := range steps {
		for _, stderr := range []bool{false, true} {
			wg.Go(func() {
				var text []byte
				for n := range lines {
					text = fmt.Appendf(text, "%v-%d-%s.\n", stderr, n, strings.Repeat("y", n%50))
				}
				for len(text) > 0 {
					n := min(len(text), 1+len(text)%97)
					r.Output(fmt.Sprint("s", i), stderr, text[:n])
					text = text[n:]
				}
			})
		}
	}
	wg.Wait()
	for i := range steps {
		r.Observe(engine.Event{Seq: 99, At: day(), Body: engine.StepFinished{Step: fmt.Sprint("s", i), Outcome: engine.Outcome{Status: engine.StepSucceeded}}})
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, l := range strings.Split(out.String(), "\n") {
		if strings.HasPrefix(l, "  s") {
			if !strings.HasSuffix(l, ".") {
				t.Errorf("line cut: %q", l)
			}
			got[strings.SplitN(l, "-", 3)[0]]++
		}
	}
	if len(got) != 2*steps {
		t.Errorf("%d streams: %v", len(got), got)
	}
	for k, n := range got {
		if n != lines {
			t.Errorf("%s: %d lines", k, n)
		}
	}
}

// A prompt without a line end appears: alone at once, among others after a while.
func TestPartialLineAppears(t *testing.T) {
	t.Parallel()
	for _, steps := range [][]string{{"a"}, {"a", "b"}} {
		pr, pw := io.Pipe()
		r := mustNew(t, Plain, Config{Out: pw})
		started(r, steps...)
		r.Output("a", false, []byte("password? "))
		seen := make(chan struct{})
		read := make(chan struct{})
		go func() {
			defer close(read)
			var got []byte
			b := make([]byte, 1024)
			for {
				n, err := pr.Read(b)
				if err != nil {
					return
				}
				before := bytes.Contains(got, []byte("password"))
				got = append(got, b[:n]...)
				if !before && bytes.Contains(got, []byte("password? ")) {
					close(seen)
				}
			}
		}()
		select {
		case <-seen:
		case <-time.After(10 * time.Second):
			t.Fatalf("%v: nothing seen", steps)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		_ = pw.Close()
		<-read
	}
}

// TestOutputMemory: 200 MB through a pipe's slow side keep memory flat.
func TestOutputMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("200 MB")
	}
	r := mustNew(t, Plain, Config{Out: io.Discard})
	started(r, "a")
	chunk := outputOf(256 << 10)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 800 {
		r.Output("a", false, chunk)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 25<<20 {
		t.Errorf("%d MB allocated for 200 MB of output", grown>>20)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestJSONWhole: all output comes back from the lines, also what is no UTF-8 and
// what is cut inside a character.
func TestJSONWhole(t *testing.T) {
	t.Parallel()
	in := []byte("日本語\x00\xff\xfe \x1b[31mred\n<&>\u2028" + strings.Repeat("ä", 70_000) + "\xe6")
	var out bytes.Buffer
	r := mustNew(t, JSON, Config{Out: &out})
	for i := 0; i < len(in); i += 7 {
		r.Output("a", false, in[i:min(i+7, len(in))])
	}
	r.Output("a", false, in)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	var got []byte
	last := ""
	for _, l := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		var o JSONOutput
		if err := json.Unmarshal([]byte(l), &o); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		got = append(append(got, o.Text...), o.Base64...)
		last = o.Type
	}
	if want := append(append([]byte(nil), in...), in...); !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d came back", len(got), len(want))
	}
	if last != "result" {
		t.Errorf("last line is %q", last)
	}
}

// TestLastLine: whatever happened, the last line counts the denied calls.
func TestLastLine(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		plays []play
		final *Final
		want  string
	}{
		"failed":        {failedRun(), nil, "continue with: flow resume r7k2m9\n5 steps: 2 succeeded, 1 timed out, 1 skipped, 1 not run · 1 m 25 s · $0.03 · 1 denied call\n"},
		"no end":        {failedRun()[:3], nil, "5 steps: 1 running, 4 pending · 8 ms · 0 denied calls\n"},
		"the last word": {failedRun()[:3], &Final{Status: engine.RunInterrupted, ExitCode: 130, Class: "interrupted", Cause: "Ctrl-C", Continue: "flow resume r7k2m9"}, "‖ run interrupted: Ctrl-C\ncontinue with: flow resume r7k2m9\n5 steps: 1 running, 4 pending · 8 ms · 0 denied calls\n"},
		"nothing":       {nil, nil, ""},
	} {
		for _, kind := range []Kind{Plain, TUI} {
			var out bytes.Buffer
			r := mustNew(t, kind, Config{Out: &out, Plan: testPlan(), Style: Style{Width: 120}, Terminal: Terminal{Is: true, Height: 24}})
			perform(r, tc.plays)
			if tc.final != nil {
				r.Final(*tc.final)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(out.String(), tc.want) {
				t.Errorf("%s, %s: %q", name, kind, out.String()[max(0, out.Len()-300):])
			}
		}
	}
}

// TestResume: what ended before counts, what runs again does not count twice.
func TestResume(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	ok := engine.Outcome{Status: engine.StepSucceeded}
	r := mustNew(t, Plain, Config{Out: &out, RunID: "r1", Workflow: "w", Plan: testPlan(), Past: []engine.Event{
		{Body: engine.RunStarted{RunID: "r1", Workflow: "w"}},
		{Body: engine.StepStarted{Step: "init", Attempt: 1}},
		{Body: engine.StepFinished{Step: "init", Attempt: 1, Outcome: ok}},
		{Body: engine.StepFinished{Step: "implement", Attempt: 1, Outcome: engine.Outcome{Status: engine.StepSucceeded, Agent: &engine.AgentUsage{Denied: 2, CostUSD: 0.5}}}},
		{Body: engine.StepStarted{Step: "test", Attempt: 3}},
		{Body: engine.StepFinished{Step: "test", Attempt: 3, Outcome: engine.Outcome{Status: engine.StepFailed}}},
		{Body: engine.RunFinished{Status: engine.RunFailed}},
	}})
	perform(r, []play{
		ev(0, engine.RunResumed{Attempt: 2, Reset: []engine.StepReset{{Step: "test", Reason: "it failed"}}}),
		ev(0, engine.StepStarted{Step: "test", Attempt: 4}),
		ev(time.Second, engine.StepFinished{Step: "test", Attempt: 4, Outcome: ok}),
		ev(time.Second, engine.RunFinished{Status: engine.RunSucceeded}),
	})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	want := `flow: run r1 · w · resumed, attempt 2
↻ test · runs again: it failed
▸ test · attempt 4
✓ test · 0 ms
✓ run succeeded
5 steps: 3 succeeded, 2 pending · 1.0 s · $0.50 · 2 denied calls
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestLookTerminal(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		env  map[string]string
		want Terminal
	}{
		"nothing set":  {nil, Terminal{ASCII: true}},
		"utf-8":        {map[string]string{"LANG": "de_DE.UTF-8"}, Terminal{}},
		"C over LANG":  {map[string]string{"LANG": "de_DE.UTF-8", "LC_ALL": "C"}, Terminal{ASCII: true}},
		"C.utf8":       {map[string]string{"LC_CTYPE": "C.utf8"}, Terminal{}},
		"columns":      {map[string]string{"LANG": "C.UTF-8", "COLUMNS": "133"}, Terminal{Width: 133}},
		"bad columns":  {map[string]string{"LANG": "C.UTF-8", "COLUMNS": "-3"}, Terminal{}},
		"dumb":         {map[string]string{"LANG": "C.UTF-8", "TERM": "dumb"}, Terminal{Dumb: true}},
		"no file here": {map[string]string{"LANG": "C.UTF-8", "NO_COLOR": "1"}, Terminal{}},
	} {
		if got := LookTerminal(nil, func(k string) string { return tc.env[k] }); got != tc.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-1: "0 ms", 0: "0 ms", 340 * time.Millisecond: "340 ms", 999600 * time.Microsecond: "1.0 s",
		59940 * time.Millisecond: "59.9 s", 59960 * time.Millisecond: "1 m 00 s", 125 * time.Second: "2 m 05 s",
		time.Hour - time.Millisecond: "1 h 00 m", 61 * time.Minute: "1 h 01 m", 100 * time.Hour: "100 h 00 m",
	} {
		if got := duration(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
}

func TestSecondsJSON(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(Seconds(1234567 * time.Microsecond))
	if err != nil || string(b) != "1.235" {
		t.Fatalf("%s, %v", b, err)
	}
	var s Seconds
	if err := json.Unmarshal(b, &s); err != nil || time.Duration(s) != 1235*time.Millisecond {
		t.Fatalf("%v, %v", time.Duration(s), err)
	}
}
