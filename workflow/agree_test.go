package workflow

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// generator makes workflow files from the table of keys: valid ones, and with
// mutate ones with a mistake of form.
type generator struct {
	rng   *rand.Rand
	step  int
	last  []string // ids of the list so far
	input string   // type of the input that is made
	depth int      // groups around the step
	atEnd bool     // in on_failure or finally, or a group in them
	late  bool     // in on_failure or finally
	apart bool     // the run's sandbox is not one for all
}

// needs of a step: of those above it in its list, some or all.
func (g *generator) needs() any {
	above := make([]any, 0, len(g.last))
	for _, id := range g.last[:max(0, len(g.last)-1)] {
		above = append(above, id)
	}
	switch {
	case g.late:
		return nil
	case len(above) == 0 || g.rng.IntN(4) == 0:
		return above[:min(len(above), 1)]
	case g.rng.IntN(2) == 0:
		o := object{{"any", above}}
		if len(above) > 1 {
			o = append(o, member{"cancel_rest", g.rng.IntN(2) == 0})
		}
		return o
	default:
		return object{{"count", 1 + g.rng.IntN(len(above))}, {"of", above}}
	}
}

func (g *generator) pick(words ...string) string { return words[g.rng.IntN(len(words))] }

func (g *generator) some(n int, item func(i int) any) []any {
	list := []any{}
	for i := range 1 + g.rng.IntN(n) {
		list = append(list, item(i))
	}
	return list
}

// of makes a map with the required keys of the table and some of the others.
func (g *generator) of(in string) object {
	o := object{}
	kind := ""
	g.apart = g.apart && in != inWorkflow
	if in == inStep {
		g.step++
		kind = g.pick("run", "run", "agent", "approve", "steps", "workflow")
		if kind == "steps" && g.depth > 1 {
			kind = "run"
		}
		if kind == "approve" && g.atEnd {
			kind = "run"
		}
	}
	if in == inInput {
		g.input = g.pick(keyOf(inInput, "type").Enum...)
		o = append(o, member{"type", g.input})
	}
	for _, k := range keysets()[in].rows {
		switch {
		case !k.Supported, !k.Required && !k.Kind && g.rng.IntN(4) != 0, in == inInput && k.Name == "type",
			k.Kind && k.Name != kind, // one kind
			in == inWorkflow && k.Name == "lint",
			in == inStep && (k.Name == "background" || k.Name == "ready"), // see below
			in == inInput && slices.Contains([]string{"required", "enum", "pattern"}, k.Name),
			in == inSecret && slices.Contains([]string{"file", "inject"}, k.Name),
			in == inAgent && k.Name == "prompt_file",
			slices.Contains([]string{"access", "cwd", "shell"}, k.Name) && kind != "run",
			kind == "approve" && (k.Name == "timeout" || slices.Contains(approveIgnores, k.Name)):
			continue
		}
		if v := g.value(in, k); v != nil {
			o = append(o, member{k.Name, v})
		}
	}
	if slices.ContainsFunc(o, func(m member) bool { return m.name == "mcp_servers" }) {
		o = slices.DeleteFunc(o, func(m member) bool { return m.name == "allowed_tools" })
		o = append(o, member{"allowed_tools", []any{"Read", g.pick("mcp__srv_1", "mcp__srv_1__query", "mcp__srv_1__*")}})
	}
	switch in {
	case inMCP: // a url needs a network that reaches it
		o = slices.DeleteFunc(o, func(m member) bool { return m.name != "env" })
		o = append(o, member{"command", []any{"server"}})
	case inStep:
		if g.depth == 0 && kind == "run" && !g.atEnd && !g.apart && g.rng.IntN(6) == 0 { // few keys go with it
			o = slices.DeleteFunc(o, func(m member) bool { return !slices.Contains([]string{"id", "name", "run", "timeout"}, m.name) })
			o = append(o, member{"background", true}, member{"ready", object{{g.pick("port", "port"), 8080}, {"timeout", "5s"}}})
		}
		if i := slices.IndexFunc(o, func(m member) bool { return m.name == "run" }); i >= 0 {
			if _, argv := o[i].value.([]any); argv {
				o = slices.DeleteFunc(o, func(m member) bool { return m.name == "shell" })
			}
		}
		ignored := map[string][]string{"steps": groupIgnores, "workflow": append([]string{"secrets"}, callIgnores...)}[kind]
		o = slices.DeleteFunc(o, func(m member) bool { return slices.Contains(ignored, m.name) || m.name == "with" && kind != "workflow" })
		if !slices.ContainsFunc(o, func(m member) bool { return m.name == "foreach" }) {
			o = slices.DeleteFunc(o, func(m member) bool { return slices.Contains([]string{"max_parallel", "batch", "fail_fast"}, m.name) })
		}
	case inWorkspace:
		o = slices.DeleteFunc(o, func(m member) bool { return m.name == "in_place" })
	case inRetry:
		if g.atEnd {
			o = slices.DeleteFunc(o, func(m member) bool { return m.name == "workspace" })
		}
	case inSandbox, inNamedSandbox:
		if slices.ContainsFunc(o, func(m member) bool { return m.name == "pool" }) {
			o = slices.DeleteFunc(o, func(m member) bool { return m.name == "reuse" || m.name == "max_sandboxes" })
			o = append(o, member{"reuse", "pool"})
		} else {
			o = slices.DeleteFunc(o, func(m member) bool { return m.name == "max_sandboxes" })
		}
	case inAgent:
		o = slices.DeleteFunc(o, func(m member) bool {
			return m.name == "prompt" || m.name == "provider" || m.name == "cassette" || m.name == "command"
		})
		o = append(o, member{"prompt", "do it"})
	case inAgentDefaults:
		o = slices.DeleteFunc(o, func(m member) bool { return m.name == "provider" || m.name == "command" })
	}
	if in == inSandbox {
		g.apart = slices.ContainsFunc(o, func(m member) bool { return m.name == "reuse" && m.value != ReuseRun })
	}
	return o
}

