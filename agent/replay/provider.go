package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/loop"
)

// Provider is the agent.Provider `replay`. It may be used by several goroutines.
type Provider struct{}

var _ agent.Provider = Provider{}

// New returns the provider.
func New() Provider { return Provider{} }

// Name is "replay".
func (Provider) Name() string { return "replay" }

// EnforcesRights: our own tools run with the step's rights.
func (Provider) EnforcesRights() bool { return true }

// Check reads the cassette and checks the step's tools.
func (Provider) Check(r agent.Request) error {
	_, err := open(r)
	return err
}

// Converse plays the step's cassette.
func (Provider) Converse(ctx context.Context, r agent.Request) (agent.Result, error) {
	c, err := open(r)
	if err != nil {
		return agent.Result{}, err
	}
	return loop.Run(ctx, loop.Options{Model: newPlayer(c, r), Name: c.Model}, r)
}

func open(r agent.Request) (*Cassette, error) {
	if err := loop.Check(r); err != nil {
		return nil, err
	}
	c, err := load(r)
	if err == nil && c.Provider != "" {
		return nil, invalid("give the step provider "+c.Provider+", and play it with flow run --replay DIR", "play the cassette %s: it was recorded with provider %s", c.Path, c.Provider)
	}
	return c, err
}

// load reads the step's cassette.
func load(r agent.Request) (*Cassette, error) {
	if r.Cassette == "" {
		return nil, invalid("name its folder with agent.cassette, or flow run --replay DIR", "play a cassette: the step names none")
	}
	c, err := Load(r.Cassette, r.StepID)
	if err != nil {
		hint := ""
		if errors.Is(err, fs.ErrNotExist) {
			hint = fmt.Sprintf("a cassette has one file for each agent step; this step's would be %s", filepath.Join(r.Cassette, r.StepID+".yaml"))
		}
		return nil, &agent.Error{Class: agent.ClassInvalid, Hint: hint, Err: err}
	}
	if c.Origin == OriginRecorded && r.Model != "" && r.Model != c.Model {
		return nil, invalid("record it again with this model, or name the recorded one", "play the cassette %s: it was recorded with model %s, and the step asks for %s", c.Path, c.Model, r.Model)
	}
	return c, nil
}

func invalid(hint, format string, a ...any) *agent.Error {
	return &agent.Error{Class: agent.ClassInvalid, Hint: hint, Err: fmt.Errorf(format, a...)}
}

// player is the loop's Model.
type player struct {
	c    *Cassette
	next int
	q    requests
}

func newPlayer(c *Cassette, r agent.Request) *player {
	return &player{c: c, next: len(r.Continue), q: requests{home: homeOf(r.Sandbox), redact: redactor(r), ignore: c.ignore, before: len(r.History)}}
}

const mismatchHint = "the cassette no longer fits the workflow or the workspace: change it, or record it again"

// Next compares the request and gives the next turn.
func (p *player) Next(_ context.Context, r loop.MessageRequest) (loop.Message, error) {
	if p.next >= len(p.c.Turns) {
		return loop.Message{}, invalid(mismatchHint, "play the cassette %s: it has %d turns and turn %d was asked for; the last results were: %s",
			p.c.Path, len(p.c.Turns), p.next+1, excerpt(lastResults(r)))
	}
	t := p.c.Turns[p.next]
	if t.Request != nil {
		return p.recorded(t, r)
	}
	if err := p.compare(t, r); err != nil {
		return loop.Message{}, err
	}
	m := loop.Message{
		ID: fmt.Sprintf("msg_replay_%d", p.next), Type: "message", Role: "assistant", Model: p.c.Model, StopReason: t.StopReason,
		Usage: loop.Usage{InputTokens: t.Usage.InputTokens, OutputTokens: t.Usage.OutputTokens,
			CacheReadInputTokens: t.Usage.CacheReadTokens, CacheCreationInputTokens: t.Usage.CacheCreationTokens},
	}
	if t.Text != "" {
		m.Content = append(m.Content, must(map[string]any{"type": "text", "text": t.Text}))
	}
	for i, call := range t.Tools {
		m.Content = append(m.Content, must(map[string]any{"type": "tool_use", "id": fmt.Sprintf("toolu_replay_%d_%d", p.next, i), "name": call.Name, "input": call.raw}))
	}
	p.next++
	return m, nil
}

