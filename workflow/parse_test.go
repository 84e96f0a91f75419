package workflow

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestMistakes holds a golden pair for each file of testdata/err.
func TestMistakes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/err/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			opts := ParseOptions{}
			if strings.HasPrefix(filepath.Base(f), "calls") {
				opts.ReadFile = func(name string) ([]byte, error) { return readBeneath("testdata/err", name) }
			}
			_, err = Parse(filepath.Base(f), text, opts)
			var bad *Diagnostics
			if !errors.As(err, &bad) {
				t.Fatalf("Parse: %v, want diagnostics", err)
			}
			var b bytes.Buffer
			if err := bad.Render(&b, false); err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(f, ".yaml") + ".out"
			if *update {
				if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
			}
		})
	}
}

func mustPlan(t testing.TB, text string) *Plan {
	t.Helper()
	w, err := Parse("t.yaml", []byte(text), ParseOptions{})
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return BuildPlan(w)
}

func TestPlanEdges(t *testing.T) {
	t.Parallel()
	p := mustPlan(t, `name: n
steps:
  - {id: a, run: x}
  - {id: b, run: x}
  - {id: c, needs: [a], run: x}
  - {id: d, needs: [], run: x}
  - {id: e, run: x}
finally:
  - {id: f, run: x}
  - {id: g, run: x}
`)
	want := map[string][]int{"a": nil, "b": {0}, "c": {0}, "d": nil, "e": {1, 2, 3}, "f": nil, "g": {5}}
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if fmt.Sprint(n.Needs) != fmt.Sprint(want[n.Step.ID]) {
			t.Errorf("step %s needs %v, want %v", n.Step.ID, n.Needs, want[n.Step.ID])
		}
	}
}

func TestEvaluate(t *testing.T) {
	t.Parallel()
	p := mustPlan(t, `name: n
inputs: {who: {type: string, default: you}, n: {type: integer, default: 3}}
env: {BASE: b}
defaults: {timeout: 2m, env: {D: d}, retry: {max_attempts: 2}}
steps:
  - {id: a, run: echo, outputs: {x: "${{ trim(self.stdout) }}"}}
  - id: b
    if: steps.a.exit_code == 0 && inputs.n > 2 && files.exists("go.mod")
    env: {E: "hi ${{ inputs.who }} ${{ steps.a.outputs.v }} $${{ no }}", N: "${{ inputs.n }}"}
    run: [echo, "${{ run.id }}"]
`)
	b := p.Workflow.Steps[1]
	v := Vars{Inputs: map[string]any{"who": "you", "n": 3}, Run: RunView{ID: "r1"}, Files: fakeFiles{"go.mod": "m"},
		Steps: map[string]StepView{"a": {Status: "succeeded", Outputs: map[string]any{"v": 4.0}}}}
	if ok, err := b.If.EvalBool(v); err != nil || !ok {
		t.Errorf("if: %v %v", ok, err)
	}
	if b.If.UsesStatus() || !b.If.UsesFiles() || fmt.Sprint(b.If.Refs()) != "[{a exit_code}]" {
		t.Errorf("if: status %v files %v refs %v", b.If.UsesStatus(), b.If.UsesFiles(), b.If.Refs())
	}
	for _, e := range b.Env {
		want := map[string]string{"BASE": "b", "D": "d", "E": "hi you 4 ${{ no }}", "N": "3"}[e.Name]
		if got, err := e.Value.EvalString(v); err != nil || got != want {
			t.Errorf("env %s: %q %v, want %q", e.Name, got, err, want)
		}
	}
	if got, err := b.Run.Argv[1].EvalString(v); err != nil || got != "r1" {
		t.Errorf("argv: %q %v", got, err)
	}
	if b.Timeout != 2*time.Minute || b.Retry.MaxAttempts != 2 {
		t.Errorf("defaults: %v %+v", b.Timeout, b.Retry)
	}
	a := p.Workflow.Steps[0]
	if got, err := a.Outputs[0].Expr.Eval(Vars{Self: &StepView{Stdout: " word\n"}}); err != nil || got != "word" {
		t.Errorf("output: %v %v", got, err)
	}
	// A step that did not run reads as not_run, with no outputs.
	if ok, err := b.If.EvalBool(Vars{Inputs: v.Inputs, Files: v.Files}); err != nil || !ok {
		t.Errorf("if without the step: %v %v", ok, err)
	}
}

