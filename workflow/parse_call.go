package workflow

import (
	"fmt"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxCalls is how deep files may call each other.
const maxCalls = 8

// CallStep is `workflow:` with its `with`.
type CallStep struct {
	// Path is the file relative to the folder of the one that is run, its key in Files.
	Path string
	With []With
	// Workflow that is called. Steps that call the same file share it.
	Workflow *Workflow
	Pos      Pos
}

// With is one input of a call.
type With struct {
	Name  string
	Value *Value
	Pos   Pos
}

// Given evaluates the inputs of a call and checks them against the declarations of
// the called file.
func (c *CallStep) Given(vars Vars) (map[string]any, error) {
	given := make(map[string]any, len(c.With))
	for _, w := range c.With {
		v, err := w.Value.Eval(vars)
		if err != nil {
			return nil, fmt.Errorf("with.%s: %w", w.Name, err)
		}
		given[w.Name] = v
	}
	return ResolveInputs(c.Workflow, given)
}

// caller is what a parser of a called file knows of the one that calls it.
type caller struct {
	// files from the one that is run to this one, as keys of Files.
	chain []string
	step  string // for people: "ci.yaml, step build"
	// read are the files that were read so far, nil for one with a mistake.
	read map[string]*Workflow
}

// callIgnores are the keys of a step that say nothing of a call: the called steps
// have their own.
var callIgnores = []string{"env", "cwd", "outputs", "retry", "shell", "access", "cache", "artifacts", "network", "sandbox", "on_conflict", "allow_dangerous", "warn_after"}

// notCalled are the top-level keys that a called file must not have, with the reason.
var notCalled = map[string]string{
	"sandbox":      "the run has one sandbox, and the file that is run describes it",
	"sandboxes":    "the sandboxes of a run stand in the file that is run",
	"workspace":    "the run has one workspace, which the called steps work on as well",
	"mounts":       "folders of the machine are given to a run; say it in the file that is run",
	"timeout":      "give the step that calls it a `timeout`",
	"max_parallel": "that of the file that is run holds for all steps",
	"budget":       "that of the file that is run holds for all agents; an agent step may have its own",
	"fail_fast":    "it stops the whole run; say it in the file that is run",
	"concurrency":  "it bounds runs, not calls; say it in the file that is run",
	"on_failure":   "it belongs to the end of a run; give the calling file `on_failure`, or the called one a step with `if: failure()`",
	"finally":      "it belongs to the end of a run; give the calling file `finally`, or the called one a step with `if: always()`",
	"artifacts":    "they belong to a run or a step; give them to the steps that make them",
}

// call reads `workflow:` and `with:` of step s.
func (p *fileParser) call(step *yaml.Node, s *Step, x stepNodes, sc *scope) {
	c := &CallStep{Pos: pos(x.workflow)}
	s.Call = c
	p.meaningless(step, "call", "%s is for a step that runs something itself; this one calls a workflow", "give it to the steps of the called file, and values as `with`", callIgnores)
	name, ok := p.str(x.workflow, "workflow")
	if !ok {
		return
	}
	switch {
	case strings.Contains(name, "${{"):
		p.noExpression(x.workflow, "workflow")
		return
	case !filepath.IsLocal(path.Join(p.dir, name)) || path.IsAbs(name):
		p.at("path", x.workflow, "workflow %q leads outside of the folder of the file that is run", name)
		return
	}
	c.Path = path.Join(p.dir, name)
	if c.Workflow = p.called(s, x.workflow, c.Path); c.Workflow == nil {
		c.Workflow = &Workflow{}
		return
	}
	if p.total += c.Workflow.count(); p.total > maxSteps {
		p.at("limit", x.workflow, "with the steps of %s there are more than %d", c.Path, maxSteps)
	}
	p.with(c, x, sc)
	p.passed(s, c, x)
}

// called parses the file that a step calls, once.
func (p *fileParser) called(s *Step, n *yaml.Node, name string) *Workflow {
	chain := append(slices.Clone(p.from.chain), name)
	if slices.Contains(p.from.chain, name) {
		p.at("cycle", n, "these workflows call each other: %s", strings.Join(chain[slices.Index(chain, name):], " → "))
		return nil
	}
	if len(chain) > maxCalls+1 {
		p.at("limit", n, "workflows call each other more than %d deep: %s", maxCalls, strings.Join(chain, " → "))
		return nil
	}
	if w, ok := p.from.read[name]; ok {
		if w == nil { // its mistakes are told already
			p.at("call", n, "%s has mistakes", name)
		}
		return w
	}
	if p.opts.ReadFile == nil {
		p.at("file", n, "workflow %q cannot be read here", name)
		return nil
	}
	p.from.read[name] = nil
	text, err := p.opts.ReadFile(name)
	if err != nil {
		p.at("file", n, "read workflow: %v", err)
		return nil
	}
	p.root.Files[name] = text
	file := filepath.Join(filepath.Dir(p.root.Path), filepath.FromSlash(name))
	q := newFileParser(file, text, p.opts)
	q.dir, q.root, q.isCalled = path.Dir(name), p.root, true
	q.from = caller{chain: chain, step: fmt.Sprintf("%s, step %s", p.from.chain[len(p.from.chain)-1], s.ID), read: p.from.read}
	q.w.Sandbox, q.w.Budget, q.w.MaxParallel = p.w.Sandbox, p.w.Budget, p.w.MaxParallel
	if root := q.document(q.text); root != nil {
		q.topOfCalled(root)
		q.top(root)
	}
	warnings, bad := q.finish(text)
	if bad != nil {
		warnings = bad.List
	}
	lines := sourceLines(string(q.text))
	for _, d := range warnings {
		if d.source == "" && d.Pos.Line >= 1 && d.Pos.Line <= len(lines) {
			d.source = lines[d.Pos.Line-1]
		}
		p.bag.list = append(p.bag.list, d)
	}
	if bad != nil {
		p.at("call", n, "%s has mistakes", name)
		return nil
	}
	p.from.read[name] = q.w
	return q.w
}

// topOfCalled refuses what a called file cannot have.
func (p *fileParser) topOfCalled(root *yaml.Node) {
	for i := 0; root.Kind == yaml.MappingNode && i+1 < len(root.Content); i += 2 {
		if why, no := notCalled[root.Content[i].Value]; no {
			d := p.at("call", root.Content[i], "%s cannot stand in a workflow that another one calls (%s)", root.Content[i].Value, p.from.step)
			d.Hint = why
		}
	}
}

// count is how many steps a workflow has, those that it calls included.
func (w *Workflow) count() int {
	n := 0
	w.Walk(func(*Step) { n++ })
	return n
}

// with reads the inputs of a call, checked against the declarations of the callee.
func (p *fileParser) with(c *CallStep, x stepNodes, sc *scope) {
	given := map[string]bool{}
	if x.with != nil {
		p.pairs(x.with, "with", func(k, v *yaml.Node) {
			given[k.Value] = true
			i := slices.IndexFunc(c.Workflow.Inputs, func(in Input) bool { return in.Name == k.Value })
			if i < 0 {
				names := inputNames(c.Workflow.Inputs)
				d := p.at("unknown-input", k, "%s has no input %q", c.Path, k.Value)
				d.Expected, d.Suggestion = names, p.nearest(k.Value, names)
				return
			}
			val := p.value(v, k.Value, sc)
			c.With = append(c.With, With{Name: k.Value, Value: val, Pos: pos(k)})
			p.fits(c.Workflow.Inputs[i], val, v)
		})
	}
	for _, in := range c.Workflow.Inputs {
		if in.Required && !given[in.Name] {
			d := p.at("required", x.workflow, "%s needs the input %s", c.Path, in.Name)
			d.Hint = fmt.Sprintf("with: {%s: …}", in.Name)
		}
	}
}

// fits checks what can be known of an input before anything runs: a literal, and an
// input that is handed on.
func (p *fileParser) fits(in Input, val *Value, n *yaml.Node) {
	dynamic := false
	val.templates(func(t *Template) { dynamic = dynamic || t.hasExpr() })
	if !dynamic {
		if _, err := convert(in, val.literal()); err != nil {
			p.at("type", n, "input %s %v", in.Name, err)
		}
		return
	}
	t, ok := val.node.(*Template)
	switch {
	case !ok: // a list or a map with expressions in it
		if kind := reflect.ValueOf(val.node).Kind(); kind == reflect.Map && in.Type != "object" || kind == reflect.Slice && in.Type != "array" {
			p.at("type", n, "input %s must be of type %s", in.Name, in.Type)
		}
		return
	case len(t.parts) != 1 || t.parts[0].expr == nil:
		return // text, which is converted
	}
	name, ok := strings.CutPrefix(strings.TrimSpace(t.parts[0].expr.source), "inputs.")
	i := slices.IndexFunc(p.w.Inputs, func(in Input) bool { return in.Name == name })
	if !ok || i < 0 {
		return
	}
	switch from := p.w.Inputs[i].Type; {
	case from == in.Type, from == "string", from == "integer" && in.Type == "number",
		in.Type == "string" && from != "array" && from != "object":
	default:
		p.at("type", n, "input %s is of type %s, and inputs.%s of type %s", in.Name, in.Type, name, from)
	}
}

// passed checks the secrets of a call: those that the callee declares, and no others.
func (p *fileParser) passed(s *Step, c *CallStep, x stepNodes) {
	if x.secrets != nil {
		p.stepSecrets(s, x.secrets)
	}
	own := map[string]Secret{}
	for _, d := range p.w.Secrets {
		own[d.Name] = d
	}
	for _, d := range c.Workflow.Secrets {
		switch {
		case !slices.Contains(s.Secrets, d.Name):
			e := p.at("secret", x.workflow, "%s has steps with the secret %s, which this step does not pass on", c.Path, d.Name)
			e.Hint = fmt.Sprintf("secrets: [%s]", d.Name)
		case !reflect.DeepEqual(target(d.Inject), target(own[d.Name].Inject)):
			p.at("secret", firstNode(x.secrets, x.workflow), "secret %s is bound to another host (inject) in %s than here", d.Name, c.Path)
		}
	}
	for _, name := range s.Secrets {
		if !slices.ContainsFunc(c.Workflow.Secrets, func(d Secret) bool { return d.Name == name }) {
			p.at("secret", x.secrets, "%s declares no secret %s", c.Path, name)
		}
	}
	if len(s.Exposed) > 0 {
		p.at("secret", x.secrets, "expose is for an agent step; say it in %s", c.Path)
	}
}

func target(i *Inject) []string {
	if i == nil {
		return nil
	}
	return []string{i.Target(), i.Header, i.Format}
}

// callForm is what makes a call be what it is, beside the steps of the called file,
// which have hashes of their own.
func callForm(c *CallStep) []string {
	form := []string{c.Path}
	for _, w := range c.With {
		form = append(form, "with", w.Name, w.Value.source)
	}
	for _, in := range c.Workflow.Inputs {
		form = append(form, "input", in.Name, in.Type, fmt.Sprint(in.Required, in.Default, in.Enum), in.Pattern)
	}
	for _, o := range c.Workflow.Outputs {
		form = append(form, "output", o.Name, sourceOf(o.Expr))
	}
	for _, s := range c.Workflow.Steps {
		form = append(form, "step", s.ID)
	}
	return form
}