// value makes a good value of a key; nil for a key that this test cannot make.
func (g *generator) value(in string, k Key) any {
	switch k.Type {
	case typeText, typeTemplate:
		return g.pick("text", "a b", "ü", "x: y")
	case typeInside:
		g.step++
		return fmt.Sprintf("/data/d%d", g.step)
	case typePath:
		return g.pick("a", "b/c")
	case typeID:
		id := fmt.Sprintf("step_%d", g.step)
		g.last = append(g.last, id)
		return id
	case typeName:
		return g.pick("NAME", "A_1")
	case typeBool:
		return g.rng.IntN(2) == 0
	case typeInt:
		return max(k.Min, 1) + g.rng.IntN(3)
	case typeNumber:
		return 1.5
	case typeSize:
		return g.pick("512MiB", "4GiB", "64KiB")
	case typeDuration:
		return g.pick("90s", "5m", "1h30m", "500ms", "1.5s")
	case typeEnum:
		return g.pick(k.Enum...)
	case typeEnums:
		return g.some(2, func(int) any { return g.pick(k.Enum...) })
	case typeExpr:
		return g.pick("success()", "always()", "run.attempt > 1")
	case typeProfile, typeSandbox:
		return nil // which names there are is not a matter of form
	case typeSchema:
		return object{{"type", "object"}, {"required", []any{"a"}}, {"properties", object{{"a", object{{"type", "string"}}}}}}
	case typeFiles:
		return g.some(2, func(int) any { return g.pick("AGENTS.md", "docs/.x") })
	case typeAny:
		return map[string]any{"string": "x", "number": 1.5, "integer": 2, "boolean": true, "array": []any{1}, "object": object{{"a", 1}}}[g.input]
	case typeStrings, typeWords:
		return g.some(2, func(int) any { return g.pick("a/", "*.o") })
	case typeNeeds:
		return g.needs()
	case typeTools:
		return g.some(2, func(int) any { return g.pick("Read", "Bash(go test:*)", "Grep") })
	case typeHeaders:
		return object{{g.pick("X-Team", "Accept"), "x"}}
	case typeEnv, typeOutputs:
		return object{{g.pick("A", "b_2"), g.pick("x", "${{ run.id }}")}}
	case typeObject:
		return g.of(k.Of)
	case typeSession:
		return "new"
	case typeServers:
		return object{{"srv_1", g.of(k.Of)}}
	case typeNamed:
		return object{{"in_1", g.of(k.Of)}}
	case typeSteps:
		last, late := g.last, g.late
		g.last = nil
		if in == inStep {
			g.depth++
			g.late = false
			defer func() { g.depth, g.last, g.late = g.depth-1, last, late }()
		} else {
			g.late = k.Name != "steps"
			g.atEnd = g.late
		}
		return g.some(3, func(int) any { return g.of(k.Of) })
	case typeWith:
		return object{{"a", 1}}
	case typeSecrets:
		return []any{"S1", append(object{{"name", "S2"}}, slices.DeleteFunc(g.of(k.Of), func(m member) bool { return m.name == "name" })...)}
	case typeRun:
		if g.rng.IntN(3) == 0 {
			return []any{"make", "x"}
		}
		return "make x"
	case typeAgent:
		if g.rng.IntN(3) == 0 {
			return "do it"
		}
		return g.of(k.Of)
	case typeApprove:
		if g.rng.IntN(3) == 0 {
			return "go on"
		}
		return g.of(k.Of)
	case typeChoices:
		return []any{[]any{"ship"}, []any{"ship", "hold-on"}, []any{"approve", "reject"}}[g.rng.IntN(3)]
	case typeForeach:
		return []any{[]any{"a", 1}, object{{"os", []any{"a", "b"}}}}[g.rng.IntN(2)]
	case typeAccess:
		if g.rng.IntN(2) == 0 {
			return "read"
		}
		return []any{"out/"}
	}
	return nil
}

