package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/workflow"
)

// testFile is a `*.test.yaml`: the tests of one workflow.
type testFile struct {
	// Workflow is relative to the test file; default: its name without `.test`.
	Workflow string     `yaml:"workflow"`
	Tests    []testCase `yaml:"tests"`
}

// testCase runs the workflow once.
type testCase struct {
	Name   string         `yaml:"name"`
	Inputs map[string]any `yaml:"inputs"`
	// Stub replaces steps by what they would have left behind.
	Stub   map[string]stub `yaml:"stub"`
	Expect expectation     `yaml:"expect"`
}

// stub is what a step does in a test instead of its own work.
type stub struct {
	Status   string            `yaml:"status"` // succeeded (default), failed or timed_out
	ExitCode int               `yaml:"exit_code"`
	Outputs  map[string]string `yaml:"outputs"`
	Stdout   string            `yaml:"stdout"`
	Stderr   string            `yaml:"stderr"`
	Files    map[string]string `yaml:"files"` // path in the workspace → content
	// Choice is a person's answer to an approval; default: its first one.
	Choice string `yaml:"choice"`
}

// expectation is what has to hold at the end; what is not named is not looked at.
type expectation struct {
	Status  string                       `yaml:"status"` // of the run; default succeeded
	Steps   map[string]string            `yaml:"steps"`  // id → status
	Outputs map[string]map[string]string `yaml:"outputs"`
	Files   map[string]fileExpectation   `yaml:"files"`
}

// fileExpectation is a file's exact content, or {contains: text}, or
// {absent: true}.
type fileExpectation struct {
	exact    *string
	Contains string `yaml:"contains"`
	Absent   bool   `yaml:"absent"`
}

func (f *fileExpectation) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		f.exact = &n.Value
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := n.Content[i]; k.Value != "contains" && k.Value != "absent" {
			return fmt.Errorf("line %d: a file is its content, {contains: text} or {absent: true}, not %q", k.Line, k.Value)
		}
	}
	type plain fileExpectation
	return n.Decode((*plain)(f))
}

// readTests reads a test file; an unknown key is a mistake.
func readTests(name string) (*testFile, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, &usageError{msg: fmt.Sprintf("read the tests: %v", err)}
	}
	var t testFile
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&t); err != nil {
		return nil, &usageError{msg: fmt.Sprintf("%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: ")), hint: "see docs/testing.md for the keys"}
	}
	if t.Workflow == "" {
		base, ok := strings.CutSuffix(name, ".test.yaml")
		if !ok {
			return nil, &usageError{msg: name + " names no workflow", hint: "write  workflow: FILE  or call it NAME.test.yaml beside NAME.yaml"}
		}
		t.Workflow = base + ".yaml"
	} else {
		t.Workflow = filepath.Join(filepath.Dir(name), t.Workflow)
	}
	if len(t.Tests) == 0 {
		return nil, &usageError{msg: name + " has no tests"}
	}
	return &t, nil
}

// stubbed is the text of a workflow with some steps replaced. It is changed as
// YAML, so that all else (conditions, needs, outputs, retries) stays as it is.
func stubbed(text []byte, stubs map[string]stub) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil || len(doc.Content) == 0 {
		return nil, errors.Join(errors.New("read the workflow"), err)
	}
	done := map[string]bool{}
	replaceSteps(doc.Content[0], stubs, done)
	for id := range stubs {
		if !done[id] {
			return nil, &usageError{msg: fmt.Sprintf("stub: the workflow has no step %q", id)}
		}
	}
	return yaml.Marshal(&doc)
}

// replaceSteps finds the steps in steps, on_failure and finally, groups included.
func replaceSteps(n *yaml.Node, stubs map[string]stub, done map[string]bool) {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		switch n.Content[i].Value {
		case "steps", "on_failure", "finally":
		default:
			continue
		}
		for _, s := range n.Content[i+1].Content {
			if s.Kind != yaml.MappingNode {
				continue
			}
			id := mapValue(s, "id")
			if id == nil {
				continue
			}
			if st, ok := stubs[id.Value]; ok {
				replaceStep(s, st.answering(mapValue(s, "approve")))
				done[id.Value] = true
				continue
			}
			replaceSteps(s, stubs, done)
		}
	}
}

func mapValue(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// keptOfStub are the keys of a step that a stub leaves as they are.
var keptOfStub = map[string]bool{"id": true, "name": true, "needs": true, "if": true, "continue_on_error": true, "outputs": true, "foreach": true, "max_parallel": true, "fail_fast": true}

// choicesFit: a choice is an answer of the approval that it stands for.
func choicesFit(w *workflow.Workflow, stubs map[string]stub) error {
	var bad error
	w.Walk(func(s *workflow.Step) {
		choice := stubs[s.ID].Choice
		switch {
		case choice == "" || bad != nil:
		case s.Approve == nil:
			bad = &usageError{msg: fmt.Sprintf("stub.%s.choice: step %s is no approval", s.ID, s.ID)}
		case choice != workflow.ChoiceReject && !contains(s.Approve.Choices, choice):
			bad = &usageError{msg: fmt.Sprintf("stub.%s.choice: step %s has no choice %q", s.ID, s.ID, choice), hint: "its choices are " + strings.Join(s.Approve.Choices, ", ")}
		}
	})
	return bad
}

// answering is the stub of an approval: what a person's answer leaves behind.
func (s stub) answering(approve *yaml.Node) stub {
	if approve == nil {
		return s
	}
	choice := s.Choice
	switch {
	case choice == workflow.ChoiceReject:
		s.Status = "failed"
	case s.Status == "failed":
		choice = workflow.ChoiceReject
	case choice == "":
		choice = workflow.ChoiceApprove
		if c := mapValue(approve, "choices"); approve.Kind == yaml.MappingNode && c != nil && len(c.Content) > 0 {
			choice = c.Content[0].Value
		}
	}
	outputs := map[string]string{"choice": choice, "by": "test", "note": "", "at": "2026-01-01T00:00:00Z"}
	maps.Copy(outputs, s.Outputs)
	s.Outputs = outputs
	return s
}

func replaceStep(n *yaml.Node, s stub) {
	var kept []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		if keptOfStub[n.Content[i].Value] {
			kept = append(kept, n.Content[i], n.Content[i+1])
		}
	}
	add := func(name, value string) {
		kept = append(kept, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value})
	}
	add("shell", "sh")
	if s.Status == "timed_out" {
		add("timeout", "100ms")
	}
	add("run", s.script())
	n.Content = kept
}

