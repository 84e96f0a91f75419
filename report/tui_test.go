package report

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"charm.land/bubbles/v2/spinner"
	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/workflow"
)

func newLive(s Style, steps int) *live {
	p := &workflow.Plan{Workflow: &workflow.Workflow{Name: "w"}}
	for k := range steps {
		p.Nodes = append(p.Nodes, workflow.Node{Step: &workflow.Step{ID: fmt.Sprint("step-", k)}})
	}
	s = s.withDefaults()
	return &live{n: &narrator{Style: s, t: newTally(Config{Style: s, Plan: p})}, tails: map[string]*tail{}, width: s.Width}
}

// atTick is a clock that is two seconds into the run.
func atTick() time.Time { return day().Add(2 * time.Second) }

func pictureOf(l *live, w, h int) string {
	return newModel(l, w, h).View().Content
}

// TestPictureGolden shows the picture in several sizes and states.
func TestPictureGolden(t *testing.T) {
	t.Parallel()
	for _, size := range [][2]int{{40, 12}, {80, 24}, {120, 40}, {20, 4}} {
		for _, look := range []struct {
			name         string
			color, ascii bool
		}{{"plain", false, false}, {"color", true, false}, {"ascii", false, true}} {
			name := fmt.Sprintf("picture-%dx%d-%s", size[0], size[1], look.name)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				l := newLive(Style{Width: size[0], Color: look.color, ASCII: look.ascii, Now: atTick}, 9)
				var b strings.Builder
				show := func(title string) {
					fmt.Fprintf(&b, "== %s\n%s\n", title, pictureOf(l, size[0], size[1]))
					l.high = 0
				}
				show("before the first event")
				perform(l.reporter(), []play{
					ev(0, engine.RunStarted{RunID: "r1", Workflow: "w"}),
					ev(0, engine.StepStarted{Step: "step-0", Attempt: 1}),
					out("step-0", "one\ntwo\n\x1b[31m日本語日本語日本語日本語日本語日本語\x1b[0m\n\n50%\r60%"),
				})
				show("one runs")
				fail := engine.Outcome{Status: engine.StepFailed, Class: engine.ClassExitCode, ExitCode: 1, Error: "run script: exit code 1"}
				perform(l.reporter(), []play{
					ev(time.Second, engine.StepFinished{Step: "step-0", Attempt: 1, Outcome: fail}),
					ev(time.Second, engine.RetryScheduled{Step: "step-0", Attempt: 2, At: day().Add(5 * time.Second), Reason: "exit code 1"}),
					ev(time.Second, engine.StepStarted{Step: "step-1", Attempt: 2}),
					out("step-1", "a\nb\nc\n"),
					ev(time.Second, engine.StepSkipped{Step: "step-2"}),
					ev(time.Second, engine.StepFinished{Step: "step-3", Attempt: 1, Outcome: fail}),
				})
				show("one waits, one runs, one failed")
				for k := 4; k < 9; k++ {
					perform(l.reporter(), []play{ev(time.Second, engine.StepStarted{Step: fmt.Sprint("step-", k), Attempt: 1})})
				}
				l.stop = true
				show("many run, asked to stop")
				golden(t, name, []byte(b.String()))
				checkPicture(t, b.String(), size[0])
			})
		}
	}
}

// reporter gives live what Reporter needs besides.
func (l *live) reporter() Reporter { return liveReporter{l} }

type liveReporter struct{ *live }

func (liveReporter) Close() error { return nil }

func checkPicture(t *testing.T, s string, w int) {
	t.Helper()
	for _, line := range strings.Split(s, "\n") {
		if !strings.HasPrefix(line, "== ") && ansi.StringWidth(line) >= w {
			t.Errorf("%d columns in %d: %q", ansi.StringWidth(line), w, line)
		}
	}
}

// Every size: no panic, never too wide, never too high.
func TestPictureFits(t *testing.T) {
	t.Parallel()
	l := newLive(Style{Now: atTick, Color: true}, 10_000)
	perform(l.reporter(), []play{ev(0, engine.RunStarted{RunID: "r", Workflow: "w"})})
	for k := 4000; k < 4040; k++ {
		id := fmt.Sprint("step-", k)
		perform(l.reporter(), []play{ev(0, engine.StepStarted{Step: id, Attempt: 1}), out(id, strings.Repeat("日本語", 100)+"\n")})
	}
	for w := 1; w < 130; w += 3 {
		for h := 1; h < 60; h += 2 {
			l.high, l.last = 0, nil
			got := pictureOf(l, w, h)
			lines := strings.Split(got, "\n")
			if len(lines) > max(h*2/3, 2) {
				t.Fatalf("%dx%d: %d lines", w, h, len(lines))
			}
			if w > 1 {
				checkPicture(t, got, w)
			}
		}
	}
}

