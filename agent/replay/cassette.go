package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-multierror"
	"gopkg.in/yaml.v3"

	"flowrun.dev/flow/agent/loop"
)

// Version of the format, and its bounds.
const (
	version     = 1
	maxCassette = 64 << 20
)

// Origins that a header may claim.
const (
	OriginHand     = "written by hand"
	OriginRecorded = "recorded"
)

// Cassette is one step's file.
type Cassette struct {
	Path string `yaml:"-"`

	Version int    `yaml:"cassette"`
	Origin  string `yaml:"origin"`
	Model   string `yaml:"model"`
	// Provider with a program of its own that was recorded, "" for our own loop, and the
	// program's version.
	Provider string `yaml:"provider"`
	Program  string `yaml:"program"`
	Note     string `yaml:"note"`
	// Opening is what the conversation began with, of a recorded one.
	Opening *Opening `yaml:"opening"`
	// Ignore are regular expressions: what they match in requests is not compared.
	Ignore []string `yaml:"ignore"`
	Turns  []Turn   `yaml:"turns"`

	ignore []*regexp.Regexp
}

// Turn is one answer of the model, and what its request has to look like.
type Turn struct {
	Expect     *Expect    `yaml:"expect"`
	Text       string     `yaml:"text"`
	Tools      []Call     `yaml:"tools"`
	StopReason string     `yaml:"stop_reason"`
	Usage      TokenUsage `yaml:"usage"`
	// Request and Message are those of a recorded turn, instead of the fields above:
	// what was asked, and the whole answer as JSON.
	Request *Asked `yaml:"request"`
	Message string `yaml:"message"`

	line int
}

// Expect is what a request must look like; what is not given is not compared.
type Expect struct {
	Tools              []string `yaml:"tools"`
	LastResultContains string   `yaml:"last_result_contains"`
}

// Call of a tool.
type Call struct {
	Name  string         `yaml:"name"`
	Input map[string]any `yaml:"input"`

	raw json.RawMessage
}

// TokenUsage of an answer.
type TokenUsage struct {
	InputTokens         int64 `yaml:"input_tokens"`
	OutputTokens        int64 `yaml:"output_tokens"`
	CacheReadTokens     int64 `yaml:"cache_read_tokens"`
	CacheCreationTokens int64 `yaml:"cache_write_tokens"`
}

// FileOf is the file of a step's cassette; a name that has more than letters, digits,
// _ and - (an instance of a loop) is escaped, so that it stays in the folder.
func FileOf(dir, step string) string {
	var b strings.Builder
	for _, c := range []byte(step) {
		if c == '_' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return filepath.Join(dir, b.String()+".yaml")
}

// Load reads the cassette of a step.
func Load(dir, step string) (*Cassette, error) {
	if step == "" {
		return nil, errors.New("read the cassette: the step has no name")
	}
	name := FileOf(dir, step)
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read the cassette of step %s: %w", step, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxCassette+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the cassette of step %s: %w", step, err)
	case len(text) > maxCassette:
		return nil, fmt.Errorf("read the cassette %s: it is larger than %d bytes", name, maxCassette)
	}
	return Parse(name, text)
}

// Parse reads a cassette's text; the error holds all mistakes, each with its line.
func Parse(name string, text []byte) (*Cassette, error) {
	c := &Cassette{Path: name}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is empty")
		}
		return nil, fmt.Errorf("parse the cassette %s: %w", name, plain(err))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("parse the cassette %s: more than one document", name)
	}
	c.lines(text)
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("parse the cassette %s: %w", name, err)
	}
	return c, nil
}

// plain takes the library's words about Go types out of its messages.
func plain(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	text = strings.TrimPrefix(text, "unmarshal errors:\n  ")
	return errors.New(goType().ReplaceAllString(text, ""))
}

var goType = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(` (in|into) (type )?(replay\.\w+|\[\]\S+|map\S+|int64|int|string)`)
})

// lines finds the turns' lines. The text parsed already, so a failure means none.
func (c *Cassette) lines(text []byte) {
	var doc struct {
		Turns []yaml.Node `yaml:"turns"`
	}
	if yaml.Unmarshal(text, &doc) != nil {
		return
	}
	for i := range c.Turns {
		if i < len(doc.Turns) {
			c.Turns[i].line = doc.Turns[i].Line
		}
	}
}

var stopReasons = []string{loop.StopEndTurn, loop.StopSequence, loop.StopToolUse, loop.StopMaxTokens, loop.StopPause, loop.StopRefusal, loop.StopWindow}

func (c *Cassette) check() error {
	var errs *multierror.Error
	wrong := func(format string, a ...any) { errs = multierror.Append(errs, fmt.Errorf(format, a...)) }
	if c.Version != version {
		wrong("line 1: cassette is %d; this flow plays version %d", c.Version, version)
	}
	if c.Origin != OriginHand && c.Origin != OriginRecorded {
		wrong("line 1: origin is %q; expected %q or %q", c.Origin, OriginHand, OriginRecorded)
	}
	if c.Model == "" {
		wrong("line 1: model is missing; write none where there was none")
	}
	if c.Provider != "" && !slices.Contains(Programs(), c.Provider) {
		wrong("line 1: provider is %q; expected one of %s", c.Provider, strings.Join(Programs(), ", "))
	}
	if c.Provider != "" && c.Origin != OriginRecorded {
		wrong("line 1: provider is that of a recorded cassette")
	}
	if len(c.Turns) == 0 {
		wrong("line 1: there are no turns")
	}
	for _, text := range c.Ignore {
		re, err := regexp.Compile(text)
		if err != nil {
			wrong("line 1: ignore: %w", err)
			continue
		}
		c.ignore = append(c.ignore, re)
	}
	for i := range c.Turns {
		t := &c.Turns[i]
		switch {
		case c.Origin == OriginRecorded:
			if err := t.recorded(); err != nil {
				wrong("line %d: %w", t.line, err)
			}
			continue
		case t.Request != nil || t.Message != "":
			wrong("line %d: request and message are those of a recorded cassette", t.line)
		}
		if t.StopReason == "" {
			t.StopReason = loop.StopEndTurn
			if len(t.Tools) > 0 {
				t.StopReason = loop.StopToolUse
			}
		}
		for j := range t.Tools {
			if err := t.Tools[j].encode(); err != nil {
				wrong("line %d: tool %d: %w", t.line, j+1, err)
			}
		}
		switch {
		case !slices.Contains(stopReasons, t.StopReason):
			wrong("line %d: stop_reason is %q; expected one of %s", t.line, t.StopReason, strings.Join(stopReasons, ", "))
		case (t.StopReason == loop.StopToolUse) != (len(t.Tools) > 0):
			wrong("line %d: stop_reason %s and %d tools do not go together", t.line, t.StopReason, len(t.Tools))
		case t.Text == "" && len(t.Tools) == 0:
			wrong("line %d: the turn has neither text nor tools", t.line)
		case i < len(c.Turns)-1 && t.StopReason != loop.StopToolUse && t.StopReason != loop.StopPause:
			wrong("line %d: the conversation ends here (%s), but there are more turns", t.line, t.StopReason)
		}
	}
	return errs.ErrorOrNil()
}

func (c *Call) encode() error {
	if c.Name == "" {
		return errors.New("name is missing")
	}
	if c.Input == nil {
		c.Input = map[string]any{}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(c.Input); err != nil {
		return fmt.Errorf("the input is not JSON: %w", err)
	}
	c.raw = bytes.TrimSpace(b.Bytes())
	return nil
}