type fakeFiles map[string]string

func (f fakeFiles) Glob(p string) ([]string, error) {
	if _, ok := f[p]; ok {
		return []string{p}, nil
	}
	return nil, nil
}
func (f fakeFiles) ReadFile(n string) ([]byte, error) { return []byte(f[n]), nil }

func TestHashFollowsTheDefinition(t *testing.T) {
	t.Parallel()
	hash := func(text string) string { return mustPlan(t, text).Workflow.Steps[0].Hash }
	base := hash("name: n\nsteps: [{id: a, run: echo}]\n")
	if base != hash("# a comment\nname: other\ndescription: d\nsteps:\n  - id: a\n    name: A\n    run: echo\n") {
		t.Error("names, comments and layout change the hash")
	}
	for _, other := range []string{"run: echo 2", "run: echo, timeout: 3s", "run: echo, env: {A: b}", `run: echo, if: "1 == 1"`, "run: [echo]", "run: echo, shell: sh"} {
		if base == hash("name: n\nsteps: [{id: a, "+other+"}]\n") {
			t.Errorf("%s has the same hash", other)
		}
	}
}

func TestInputs(t *testing.T) {
	t.Parallel()
	w := mustPlan(t, `name: n
inputs:
  s: {type: string, required: true, pattern: '^[a-z]+$'}
  n: {type: number, default: 1.5}
  i: {type: integer}
  b: {type: boolean, default: false}
  l: {type: array, default: [1]}
  e: {type: string, enum: [quick, full], default: quick}
steps: [{id: a, run: x, env: {A: "${{ inputs.s }}${{ inputs.n }}${{ inputs.i }}${{ inputs.b }}${{ inputs.l }}${{ inputs.e }}"}}]
`).Workflow
	got, err := ResolveInputs(w, map[string]any{"s": "abc", "i": "7", "b": "true", "l": "[2,3]"})
	if err != nil || fmt.Sprint(got) != "map[b:true e:quick i:7 l:[2 3] n:1.5 s:abc]" {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = ResolveInputs(w, map[string]any{"n": "x", "i": "1.5", "b": "yes", "l": "{}", "e": "ful", "mode": "1"})
	for _, want := range []string{"input s is required", "input n must be a number", "input i must be a whole number", "input b must be true or false",
		"input l must be an array", `did you mean "full"`, `no input "mode"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// FuzzParse: no input makes the parser panic, and every place that it names lies in the text.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/err/*.yaml")
	more, _ := filepath.Glob("../examples/workflows/*.yaml")
	for _, name := range append(files, more...) {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		w, err := Parse("f.yaml", text, ParseOptions{})
		var bad *Diagnostics
		switch {
		case err == nil:
			BuildPlan(w)
		case !errors.As(err, &bad):
			t.Fatalf("not diagnostics: %v", err)
		default:
			for _, d := range bad.List {
				if d.Pos.Line < 1 || d.Pos.Line > bytes.Count(text, []byte("\n"))+bytes.Count(text, []byte("\r"))+2 || d.Pos.Col < 1 {
					t.Fatalf("place outside of the text: %v", d)
				}
			}
		}
	})
}

// BenchmarkParse10000 is the target of docs/benchmarks.md: validation of 10,000 steps.
func BenchmarkParse10000(b *testing.B) {
	var s strings.Builder
	s.WriteString("name: big\nsteps:\n")
	for i := range 10000 {
		fmt.Fprintf(&s, "  - id: step_%d\n    run: echo step %d\n", i, i)
		if i%10 == 9 {
			fmt.Fprintf(&s, "    if: steps.step_%d.exit_code == 0\n", i-1)
		}
	}
	for b.Loop() {
		if _, err := Parse("big.yaml", []byte(s.String()), ParseOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