// recorded gives a recorded answer, if the request is the one that it answered.
func (p *player) recorded(t Turn, r loop.MessageRequest) (loop.Message, error) {
	if p.next > 0 && p.q.seen == 0 {
		p.q.rewind(r)
	}
	opening, added, digest := p.q.next(r)
	if digest != t.Request.Digest {
		return loop.Message{}, p.difference(t, opening, added)
	}
	var m loop.Message
	if err := json.Unmarshal([]byte(t.Message), &m); err != nil {
		return m, invalid("", "play the cassette %s: turn %d: %v", p.c.Path, p.next+1, err)
	}
	m.Raw = json.RawMessage(t.Message)
	p.next++
	return m, nil
}

// difference says where a request is not the recorded one.
func (p *player) difference(t Turn, opening Opening, added string) *agent.Error {
	what := "in its model, or in an earlier message"
	was := p.c.Opening
	switch {
	case added != t.Request.Added:
		what = differ(t.Request.Added, added)
	case was != nil && !slices.Equal(was.Tools, opening.Tools):
		what = fmt.Sprintf("in its tools: expected [%s], got [%s]", strings.Join(was.Tools, " "), strings.Join(opening.Tools, " "))
	case was != nil && was.System != opening.System:
		what = "in its system prompt, " + differ(was.System, opening.System)
	case was != nil && was.Digest != opening.Digest:
		what = "in the definitions of its tools: another version of flow recorded it"
	}
	return invalid(mismatchHint, "%s:%d: turn %d: the request differs from the recorded one %s", p.c.Path, t.line, p.next+1, what)
}

// must encodes strings and checked JSON, which cannot fail.
func must(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("replay: encode a checked turn: %v", err))
	}
	return raw
}

func (p *player) compare(t Turn, r loop.MessageRequest) error {
	if t.Expect == nil {
		return nil
	}
	at := fmt.Sprintf("%s:%d: turn %d", p.c.Path, t.line, p.next+1)
	if t.Expect.Tools != nil {
		var offered []string
		for _, s := range r.Tools {
			offered = append(offered, s.Name)
		}
		want := slices.Sorted(slices.Values(t.Expect.Tools))
		slices.Sort(offered)
		if !slices.Equal(want, offered) {
			return invalid(mismatchHint, "%s: the request differs: expected the tools [%s], got [%s]", at, strings.Join(want, " "), strings.Join(offered, " "))
		}
	}
	if want := t.Expect.LastResultContains; want != "" {
		if got := lastResults(r); !strings.Contains(got, want) {
			return invalid(mismatchHint, "%s: the request differs: expected the last results to contain %q, got: %s", at, bounded(want), excerpt(got))
		}
	}
	return nil
}

// lastResults is the text of the last message's results.
func lastResults(r loop.MessageRequest) string {
	if len(r.Messages) == 0 {
		return ""
	}
	var texts []string
	for _, raw := range r.Messages[len(r.Messages)-1].Content {
		var b loop.ToolResult
		if json.Unmarshal(raw, &b) == nil && b.Type == "tool_result" {
			texts = append(texts, b.Content)
		}
	}
	return strings.Join(texts, "\n")
}

const shown = 600

func excerpt(s string) string {
	if s == "" {
		return "(no results)"
	}
	return fmt.Sprintf("%q", bounded(s))
}

func bounded(s string) string {
	if r := []rune(s); len(r) > shown {
		return string(r[:shown/2]) + " … " + string(r[len(r)-shown/2:])
	}
	return s
}
