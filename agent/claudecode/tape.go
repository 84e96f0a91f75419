package claudecode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/gateway"
	"flowrun.dev/flow/agent/loop"
	"flowrun.dev/flow/agent/replay"
	"flowrun.dev/flow/agent/tools"
)

// tape is what the conversation is recorded on, or played from.
type tape struct {
	recorder *replay.Recorder // nil: it is not recorded
	player   *replay.Player   // nil: the model is asked
	answer   json.RawMessage  // of the player, to the request that is under way
}

func newTape(r agent.Request) (t tape, err error) {
	if r.Cassette != "" {
		if t.player, err = replay.NewPlayer(r, Name); err != nil {
			return t, err
		}
	}
	if r.Record != "" {
		t.recorder, err = replay.NewRecorder(r, Name)
	}
	return t, err
}

// playing is the gateway of a conversation that is played: it reaches nobody.
func (c *conversation) playing() (*gateway.Gateway, error) {
	return gateway.New(gateway.Options{BaseURL: "http://cassette.invalid", APIKey: "none", Transport: c, Prices: gateway.PriceTable{Models: map[string]gateway.Price{}}})
}

// RoundTrip gives the player's answer as the API would stream it.
func (c *conversation) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	raw := c.tape.answer
	c.tape.answer = nil
	c.mu.Unlock()
	if raw == nil || r.URL.Path != "/v1/messages" {
		return nil, errors.New("the cassette has no answer to this request")
	}
	body, err := events(raw)
	if err != nil {
		return nil, fmt.Errorf("play the recorded answer: %w", err)
	}
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"text/event-stream; charset=utf-8"}}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
}

// events are a message as the API streams it.
func events(raw json.RawMessage) ([]byte, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	var content []map[string]json.RawMessage
	if err := json.Unmarshal(m["content"], &content); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	var failed error
	send := func(kind string, fields map[string]any) {
		fields["type"] = kind
		text, err := json.Marshal(fields)
		failed = errors.Join(failed, err)
		fmt.Fprintf(&out, "event: %s\ndata: %s\n\n", kind, text)
	}
	begin := map[string]any{"content": []any{}, "stop_reason": nil, "stop_sequence": nil}
	for k, v := range m {
		if _, set := begin[k]; !set {
			begin[k] = v
		}
	}
	send("message_start", map[string]any{"message": begin})
	for i, b := range content {
		start, deltas := pieces(b)
		send("content_block_start", map[string]any{"index": i, "content_block": start})
		for _, d := range deltas {
			send("content_block_delta", map[string]any{"index": i, "delta": d})
		}
		send("content_block_stop", map[string]any{"index": i})
	}
	send("message_delta", map[string]any{"delta": map[string]any{"stop_reason": m["stop_reason"], "stop_sequence": m["stop_sequence"]}, "usage": m["usage"]})
	send("message_stop", map[string]any{})
	return out.Bytes(), failed
}

// pieces are a block's beginning, and what follows of it.
func pieces(b map[string]json.RawMessage) (start map[string]any, deltas []map[string]any) {
	start = map[string]any{}
	for k, v := range b {
		start[k] = v
	}
	text := func(field string) (s string) {
		_ = json.Unmarshal(b[field], &s) // what is no text stays ""
		return s
	}
	move := func(field, kind string) {
		if s := text(field); s != "" {
			start[field] = ""
			deltas = append(deltas, map[string]any{"type": kind, field: s})
		}
	}
	switch text("type") {
	case "text":
		move("text", "text_delta")
	case "thinking":
		move("thinking", "thinking_delta")
		move("signature", "signature_delta")
	case "tool_use", "server_tool_use":
		start["input"] = map[string]any{}
		deltas = append(deltas, map[string]any{"type": "input_json_delta", "partial_json": string(b["input"])})
	}
	return start, deltas
}

