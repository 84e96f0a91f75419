package report

import (
	"strings"
	"time"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/workflow"
)

// day is the day on which all fixtures happen.
func day() time.Time { return time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC) }

func fixedNow() time.Time { return day().Add(10 * time.Minute) }

// play is one thing that happens: an event, or output.
type play struct {
	body   engine.Body
	after  time.Duration // since the start
	step   string
	stderr bool
	out    string
}

func ev(after time.Duration, b engine.Body) play { return play{body: b, after: after} }

func out(step, text string) play  { return play{step: step, out: text} }
func errs(step, text string) play { return play{step: step, out: text, stderr: true} }

// perform feeds a reporter.
func perform(r Reporter, plays []play) {
	seq := int64(0)
	for _, p := range plays {
		if p.body == nil {
			r.Output(p.step, p.stderr, []byte(p.out))
			continue
		}
		seq++
		r.Observe(engine.Event{Seq: seq, At: day().Add(p.after), Body: p.body})
	}
}

func testPlan() *workflow.Plan {
	w := &workflow.Workflow{Name: "quickstart", Description: "Build a small Go program and test it.",
		Sandbox:   workflow.SandboxSpec{Driver: "auto", Network: workflow.Network{Mode: workflow.NetworkNone}},
		Workspace: workflow.Workspace{From: ".", Apply: "on_success"}, Timeout: 30 * time.Minute, MaxParallel: 5}
	add := func(st *workflow.Step) *workflow.Step { w.Steps = append(w.Steps, st); return st }
	add(&workflow.Step{ID: "init", Kind: workflow.KindRun, Run: &workflow.RunStep{Shell: "bash"}})
	add(&workflow.Step{ID: "implement", Name: "Write the server", Kind: workflow.KindAgent, Timeout: 10 * time.Minute,
		Secrets: []string{"API_TOKEN"}, Agent: &workflow.AgentStep{Provider: "anthropic", Model: "claude-sonnet-4-5",
			AllowedTools: []string{"Read", "Write", "Edit", "Bash(go test:*)"}, DisallowedTools: []string{"WebFetch"}, MaxTurns: 50}})
	add(&workflow.Step{ID: "test", Kind: workflow.KindRun, Run: &workflow.RunStep{Shell: "bash"},
		Retry: workflow.Retry{Written: true, MaxAttempts: 3}})
	add(&workflow.Step{ID: "deploy", Kind: workflow.KindRun, Run: &workflow.RunStep{Shell: "sh"}, ContinueOnError: true})
	w.Finally = append(w.Finally, &workflow.Step{ID: "clean", Kind: workflow.KindRun, Run: &workflow.RunStep{Shell: "sh"}})
	p := &workflow.Plan{Workflow: w, ByID: map[string]int{}}
	for i, st := range append(append([]*workflow.Step{}, w.Steps...), w.Finally...) {
		n := workflow.Node{Step: st, Finally: st.ID == "clean"}
		if i > 0 {
			n.Needs = []int{i - 1}
			p.Nodes[i-1].Dependents = []int{i}
		}
		p.Nodes = append(p.Nodes, n)
		p.ByID[st.ID] = i
	}
	return p
}

// failedRun: four steps and a clean-up; the third fails twice.
func failedRun() []play {
	s := time.Second
	outcome := func(st engine.StepStatus, d time.Duration) engine.Outcome {
		return engine.Outcome{Status: st, Duration: d}
	}
	ok := outcome(engine.StepSucceeded, 120*time.Millisecond)
	ok.ChangedCount = 3
	agent := outcome(engine.StepSucceeded, 74*s)
	agent.ChangedCount = 1
	agent.Agent = &engine.AgentUsage{Provider: "anthropic", Turns: 4, ToolCalls: 9, Denied: 1, CostUSD: 0.0312,
		Denials: []engine.Denial{{Tool: "Bash", Input: "curl example.com", Reason: "not in allowed_tools: Read, Write, Edit, Bash(go test:*)"}}}
	fail := outcome(engine.StepFailed, 2100*time.Millisecond)
	fail.Class, fail.ExitCode, fail.Error = engine.ClassExitCode, 1, "run script: exit code 1"
	slow := outcome(engine.StepTimedOut, 5*s)
	slow.Class, slow.Error = engine.ClassTimeout, "ended after 5 s: timeout of the step"
	return []play{
		ev(0, engine.RunStarted{RunID: "r7k2m9", Workflow: "quickstart", Text: []byte("secret text of the file"), Options: engine.Options{Grace: 10 * s}}),
		ev(0, engine.StepStarted{Step: "init", Attempt: 1}),
		ev(8*time.Millisecond, engine.SandboxCreated{ID: "sb1", Driver: "local", Tier: "ns-root"}),
		out("init", "go: creating new go.mod\nmodule ex"), out("init", "ample.com/hello\n\n"), errs("init", "\x1b[33mwarning\x1b[0m: no git\n"),
		ev(120*time.Millisecond, engine.StepFinished{Step: "init", Attempt: 1, Outcome: ok}),
		ev(120*time.Millisecond, engine.ConditionEvaluated{Step: "implement", Value: true}),
		ev(121*time.Millisecond, engine.StepStarted{Step: "implement", Attempt: 1}),
		out("implement", "Ich schreibe den Server … \x1b]0;title\x07日本語\x1b[2J\r\nno line end"),
		ev(75*s, engine.StepFinished{Step: "implement", Attempt: 1, Outcome: agent}),
		ev(75*s, engine.StepStarted{Step: "test", Attempt: 1}),
		errs("test", "--- FAIL: TestHello (0.00s)\n    hello_test.go:9: got \"\", want \"hello\"\n"),
		ev(77*s, engine.StepFinished{Step: "test", Attempt: 1, Outcome: fail}),
		ev(77*s, engine.RetryScheduled{Step: "test", Attempt: 2, At: day().Add(79 * s), Reason: "exit code 1"}),
		ev(79*s, engine.StepStarted{Step: "test", Attempt: 2}),
		out("test", "10%\r20%\r"),
		ev(84*s, engine.StepFinished{Step: "test", Attempt: 2, Outcome: slow}),
		ev(84*s, engine.StepNotRun{Step: "deploy", Reason: "test failed"}),
		ev(84*s, engine.ConditionEvaluated{Step: "clean", Value: false}),
		ev(84*s, engine.StepSkipped{Step: "clean"}),
		ev(85*s, engine.SandboxClosed{ID: "sb1"}),
		ev(85*s, engine.RunFinished{Status: engine.RunFailed, Class: engine.ClassTimeout, Cause: "step test timed out"}),
	}
}

