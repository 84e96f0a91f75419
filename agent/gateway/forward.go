package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"flowrun.dev/flow/agent"
)

// maxBody bounds a request; the API itself takes 32 MB.
const maxBody = 64 << 20

// paths that are forwarded; the value says whether it asks the model.
var paths = map[string]bool{"/v1/messages": true, "/v1/messages/count_tokens": false}

// held are headers that are not forwarded: those of the connection, and what could
// carry a key or an address.
var held = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Proxy-Authenticate", "Proxy-Authorization", "Authorization", "X-Api-Key", "Cookie", "Set-Cookie", "Host",
	"Accept-Encoding", "Content-Length", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded"}

// RefusedHeader marks an answer that the gateway itself gave; its value is the
// agent.Class.
const RefusedHeader = "X-Flow-Refused"

// ServeHTTP serves agents that run in the sandbox.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead && r.URL.Path == "/" {
		return // some clients look whether somebody is there
	}
	resp, err := g.roundTrip(r)
	if err != nil {
		if r.Context().Err() != nil {
			return
		}
		resp = answer(http.StatusBadGateway, "api_error", err.Error(), "")
	}
	defer resp.Body.Close()
	h := w.Header()
	for k, v := range resp.Header {
		h[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	stream(w, resp.Body)
}

// stream copies and flushes each piece: a delta must not wait for the next.
func stream(w http.ResponseWriter, body io.Reader) {
	rc := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			_ = rc.Flush()
		}
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			// A cut answer must not look like a whole one.
			panic(http.ErrAbortHandler)
		}
	}
}

// RoundTrip serves our own loop in this process. The request's host does not matter.
func (s *Session) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := s.g.roundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Request = r
	return resp, nil
}

func (g *Gateway) roundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	s := g.session(r.Header)
	if s == nil {
		return answer(http.StatusUnauthorized, "authentication_error", "flow: the step's token is missing or no longer valid", agent.ClassInvalid), nil
	}
	asks, known := paths[r.URL.Path]
	if !known || r.Method != http.MethodPost {
		return answer(http.StatusNotFound, "not_found_error", "flow: only POST /v1/messages and /v1/messages/count_tokens are forwarded", agent.ClassInvalid), nil
	}
	body, err := readBody(r)
	if err != nil {
		return answer(http.StatusRequestEntityTooLarge, "request_too_large", "flow: "+err.Error(), agent.ClassInvalid), nil
	}
	if !asks {
		return g.forward(r, body)
	}
	var in struct {
		Model string `json:"model"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return answer(http.StatusBadRequest, "invalid_request_error", "flow: the request is not JSON", agent.ClassInvalid), nil
	}
	if err := s.enter(r.Context(), in.Model, body); err != nil {
		return refusal(err), nil
	}
	resp, err := g.forward(r, body)
	if err != nil {
		s.leave(in.Model, nil)
		if s.o.Record != nil {
			s.o.Record(Exchange{Request: body, Err: err})
		}
		return nil, err
	}
	m := &meter{ReadCloser: resp.Body, streamed: isStream(resp.Header.Get("Content-Type")), keep: s.o.Record != nil}
	m.done = func(m *meter) {
		s.leave(in.Model, m)
		if s.o.Record != nil {
			s.o.Record(Exchange{Request: body, Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"),
				Response: bytes.Clone(m.kept.Bytes()), Whole: m.whole, ResponseHead: resp.Header})
		}
	}
	resp.Body = m
	return resp, nil
}

func readBody(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the request: %w", err)
	case len(body) > maxBody:
		return nil, fmt.Errorf("the request is larger than %d bytes", maxBody)
	}
	return body, nil
}

// forward sends a request to the API with the real key. Redirects are not followed.
func (g *Gateway) forward(r *http.Request, body []byte) (*http.Response, error) {
	u := *g.base
	u.Path = strings.TrimSuffix(u.Path, "/") + r.URL.Path
	u.RawQuery = r.URL.RawQuery
	out, err := http.NewRequestWithContext(r.Context(), r.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make the request to %s: %w", g.Host(), plain(err))
	}
	copyHeader(out.Header, r.Header)
	if g.o.APIKey != "" {
		out.Header.Set("X-Api-Key", g.o.APIKey)
	} else {
		out.Header.Set("Authorization", "Bearer "+g.o.AuthToken)
	}
	resp, err := g.o.Transport.RoundTrip(out)
	if err != nil {
		return nil, fmt.Errorf("reach the model at %s: %w", g.Host(), plain(err))
	}
	h := http.Header{}
	copyHeader(h, resp.Header)
	resp.Header, resp.ContentLength, resp.TransferEncoding = h, -1, nil
	return resp, nil
}

// plain takes the address out of an error: it may hold a password.
func plain(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

func copyHeader(to, from http.Header) {
	var named []string
	for _, v := range from["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			named = append(named, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	for k, v := range from {
		if !slices.Contains(held, k) && !slices.Contains(named, k) {
			to[k] = slices.Clone(v)
		}
	}
}

// refusal is our answer instead of the API's, in its form. Clients do not try again.
func refusal(err *agent.Error) *http.Response {
	status, kind := http.StatusForbidden, "permission_error"
	switch err.Class {
	case agent.ClassInfrastructure:
		status, kind = http.StatusServiceUnavailable, "api_error"
	case agent.ClassInvalid:
		status, kind = http.StatusBadRequest, "invalid_request_error"
	}
	text := "flow: " + err.Error()
	if err.Hint != "" {
		text += "; " + err.Hint
	}
	return answer(status, kind, text, err.Class)
}

func answer(status int, kind, message string, class agent.Class) *http.Response {
	body, _ := json.Marshal(map[string]any{"type": "error", "error": map[string]string{"type": kind, "message": message}})
	h := http.Header{"Content-Type": {"application/json"}}
	if class != "" {
		h.Set("X-Should-Retry", "false")
		h.Set(RefusedHeader, string(class))
	}
	return &http.Response{Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))}
}
