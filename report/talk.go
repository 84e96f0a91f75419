package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// TurnView is one turn of a conversation: what the model said, what it called, and what
// came of it. Its texts are foreign; secrets were taken out of them.
type TurnView struct {
	Step         string     `json:"step"`
	Conversation int        `json:"conversation"` // the attempt in which it began
	Turn         int        `json:"turn"`         // from 1
	Prompt       string     `json:"prompt,omitempty"`
	Text         []string   `json:"text,omitempty"`
	Calls        []CallView `json:"calls,omitempty"`
	Model        string     `json:"model,omitempty"`
	StopReason   string     `json:"stop_reason,omitempty"`
	// LeftOut are old results that the model no longer sees from this turn on.
	LeftOut      int     `json:"left_out,omitempty"`
	InputTokens  int64   `json:"input_tokens"` // what the cache gave or took included
	OutputTokens int64   `json:"output_tokens"`
	CostUSD      float64 `json:"cost_usd"`
}

// CallView is one call of a tool.
type CallView struct {
	Name   string `json:"name"`
	Input  string `json:"input"` // JSON
	Result string `json:"result,omitempty"`
	Error  bool   `json:"is_error,omitempty"`
}

// How much of one text is shown; --json has it all.
const (
	talkLines = 12
	talkChars = 2000
)

// WriteTurn shows a turn to people, bounded: each text by its lines and characters.
func WriteTurn(w io.Writer, v TurnView, s Style) error {
	s = s.withDefaults()
	var b bytes.Buffer
	g := s.glyphs()
	if v.Prompt != "" {
		talk(&b, s, "› ", "  ", toneName, v.Prompt)
	}
	head := fmt.Sprintf("turn %d", v.Turn)
	head += g.sep + fmt.Sprintf("%d tokens in, %d out", v.InputTokens, v.OutputTokens)
	if v.CostUSD > 0 {
		head += g.sep + money(v.CostUSD)
	}
	if v.StopReason != "" && v.StopReason != "tool_use" && v.StopReason != "end_turn" {
		head += g.sep + clean(v.StopReason)
	}
	fmt.Fprintln(&b, s.clip(s.paint(toneDim, "── "+head), s.Width))
	if v.LeftOut > 0 {
		fmt.Fprintln(&b, s.paint(toneDim, fmt.Sprintf("· the conversation no longer fitted: %d old results are left out from here on", v.LeftOut)))
	}
	for _, text := range v.Text {
		talk(&b, s, "", "", toneNone, text)
	}
	for _, c := range v.Calls {
		fmt.Fprintln(&b, s.clip(s.paint(toneLive, "● "+clean(c.Name))+" "+clean(short(c.Input, talkChars)), s.Width))
		switch {
		case c.Error:
			talk(&b, s, "  "+g.failed+" ", "    ", toneBad, c.Result)
		case c.Result != "":
			talk(&b, s, "  ↳ ", "    ", toneDim, c.Result)
		}
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write turn %d: %w", v.Turn, err)
	}
	return nil
}

// talk writes a foreign text, each line cut to the width.
func talk(b *bytes.Buffer, s Style, first, rest string, t tone, text string) {
	shown := short(text, talkChars)
	lines := strings.Split(strings.TrimRight(shown, "\n"), "\n")
	more := ""
	if len(lines) > talkLines {
		lines = lines[:talkLines]
		shown = strings.Join(lines, "\n")
	}
	if left := len(text) - len(shown); left > 0 && strings.TrimSpace(text[len(shown):]) != "" {
		more = rest + s.glyphs().ellipsis + " " + bytesText(int64(left)) + " more"
	}
	lead := first
	for _, l := range lines {
		fmt.Fprintln(b, s.clip(s.paint(t, lead+clean(l)), s.Width))
		lead = rest
	}
	if more != "" {
		fmt.Fprintln(b, s.paint(toneDim, more))
	}
}

// short is the beginning of a text, cut between characters.
func short(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}
