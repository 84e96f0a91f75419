package report

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"flowrun.dev/flow/engine"
)

// excerptLines is how many lines of a failed step's stderr are shown.
const excerptLines = 20

// ShowRun writes all that is known of a run as text; the last line is the exact
// command that continues it, where one does (design: architecture, Resume).
func ShowRun(w io.Writer, v RunView, s Style) error {
	s = s.withDefaults()
	var b bytes.Buffer
	showHead(&b, v, s)
	if len(v.Steps) > 0 {
		b.WriteByte('\n')
		if err := stepTable(v.Steps, s).write(&b, s); err != nil {
			return err
		}
	}
	for i := range v.Steps {
		showTrouble(&b, &v.Steps[i], s)
	}
	for i := range v.Steps {
		showQuestion(&b, &v.Steps[i], s)
	}
	if err := showEgress(&b, v.Egress, s); err != nil {
		return err
	}
	if err := showArtifacts(&b, v, s); err != nil {
		return err
	}
	showEnd(&b, v, s)
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write run %s: %w", v.ID, err)
	}
	return nil
}

// ShowStep writes what is known of one step.
func ShowStep(w io.Writer, r StepRow, s Style) error {
	s = s.withDefaults()
	var b bytes.Buffer
	if err := stepTable([]StepRow{r}, s).write(&b, s); err != nil {
		return err
	}
	showTrouble(&b, &r, s)
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write step %s: %w", r.ID, err)
	}
	return nil
}

func showHead(b *bytes.Buffer, v RunView, s Style) {
	lk := s.runLook(v.Status)
	sep := s.glyphs().sep
	title := s.paint(toneName, "run "+clean(v.ID)) + sep + clean(v.Workflow)
	fmt.Fprintln(b, s.clip(title, s.Width))
	state := s.paint(lk.tone, lk.sign+" "+lk.word)
	if v.Owner != "" {
		state += sep + "run by " + clean(v.Owner)
	}
	fields := []struct{ name, text string }{
		{"status", state},
		{"file", clean(v.Path)},
		{"started", moment(v.Started)},
		{"time", duration(time.Duration(v.Duration))},
		{"attempt", strconv.Itoa(max(v.Attempt, 1))},
		{"sandbox", clean(v.Sandbox)},
		{"cost", money(v.CostUSD)},
	}
	for _, f := range fields {
		if f.text != "" {
			fmt.Fprintln(b, s.clip(s.paint(toneDim, s.pad(f.name, 9))+f.text, s.Width))
		}
	}
}

// moment is an exact time, UTC like all times in records.
func moment(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format("2006-01-02 15:04:05Z")
}

func stepTable(steps []StepRow, s Style) *table {
	t := &table{cols: []column{
		{head: "STEP", least: 10},
		{head: "STATUS"},
		{head: "TRIES", keep: 2, right: true},
		{head: "TIME", keep: 6, right: true},
		{head: "FILES", keep: 4, right: true},
		{head: "COST", keep: 3, right: true},
		{head: "DENIED", keep: 3, right: true},
		{head: "SANDBOX", keep: 3},
		{head: "WHY", keep: 1, least: 12},
	}}
	for i := range steps {
		r := &steps[i]
		lk := s.stepLook(r.Status)
		row := []cell{{clean(r.ID), toneName}, {lk.sign + " " + lk.word, lk.tone}, {}, {}, {}, {}, {}, {clean(r.SandboxUse), toneDim}, {clean(why(r)), toneDim}}
		if r.Attempts > 0 {
			row[2].text = strconv.Itoa(r.Attempts)
			row[3].text = duration(time.Duration(r.Duration))
			row[4].text = strconv.Itoa(r.ChangedCount)
			row[5].text = money(r.CostUSD)
		}
		if r.Denied > 0 {
			row[6] = cell{strconv.Itoa(r.Denied), toneWarn}
		}
		t.rows = append(t.rows, row)
	}
	return t
}

func why(r *StepRow) string {
	if r.Reason != "" {
		return r.Reason
	}
	if r.Class == engine.ClassExitCode {
		return "exit code " + strconv.Itoa(r.ExitCode)
	}
	return r.Error
}

