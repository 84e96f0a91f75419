package workflow

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/conf"
	"gopkg.in/yaml.v3"
)

// Limits of a file (design: language, Types and limits).
const (
	maxFile    = 4 << 20
	maxSteps   = 10000
	maxNesting = 32
	// maxExpanded bounds what aliases may stand for, against alias bombs.
	maxExpanded = 200000
	maxPrompt   = 10000 // characters (practice 19)
)

// bom may stand at the start of a file: some editors write it.
var bom = []byte("\xef\xbb\xbf")

// ParseOptions are what Parse needs from outside of the text.
type ParseOptions struct {
	// ReadFile reads a file that the text names (prompt_file), relative to the
	// workflow file. Nil makes such a key a mistake.
	ReadFile func(name string) ([]byte, error)
}

// Load reads and parses a file. The error is a *Diagnostics, or says why the
// file cannot be read.
func Load(path string) (*Workflow, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the workflow: %w", err)
	}
	defer f.Close()
	text := make([]byte, 0, 512)
	if info, err := f.Stat(); err == nil && info.Size() < maxFile {
		text = make([]byte, 0, info.Size()+1)
	}
	buf := bytes.NewBuffer(text)
	if _, err := buf.ReadFrom(io.LimitReader(f, maxFile+1)); err != nil {
		return nil, fmt.Errorf("read the workflow: %w", err)
	}
	text = buf.Bytes()
	dir := filepath.Dir(path)
	return Parse(path, text, ParseOptions{ReadFile: func(name string) ([]byte, error) { return readBeneath(dir, name) }})
}

// readBeneath reads a regular file beneath a folder, through no link that leads
// out of it, and no more than a workflow may hold.
func readBeneath(dir, name string) ([]byte, error) {
	f, err := os.OpenInRoot(dir, name)
	if err != nil {
		if !filepath.IsLocal(name) {
			return nil, errors.New("the path leads outside of the workflow's folder")
		}
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	case info.Size() > maxFile:
		return nil, fmt.Errorf("it has more than %d MiB", maxFile>>20)
	}
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// Parse checks a text. With any mistake in it, it returns no Workflow and a
// *Diagnostics with all of them.
func Parse(name string, text []byte, opts ParseOptions) (*Workflow, error) {
	p := newFileParser(name, text, opts)
	if root := p.document(p.text); root != nil {
		p.top(root)
	}
	warnings, bad := p.finish(text)
	if bad != nil {
		return nil, bad
	}
	p.w.Warnings = warnings
	return p.w, nil
}

// fileParser parses one file.
type fileParser struct {
	reader
	opts      ParseOptions
	w         *Workflow
	defaults  stepDefaults
	rules     []Rule
	off       map[string]*lintOff // rules that the file switches off
	ids       map[string]int      // step id → index in order, finally after the steps
	sortedIDs []string            // see idNames
	sessions  []string            // steps whose conversations are continued
	agents    bool                // there is an agent step
	profiles  *yaml.Node          // `profiles:` of the file, nil for none
	taken     map[string]bool     // profiles that a step takes
	// Of a called file: its folder, relative to that of the file that is run, and who
	// calls it. root is the workflow that is run.
	dir      string
	from     caller
	root     *Workflow
	isCalled bool
	total    int // steps, those of called files included
	needed   map[int][]string
	joins    map[int]*Join
	lists    []stepList
	places   []standing // of each step
	configs  map[scopeKind]*conf.Config
	compiled int             // expressions so far
	used     map[string]bool // inputs that an expression names
	// warned are the entries of allow that a warning names already.
	warned map[Pos]bool
}

func newFileParser(name string, text []byte, opts ParseOptions) *fileParser {
	p := &fileParser{
		reader: reader{bag: bag{file: name}, text: bytes.TrimPrefix(text, bom)}, opts: opts,
		rules: Rules(), used: map[string]bool{}, needed: map[int][]string{}, joins: map[int]*Join{}, warned: map[Pos]bool{},
		w: &Workflow{Path: name, Text: text, MaxParallel: 5, Files: map[string][]byte{}},
	}
	p.root, p.from = p.w, caller{chain: []string{filepath.Base(name)}, read: map[string]*Workflow{}}
	return p
}

// document decodes the text into its root node, nil when that is impossible.
func (p *fileParser) document(text []byte) *yaml.Node {
	start := Pos{Line: 1, Col: 1}
	if len(text) > maxFile {
		p.add("file", start, 1, "the file has more than %d MiB", maxFile>>20)
		return nil
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		p.add("file", posOf(text, i), 1, "the file holds a NUL byte")
		return nil
	}
	if !utf8.Valid(text) {
		p.add("file", posOf(text, invalidAt(text)), 1, "the file is not UTF-8")
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			d := p.add("file", start, 1, "the file is empty")
			d.Expected = []string{"name", "steps"}
			return nil
		}
		p.syntax(err)
		return nil
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		p.add("file", pos(&second), 1, "the file holds a second document; a workflow is one")
	} else if !errors.Is(err, io.EOF) {
		p.syntax(err)
	}
	if e := (&extent{}); !e.walk(&doc) {
		switch {
		case e.cyclic:
			p.at("file", e.culprit, "the value of &%s contains itself", e.culprit.Value)
		case e.count > maxExpanded:
			p.at("file", e.culprit, "aliases expand the file beyond %d values", maxExpanded)
		default:
			p.at("file", e.culprit, "the file is nested deeper than %d levels", maxNesting)
		}
		return nil
	}
	return real(doc.Content[0])
}