func runRows() []RunRow {
	return []RunRow{
		{ID: "r7k2m9", Workflow: "quickstart", Status: engine.RunFailed, Started: day(), Duration: Seconds(85 * time.Second), StepsDone: 2, StepsTotal: 5, Cause: "step test timed out"},
		{ID: "r7k2ma", Workflow: "nightly-日本語-checks-of-everything", Status: engine.RunSucceeded, Started: day().Add(-26 * time.Hour), Duration: Seconds(3 * time.Hour), StepsDone: 1000, StepsTotal: 1000},
		{ID: "r7k2mb", Workflow: "quickstart", Status: engine.RunInterrupted, Started: day().Add(time.Minute), Duration: Seconds(340 * time.Millisecond), StepsTotal: 4, Cause: "the process that ran it is gone\x1b[2J\nand more words than fit into eighty columns of a terminal"},
		{ID: "r7k2mc", Workflow: "release", Status: engine.RunRunning, Started: day().Add(9 * time.Minute), Duration: Seconds(61 * time.Second), StepsDone: 1, StepsTotal: 3},
		{ID: "r7k2md", Workflow: "release", Status: engine.RunOutOfBudget, Started: day(), StepsTotal: 3, Cause: "budget of $5.00 is spent"},
	}
}

func runView() RunView {
	v := RunView{RunRow: runRows()[0], Path: "examples/workflows/quickstart.yaml", Attempt: 1, Class: engine.ClassTimeout,
		Sandbox: "local (ns-root)", CostUSD: 0.0312, Denied: 1, Continue: "flow resume r7k2m9"}
	v.Steps = []StepRow{
		{ID: "init", Kind: "run", Status: engine.StepSucceeded, Attempts: 1, Duration: Seconds(120 * time.Millisecond), ChangedCount: 3},
		{ID: "implement", Kind: "agent", Status: engine.StepSucceeded, Attempts: 1, Duration: Seconds(74 * time.Second), ChangedCount: 1, CostUSD: 0.0312, Denied: 1,
			Denials: []engine.Denial{{Tool: "Bash", Input: "curl example.com", Reason: "not in allowed_tools: Read, Write, Edit, Bash(go test:*)"}}},
		{ID: "test", Kind: "run", Status: engine.StepTimedOut, Attempts: 2, Duration: Seconds(5 * time.Second), Class: engine.ClassTimeout,
			Error:  "ended after 5 s: timeout of the step",
			Stderr: engine.Excerpt{Head: "first", Tail: "\x1b[31m--- FAIL: TestHello (0.00s)\x1b[0m\n\thello_test.go:9: got \"\", want \"hello\" " + strings.Repeat("long ", 30) + "\n\x1b]0;title\x07\x1b[2Jend\n", Bytes: 51234},
			Records: []RecordView{
				{Attempt: 1, Status: engine.StepFailed, Class: engine.ClassExitCode, ExitCode: 1, Error: "run script: exit code 1", Started: day().Add(75 * time.Second), Duration: Seconds(2100 * time.Millisecond)},
				{Attempt: 2, Status: engine.StepTimedOut, Class: engine.ClassTimeout, Error: "ended after 5 s: timeout of the step", Started: day().Add(79 * time.Second), Duration: Seconds(5 * time.Second)},
			}},
		{ID: "deploy", Kind: "run", Status: engine.StepIsNotRun, Reason: "test failed"},
		{ID: "clean", Kind: "run", Status: engine.StepIsSkipped, Reason: "its condition is false"},
	}
	return v
}
