package agenttest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Call of a tool in a Turn.
type Call struct {
	Name  string
	Input any // encoded as JSON
}

// Turn is one scripted answer.
type Turn struct {
	Text       string
	Blocks     []string // raw content blocks, sent as they are before the text
	Tools      []Call
	StopReason string // default: tool_use with tools, else end_turn
	// Input, Output, CacheRead and CacheWrite are the answer's tokens.
	Input, Output, CacheRead, CacheWrite int64

	// Status answers with an HTTP error instead, of Type and Message, with Headers.
	Status        int
	Type, Message string
	Headers       map[string]string
	// MidError sends an error event of Type after the answer has begun; Drop closes
	// the connection in its middle; Cut ends it politely without its end.
	MidError, Drop, Cut bool
	// Hold keeps the answer until the client goes away.
	Hold bool
}

// Request is what the server received.
type Request struct {
	Header http.Header
	Raw    []byte
	Body   struct {
		Model     string `json:"model"`
		MaxTokens int64  `json:"max_tokens"`
		Stream    bool   `json:"stream"`
		System    []struct {
			Text         string          `json:"text"`
			CacheControl json.RawMessage `json:"cache_control"`
		} `json:"system"`
		Tools    []struct{ Name string } `json:"tools"`
		Messages []struct {
			Role    string `json:"role"`
			Content Blocks `json:"content"`
		} `json:"messages"`
	}
}

// Blocks of a message's content; a plain string, which the API takes as well, is one
// text block.
type Blocks []map[string]json.RawMessage

// UnmarshalJSON takes a list of blocks or a string.
func (b *Blocks) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] == '"' {
		*b = Blocks{{"type": json.RawMessage(`"text"`), "text": json.RawMessage(raw)}}
		return nil
	}
	return json.Unmarshal(raw, (*[]map[string]json.RawMessage)(b))
}

// Server is a scripted Messages API. Each request takes the next turn; one too many
// is answered with 400.
type Server struct {
	URL string
	// Held receives when a Hold turn has begun.
	Held chan struct{}
	// Seen is told of every request, with its number from 1. With it the requests are
	// not kept: those of a long conversation are large.
	Seen func(n int, r Request)

	mu       sync.Mutex
	turns    []Turn
	requests []Request
}

// NewServer starts it on 127.0.0.1 until the test's end.
func NewServer(t testing.TB, turns ...Turn) *Server {
	s := &Server{turns: turns, Held: make(chan struct{}, 1)}
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	s.URL = h.URL
	return s
}

// Requests that came so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

func (s *Server) next(r Request) (Turn, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Seen != nil {
		s.Seen(len(s.requests)+1, r)
		r = Request{}
	}
	s.requests = append(s.requests, r)
	n := len(s.requests)
	if n > len(s.turns) {
		return Turn{Status: 400, Type: "invalid_request_error", Message: "the script has no more turns"}, n
	}
	return s.turns[n-1], n
}

// ServeHTTP answers POST /v1/messages.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	req := Request{Header: r.Header.Clone(), Raw: raw}
	if r.URL.Path != "/v1/messages" || r.Method != http.MethodPost || json.Unmarshal(raw, &req.Body) != nil || !req.Body.Stream {
		httpError(w, 404, "not_found_error", "only streaming POST /v1/messages")
		return
	}
	t, n := s.next(req)
	w.Header().Set("request-id", fmt.Sprintf("req_test_%d", n))
	for k, v := range t.Headers {
		w.Header().Set(k, v)
	}
	switch {
	case t.Hold:
		s.Held <- struct{}{}
		<-r.Context().Done()
	case t.Status != 0:
		httpError(w, t.Status, t.Type, t.Message)
	default:
		w.Header().Set("content-type", "text/event-stream; charset=utf-8")
		stream{w: w, t: t, n: n, model: req.Body.Model}.send()
	}
}

func httpError(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("content-type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(object{"type": "error", "error": object{"type": kind, "message": message}})
}

type object = map[string]any

// stream is one answer as server-sent events, in the pieces that the real API sends:
// a ping, text in two deltas, a tool's input as partial JSON.
type stream struct {
	w     http.ResponseWriter
	t     Turn
	n     int
	model string
}

func (s stream) event(name string, v object) {
	v["type"] = name
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("agenttest: encode a scripted turn: %v", err))
	}
	_, _ = fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", name, raw)
	s.w.(http.Flusher).Flush()
}

func (s stream) usage(output int64) object {
	return object{"input_tokens": s.t.Input, "output_tokens": output, "cache_read_input_tokens": s.t.CacheRead, "cache_creation_input_tokens": s.t.CacheWrite}
}

func (s stream) send() {
	t := s.t
	s.event("message_start", object{"message": object{"id": fmt.Sprintf("msg_test_%d", s.n), "type": "message", "role": "assistant", "model": s.model,
		"content": []any{}, "stop_reason": nil, "stop_sequence": nil, "usage": s.usage(1)}})
	s.event("ping", object{})
	if t.MidError {
		s.event("error", object{"error": object{"type": t.Type, "message": t.Message}})
		return
	}
	index := 0
	for _, raw := range t.Blocks {
		s.event("content_block_start", object{"index": index, "content_block": json.RawMessage(raw)})
		s.event("content_block_stop", object{"index": index})
		index++
	}
	if t.Text != "" {
		s.block(index, object{"type": "text", "text": ""}, "text_delta", "text", t.Text)
		index++
	}
	if t.Drop {
		if c, _, err := http.NewResponseController(s.w).Hijack(); err == nil {
			_ = c.Close()
		}
		return
	}
	if t.Cut {
		return
	}
	for i, call := range t.Tools {
		raw, err := json.Marshal(call.Input)
		if err != nil {
			panic(fmt.Sprintf("agenttest: encode a scripted call: %v", err))
		}
		s.block(index, object{"type": "tool_use", "id": fmt.Sprintf("toolu_%d_%d", s.n, i), "name": call.Name, "input": object{}}, "input_json_delta", "partial_json", string(raw))
		index++
	}
	stop := t.StopReason
	if stop == "" {
		stop = "end_turn"
		if len(t.Tools) > 0 {
			stop = "tool_use"
		}
	}
	s.event("message_delta", object{"delta": object{"stop_reason": stop, "stop_sequence": nil}, "usage": s.usage(t.Output)})
	s.event("message_stop", object{})
}

// block sends one content block with its content in pieces, cut between bytes of
// JSON and characters of text.
func (s stream) block(index int, start object, kind, field, content string) {
	s.event("content_block_start", object{"index": index, "content_block": start})
	r := []rune(content)
	const piece = 7
	for len(r) > 0 {
		k := min(piece, len(r))
		s.event("content_block_delta", object{"index": index, "delta": object{"type": kind, field: string(r[:k])}})
		r = r[k:]
	}
	s.event("content_block_stop", object{"index": index})
}
