package report

import (
	"strconv"
	"strings"

	"charm.land/bubbles/v2/spinner"
	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"flowrun.dev/flow/engine"
)

// printedMsg: the lines that were handed to the program are on the screen. The
// next ones wait for it, so that their order is kept.
type printedMsg struct{}

// closeMsg: the reporter closes.
type closeMsg struct{}

// model is the program's state besides what it shares with the reporter. The
// spinner's tick is its only clock.
type model struct {
	live          *live
	width, height int
	spin          spinner.Model
	printing      bool
	closing       bool
	ticks         int
}

func newModel(l *live, width, height int) model {
	if height <= 0 {
		height = 24
	}
	frames := spinner.MiniDot
	if l.n.ASCII {
		frames = spinner.Line
	}
	return model{
		live: l, width: width, height: height,
		spin: spinner.New(spinner.WithSpinner(frames)),
	}
}

func (m model) Init() tea.Cmd { return m.spin.Tick }

func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = max(msg.Width, 1), max(msg.Height, 1)
		m.live.mu.Lock()
		m.live.width, m.live.high = m.width, 0
		m.live.mu.Unlock()
	case printedMsg:
		m.printing = false
		if m.closing {
			return m, tea.Quit
		}
		return m.print(nil)
	case closeMsg:
		m.closing = true
		if !m.printing { // else its lines would be lost, or printed twice
			return m, tea.Quit
		}
	case spinner.TickMsg:
		var tick tea.Cmd
		m.spin, tick = m.spin.Update(msg)
		m.ticks++
		return m.print(tick)
	}
	return m, nil
}

// print hands waiting lines to the program. The renderer puts them above the
// picture by moving the cursor, which goes wrong when they and the picture on the
// screen are together higher than it, and when no picture was shown yet.
func (m model) print(also tea.Cmd) (tea.Model, tea.Cmd) {
	l := m.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.printing || l.over || m.ticks < 3 || len(l.above) == 0 {
		return m, also
	}
	room := max(m.height-max(l.shown[0], l.shown[1])-1, 1)
	var batch []string
	for len(l.above) > 0 && len(batch) < room {
		// Folded here, since a line that the terminal wraps breaks the picture.
		l.above = append(l.n.fold(l.above[0], m.width-1), l.above[1:]...)
		batch = append(batch, l.above[0].text)
		l.above = l.above[1:]
	}
	m.printing = true
	return m, tea.Batch(also, tea.Sequence(tea.Println(strings.Join(batch, "\n")), func() tea.Msg { return printedMsg{} }))
}

// View is the picture. Its last line is the progress, with the cursor at its
// end: that is where the terminal echoes ^C.
//
// Its height never shrinks, but for a resize: the renderer loses a row of a
// shrinking picture to the scrollback when lines are printed above it at about
// the same time (bubbletea issue 1736). Close erases the last picture itself.
func (m model) View() tea.View {
	l := m.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over || l.last == nil {
		l.last = m.picture()
	}
	// The screen shows this picture or, until the renderer's next beat, the one before.
	l.shown[0], l.shown[1] = len(l.last), l.shown[0]
	v := tea.NewView(strings.Join(l.last, "\n"))
	v.DisableBracketedPasteMode = true // nothing is read
	end := len(l.last) - 1
	v.Cursor = tea.NewCursor(min(ansi.StringWidth(l.last[end]), max(m.width-1, 0)), end)
	v.Cursor.Blink = false
	return v
}

