package report

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"flowrun.dev/flow/engine"
)

const (
	// summaryMax is what GitHub takes as a step's summary (1 MiB); beyond, it shows nothing.
	summaryMax = 1 << 20
	// summaryRows bounds the table; steps in trouble are always in it.
	summaryRows = 1000
	// endRoom is left for the notes at the end.
	endRoom = 4 << 10
)

// Summary writes a run as Markdown: a table of the steps, what went wrong, and the
// summaries that steps wrote ($FLOW_SUMMARY), each under its step's name. Names,
// errors and output are text, whatever they hold; a step's summary is Markdown, and
// what it leaves open (a fence, a comment) is closed at its end. v.Steps are ResultRows.
func Summary(w io.Writer, v RunView) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "## %s %s\n\n", statusSign(v.Status), mdText(v.Workflow))
	fmt.Fprintf(&b, "Run `%s`: %s", v.ID, mdText(strings.ReplaceAll(string(v.Status), "_", " ")))
	if v.Attempt > 1 {
		fmt.Fprintf(&b, " in attempt %d", v.Attempt)
	}
	fmt.Fprintf(&b, " after %s", duration(time.Duration(v.Duration)))
	if cost := money(spent(v.Steps)); cost != "" {
		fmt.Fprintf(&b, ", %s", mdText(cost))
	}
	fmt.Fprintf(&b, ", %s", count(v.Denied, "denied call"))
	if v.Cause != "" {
		fmt.Fprintf(&b, "\n\n%s", mdText(v.Cause))
	}
	b.WriteString("\n\n")
	summaryTable(&b, v.Steps)
	for i := range v.Steps {
		if r := &v.Steps[i]; r.trouble() && b.Len() < summaryMax/4 {
			summaryTrouble(&b, r)
		}
	}
	left := 0
	for i := range v.Steps {
		r := &v.Steps[i]
		if strings.TrimSpace(r.Summary) == "" {
			continue
		}
		part := fmt.Sprintf("### %s\n\n%s\n\n", mdText(title(r)), closed(r.Summary))
		if b.Len()+len(part) > summaryMax-endRoom {
			left++
			continue
		}
		b.WriteString(part)
	}
	if left > 0 {
		fmt.Fprintf(&b, "*%s of steps left out: all together they are larger than %d bytes. `flow show --json %s` has them.*\n\n", plural(left, "summary", "summaries"), summaryMax, v.ID)
	}
	for i := range v.Steps {
		a := v.Steps[i].Approval
		if a == nil || a.Answer != nil {
			continue
		}
		fmt.Fprintf(&b, "**%s** waits for a person: %s\n\n", mdText(a.Step), mdText(a.Message))
		for _, c := range a.Commands {
			fmt.Fprintf(&b, "- `%s`\n", c)
		}
		b.WriteString("\n")
	}
	if v.Continue != "" {
		fmt.Fprintf(&b, "Continue with: `%s`\n", clean(v.Continue))
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write the summary: %w", err)
	}
	return nil
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

func title(r *StepRow) string {
	if r.Name != "" {
		return r.ID + ": " + r.Name
	}
	return r.ID
}

func summaryTable(b *bytes.Buffer, steps []StepRow) {
	if len(steps) == 0 {
		return
	}
	cost := spent(steps) > 0
	head, rule := "| step | status | time | tries |", "| --- | --- | ---: | ---: |"
	if cost {
		head, rule = head+" cost |", rule+" ---: |"
	}
	fmt.Fprintf(b, "%s why |\n%s --- |\n", head, rule)
	rows := worstFirst(steps, summaryRows)
	for i := range rows {
		r := &rows[i]
		took, tries := "", ""
		if r.Attempts > 0 && !(r.untried() && !r.Accepted) {
			took, tries = duration(time.Duration(r.Duration)), strconv.Itoa(r.Attempts)
		}
		fmt.Fprintf(b, "| %s | %s %s | %s | %s |", mdText(title(r)), stepSign(r), mdText(strings.ReplaceAll(string(r.Status), "_", " ")), took, tries)
		if cost {
			fmt.Fprintf(b, " %s |", mdText(money(r.CostUSD)))
		}
		fmt.Fprintf(b, " %s |\n", mdText(firstRunes(whyShort(r), 300)))
	}
	if n := len(steps) - len(rows); n > 0 {
		fmt.Fprintf(b, "\n*and %s*\n", count(n, "more step"))
	}
	b.WriteByte('\n')
}

