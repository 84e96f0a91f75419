package claudecode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/tidwall/sjson"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/anthropic"
)

// maxBody bounds one request: the API's own limit is 32 MB.
const maxBody = 64 << 20

// turn is an answer whose results are not yet known.
type turn struct {
	response json.RawMessage
	calls    []string // ids of its tool_use blocks
}

// tap returns the handler between the CLI and the gateway. It sees every request and
// answer: turns, tokens and errors are taken from here, not from the CLI's words.
func (c *conversation) tap(gateway http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/v1/messages" {
			gateway.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
		if err != nil || len(body) > maxBody {
			answer(w, http.StatusBadRequest, "invalid_request_error", "the request is too large or broke off")
			return
		}
		if err := c.request(body); err != nil {
			c.fail(err)
			answer(w, http.StatusBadRequest, "invalid_request_error", "flow has ended this conversation")
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		// The answer is read here as well, so it must not be compressed.
		r.Header.Del("Accept-Encoding")
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		gateway.ServeHTTP(rec, r)
		c.answer(rec)
	})
}

// request is the boundary of turns: what was answered before is complete now. The
// request waits until the turn is stored.
func (c *conversation) request(body []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fatal != nil {
		return c.fatal
	}
	c.api = nil
	if c.turn == nil {
		return nil
	}
	if err := c.record(c.resultsIn(body)); err != nil {
		return err
	}
	if c.denied != nil && c.r.OnDenied == "fail" {
		return &agent.Error{Class: agent.ClassDenied, Err: c.denied,
			Hint: "on_denied is fail; allow the call in allowed_tools, or let the agent be told (on_denied: tell)"}
	}
	if c.r.MaxTurns > 0 && c.index >= c.r.MaxTurns {
		return maxTurns(c.r.MaxTurns)
	}
	return nil
}

// resultsIn takes the open turn's results out of a request.
func (c *conversation) resultsIn(body []byte) []json.RawMessage {
	if len(c.turn.calls) == 0 {
		return nil
	}
	var req struct {
		Messages []struct {
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
	}
	found := map[string]json.RawMessage{}
	if json.Unmarshal(body, &req) == nil {
		for i := len(req.Messages) - 1; i >= 0 && req.Messages[i].Role != "assistant"; i-- {
			list, raw := blocks(req.Messages[i].Content)
			for k, b := range list {
				if b.Type == "tool_result" {
					found[b.ToolUseID] = raw[k]
				}
			}
		}
	}
	var results []json.RawMessage
	for _, id := range c.turn.calls {
		raw, ok := found[id]
		if !ok {
			raw, ok = c.results[id] // a request that sums the conversation up
		}
		if ok {
			results = append(results, raw)
		}
	}
	return results
}

// record hands the open turn over. The caller holds mu.
func (c *conversation) record(results []json.RawMessage) error {
	t := agent.Turn{Index: c.index, Response: c.turn.response}
	if results != nil {
		t.Results = slices.Concat([]byte("["), bytes.Join(asBytes(results), []byte(",")), []byte("]"))
	}
	c.index++
	c.turn = nil
	clear(c.results)
	if c.r.Turn == nil {
		return nil
	}
	if err := c.r.Turn(t); err != nil {
		return fmt.Errorf("record turn %d: %w", t.Index+1, err)
	}
	return nil
}

// asBytes is for bytes.Join: encoding a list of raw values would change their text.
func asBytes(list []json.RawMessage) [][]byte {
	out := make([][]byte, len(list))
	for i, raw := range list {
		out[i] = raw
		// The marker of what the API should cache is the request's, not the result's.
		if plain, err := sjson.DeleteBytes(slices.Clone(raw), "cache_control"); err == nil {
			out[i] = plain
		}
	}
	return out
}

// answer takes what the gateway answered into the conversation.
func (c *conversation) answer(rec *recorder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if rec.status >= 300 {
		c.api = anthropic.HTTPError(rec.status, rec.Header(), rec.body.Bytes())
		return
	}
	raw, err := message(rec.Header().Get("content-type"), rec.body.Bytes())
	var refused *streamError
	switch {
	case errors.As(err, &refused):
		c.api = anthropic.HTTPError(http.StatusOK, rec.Header(), refused.body)
		return
	case err != nil:
		c.api = &agent.Error{Class: agent.ClassInfrastructure, Err: fmt.Errorf("ask the model: %w", err)}
		return
	}
	var m struct {
		Model      string          `json:"model"`
		Content    json.RawMessage `json:"content"`
		StopReason string          `json:"stop_reason"`
		Usage      struct {
			Input      int64 `json:"input_tokens"`
			Output     int64 `json:"output_tokens"`
			CacheRead  int64 `json:"cache_read_input_tokens"`
			CacheWrite int64 `json:"cache_creation_input_tokens"`
		} `json:"usage"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		c.api = &agent.Error{Class: agent.ClassInfrastructure, Err: fmt.Errorf("read the model's answer: %w", err)}
		return
	}
	u := &c.res.Usage
	u.Turns++
	u.InputTokens += m.Usage.Input
	u.OutputTokens += m.Usage.Output
	u.CacheReadTokens += m.Usage.CacheRead
	u.CacheWriteTokens += m.Usage.CacheWrite
	if m.Model != "" {
		c.res.Model = m.Model
	}
	c.res.StopReason = m.StopReason
	c.turn = &turn{response: raw}
	var text []string
	list, _ := blocks(m.Content)
	for _, b := range list {
		switch b.Type {
		case "tool_use":
			u.ToolCalls++
			c.turn.calls = append(c.turn.calls, b.ID)
		case "text":
			text = append(text, b.Text)
		}
	}
	c.res.Text = strings.TrimSpace(strings.Join(text, "\n\n"))
}

// recorder keeps a copy of an answer as it passes.
type recorder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.body.Len() < maxBody {
		r.body.Write(b)
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets a reverse proxy flush.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