// spots collects what can be changed: each value of a map or list.
func spots(v any, set func(any), out *[]func(any)) {
	*out = append(*out, set)
	switch x := v.(type) {
	case object:
		for i := range x {
			spots(x[i].value, func(v any) { x[i].value = v }, out)
		}
	case []any:
		for i := range x {
			spots(x[i], func(v any) { x[i] = v }, out)
		}
	}
}

// objects collects the maps of a document with the setters of their places.
func objects(v any, set func(any), out *[]func(func(object) object)) {
	switch x := v.(type) {
	case object:
		*out = append(*out, func(f func(object) object) { set(f(x)) })
		for i := range x {
			objects(x[i].value, func(v any) { x[i].value = v }, out)
		}
	case []any:
		for i := range x {
			objects(x[i], func(v any) { x[i] = v }, out)
		}
	}
}

// mutate makes one mistake of form, which need not be one.
func (g *generator) mutate(doc any) any {
	root := doc
	set := func(v any) { root = v }
	if g.rng.IntN(2) == 0 {
		var list []func(any)
		spots(doc, set, &list)
		values := []any{nil, true, 7, -1, 1.5, "", "word", "a-b", "5 m", "Read", []any{}, []any{"x"}, []any{1, nil}, object{}, object{{"x", 1}}}
		list[g.rng.IntN(len(list))](values[g.rng.IntN(len(values))])
		return root
	}
	var list []func(func(object) object)
	objects(doc, set, &list)
	list[g.rng.IntN(len(list))](func(o object) object {
		at := 0
		if len(o) > 0 {
			at = g.rng.IntN(len(o))
		}
		o = slices.Clone(o)
		switch g.rng.IntN(3) {
		case 0:
			return append(o, member{g.pick("extra", "timeuot", "id", "run", "agent", "name", "prompt", "default"), g.pick("x", "5m")})
		case 1:
			if len(o) > 0 {
				return slices.Delete(o, at, at+1)
			}
		case 2:
			if len(o) > 0 {
				o[at].name += "x"
			}
		}
		return o
	})
	return root
}

// formRules are what a schema can express; what the parser says of them the
// schema must say too.
var formRules = []string{"unknown-key", "type", "enum", "range", "duration", "size", "number", "id", "name", "kind", "exclusive", "tool", "required"}

// TestSchemaAndParserAgree: whatever the schema refuses the parser refuses, and
// whatever the parser refuses for its form the schema refuses.
func TestSchemaAndParserAgree(t *testing.T) {
	t.Parallel()
	rounds := 1500
	if os.Getenv("FLOW_LONG") != "" {
		rounds = 100000
	}
	schema := validator(t)
	g := &generator{rng: rand.New(rand.NewPCG(7, 11))}
	good, bad := 0, 0
	for round := range rounds {
		g.step = 0
		var doc any = g.of(inWorkflow)
		mutated := round%3 != 0
		if mutated {
			doc = g.mutate(doc)
		}
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if duplicates(doc) {
			continue // JSON Schema cannot see them
		}
		_, perr := Parse("g.yaml", text, ParseOptions{ReadFile: func(string) ([]byte, error) {
			return []byte("name: c\ninputs: {a: {type: integer, default: 1}}\nsteps: [{id: s, if: inputs.a > 1, run: x}]\n"), nil
		}})
		serr := bySchema(t, schema, text)
		var diags *Diagnostics
		form := ""
		if errors.As(perr, &diags) {
			for _, d := range diags.List {
				// A cassette may come from the defaults, a default has its input's type, a
				// step's name is a name, a count fits its list: no schema says so.
				if d.Severity == SeverityError && slices.Contains(formRules, d.Rule) && !strings.Contains(d.Message, "needs a cassette") && !strings.Contains(d.Message, "provider acp") &&
					!strings.Contains(d.Message, "the default of input") && !strings.HasPrefix(d.Message, "input a ") && !strings.Contains(d.Message, "needs is a") && !strings.Contains(d.Message, "and of lists") {
					form = d.Error()
				}
			}
		}
		switch {
		case !mutated && perr != nil:
			t.Fatalf("the parser refuses a generated file:\n%s\n%v", text, perr)
		case !mutated && serr != nil:
			t.Fatalf("the schema refuses a generated file:\n%s\n%v", text, serr)
		case serr != nil && perr == nil:
			t.Fatalf("only the schema refuses:\n%s\n%v", text, serr)
		case serr == nil && form != "":
			t.Fatalf("only the parser refuses:\n%s\n%s", text, form)
		}
		if perr == nil {
			good++
		} else {
			bad++
		}
	}
	t.Logf("%d accepted, %d refused by both", good, bad)
	if good < rounds/4 || bad < rounds/4 {
		t.Errorf("the generator is one-sided: %d good, %d bad", good, bad)
	}
}

func duplicates(v any) bool {
	switch x := v.(type) {
	case object:
		seen := map[string]bool{}
		for _, m := range x {
			if seen[m.name] || duplicates(m.value) {
				return true
			}
			seen[m.name] = true
		}
	case []any:
		return slices.ContainsFunc(x, duplicates)
	}
	return false
}