// TestHeightStays: a picture never gets lower, except by a resize.
func TestHeightStays(t *testing.T) {
	t.Parallel()
	l := newLive(Style{Now: atTick}, 3)
	var m tea.Model = newModel(l, 80, 24)
	height := func() int { return strings.Count(m.View().Content, "\n") + 1 }
	perform(l.reporter(), []play{
		ev(0, engine.StepStarted{Step: "step-0", Attempt: 1}), out("step-0", "1\n2\n3\n4\n5\n6\n"),
	})
	high := height()
	perform(l.reporter(), []play{ev(0, engine.StepFinished{Step: "step-0", Attempt: 1, Outcome: engine.Outcome{Status: engine.StepSucceeded}})})
	if got := height(); got != high {
		t.Errorf("from %d to %d lines", high, got)
	}
	m, _ = m.Update(tea.WindowSizeMsg{Width: 40, Height: 12})
	if got := height(); got >= high {
		t.Errorf("after the resize %d lines, before %d", got, high)
	}
}

// TestPrinting: lines go above in order and in portions; the next one waits for
// the one before, and so does the end.
func TestPrinting(t *testing.T) {
	t.Parallel()
	l := newLive(Style{Now: atTick, Width: 30}, 30)
	var m tea.Model = newModel(l, 30, 10)
	for k := range 30 {
		perform(l.reporter(), []play{ev(0, engine.StepSkipped{Step: fmt.Sprint("step-", k)})})
	}
	tick := func() tea.Cmd {
		var cmd tea.Cmd
		m, cmd = m.Update(m.(model).spin.Tick().(spinner.TickMsg))
		m.View()
		return cmd
	}
	for range 2 {
		tick()
	}
	if n := len(l.above); n != 30 {
		t.Fatalf("printed before a picture was shown: %d left", n)
	}
	tick()
	left := len(l.above)
	if left >= 30 || left < 15 {
		t.Fatalf("%d lines left after the first portion", left)
	}
	tick()
	if len(l.above) != left {
		t.Error("the second portion did not wait for the first")
	}
	var cmd tea.Cmd
	if m, cmd = m.Update(closeMsg{}); cmd != nil {
		t.Error("quit with a portion under way")
	}
	if _, cmd = m.Update(printedMsg{}); cmd == nil {
		t.Fatal("does not quit")
	} else if _, ok := cmd().(tea.QuitMsg); !ok {
		t.Error("does not quit")
	}
}

func TestFold(t *testing.T) {
	t.Parallel()
	n := newLive(Style{}, 0).n
	long := "✗ step · " + strings.Repeat("words and 日本語 ", 20)
	for w := 1; w < 100; w++ {
		for _, cut := range []bool{true, false} {
			for i, f := range n.fold(aboveLine{long, cut}, w) {
				if ansi.StringWidth(f.text) > w {
					t.Fatalf("%d columns in %d: %q", ansi.StringWidth(f.text), w, f.text)
				}
				if cut && i > 0 {
					t.Fatal("a cut line was folded")
				}
			}
		}
	}
}

// TestTail: the end of large output is what is seen, and nothing harmful of it.
func TestTail(t *testing.T) {
	t.Parallel()
	var tl tail
	tl.write([]byte("first\n"))
	tl.write(append(outputOf(1<<20), "\nlast but one\n\n\t\x1b[2Jlast"...))
	got := tl.last(nil, "| ", 2)
	if len(got) != 2 || got[0] != "| last but one" || got[1] != "| last" {
		t.Errorf("%q", got)
	}
	tl.write([]byte(strings.Repeat("no line end ", 10_000)))
	if len(tl.open) > 2*tailBytes {
		t.Errorf("%d bytes kept of a begun line", len(tl.open))
	}
	if got := tl.last(nil, "", 100); len(got) > tailKept+1 {
		t.Errorf("%d lines", len(got))
	}
}