// extent walks a document as its aliases expand it, up to the limits.
type extent struct {
	count   int          // nodes that stand there through an alias
	aliases int          // how many aliases the node stands in
	above   []*yaml.Node // the collections around the node
	culprit *yaml.Node   // the node at which a limit was reached, or an alias of what it stands in
	cyclic  bool
}

func (e *extent) walk(n *yaml.Node) bool {
	target := real(n)
	if n != target && slices.Contains(e.above, target) {
		e.culprit, e.cyclic = n, true
		return false
	}
	if n != target {
		e.aliases++
		defer func() { e.aliases-- }()
	}
	if e.aliases > 0 {
		e.count++
	}
	if e.count > maxExpanded || len(e.above) > maxNesting*2 {
		e.culprit = n
		return false
	}
	if len(target.Content) == 0 {
		return true
	}
	e.above = append(e.above, target)
	for _, c := range target.Content {
		if !e.walk(c) {
			if target != n {
				e.culprit = n // the alias outside, not the place that it repeats
			}
			return false
		}
	}
	e.above = e.above[:len(e.above)-1]
	return true
}

func posOf(text []byte, i int) Pos {
	line := bytes.Count(text[:i], []byte("\n"))
	last := bytes.LastIndexByte(text[:i], '\n')
	return Pos{Line: line + 1, Col: utf8.RuneCount(text[last+1:i]) + 1}
}

func invalidAt(text []byte) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return 0
}

// top reads the file's keys. Steps are read after the defaults that they take,
// wherever those stand.
func (p *fileParser) top(root *yaml.Node) {
	var steps, onFailure, finally, env, defaults, outputs, concurrency *yaml.Node
	ok := p.mapping(root, ctxTop, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "name":
			p.w.Name, _ = p.str(v, "name")
		case "description":
			p.w.Description, _ = p.str(v, "description")
		case "inputs":
			p.inputs(v)
		case "env":
			env = v
		case "secrets":
			p.secrets(v)
		case "sandbox":
			p.sandbox(v)
		case "sandboxes":
			p.sandboxes(v)
		case "workspace":
			p.workspace(v)
		case "defaults":
			defaults = v
		case "timeout":
			p.w.Timeout = p.duration(v, "timeout")
		case "max_parallel":
			p.w.MaxParallel = p.integer(ctxTop, k, v)
		case "profiles":
			p.profiles = v
		case "budget":
			p.w.Budget = p.budget(v)
		case "concurrency":
			concurrency = v
		case "fail_fast":
			p.w.FailFast = p.boolean(v, "fail_fast")
		case "steps":
			steps = v
		case "lint":
			p.lint(v)
		case "on_failure":
			onFailure = v
		case "outputs":
			outputs = v
		case "mounts":
			p.w.Mounts = p.mounts(v)
		case "artifacts":
			p.w.Artifacts = p.artifacts(v)
		case "finally":
			finally = v
		default:
			return false
		}
		return true
	})
	if !ok {
		return
	}
	p.poolsFit()
	p.inPlaceSandboxes()
	if p.w.Name == "" && isMissing(valueOf(root, "name")) {
		p.add("required", pos(root), 1, "the workflow has no name")
	}
	if env != nil {
		p.w.Env = p.env(env, "env", p.topScope())
	}
	if concurrency != nil { // after the inputs that it names, wherever those stand
		p.w.Concurrency = p.concurrency(concurrency)
	}
	if defaults != nil {
		p.readDefaults(defaults)
	}
	p.steps(steps, onFailure, finally, root)
	p.backgroundFits()
	if p.defaults.agent != nil && !p.agents && len(p.places) > 0 { // else each agent step has read them
		p.agentKeys(&AgentStep{}, p.defaults.agent, inAgentDefaults, p.stepScope(0))
	}
	p.ownProfiles()
	if outputs != nil && p.lists != nil {
		p.w.Outputs = p.outputs(outputs, p.endScope())
	}
	p.lintFile()
	p.w.own(func(s *Step) { s.Hash, s.ItemsHash = hashStep(p.w, s), hashItems(s.Foreach) })
}

