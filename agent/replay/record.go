package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/loop"
	"flowrun.dev/flow/sandbox"
)

// ignored is what a new recording does not compare: times that programs print. It
// stands in the cassette's header, where it can be changed.
var ignored = []string{`\b[0-9]+(\.[0-9]+)?(ns|µs|ms|s)\b`}

// Record returns m with every request and answer written to the step's cassette in
// r.Record, as they come: what a kill leaves is a cassette of what was complete. A
// conversation that goes on goes on in its cassette.
func Record(m loop.Model, name string, r agent.Request) (loop.Model, error) {
	rec, err := newRecorder(name, "", r)
	if err != nil {
		return nil, err
	}
	rec.m = m
	return rec, nil
}

func newRecorder(name, provider string, r agent.Request) (*recorder, error) {
	rec := &recorder{provider: provider, path: FileOf(r.Record, r.StepID), model: name, redact: redactor(r)}
	rec.q = requests{home: homeOf(r.Sandbox), redact: rec.redact, before: len(r.History)}
	for _, text := range ignored {
		rec.q.ignore = append(rec.q.ignore, regexp.MustCompile(text))
	}
	if err := rec.begin(len(r.Continue)); err != nil {
		return nil, &agent.Error{Class: agent.ClassInvalid, Err: fmt.Errorf("record the cassette %s: %w", rec.path, err)}
	}
	return rec, nil
}

func redactor(r agent.Request) func(string) string {
	if r.Redact != nil {
		return r.Redact
	}
	return func(s string) string { return s }
}

// homeOf is the real home where it is not sandbox.HomeDir.
func homeOf(sb sandbox.Sandbox) string {
	if sb == nil || sb.Info().Tier != sandbox.TierNone {
		return ""
	}
	return sb.Home()
}

type recorder struct {
	m      loop.Model
	path   string
	model  string
	q      requests
	redact func(string) string
	turns  int // in the file

	provider, program string // see Cassette
}

// header of a recorded cassette; the turns follow.
type header struct {
	Version int    `yaml:"cassette"`
	Origin  string `yaml:"origin"`
	Model   string `yaml:"model"`
	// Of a provider with a program of its own.
	Provider string   `yaml:"provider,omitempty"`
	Program  string   `yaml:"program,omitempty"`
	Ignore   []string `yaml:"ignore"`
	Opening  Opening  `yaml:"opening"`
}

type recordedTurn struct {
	Request Asked  `yaml:"request"`
	Message string `yaml:"message"`
}

// begin makes the file ready for the turn after `complete` ones.
func (c *recorder) begin(complete int) error {
	if err := os.MkdirAll(filepath.Dir(c.path), 0o755); err != nil {
		return err
	}
	if complete == 0 {
		return nil // the first answer writes the file anew
	}
	text, err := os.ReadFile(c.path)
	if err != nil {
		return err
	}
	old, err := Parse(c.path, text)
	if err != nil {
		return err
	}
	if old.Origin != OriginRecorded || len(old.Turns) < complete || old.Opening == nil {
		return fmt.Errorf("it has %d recorded turns, and the conversation goes on after %d", len(old.Turns), complete)
	}
	if old.Provider != c.provider {
		return fmt.Errorf("it was recorded with provider %s", orOurs(old.Provider))
	}
	c.model, c.program = old.Model, old.Program
	var b bytes.Buffer
	err = c.head(&b, *old.Opening)
	for _, t := range old.Turns[:complete] {
		err = errors.Join(err, appendTurn(&b, recordedTurn{*t.Request, t.Message}))
	}
	if err != nil {
		return err
	}
	c.turns = complete
	return os.WriteFile(c.path, b.Bytes(), 0o644)
}

// Next asks the model and records its answer.
func (c *recorder) Next(ctx context.Context, r loop.MessageRequest) (loop.Message, error) {
	m, err := c.m.Next(ctx, r)
	if err != nil {
		return m, err
	}
	raw := m.Raw
	if raw == nil {
		if raw, err = json.Marshal(m); err != nil {
			return m, fmt.Errorf("record the answer: %w", err)
		}
	}
	return m, c.add(r, raw)
}

// add writes one turn.
func (c *recorder) add(r loop.MessageRequest, answer json.RawMessage) error {
	if c.turns > 0 && c.q.seen == 0 {
		c.q.rewind(r)
	}
	opening, added, digest := c.q.next(r)
	if err := c.write(opening, recordedTurn{Asked{digest, added}, c.redact(string(answer))}); err != nil {
		return &agent.Error{Class: agent.ClassInfrastructure, Err: fmt.Errorf("record the cassette %s: %w", c.path, err)}
	}
	return nil
}

func (c *recorder) write(o Opening, t recordedTurn) error {
	var b bytes.Buffer
	flags := os.O_WRONLY | os.O_APPEND
	if c.turns == 0 {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
		if err := c.head(&b, o); err != nil {
			return err
		}
	}
	if err := appendTurn(&b, t); err != nil {
		return err
	}
	f, err := os.OpenFile(c.path, flags, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Close()); err == nil {
		c.turns++
	}
	return err
}

func (c *recorder) head(b *bytes.Buffer, o Opening) error {
	b.WriteString("# Recorded by `flow run --record`, played by `flow run --replay`. Secrets are redacted.\n")
	if err := encodeYAML(b, header{Version: version, Origin: OriginRecorded, Model: c.model, Provider: c.provider, Program: c.program, Ignore: ignored, Opening: o}); err != nil {
		return err
	}
	b.WriteString("turns:\n")
	return nil
}

func encodeYAML(b *bytes.Buffer, v any) error {
	enc := yaml.NewEncoder(b)
	enc.SetIndent(2)
	return errors.Join(enc.Encode(v), enc.Close())
}

// appendTurn writes one item of the list of turns.
func appendTurn(b *bytes.Buffer, t recordedTurn) error {
	var item bytes.Buffer
	if err := encodeYAML(&item, []recordedTurn{t}); err != nil {
		return err
	}
	for l := range strings.Lines(item.String()) {
		if l != "\n" {
			b.WriteString("  ")
		}
		b.WriteString(l)
	}
	return nil
}
