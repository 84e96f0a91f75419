package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"

	"flowrun.dev/flow/engine"
)

// The elements of JUnit's XML, as the servers of CI read them (the schema of Jenkins:
// testsuites, testsuite, testcase with failure, error, skipped, system-out, system-err).
type (
	junitSuites struct {
		XMLName  xml.Name `xml:"testsuites"`
		Name     string   `xml:"name,attr"`
		Tests    int      `xml:"tests,attr"`
		Failures int      `xml:"failures,attr"`
		Errors   int      `xml:"errors,attr"`
		Time     string   `xml:"time,attr"`
		Suite    junitSuite
	}
	junitSuite struct {
		XMLName    xml.Name        `xml:"testsuite"`
		Name       string          `xml:"name,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"`
		Timestamp  string          `xml:"timestamp,attr,omitempty"`
		ID         string          `xml:"id,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Name      string     `xml:"name,attr"`
		Class     string     `xml:"classname,attr"`
		Time      string     `xml:"time,attr"`
		Failure   *junitNote `xml:"failure"`
		Error     *junitNote `xml:"error"`
		Skipped   *junitNote `xml:"skipped"`
		SystemOut *junitText `xml:"system-out"`
		SystemErr *junitText `xml:"system-err"`
	}
	junitNote struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
	junitText struct {
		Text string `xml:",chardata"`
	}
)

// JUnit writes a run as JUnit XML: the run is a testsuite, each step a testcase. A
// step that failed is a failure, one whose sandbox or provider failed an error; one
// that did not run, or whose failure continue_on_error accepts, is skipped, with the
// reason. v.Steps are ResultRows.
func JUnit(w io.Writer, v RunView) error {
	suite := junitSuite{Name: xmlText(v.Workflow), ID: v.ID, Time: junitTime(v.Duration), Tests: len(v.Steps)}
	if !v.Started.IsZero() {
		suite.Timestamp = v.Started.UTC().Format("2006-01-02T15:04:05")
	}
	for _, p := range []junitProperty{{"run", v.ID}, {"status", string(v.Status)}, {"attempt", strconv.Itoa(max(v.Attempt, 1))}, {"sandbox", v.Sandbox}, {"cause", v.Cause}, {"continue", v.Continue}} {
		if p.Value != "" {
			p.Value = xmlText(p.Value)
			suite.Properties = append(suite.Properties, p)
		}
	}
	for i := range v.Steps {
		c := junitCaseOf(&v.Steps[i], v.Workflow)
		switch {
		case c.Failure != nil:
			suite.Failures++
		case c.Error != nil:
			suite.Errors++
		case c.Skipped != nil:
			suite.Skipped++
		}
		suite.Cases = append(suite.Cases, c)
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	enc := xml.NewEncoder(&b)
	enc.Indent("", "  ")
	err := enc.Encode(junitSuites{Name: suite.Name, Tests: suite.Tests, Failures: suite.Failures, Errors: suite.Errors, Time: suite.Time, Suite: suite})
	if err != nil {
		return fmt.Errorf("write JUnit: %w", err)
	}
	b.WriteByte('\n')
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write JUnit: %w", err)
	}
	return nil
}

func junitCaseOf(r *StepRow, workflow string) junitCase {
	c := junitCase{Name: xmlText(r.ID), Class: xmlText(workflow), Time: junitTime(r.Duration)}
	note := &junitNote{Message: xmlText(whyShort(r)), Type: string(r.Status)}
	if r.Class != "" {
		note.Type = string(r.Class)
	}
	switch {
	case r.untried():
		if note.Message == "" {
			note.Message = strings.ReplaceAll(string(r.Status), "_", " ")
		}
		c.Skipped = note
	case r.trouble():
		if r.Attempts > 1 {
			note.Message += fmt.Sprintf(" (attempt %d)", r.Attempts)
		}
		note.Text = excerptText(r.Stderr)
		if note.Text == "" {
			note.Text = excerptText(r.Stdout)
		}
		if r.Class == engine.ClassInfrastructure || r.Status == engine.StepInterrupted {
			c.Error = note
		} else {
			c.Failure = note
		}
	}
	if text := excerptText(r.Stdout); text != "" {
		c.SystemOut = &junitText{text}
	}
	if text := excerptText(r.Stderr); text != "" {
		c.SystemErr = &junitText{text}
	}
	return c
}

// junitTime is seconds as the schemas want them: no exponent, three decimals.
func junitTime(s Seconds) string { return strconv.FormatFloat(max(0, seconds(s)), 'f', 3, 64) }

// excerptText is the first and the last of a stream, without terminal sequences and
// what XML cannot hold.
func excerptText(e engine.Excerpt) string {
	text := e.Head
	if e.Tail != "" {
		text += "\n…\n" + e.Tail
		if int64(len(e.Tail)) >= e.Bytes {
			text = e.Tail
		}
	}
	if text == "" {
		return ""
	}
	var sc scrubber
	return xmlText(string(sc.flush(sc.write(nil, []byte(text)), true)))
}

// xmlText leaves out what XML cannot hold, and what would turn the order of text.
func xmlText(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r), turnsText(r), r == 0xfffe, r == 0xffff:
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// turnsText: the marks that change the direction of what follows.
func turnsText(r rune) bool {
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}