// reminders are what the CLI adds to messages of its own: dates, the state of things.
var reminders = regexp.MustCompile(`(?s)\s*<system-reminder>.*?</system-reminder>\s*`)

// noResponse is what the CLI lets the model have said when it resumes a session that
// ends with results of tools (measured).
const noResponse = "No response requested."

// normal is a request of the CLI without what is another in every run, or in every
// version: it keeps the model, the names of the tools, the step's own system prompt, and
// what the messages of user and assistant say, without thinking, reminders and marks of
// caching, results in the order of their calls.
func normal(r agent.Request, body []byte) (loop.MessageRequest, error) {
	var in struct {
		Model    string       `json:"model"`
		Tools    []tools.Spec `json:"tools"`
		Messages []struct {
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return loop.MessageRequest{}, fmt.Errorf("read the CLI's request: %w", err)
	}
	out := loop.MessageRequest{Model: in.Model, System: strings.TrimSpace(r.System + "\n\n" + r.AppendSystem)}
	for _, t := range in.Tools {
		out.Tools = append(out.Tools, tools.Spec{Name: t.Name})
	}
	calls := map[string]int{} // by id: where they stand among all
	for _, m := range in.Messages {
		if m.Role != "user" && m.Role != "assistant" {
			continue
		}
		list, raw := blocks(m.Content)
		inOrder(calls, list, raw)
		var content []json.RawMessage
		for i, b := range list {
			if b.Type == "text" && (b.Text == goOn || b.Text == noResponse) {
				continue // after an interruption, which a replay does not have
			}
			if clean := normalBlock(raw[i], b); clean != nil {
				content = append(content, clean)
			}
		}
		n := len(out.Messages)
		switch {
		case len(content) == 0:
		case n > 0 && out.Messages[n-1].Role == m.Role:
			out.Messages[n-1].Content = append(out.Messages[n-1].Content, content...)
		default:
			out.Messages = append(out.Messages, loop.Input{Role: m.Role, Content: content})
		}
	}
	return out, nil
}

// inOrder sorts results by their calls: they come as the tools ended.
func inOrder(calls map[string]int, list []block, raw []json.RawMessage) {
	at := make([]int, 0, len(list))
	for i, b := range list {
		switch b.Type {
		case "tool_use":
			calls[b.ID] = len(calls)
		case "tool_result":
			at = append(at, i)
		}
	}
	for i := range at { // few; equal ones stay
		for k := i; k > 0 && calls[list[at[k]].ToolUseID] < calls[list[at[k-1]].ToolUseID]; k-- {
			a, b := at[k], at[k-1]
			list[a], list[b] = list[b], list[a]
			raw[a], raw[b] = raw[b], raw[a]
		}
	}
}

// normalBlock is a block in the form that is compared, nil for one that says nothing.
func normalBlock(raw json.RawMessage, b block) json.RawMessage {
	var fields map[string]any
	if json.Unmarshal(raw, &fields) != nil { // a message that is a plain text
		fields = map[string]any{"type": "text", "text": b.Text}
	}
	delete(fields, "cache_control")
	switch b.Type {
	case "thinking", "redacted_thinking":
		return nil // the model's own, from an answer before
	case "text":
		text := strings.TrimSpace(reminders.ReplaceAllString(b.Text, "\n"))
		if text == "" {
			return nil
		}
		fields["text"] = text
	case "tool_result":
		fields["content"] = resultOf(b.Content)
		if b.IsError {
			fields["is_error"] = true
		} else {
			delete(fields, "is_error")
		}
	}
	out, err := json.Marshal(fields)
	if err != nil {
		return raw
	}
	return out
}

// resultOf is a result's text without reminders, or, where there is more than text, all.
func resultOf(content json.RawMessage) any {
	list, _ := blocks(content)
	for _, b := range list {
		if b.Type != "text" {
			return content
		}
	}
	return strings.TrimSpace(reminders.ReplaceAllString(resultText(content), "\n"))
}