func firstRunes(s string, n int) string {
	if list := []rune(s); len(list) > n {
		return string(list[:n]) + "…"
	}
	return s
}

// summaryTrouble is the end of a failed step's output.
func summaryTrouble(b *bytes.Buffer, r *StepRow) {
	name, text := "stderr", excerptText(engine.Excerpt{Head: lastOf(r.Stderr)})
	if text == "" {
		name, text = "stdout", excerptText(engine.Excerpt{Head: lastOf(r.Stdout)})
	}
	if text == "" {
		return
	}
	text = strings.TrimRight(text, "\n")
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	fmt.Fprintf(b, "<details><summary>%s, the end of its %s</summary>\n\n%stext\n%s\n%s\n\n</details>\n\n", mdText(r.ID), name, fence, text, fence)
}

func lastOf(e engine.Excerpt) string {
	if e.Tail != "" {
		return e.Tail
	}
	return e.Head
}

// mdText is text that no Markdown is read in: all but letters, digits and a few
// harmless marks are written as entities.
func mdText(s string) string {
	var b strings.Builder
	for _, r := range clean(s) {
		switch {
		case turnsText(r):
		case r == '\n' || r == '\t':
			b.WriteByte(' ')
		case r > 0x7f, r == ' ', r == ',', r == '-', r == '/', r == '(', r == ')', r == ';', r == '%', r == '\'',
			r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "&#%d;", r)
		}
	}
	return b.String()
}

// opener is something of HTML that Markdown reads to its end, wherever that is.
type opener struct {
	open  *regexp.Regexp
	close string
}

var openers = []opener{
	{regexp.MustCompile(`<!--`), "-->"},
	{regexp.MustCompile(`<\?`), "?>"},
	{regexp.MustCompile(`<!\[CDATA\[`), "]]>"},
	{regexp.MustCompile(`(?i)<script`), "</script>"},
	{regexp.MustCompile(`(?i)<style`), "</style>"},
	{regexp.MustCompile(`(?i)<pre`), "</pre>"},
	{regexp.MustCompile(`(?i)<textarea`), "</textarea>"},
}

var fenceLine = regexp.MustCompile("^ {0,3}(`{3,}|~{3,})(.*)$")

// closed is a step's Markdown with an end to all that would swallow what follows it.
func closed(md string) string {
	md = strings.TrimRight(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r >= ' ' && r != 0x7f && !(r >= 0x80 && r < 0xa0) && !turnsText(r) {
			return r
		}
		return -1
	}, md), "\n ")
	fence := ""
	for line := range strings.Lines(md) {
		m := fenceLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		switch {
		case m == nil:
		case fence == "" && !(m[1][0] == '`' && strings.Contains(m[2], "`")):
			fence = m[1]
		case fence != "" && m[1][0] == fence[0] && len(m[1]) >= len(fence) && strings.TrimSpace(m[2]) == "":
			fence = ""
		}
	}
	if fence != "" {
		md += "\n" + fence
	}
	lower := strings.ToLower(md)
	for _, o := range openers {
		all := o.open.FindAllStringIndex(md, -1)
		if len(all) > 0 && !strings.Contains(lower[all[len(all)-1][1]:], o.close) {
			md += "\n" + o.close
		}
	}
	for range strings.Count(lower, "<details") - strings.Count(lower, "</details") {
		md += "\n\n</details>"
	}
	return md
}

func statusSign(s engine.RunStatus) string {
	switch s {
	case engine.RunSucceeded:
		return "✅"
	case engine.RunFailed:
		return "❌"
	case engine.RunWaiting:
		return "⏸️"
	}
	return "⚠️"
}

func stepSign(r *StepRow) string {
	switch {
	case r.trouble():
		return "❌"
	case r.Accepted:
		return "⚠️"
	case r.Status == engine.StepSucceeded:
		return "✅"
	}
	return "⚪"
}
