package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/workflow"
)

func graphOf(t *testing.T, text string, statuses map[string]engine.StepStatus) Graph {
	t.Helper()
	w, err := workflow.Parse("g.yaml", []byte(text), workflow.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return GraphOf(workflow.BuildPlan(w), statuses)
}

// graphs are a chain, a fan, a knot and a small file with everything.
func graphs(t *testing.T) map[string]Graph {
	t.Helper()
	steps := func(n int, needs func(i int) string) Graph {
		var b strings.Builder
		b.WriteString("name: g\nsteps:\n")
		for i := range n {
			fmt.Fprintf(&b, "- {id: s%d, run: x%s}\n", i, needs(i))
		}
		return graphOf(t, b.String(), nil)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	return map[string]Graph{
		"four": graphOf(t, `name: <"four">
steps:
  - {id: a, run: make, name: "A & B <c>"}
  - {id: b, needs: [a], run: make, if: steps.a.exit_code < 1}
  - {id: c, needs: [a], run: [make, x]}
  - {id: d, needs: [b, c], timeout: 1m, agent: {prompt: go, provider: replay, cassette: c, allowed_tools: [Read]}}
finally:
  - {id: e, run: x}
  - {id: f, run: x}
`, map[string]engine.StepStatus{"a": engine.StepSucceeded, "b": engine.StepIsSkipped, "c": engine.StepFailed, "d": engine.StepIsNotRun, "e": engine.StepTimedOut, "f": engine.StepPending}),
		"chain 400": steps(400, func(int) string { return "" }),
		"fan 400": steps(400, func(i int) string {
			if i == 0 || i == 399 {
				return ""
			}
			return ", needs: [s0]"
		}),
		"all alone 40": steps(40, func(int) string { return ", needs: []" }),
		"knot 400": steps(400, func(i int) string {
			if i < 3 {
				return ", needs: []"
			}
			return fmt.Sprintf(", needs: [s%d, s%d]", max(0, i-1-rng.IntN(25)), max(0, i-1-rng.IntN(25)))
		}),
		"finally only": graphOf(t, "name: g\nsteps: [{id: a, run: x}]\nfinally: [{id: b, run: x}]\n", nil),
	}
}

var boxForm = regexp.MustCompile(`<rect class="box" x="([-0-9.]+)" y="([-0-9.]+)" width="([0-9.]+)" height="([0-9.]+)"`)

// TestGraphSVG: well-formed, the same each time, every step once, no two boxes on
// each other, and nothing outside of the picture.
func TestGraphSVG(t *testing.T) {
	t.Parallel()
	for name, g := range graphs(t) {
		var a, b bytes.Buffer
		if err := GraphSVG(&a, g); err != nil {
			t.Fatal(err)
		}
		_ = GraphSVG(&b, g)
		if a.String() != b.String() {
			t.Errorf("%s: two pictures differ", name)
		}
		var size struct {
			W, H float64
		}
		d := xml.NewDecoder(bytes.NewReader(a.Bytes()))
		for {
			tok, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "svg" {
				for _, at := range e.Attr {
					switch at.Name.Local {
					case "width":
						fmt.Sscan(at.Value, &size.W)
					case "height":
						fmt.Sscan(at.Value, &size.H)
					}
				}
			}
		}
		type box struct{ x, y, w, h float64 }
		var boxes []box
		for _, m := range boxForm.FindAllStringSubmatch(a.String(), -1) {
			var x box
			fmt.Sscan(m[1]+" "+m[2]+" "+m[3]+" "+m[4], &x.x, &x.y, &x.w, &x.h)
			boxes = append(boxes, x)
		}
		if len(boxes) != len(g.Nodes) {
			t.Errorf("%s: %d boxes for %d steps", name, len(boxes), len(g.Nodes))
		}
		for i, p := range boxes {
			if p.x < -0.1 || p.y < -0.1 || p.x+p.w > size.W || p.y+p.h > size.H {
				t.Errorf("%s: box %d lies outside", name, i)
			}
			for _, q := range boxes[:i] {
				if p.x < q.x+q.w && q.x < p.x+p.w && p.y < q.y+q.h && q.y < p.y+p.h {
					t.Fatalf("%s: boxes lie on each other: %+v %+v", name, p, q)
				}
			}
		}
		t.Logf("%s: %.0f × %.0f", name, size.W, size.H)
	}
}

func TestGraphTexts(t *testing.T) {
	t.Parallel()
	g := graphs(t)["four"]
	for format, c := range map[string]struct {
		write func(io.Writer) error
		want  string
	}{
		"mermaid": {func(w io.Writer) error { return GraphMermaid(w, g) }, `flowchart TD
  n0["a"]:::succeeded
  n1["b<br/><i>if steps.a.exit_code #lt; 1</i>"]:::skipped
  n2["c"]:::failed
  n3(["d"]):::not_run
  subgraph finally
  n4["e"]:::timed_out
  n5["f"]
  end
  n0 --> n1
  n0 --> n2
  n1 --> n3
  n2 --> n3
  n4 --> n5
`},
		"dot": {func(w io.Writer) error { return GraphDot(w, g) }, `digraph "<\"four\">" {
  rankdir=TB;
  node [shape=box, style=rounded, fontname="sans-serif"];
  n0 [label="a", color="#1a9e5c", penwidth=2];
  n1 [label="b\nif steps.a.exit_code < 1", color="#8b95a3", penwidth=2];
`},
		"text": {func(w io.Writer) error { return GraphText(w, g, Style{Width: 80, ASCII: true}) }, `a  run  succeeded
|- b  run  skipped  if steps.a.exit_code < 1
|  d  agent  not_run  also after c
` + "`- c  run  failed\nfinally:\ne  run  timed_out\nf  run\n"},
	} {
		var b bytes.Buffer
		if err := c.write(&b); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), c.want) {
			t.Errorf("%s:\n%s\nwant\n%s", format, b.String(), c.want)
		}
	}
}

// TestGraphBoxes: groups, loops and joins are drawn as what they are.
func TestGraphBoxes(t *testing.T) {
	t.Parallel()
	g := graphOf(t, `name: boxes
steps:
  - id: checks
    foreach: [x, y]
    steps:
      - {id: format, needs: [], run: a}
      - {id: sum, run: b}
  - {id: fast, needs: [], run: a}
  - {id: first, needs: {any: [checks, fast]}, run: c}
`, map[string]engine.StepStatus{"checks": engine.StepSucceeded})
	var text, mermaid, dot strings.Builder
	if err := errors.Join(GraphText(&text, g, Style{}), GraphMermaid(&mermaid, g), GraphDot(&dot, g)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		got  string
		want []string
	}{
		"text":    {text.String(), []string{"checks  group each  succeeded", "format  run", "first  run  when 1 of 2 succeeded"}},
		"mermaid": {mermaid.String(), []string{"subgraph n0[\"checks · each\"]", "n0_0 --> n0_1", "class n0 succeeded", "n0 -.-> n2", "classDef succeeded"}},
		"dot":     {dot.String(), []string{"subgraph cluster_n0 {", "n0_0 -> n0_1;", "n1 -> n2 [style=dashed];"}},
	} {
		for _, want := range c.want {
			if !strings.Contains(c.got, want) {
				t.Errorf("%s lacks %q:\n%s", name, want, c.got)
			}
		}
	}
}
