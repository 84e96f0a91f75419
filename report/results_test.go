package report

import (
	"bytes"
	"encoding/xml"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"flowrun.dev/flow/engine"
)

const hostile = "]]></system-out><testcase name=\"x\"/>\x1b[31m\x00\x07<script>alert(1)</script> | a | b |\n```\n# big\n[link](http://evil.example) \u202eabc \xff"

func hostileView() RunView {
	return RunView{
		RunRow: RunRow{ID: "k7m2", Workflow: "w " + hostile, Status: engine.RunFailed, Started: time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC), Duration: Seconds(3 * time.Second), Cause: hostile},
		Steps: []StepRow{
			{ID: "ok", Status: engine.StepSucceeded, Attempts: 1, Duration: Seconds(1200 * time.Millisecond), Stdout: engine.Excerpt{Head: hostile, Bytes: int64(len(hostile))}, CostUSD: 0.25,
				Summary: "## mine\n<!-- open\n\n````js\nx"},
			{ID: "next", Status: engine.StepSucceeded, Attempts: 1, Summary: "seen"},
			{ID: "item[" + hostile + "]", Status: engine.StepFailed, Class: engine.ClassExitCode, ExitCode: 3, Attempts: 2, Error: hostile, Stderr: engine.Excerpt{Head: hostile, Bytes: int64(len(hostile))}},
			{ID: "lost", Status: engine.StepFailed, Class: engine.ClassInfrastructure, Error: "sandbox lost", Attempts: 1},
			{ID: "fine", Status: engine.StepFailed, Class: engine.ClassExitCode, ExitCode: 1, Attempts: 1, Accepted: true},
			{ID: "off", Status: engine.StepIsSkipped},
			{ID: "later", Status: engine.StepIsNotRun, Reason: "step lost failed"},
		},
	}
}

// TestJUnit: well-formed, the counts are those of the cases, and nothing that a step
// printed becomes an element.
func TestJUnit(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := JUnit(&b, hostileView()); err != nil {
		t.Fatal(err)
	}
	var got junitSuites
	if err := xml.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatalf("%v in\n%s", err, b.String())
	}
	s := got.Suite
	if s.Tests != 7 || len(s.Cases) != 7 || s.Failures != 1 || s.Errors != 1 || s.Skipped != 3 || got.Tests != 7 {
		t.Errorf("tests %d, cases %d, failures %d, errors %d, skipped %d", s.Tests, len(s.Cases), s.Failures, s.Errors, s.Skipped)
	}
	if !regexp.MustCompile(`^\d+\.\d{3}$`).MatchString(s.Cases[0].Time) || s.Timestamp != "2026-11-24T08:00:00" {
		t.Errorf("time %q, timestamp %q", s.Cases[0].Time, s.Timestamp)
	}
	if c := s.Cases[4]; c.Skipped == nil || !strings.Contains(c.Skipped.Message, "continue_on_error") {
		t.Errorf("an accepted failure: %+v", c)
	}
	if f := s.Cases[2].Failure; f == nil || f.Type != "exit_code" || !strings.Contains(f.Message, "attempt 2") {
		t.Errorf("the failure: %+v", f)
	}
	// Element by element in the order and with the names of the schema.
	allowed := map[string]string{"testsuites": "", "testsuite": "testsuites", "properties": "testsuite", "property": "properties", "testcase": "testsuite",
		"failure": "testcase", "error": "testcase", "skipped": "testcase", "system-out": "testcase", "system-err": "testcase"}
	var path []string
	dec := xml.NewDecoder(&b)
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			up := ""
			if len(path) > 0 {
				up = path[len(path)-1]
			}
			if want, ok := allowed[tok.Name.Local]; !ok || want != up {
				t.Errorf("element %s in %q", tok.Name.Local, up)
			}
			path = append(path, tok.Name.Local)
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.CharData:
			if bytes.ContainsAny(tok, "\x00\x07\x1b") || bytes.ContainsRune(tok, '\u202e') {
				t.Errorf("text holds a control character: %q", tok)
			}
		}
	}
}

// TestSummary: what steps printed is text; what they wrote as a summary is Markdown
// that ends where it ends.
func TestSummary(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := Summary(&b, hostileView()); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	fences := regexp.MustCompile("(?s)````text\n.*?\n````\n").ReplaceAllString(got, "")
	own := strings.Replace(fences, "## mine\n<!-- open\n\n````js\nx\n````\n-->", "", 1)
	if own == fences {
		t.Errorf("the step's summary was not closed:\n%s", got)
	}
	for _, never := range []string{"<script>", "[link]", "# big", "\x1b", "\x00", "\u202e", "```", "evil.example"} {
		if strings.Contains(own, never) {
			t.Errorf("%q is in:\n%s", never, own)
		}
	}
	for _, want := range []string{"| step | status | time | tries | cost | why |", "| ok | ✅ succeeded | 1.2 s | 1 | &#36;0&#46;25 |  |", "### next\n\nseen", "| off | ⚪ skipped |", "step lost failed"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	// One line a row: a name or an error cannot add any.
	if n := strings.Count(own, "\n| "); n != 9 {
		t.Errorf("%d rows in:\n%s", n, own)
	}
}

func TestSummaryBounds(t *testing.T) {
	t.Parallel()
	v := RunView{RunRow: RunRow{ID: "r", Status: engine.RunFailed}}
	for range 3000 {
		v.Steps = append(v.Steps, StepRow{ID: "s", Status: engine.StepSucceeded, Attempts: 1, Summary: strings.Repeat("x", 10000)})
	}
	v.Steps = append(v.Steps, StepRow{ID: "last_one", Status: engine.StepFailed, Attempts: 1})
	var b bytes.Buffer
	if err := Summary(&b, v); err != nil {
		t.Fatal(err)
	}
	if b.Len() > summaryMax || !strings.Contains(b.String(), "| last&#95;one | ❌ failed") || !strings.Contains(b.String(), "summaries of steps left out") {
		t.Errorf("%d bytes", b.Len())
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain\n\n":                    "plain",
		"```\na\n```":                  "```\na\n```",
		"```\na\n~~~":                  "```\na\n~~~\n```",
		"~~~~ x\n~~~":                  "~~~~ x\n~~~\n~~~~",
		"``` a`b":                      "``` a`b", // no fence: its word holds a backtick
		"<!-- a --> <!--":              "<!-- a --> <!--\n-->",
		"<PRE>":                        "<PRE>\n</pre>",
		"<details><details></details>": "<details><details></details>\n\n</details>",
		"\x1b[31mred\x00":              "[31mred",
	} {
		if got := closed(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
