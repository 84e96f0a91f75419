package report

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"

	"flowrun.dev/flow/engine"
)

// tui is the live view: what ended goes above it, into the terminal's own
// scrollback; below is a picture of what runs.
//
// The terminal stays as it was: no raw mode (input is not read, so Ctrl-C is a
// signal as ever), no alternate screen, no hidden cursor, no paste mode, no
// question to the terminal. There is nothing that a crash could leave behind.
//
// Observe and Output only change the shared state; the program's own goroutine
// looks at it a few times a second. A terminal that takes nothing thus stops the
// picture and nothing else, and output is never waited for.
type tui struct {
	live
	out     *onceWriter
	program *tea.Program
	ended   chan struct{} // the program's goroutine is over
	runErr  error         // written before ended is closed
	once    sync.Once
	closing error
}

// live is what the reporter and the program's goroutine share.
type live struct {
	mu    sync.Mutex
	n     *narrator
	above []aboveLine // for the scrollback, not printed yet
	shown [2]int      // how high the last two pictures were
	high  int         // the highest picture so far, without the progress line
	last  []string    // the last picture
	tails map[string]*tail
	stop  bool // the run was asked to stop
	over  bool // Close was called: the picture stands
	width int  // of the screen, as the program knows it
}

func newTUI(cfg Config) (Reporter, error) {
	switch {
	case !cfg.Terminal.Is:
		return nil, errors.New("choose output tui: it is written to no terminal; use plain or json")
	case cfg.Terminal.Dumb:
		return nil, errors.New("choose output tui: TERM=dumb cannot show it; use plain or json")
	}
	r := &tui{
		live:  live{n: &narrator{Style: cfg.Style, t: newTally(cfg)}, tails: map[string]*tail{}, width: cfg.Width},
		out:   &onceWriter{w: cfg.Out},
		ended: make(chan struct{}),
	}
	opts := []tea.ProgramOption{
		tea.WithInput(nil), tea.WithoutSignalHandler(), tea.WithFPS(30), tea.WithOutput(r.out.file()),
		tea.WithWindowSize(cfg.Width, max(cfg.Terminal.Height, 1)),
	}
	if !cfg.Color {
		opts = append(opts, tea.WithColorProfile(colorprofile.ASCII))
	}
	r.program = tea.NewProgram(newModel(&r.live, cfg.Width, cfg.Terminal.Height), opts...)
	go func() {
		defer close(r.ended)
		_, r.runErr = r.program.Run()
	}()
	return r, nil
}

func (l *live) Observe(ev engine.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.n.t.observe(ev)
	switch b := ev.Body.(type) {
	case engine.StepFinished:
		l.say(l.n.lines(nil, ev), false)
		if t := l.tails[b.Step]; t != nil && b.Outcome.Status != engine.StepSucceeded {
			l.say(t.last(nil, "  "+l.n.paint(toneDim, l.n.glyphs().bar)+" ", tailKept), true)
		}
		delete(l.tails, b.Step)
		return
	case engine.CancelRequested:
		l.stop = true
	}
	l.say(l.n.lines(nil, ev), false)
}

// aboveLine is a line for the scrollback: one of a step's output is cut at the
// width, since `flow logs` has it; all others are folded.
type aboveLine struct {
	text string
	cut  bool
}

func (l *live) say(lines []string, cut bool) {
	for _, text := range lines {
		l.above = append(l.above, aboveLine{text, cut})
	}
}

// fold makes lines of at most w columns; what follows the first is indented.
func (n *narrator) fold(a aboveLine, w int) []aboveLine {
	switch {
	case ansi.StringWidth(a.text) <= w:
		return []aboveLine{a}
	case a.cut || w < 16:
		return []aboveLine{{n.clip(a.text, w), true}}
	}
	const indent = "    "
	first := strings.SplitN(ansi.Wrap(a.text, w, ""), "\n", 2)
	out := []aboveLine{{first[0], true}}
	if len(first) > 1 {
		// Wrapped again, narrower, for the indent.
		for _, l := range strings.Split(ansi.Wrap(strings.ReplaceAll(first[1], "\n", " "), w-len(indent), ""), "\n") {
			out = append(out, aboveLine{indent + l, true})
		}
	}
	return out
}

func (l *live) Output(step string, _ bool, p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tails[step]
	if t == nil {
		t = &tail{}
		l.tails[step] = t
	}
	t.write(p)
}

func (l *live) Final(f Final) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n.t.final = &f
}

func (r *tui) Close() error {
	r.once.Do(func() { r.closing = r.close() })
	return r.closing
}

func (r *tui) close() error {
	r.mu.Lock()
	r.over = true
	hurry := r.stop
	r.mu.Unlock()
	// Send waits for the program's goroutine, which may hang in a write; it returns
	// when the program has ended.
	go r.program.Send(closeMsg{})
	if !r.wait(hurry) {
		return fmt.Errorf("write report: %w", errStuck)
	}
	r.mu.Lock()
	if r.n.t.known() {
		r.say(r.n.tail(nil), false)
	}
	text := ""
	if r.runErr == nil && len(r.last) > 0 {
		// The program left the cursor on the picture's last row.
		text = "\r" + ansi.EraseScreenBelow
		if n := len(r.last) - 1; n > 0 {
			text = "\r" + ansi.CursorUp(n) + ansi.EraseScreenBelow
		}
	}
	for _, a := range r.above {
		for _, f := range r.n.fold(a, r.width) {
			text += f.text + "\n"
		}
	}
	r.above = nil
	r.mu.Unlock()
	_, _ = io.WriteString(r.out, text) // onceWriter keeps the error
	switch err := r.out.first(); {
	case err != nil:
		return fmt.Errorf("write report: %w", err)
	case r.runErr != nil:
		return fmt.Errorf("show the live view: %w", r.runErr)
	}
	return nil
}

// wait for the program to end; for a run that was asked to stop, not longer than
// hurryClose.
func (r *tui) wait(hurry bool) bool {
	if !hurry {
		<-r.ended
		return true
	}
	t := time.NewTimer(hurryClose)
	defer t.Stop()
	select {
	case <-r.ended:
		return true
	case <-t.C:
		return false
	}
}

// onceWriter keeps the first error and throws away what comes after it, so that
// a terminal that went away does not end the program, which ends the picture only.
type onceWriter struct {
	mu  sync.Mutex
	w   io.Writer
	err error
}

func (o *onceWriter) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		_, o.err = o.w.Write(p)
	}
	return len(p), nil
}

func (o *onceWriter) first() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// file is o with the descriptor of the terminal, by which the program learns of
// its size.
func (o *onceWriter) file() io.Writer {
	if f, ok := o.w.(*os.File); ok {
		return ttyWriter{o, f}
	}
	return o
}

type ttyWriter struct {
	*onceWriter
	f *os.File
}

func (t ttyWriter) Read(p []byte) (int, error) { return t.f.Read(p) }
func (t ttyWriter) Close() error               { return nil }
func (t ttyWriter) Fd() uintptr                { return t.f.Fd() }
