package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/engine"
)

var fence = regexp.MustCompile("(?ms)^```yaml([^\n]*)\n(.*?)^```$")

// TestDocs validates each fenced workflow of docs/ and the README, and runs it.
// A fence may say more than `yaml`: `fragment` is no whole file, `bad` is wrong on
// purpose and has to be found wrong or worth a warning, `no-run` is only validated.
// `answer:STEP:CHOICE` is what a person says to the approval that the run then waits for.
func TestDocs(t *testing.T) {
	t.Parallel()
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(docs) == 0 {
		t.Fatalf("no docs: %v", err)
	}
	driver := "host"
	if sandboxWorks() {
		driver = "local"
	}
	ran := 0
	for _, doc := range append(docs, "../../README.md") {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fence.FindAllStringSubmatchIndex(string(text), -1) {
			how, body := strings.Fields(string(text[m[2]:m[3]])), string(text[m[4]:m[5]])
			where := doc + ":" + lineOf(text, m[0])
			for _, word := range how {
				if !slices.Contains([]string{"fragment", "bad", "no-run"}, word) && !strings.HasPrefix(word, "answer:") {
					t.Errorf("%s: the fence says %q, which means nothing", where, word)
				}
			}
			if slices.Contains(how, "fragment") || !strings.HasPrefix(body, "name:") && !strings.Contains(body, "\nname:") || !strings.Contains(body, "\nsteps:") {
				continue // a part of a file
			}
			dir := t.TempDir()
			write(t, dir, "doc.yaml", body)
			out, code := flow(t, dir, "validate", "doc.yaml")
			if slices.Contains(how, "bad") {
				// A key that was masked in the page is none any more.
				if code == 0 && !strings.Contains(out, "warning") && !strings.Contains(body, "***REDACTED***") {
					t.Errorf("%s: nothing is wrong with it:\n%s", where, out)
				}
				continue
			}
			if code != 0 {
				t.Errorf("%s: validate: exit code %d\n%s", where, code, out)
				continue
			}
			if slices.Contains(how, "no-run") {
				continue
			}
			out, code = flow(t, dir, "run", "doc.yaml", "--driver", driver)
			for _, word := range how {
				answer := strings.Split(word, ":")
				if code != codeWaiting || len(answer) != 3 {
					t.Errorf("%s: run: exit code %d before %s\n%s", where, code, word, out)
				}
				out, code = flow(t, dir, "approve", "latest", answer[1], "--choice", answer[2], "--resume")
			}
			if code != 0 {
				t.Errorf("%s: run: exit code %d\n%s", where, code, out)
			}
			ran++
		}
	}
	t.Logf("%d workflows of the docs ran with driver %s", ran, driver)
	if ran < 3 {
		t.Errorf("only %d workflows ran: the fences were not found", ran)
	}
}

func lineOf(text []byte, at int) string {
	return strconv.Itoa(1 + strings.Count(string(text[:at]), "\n"))
}

// TestDocsOfCommands: docs/cli.md has a row for every command and every exit code,
// every command's help has an example and its exit codes, and README's map of
// folders is whole.
func TestDocsOfCommands(t *testing.T) {
	t.Parallel()
	cli, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range exitTable {
		if !strings.Contains(strings.ReplaceAll(string(cli), "`", ""), fmt.Sprintf("| %d | %s |", r.Code, r.Means)) {
			t.Errorf("docs/cli.md has no row for exit code %d: %s", r.Code, r.Means)
		}
	}
	var visit func(c *cobra.Command, path string)
	visit = func(c *cobra.Command, path string) {
		for _, sub := range c.Commands() {
			if sub.Name() == "help" || sub.Hidden {
				continue
			}
			full := path + " " + sub.Name()
			if c.Parent() == nil && !strings.Contains(string(cli), "`"+full) {
				t.Errorf("docs/cli.md does not speak of `%s`", full)
			}
			if !strings.Contains(sub.Long, "Exit codes:") || !strings.HasPrefix(sub.Example, "  flow ") && !strings.Contains(sub.Example, "flow ") {
				t.Errorf("the help of `%s` has no example or no exit codes", full)
			}
			visit(sub, full)
		}
	}
	a := &app{out: os.Stdout, err: os.Stderr, env: os.Getenv}
	visit(a.root(), "flow")
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && e.Name()[0] != '.' && e.Name() != "bin" && !strings.Contains(string(readme), "`"+e.Name()+"/") {
			t.Errorf("README.md's map of the folders has no %s/", e.Name())
		}
	}
}

// TestRunCodes goes through the table of exit codes for every end of a run.
func TestRunCodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status engine.RunStatus
		class  engine.Class
		cause  string
		want   int
	}{
		{engine.RunSucceeded, "", "", 0},
		{engine.RunFailed, engine.ClassExitCode, "", 1},
		{engine.RunFailed, engine.ClassInvalid, "", 1},
		{engine.RunFailed, engine.ClassInfrastructure, "", 3},
		{engine.RunFailed, engine.ClassTimeout, "", 4},
		{engine.RunFailed, engine.ClassBudget, "", 4},
		{engine.RunOutOfBudget, engine.ClassBudget, "", 4},
		{engine.RunWaiting, "", "", 5},
		{engine.RunRateLimited, engine.ClassRateLimit, "", 6},
		{engine.RunFailed, engine.ClassDenied, "", 7},
		{engine.RunInterrupted, engine.ClassCancelled, "interrupted (SIGINT)", 130},
		{engine.RunInterrupted, engine.ClassCancelled, "interrupted (SIGTERM)", 143},
	} {
		if got := runCode(c.status, c.class, c.cause); got != c.want {
			t.Errorf("%s, %s, %q: exit %d, want %d", c.status, c.class, c.cause, got, c.want)
		}
		if classOf(c.want) == "infrastructure" && c.want != codeInfrastructure {
			t.Errorf("code %d has no row in the table", c.want)
		}
	}
}
