package replay

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"flowrun.dev/flow/agent/loop"
	"flowrun.dev/flow/sandbox"
)

// Opening is what the first request of a recorded conversation holds beside its
// message.
type Opening struct {
	System string `yaml:"system"`
	// Tools offered, and the digest of their definitions.
	Tools  []string `yaml:"tools,flow"`
	Digest string   `yaml:"tools_digest"`
}

// Asked is what a recorded turn's request added to the one before.
type Asked struct {
	// Digest of this request: SHA-256 over the digest before and what was added. So it
	// stands for the whole conversation until here.
	Digest string `yaml:"digest"`
	// Added is the text of it, one block a line, redacted.
	Added string `yaml:"added"`
}

func (t *Turn) recorded() error {
	switch {
	case t.Request == nil || t.Message == "":
		return errors.New("a recorded turn has a request and a message")
	case t.Expect != nil || t.Text != "" || t.Tools != nil || t.StopReason != "":
		return errors.New("a recorded turn has a request and a message, and nothing else")
	}
	var m loop.Message
	if err := json.Unmarshal([]byte(t.Message), &m); err != nil {
		return fmt.Errorf("message: %w", err)
	}
	return nil
}

// requests makes the texts and digests of a conversation's requests, one after the
// other. Recorder and player use the same, so equal requests have equal digests.
type requests struct {
	// home is the real directory that sandbox.HomeDir means, "" where it is that.
	home   string
	redact func(string) string
	ignore []*regexp.Regexp

	before int // answers of the conversations that this one goes on with
	seen   int // messages of the requests so far
	digest string
}

// next is the opening, and what the request added to the one before.
func (q *requests) next(r loop.MessageRequest) (o Opening, added, digest string) {
	o = Opening{System: q.clean(r.System)}
	for _, t := range r.Tools {
		o.Tools = append(o.Tools, t.Name)
	}
	tools, _ := json.Marshal(r.Tools) // specs are strings and JSON
	o.Digest = digestOf(q.clean(string(tools)))
	var lines []string
	if len(r.Messages) < q.seen {
		q.seen = 0 // a program has summed the conversation up: what is left is all new
		q.digest = digestOf(q.digest + "\x00" + "from here on")
	}
	for _, m := range r.Messages[min(q.seen, len(r.Messages)):] {
		for _, block := range m.Content {
			lines = append(lines, m.Role+": "+q.clean(string(block)))
		}
	}
	added = strings.Join(lines, "\n") + "\n"
	if q.digest == "" {
		q.digest = digestOf(r.Model + "\x00" + o.System + "\x00" + o.Digest)
	}
	q.digest = digestOf(q.digest + "\x00" + added)
	q.seen = len(r.Messages)
	return o, added, q.digest
}

// rewind feeds the requests before the newest one, of a conversation that goes on. The
// first of them held the answers of the conversations before it.
func (q *requests) rewind(r loop.MessageRequest) {
	answers := 0
	for n := 1; n < len(r.Messages); n++ {
		if r.Messages[n].Role != "assistant" {
			continue
		}
		if answers++; answers > q.before {
			q.next(loop.MessageRequest{Model: r.Model, System: r.System, Tools: r.Tools, Messages: r.Messages[:n]})
		}
	}
}

// clean takes out what must not be stored (secrets) or cannot be equal (the home of
// driver host, what the cassette ignores).
func (q *requests) clean(text string) string {
	if q.home != "" {
		text = strings.ReplaceAll(text, q.home, sandbox.HomeDir)
	}
	text = q.redact(text)
	for _, re := range q.ignore {
		text = re.ReplaceAllString(text, "…")
	}
	return text
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// differ is the first place where two texts differ, for people.
func differ(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := 0; i < max(len(w), len(g)); i++ {
		a, b := []rune(nth(w, i)), []rune(nth(g, i))
		if string(a) == string(b) {
			continue
		}
		at := 0
		for at < min(len(a), len(b)) && a[at] == b[at] {
			at++
		}
		return fmt.Sprintf("at block %d, character %d: expected %s, got %s", i+1, at+1, around(a, at), around(b, at))
	}
	return "in what is not shown"
}

func nth(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return ""
}

// around is the text near a place, quoted.
func around(r []rune, at int) string {
	from, to := max(0, at-40), min(len(r), at+160)
	text := string(r[from:to])
	if from > 0 {
		text = "…" + text
	}
	if to < len(r) {
		text += "…"
	}
	if text == "" {
		return "nothing"
	}
	return fmt.Sprintf("%q", text)
}