var (
	idName       = lazily(idPattern)
	envName      = lazily(namePattern)
	reservedName = lazily(reservedPattern)
)

func (p *fileParser) inputs(n *yaml.Node) {
	p.pairs(n, "inputs", func(k, v *yaml.Node) {
		in := Input{Name: k.Value, Type: "string", Pos: pos(k)}
		if !idName().MatchString(in.Name) {
			p.at("name", k, "an input's name has lower-case letters, digits and underscores, and starts with a letter")
		}
		var def *yaml.Node
		p.mapping(v, ctxInput, func(k, v *yaml.Node) bool {
			switch k.Value {
			case "type":
				in.Type = p.word(ctxInput, k, v)
			case "description":
				in.Description, _ = p.str(v, "description")
			case "required":
				in.Required = p.boolean(v, "required")
			case "default":
				def = v
			case "enum":
				p.list(v, "enum", func(x *yaml.Node) {
					var val any
					_ = x.Decode(&val)
					in.Enum = append(in.Enum, val)
				})
			case "pattern":
				in.Pattern, _ = p.str(v, "pattern")
				if _, err := regexp.Compile(in.Pattern); err != nil {
					p.at("pattern", v, "pattern: %v", err)
				}
			default:
				return false
			}
			return true
		})
		if inputTypes[in.Type] == nil {
			in.Type = "string"
		}
		if def != nil {
			in.HasDefault = true
			_ = def.Decode(&in.Default)
			v, err := convert(in, in.Default)
			if err != nil {
				p.at("type", def, "the default of input %s %v", in.Name, err)
			}
			in.Default = v
			if in.Required {
				p.at("required", def, "input %s is required and has a default; it can be only one", in.Name)
			}
		}
		p.w.Inputs = append(p.w.Inputs, in)
	})
}

func (p *fileParser) secrets(n *yaml.Node) {
	seen := map[string]bool{}
	p.list(n, "secrets", func(x *yaml.Node) {
		s := Secret{Pos: pos(x)}
		s.Pos.File = p.file
		// No message shows a text from here: it may be the secret itself.
		text := func(n *yaml.Node) string {
			if real(n).Kind != yaml.ScalarNode || real(n).Tag != "!!str" {
				return ""
			}
			return real(n).Value
		}
		if real(x).Kind == yaml.ScalarNode {
			s.Name = text(x)
		} else {
			p.mapping(x, ctxSecret, func(k, v *yaml.Node) bool {
				switch k.Value {
				case "name":
					s.Name = text(v)
				case "env":
					if s.Env = text(v); !envName().MatchString(s.Env) {
						p.add("name", pos(v), 1, "env is the name of a variable: letters, digits and underscores")
					}
				case "file":
					s.File, _ = p.str(v, "file")
				case "inject":
					s.Inject = p.inject(v)
				default:
					return false
				}
				return true
			})
		}
		switch {
		case !envName().MatchString(s.Name):
			d := p.add("name", s.Pos, 1, "a secret is declared by the name of a variable: letters, digits and underscores")
			d.Hint = "its value comes from the environment, --env-file or a file, never from here"
			return
		case seen[s.Name]:
			p.at("duplicate-key", x, "secret %s is declared twice", s.Name)
		case s.Env != "" && s.File != "":
			p.at("exclusive", x, "secret %s has env and file; it can be only one", s.Name)
		}
		seen[s.Name] = true
		p.w.Secrets = append(p.w.Secrets, s)
	})
}

func (p *fileParser) workspace(n *yaml.Node) {
	p.w.Workspace.Pos = pos(n)
	defer func() { p.inPlaceAlone(n) }()
	p.mapping(n, ctxWorkspace, func(k, v *yaml.Node) bool {
		switch k.Value {
		case "from":
			s, ok := p.str(v, "from")
			if ok && !filepath.IsLocal(s) {
				p.at("path", v, "workspace.from must lie in the project: %q leads outside", s)
			}
			p.w.Workspace.From = s
		case "exclude":
			p.list(v, "exclude", func(x *yaml.Node) {
				s, _ := p.str(x, "exclude")
				if strings.HasPrefix(s, "!") {
					p.at("pattern", x, "exclude does not know negation")
				}
				p.w.Workspace.Exclude = append(p.w.Workspace.Exclude, s)
			})
		case "path":
			s, ok := p.str(v, "path")
			if s = path.Clean(filepath.ToSlash(s)); ok && (!filepath.IsLocal(s) || s == ".") {
				p.at("path", v, "workspace.path is a folder in the workspace: %q is none", s)
			}
			p.w.Workspace.Path = s
		case "in_place":
			p.w.Workspace.InPlace = p.boolean(v, "in_place")
		case "apply":
			p.w.Workspace.Apply = p.word(ctxWorkspace, k, v)
		default:
			return false
		}
		return true
	})
}