// picture: the steps that run or wait for their next attempt, each with the end
// of its output, then some of those that are to come, then the progress. At most
// two thirds of the screen; the rest is for what ended.
func (m model) picture() []string {
	t := m.live.n.t
	room := max(m.height*2/3, 2) - 1 // the progress line
	var busy, coming []string
	for _, id := range t.order {
		switch t.steps[id].status {
		case engine.StepRunning, engine.StepRetrying, engine.StepWaiting:
			busy = append(busy, id)
		case engine.StepPending:
			if len(coming) < 3 {
				coming = append(coming, id)
			}
		}
	}
	var out []string
	shown := min(len(busy), room)
	if shown < len(busy) && shown > 0 {
		shown-- // a line for the number of the others
	}
	each := 0
	if shown > 0 {
		each = min((room-shown)/shown, max(1, 5/shown))
	}
	for _, id := range busy[:shown] {
		out = append(out, m.busyLine(id))
		if tl := m.live.tails[id]; tl != nil && each > 0 {
			out = tl.last(out, "  "+m.live.n.paint(toneDim, m.live.n.glyphs().bar)+" ", each)
		}
	}
	if n := len(busy) - shown; n > 0 && len(out) < room {
		out = append(out, m.live.n.paint(toneDim, "  and "+strconv.Itoa(n)+" more running"))
	}
	out = m.coming(out, coming, room)
	m.live.high = min(max(m.live.high, len(out)), room)
	for len(out) < m.live.high {
		out = append(out, "")
	}
	out = append(out, m.progressLine())
	for i := range out {
		out[i] = m.live.n.clip(out[i], m.width-1)
	}
	return out
}

func (m model) coming(out, ids []string, room int) []string {
	s, t := m.live.n.Style, m.live.n.t
	lk := s.stepLook(engine.StepPending)
	for i, id := range ids {
		if len(out) >= room {
			return out
		}
		rest := t.counts[engine.StepPending] - i
		if rest > 1 && (i == len(ids)-1 || len(out) == room-1) {
			return append(out, s.paint(toneDim, lk.sign+" "+count(rest, "step")+" to come"))
		}
		out = append(out, s.paint(toneDim, lk.sign+" "+clean(id)))
	}
	return out
}

// busyLine: the id gives way to the time when there is no room for both.
func (m model) busyLine(id string) string {
	s, st := m.live.n.Style, m.live.n.t.steps[id]
	now := s.Now()
	sign, what := s.paint(toneLive, m.spin.View()), duration(elapsed(st, now))
	if st.attempt > 1 {
		what = "attempt " + strconv.Itoa(st.attempt) + s.glyphs().sep + what
	}
	if st.status == engine.StepRetrying {
		lk := s.stepLook(st.status)
		sign, what = s.paint(lk.tone, lk.sign), "tries again in "+duration(max(st.retryAt.Sub(now), 0))
	}
	if st.status == engine.StepWaiting {
		lk := s.stepLook(st.status)
		sign, what = s.paint(lk.tone, lk.sign), "waits for a person"
	}
	room := m.width - 3 - ansi.StringWidth(sign) - ansi.StringWidth(what)
	return sign + " " + s.paint(toneName, s.clip(clean(id), max(room, 6))) + "  " + s.paint(toneDim, what)
}

// progressLine: bar, n of m, what went wrong, time, denied calls; the end is cut
// first.
func (m model) progressLine() string {
	s, t := m.live.n.Style, m.live.n.t
	g, total, done := s.glyphs(), max(len(t.order), 1), t.done()
	wide := min(max(m.width/4, 5), 30)
	full := wide * done / total
	bar := s.paint(toneLive, strings.Repeat(g.full, full)) + s.paint(toneDim, strings.Repeat(g.empty, wide-full))
	parts := []string{bar + " " + strconv.Itoa(done) + "/" + strconv.Itoa(len(t.order))}
	if bad := t.counts[engine.StepFailed] + t.counts[engine.StepTimedOut]; bad > 0 {
		parts = append(parts, s.paint(toneBad, strconv.Itoa(bad)+" failed"))
	}
	if !t.begin.IsZero() {
		parts = append(parts, duration(max(s.Now().Sub(t.begin), 0)))
	}
	if m.live.stop {
		parts = append(parts, s.paint(toneWarn, "stopping"))
	}
	if t.denied > 0 {
		parts = append(parts, s.paint(toneWarn, strconv.Itoa(t.denied)+" denied"))
	}
	// Room for the ^C that the terminal echoes.
	return s.clip(strings.Join(parts, g.sep), m.width-4)
}
