package report

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"

	"flowrun.dev/flow/engine"
)

// update rewrites the golden files: go test ./report -update
var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; write it with: go test ./report -update", err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s differs (-want +got); accept with -update:\n%s", path, d)
	}
}

// renderings is the table of everything that commands print.
func renderings() map[string]func(io.Writer, Style) error {
	return map[string]func(io.Writer, Style) error{
		"runs":       func(w io.Writer, s Style) error { return RunsTable(w, runRows(), s) },
		"runs-empty": func(w io.Writer, s Style) error { return RunsTable(w, nil, s) },
		"show":       func(w io.Writer, s Style) error { return ShowRun(w, runView(), s) },
		"plan":       func(w io.Writer, s Style) error { return PlanText(w, PlanOf(testPlan()), s) },
		"logs": func(w io.Writer, s Style) error {
			for _, l := range []LogLine{
				{Step: "test", Stream: "stdout", Text: "plain"},
				{Step: "test", Stream: "stderr", At: day(), Text: "\x1b[31mred\x1b[0m \x1b[2J\twith a tab and some more words that do not fit\n"},
			} {
				if _, err := fmt.Fprintln(w, l.Format(s, true)); err != nil {
					return err
				}
			}
			return nil
		},
		"plain": func(w io.Writer, s Style) error {
			r, err := New(Plain, Config{Out: w, Style: s, Plan: testPlan()})
			if err != nil {
				return err
			}
			perform(r, failedRun())
			r.Final(Final{Status: engine.RunFailed, ExitCode: 1, Class: "failed", Cause: "step test timed out", Continue: "flow resume r7k2m9"})
			return r.Close()
		},
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for name, render := range renderings() {
		for _, width := range []int{40, 80, 120} {
			for _, look := range []struct {
				name         string
				color, ascii bool
			}{{"plain", false, false}, {"color", true, false}, {"ascii", false, true}} {
				id := fmt.Sprintf("%s-%d-%s", name, width, look.name)
				t.Run(id, func(t *testing.T) {
					t.Parallel()
					var b bytes.Buffer
					if err := render(&b, Style{Width: width, Color: look.color, ASCII: look.ascii, Now: fixedNow}); err != nil {
						t.Fatal(err)
					}
					golden(t, id, b.Bytes())
					checkSafe(t, b.String(), look.color)
					// Lines to be copied and live lines for pipes are never cut.
					if name == "plain" {
						return
					}
					for _, l := range strings.Split(b.String(), "\n") {
						if w := ansi.StringWidth(l); w > width && !strings.HasPrefix(l, "continue") {
							t.Errorf("%d columns in %d: %q", w, width, l)
						}
					}
				})
			}
		}
	}
}

// checkSafe: no control characters but line ends and, with colour, SGR.
func checkSafe(t *testing.T, s string, color bool) {
	t.Helper()
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == 0x1b && color {
			end := strings.IndexByte(s[i:], 'm')
			if end < 0 || strings.Trim(s[i+1:i+end], "[0123456789;:") != "" {
				t.Fatalf("harmful sequence in %q", s[i:min(i+20, len(s))])
			}
			continue
		}
		if c < 0x20 && c != '\n' && c != '\t' || c == 0x7f {
			t.Fatalf("control character %#x in %q", c, s[max(0, i-20):min(i+20, len(s))])
		}
	}
}

func TestJSONViewsGolden(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]any{"runs": runRows(), "show": runView(), "plan": PlanOf(testPlan())} {
		var b bytes.Buffer
		if err := WriteJSON(&b, v); err != nil {
			t.Fatal(err)
		}
		golden(t, name+"-json", b.Bytes())
	}
}

func TestJSONReporterGolden(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	r, err := New(JSON, Config{Out: &b, Style: Style{Now: fixedNow}, Plan: testPlan()})
	if err != nil {
		t.Fatal(err)
	}
	perform(r, failedRun())
	r.Final(Final{Status: engine.RunFailed, ExitCode: 1, Class: "failed", Cause: "step test timed out", Continue: "flow resume r7k2m9"})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	golden(t, "events-json", b.Bytes())
	if strings.Contains(b.String(), "secret text") {
		t.Error("the definition's text is on stdout")
	}
}
