package replay

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/loop"
)

// A provider with a program of its own is recorded and played where its requests pass:
// at the gateway. Its cassette names it, as only the same program makes the same
// requests.

// Programs are the providers whose cassettes are played by the provider itself. A cassette
// is not trusted: it cannot name another one.
func Programs() []string { return []string{"claude-code"} }

// ProviderOf is the provider that a step's cassette was recorded with: "" where there is
// none, for one written by hand, and for a conversation of our own loop.
func ProviderOf(dir, step string) string {
	f, err := os.Open(FileOf(dir, step))
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 64<<10))
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "provider: "); ok {
			if name = strings.TrimSpace(name); slices.Contains(Programs(), name) {
				return name
			}
			return ""
		}
		if strings.HasPrefix(lines.Text(), "opening:") || strings.HasPrefix(lines.Text(), "turns:") {
			break
		}
	}
	return ""
}

// Recorder writes what passes to a step's cassette.
type Recorder struct{ rec *recorder }

// NewRecorder makes the cassette of a provider ready for the next turn.
func NewRecorder(r agent.Request, provider string) (*Recorder, error) {
	rec, err := newRecorder(r.Model, provider, r)
	if err != nil {
		return nil, err
	}
	return &Recorder{rec}, nil
}

// Write adds a turn: a request, in the provider's normal form, and its whole answer.
// program is the version of what made the request.
func (c *Recorder) Write(program string, q loop.MessageRequest, answer json.RawMessage) error {
	c.rec.program = program
	if c.rec.model == "" {
		c.rec.model = q.Model
	}
	return c.rec.add(q, answer)
}

// Player gives a recorded provider's answers.
type Player struct{ p *player }

// NewPlayer opens the step's cassette, which has to be one of the provider.
func NewPlayer(r agent.Request, provider string) (*Player, error) {
	c, err := load(r)
	if err != nil {
		return nil, err
	}
	if c.Provider != provider {
		return nil, invalid("play it with the provider that it was recorded with", "play the cassette %s: it was recorded with provider %s", c.Path, orOurs(c.Provider))
	}
	return &Player{newPlayer(c, r)}, nil
}

func orOurs(provider string) string {
	if provider == "" {
		return "anthropic"
	}
	return provider
}

// Answer is the next one, if the request, in the provider's normal form, is the one that
// it answered.
func (p *Player) Answer(program string, q loop.MessageRequest) (json.RawMessage, error) {
	m, err := p.p.Next(context.Background(), q) // it asks nobody
	if err != nil {
		if was := p.p.c.Program; program != "" && was != "" && was != program {
			return nil, invalid(mismatchHint, "%v (recorded with version %s of the program, this is %s)", err, was, program)
		}
		return nil, err
	}
	if m.Raw == nil {
		return nil, fmt.Errorf("play the cassette %s: turn %d has no recorded answer", p.p.c.Path, p.p.next)
	}
	return m.Raw, nil
}