// showTrouble writes what a person needs of a step that did not go well: its
// error, its denials, each attempt if there were several, the end of its stderr.
func showTrouble(b *bytes.Buffer, r *StepRow, s Style) {
	bad := r.Status == engine.StepFailed || r.Status == engine.StepTimedOut ||
		r.Status == engine.StepCancelled || r.Status == engine.StepInterrupted
	if !bad && len(r.Denials) == 0 {
		return
	}
	lk := s.stepLook(r.Status)
	fmt.Fprintln(b)
	fmt.Fprintln(b, s.clip(s.paint(lk.tone, lk.sign)+" "+s.paint(toneName, clean(r.ID))+s.glyphs().sep+lk.word, s.Width))
	if r.Error != "" && bad {
		paragraph(b, s, "error: ", toneBad, r.Error)
	}
	if a := advice(r.Class); a != "" && bad {
		paragraph(b, s, "do: ", toneDim, a)
	}
	for _, d := range r.Denials {
		paragraph(b, s, "denied: ", toneWarn, d.Tool+": "+d.Reason)
	}
	if len(r.Records) > 1 {
		for _, a := range r.Records {
			lk := s.stepLook(a.Status)
			line := "  attempt " + strconv.Itoa(a.Attempt) + ": " + s.paint(lk.tone, lk.word) + s.glyphs().sep + duration(time.Duration(a.Duration))
			if a.Error != "" {
				line += s.glyphs().sep + clean(a.Error)
			}
			fmt.Fprintln(b, s.clip(line, s.Width))
		}
	}
	if bad {
		excerpt(b, s, "stderr", r.Stderr)
		if r.Stderr.Bytes == 0 {
			excerpt(b, s, "stdout", r.Stdout)
		}
	}
}

// paragraph is indented and wrapped; nothing of it is cut.
func paragraph(b *bytes.Buffer, s Style, label string, t tone, text string) {
	lines := wrap(label+clean(text), s.Width-4)
	for i, l := range lines {
		if i == 0 {
			l = strings.TrimPrefix(l, label)
			fmt.Fprintln(b, "  "+s.paint(t, strings.TrimSuffix(label, " "))+" "+l)
			continue
		}
		fmt.Fprintln(b, "    "+l)
	}
}

// excerpt shows the last lines of a stream. Long lines are cut: `flow logs` has
// the whole.
func excerpt(b *bytes.Buffer, s Style, name string, e engine.Excerpt) {
	text := e.Head
	kept := int64(len(e.Head))
	if e.Tail != "" {
		text, kept = e.Tail, int64(len(e.Tail))
	}
	if text == "" {
		return
	}
	sc := scrubber{sgr: s.Color}
	body := sc.flush(sc.write(nil, []byte(text)), true)
	lines := strings.Split(strings.TrimRight(string(body), "\n"), "\n")
	cut := e.Bytes > kept
	if len(lines) > excerptLines {
		lines, cut = lines[len(lines)-excerptLines:], true
	}
	label := "  " + name
	if cut {
		label += ", the end of " + bytesText(e.Bytes)
	}
	fmt.Fprintln(b, s.clip(s.paint(toneDim, label+":"), s.Width))
	for _, l := range lines {
		l = strings.ReplaceAll(l, "\t", "    ")
		fmt.Fprintln(b, "  "+s.paint(toneDim, s.glyphs().bar)+" "+s.clip(l, s.Width-4))
	}
}

// showEnd: why and where it stopped, the denials, and how it goes on.
func showEnd(b *bytes.Buffer, v RunView, s Style) {
	fmt.Fprintln(b)
	var where []string
	for i := range v.Steps {
		switch v.Steps[i].Status {
		case engine.StepFailed, engine.StepTimedOut, engine.StepCancelled, engine.StepInterrupted, engine.StepRetrying, engine.StepRunning:
			where = append(where, clean(v.Steps[i].ID))
		}
	}
	if v.Status != engine.RunSucceeded && v.Status != engine.RunRunning {
		line := s.runLook(v.Status).word
		if len(where) > 3 {
			where = append(where[:3], strconv.Itoa(len(where)-3)+" more")
		}
		if len(where) > 0 {
			line += " at " + strings.Join(where, ", ")
		}
		if v.Cause != "" {
			line += ": " + clean(v.Cause)
		}
		for _, l := range wrap("stopped: "+line, s.Width) {
			fmt.Fprintln(b, l)
		}
	}
	fmt.Fprintln(b, count(v.Denied, "denied call"))
	if v.Continue != "" {
		// Never cut and never wrapped: it is there to be copied.
		fmt.Fprintln(b, "continue with: "+s.paint(toneName, clean(v.Continue)))
	}
}

// shownArtifacts is how many of them are listed.
const shownArtifacts = 20

func showArtifacts(b *bytes.Buffer, v RunView, s Style) error {
	if len(v.Artifacts) == 0 {
		return nil
	}
	t := &table{cols: []column{{head: "ARTIFACT", least: 20}, {head: "SIZE", right: true}, {head: "STEP", keep: 2, least: 8}}}
	var sum int64
	for i, a := range v.Artifacts {
		sum += a.Size
		if i < shownArtifacts {
			t.rows = append(t.rows, []cell{{clean(a.Path), toneName}, {text: bytesText(a.Size)}, {clean(a.Step), toneDim}})
		}
	}
	b.WriteByte('\n')
	if err := t.write(b, s); err != nil {
		return err
	}
	fmt.Fprintf(b, "%s, %s in all: flow export %s DIR --artifacts\n", count(len(v.Artifacts), "artifact"), bytesText(sum), clean(v.ID))
	return nil
}