// script does what the stub says. Every text is quoted for the shell and escaped
// for expressions.
func (s stub) script() string {
	quote := func(t string) string {
		return "'" + strings.ReplaceAll(strings.ReplaceAll(t, "'", `'\''`), "${{", "$${{") + "'"
	}
	var b strings.Builder
	for _, name := range sortedKeys(s.Files) {
		fmt.Fprintf(&b, "mkdir -p %s\nprintf %%s %s > %s\n", quote(filepath.Dir(name)), quote(s.Files[name]), quote(name))
	}
	for _, name := range sortedKeys(s.Outputs) {
		fmt.Fprintf(&b, "printf '%%s<<FLOW_STUB_END\\n%%s\\nFLOW_STUB_END\\n' %s %s >> \"$FLOW_OUTPUT\"\n", quote(name), quote(s.Outputs[name]))
	}
	if s.Stdout != "" {
		fmt.Fprintf(&b, "printf %%s %s\n", quote(s.Stdout))
	}
	if s.Stderr != "" {
		fmt.Fprintf(&b, "printf %%s %s >&2\n", quote(s.Stderr))
	}
	code := s.ExitCode
	if s.Status == "failed" && code == 0 {
		code = 1
	}
	if s.Status == "timed_out" {
		b.WriteString("sleep 60\n")
	}
	fmt.Fprintf(&b, "exit %d\n", code)
	return b.String()
}

// check says what of the expectations does not hold.
func (e expectation) check(run, dir string, steps map[string]string, outputs map[string]map[string]any) []string {
	var bad []string
	miss := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	if want := first(e.Status, "succeeded"); run != want {
		miss("the run %s, expected %s", run, want)
	}
	for _, id := range sortedKeys(e.Steps) {
		switch got, ok := steps[id]; {
		case !ok:
			miss("steps.%s: there is no such step", id)
		case got != e.Steps[id]:
			miss("steps.%s: %s, expected %s", id, got, e.Steps[id])
		}
	}
	for _, id := range sortedKeys(e.Outputs) {
		for _, name := range sortedKeys(e.Outputs[id]) {
			want := e.Outputs[id][name]
			switch got, ok := outputs[id][name]; {
			case !ok:
				miss("outputs.%s.%s: it was not set, expected %q", id, name, want)
			case fmt.Sprint(got) != want:
				miss("outputs.%s.%s: %q, expected %q", id, name, fmt.Sprint(got), want)
			}
		}
	}
	for _, name := range sortedKeys(e.Files) {
		want := e.Files[name]
		got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		switch {
		case !filepath.IsLocal(name):
			miss("files.%s: the path leads out of the workspace", name)
		case want.Absent && err == nil:
			miss("files.%s: it is there, expected it to be absent", name)
		case want.Absent:
		case err != nil:
			miss("files.%s: it is not there", name)
		case want.exact != nil && string(got) != *want.exact:
			miss("files.%s: %q, expected %q", name, clip(string(got)), clip(*want.exact))
		case want.Contains != "" && !strings.Contains(string(got), want.Contains):
			miss("files.%s: %q does not contain %q", name, clip(string(got)), want.Contains)
		}
	}
	return bad
}

func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

// statusWords are what `expect.steps` and `stub.status` may say.
func (t *testFile) mistakes() error {
	for _, c := range t.Tests {
		for _, id := range sortedKeys(c.Stub) {
			if s := c.Stub[id].Status; s != "" && s != "succeeded" && s != "failed" && s != "timed_out" {
				return &usageError{msg: fmt.Sprintf("test %q: stub.%s.status is %q; a stub is succeeded, failed or timed_out", c.Name, id, s)}
			}
			if s := c.Stub[id]; s.ExitCode != 0 && s.Status == "succeeded" {
				return &usageError{msg: fmt.Sprintf("test %q: stub.%s succeeded with exit code %d", c.Name, id, s.ExitCode)}
			}
		}
		for _, id := range sortedKeys(c.Expect.Steps) {
			if !contains(append(workflow.Statuses(), string(engine.StepWaiting)), c.Expect.Steps[id]) {
				return &usageError{msg: fmt.Sprintf("test %q: expect.steps.%s: there is no status %q", c.Name, id, c.Expect.Steps[id]), hint: "statuses are " + strings.Join(workflow.Statuses(), ", ")}
			}
		}
	}
	return nil
}
