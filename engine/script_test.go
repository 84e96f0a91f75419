package engine

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"flowrun.dev/flow/workflow"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestScripts plays testdata/decide/*.txt: a plan, then commands ("> …"), each
// followed by what the engine answers. To change an answer on purpose: -update,
// then read the diff.
//
//	run [grace=10s] [until=ID]        step lines of the plan:
//	finish ID STATUS [class] [after=] ID [needs=a,b] [if=NAME] [retry=N] [coe]
//	finish+ … (and the next command in the same batch)
//	advance DURATION                  finally ID …
//	cancel CAUSE                      workflow max_parallel=2 timeout=1h
//	die, resume [from=ID] [changed=ID]
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/decide/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := playScript(t, string(raw))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(raw) {
				t.Errorf("answers differ; got:\n%s", got)
			}
		})
	}
}

func playScript(t *testing.T, text string) string {
	var out strings.Builder
	var header []string
	var s *sim
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		command, ok := strings.CutPrefix(line, "> ")
		switch {
		case !ok && s == nil:
			header = append(header, line)
			fmt.Fprintln(&out, line)
			continue
		case !ok && strings.HasPrefix(line, "#"):
			fmt.Fprintln(&out, line)
			continue
		case !ok:
			continue // an old answer
		}
		if s == nil {
			s = newSim(scriptPlan(t, header))
			s.log = func(format string, args ...any) {
				fmt.Fprintln(&out, strings.TrimRight("  "+fmt.Sprintf(format, args...), " "))
			}
		}
		fmt.Fprintln(&out, line)
		s = scriptCommand(t, s, strings.Fields(command))
	}
	return out.String()
}

func scriptCommand(t *testing.T, s *sim, words []string) *sim {
	t.Helper()
	args := map[string]string{}
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		args[k] = v
	}
	dur := func(text string) time.Duration {
		if text == "" {
			return 0
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	var err error
	switch words[0] {
	case "run":
		err = s.apply(RunStarted{RunID: "r", Options: Options{Grace: dur(args["grace"]), Until: args["until"]}})
	case "finish", "finish+":
		o := Outcome{Status: StepStatus(words[2]), RetryAfter: dur(args["after"])}
		if len(words) > 3 {
			o.Class = Class(words[3])
		}
		if o.Status != StepSucceeded {
			o.Error = "boom"
		}
		err = s.finish(s.run.plan.ByID[words[1]], o)
	case "advance":
		s.now = s.now.Add(dur(words[1]))
	case "cancel":
		err = s.apply(CancelRequested{Cause: words[1]})
	case "resume":
		opt := ResumeOptions{From: args["from"]}
		if c := args["changed"]; c != "" {
			opt.Changed = map[string]string{c: "its definition changed"}
		}
		n, b, rerr := s.resume(s.run.plan, s.events, opt)
		if rerr != nil {
			s.log("error: %v", rerr)
			return s
		}
		s = n
		s.log("restore %q", b.Checkpoint)
		for _, r := range b.Reset {
			s.log("reset %s: %s", r.Step, r.Reason)
		}
	default:
		t.Fatalf("unknown command %q", words[0])
	}
	if err == nil && words[0] != "finish+" {
		err = s.settle()
	}
	if err != nil {
		s.log("error: %v", err)
	}
	return s
}

func scriptPlan(t *testing.T, lines []string) (*workflow.Plan, conditions) {
	t.Helper()
	w, ifs := &workflow.Workflow{MaxParallel: 5}, fakeIfs{}
	for _, line := range lines {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		final := words[0] == "finally"
		if final {
			words = words[1:]
		}
		step := &workflow.Step{ID: words[0], HasNeeds: true}
		for _, word := range words[1:] {
			k, v, _ := strings.Cut(word, "=")
			n, _ := strconv.Atoi(v)
			d, _ := time.ParseDuration(v)
			switch k {
			case "needs":
				step.Needs = strings.Split(v, ",")
			case "if":
				ifs[step.ID] = namedIf(v)
			case "retry":
				step.Retry = workflow.Retry{Written: true, MaxAttempts: n, Backoff: "constant", Initial: time.Second, Max: time.Second}
			case "max_elapsed":
				step.Retry.MaxElapsed = d
			case "coe":
				step.ContinueOnError = true
			case "max_parallel":
				w.MaxParallel = n
			case "timeout":
				w.Timeout = d
			default:
				t.Fatalf("unknown word %q", word)
			}
		}
		switch {
		case step.ID == "workflow":
		case final:
			w.Finally = append(w.Finally, step)
		default:
			w.Steps = append(w.Steps, step)
		}
	}
	return planOf(w), ifs
}
