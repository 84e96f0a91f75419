package mcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"flowrun.dev/flow/agent"
)

// maxAnswer bounds all that one answer may bring.
const maxAnswer = 4 * maxMessage

// reach connects to a server over HTTP.
func reach(ctx context.Context, r agent.Request, m agent.MCPServer) (*server, error) {
	if r.HTTP == nil {
		return nil, &agent.Error{Class: agent.ClassInvalid, Err: fmt.Errorf("connect to the MCP server %s: the step has no network", m.Name),
			Hint: "give the step  network: {allow: [HOST]}"}
	}
	way := &way{next: r.HTTP, headers: m.Headers}
	client := &http.Client{Transport: way, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	s := &server{name: m.Name, close: func() {}, words: func() string { return "" }}
	err := s.connect(ctx, &sdk.StreamableClientTransport{Endpoint: m.URL, HTTPClient: client, MaxRetries: -1, DisableStandaloneSSE: true, MaxEventSize: maxMessage}, workspace(r.Sandbox))
	if err == nil {
		return s, nil
	}
	return nil, way.failure(ctx, m, err)
}

// way adds the headers, bounds answers, and remembers what went wrong: the SDK's errors
// do not say it.
type way struct {
	next    http.RoundTripper
	headers map[string]string

	mu     sync.Mutex
	status int
	words  string
	err    error
}

// RoundTrip makes one request.
func (w *way) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for k, v := range w.headers {
		r.Header.Set(k, v)
	}
	resp, err := w.next.RoundTrip(r)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.err = plain(err)
		return nil, err
	}
	if resp.StatusCode >= 300 {
		begin, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		w.status, w.words = resp.StatusCode, strings.Join(strings.Fields(strings.ToValidUTF8(string(begin), "\uFFFD")), " ")
		resp.Body = rest{io.MultiReader(strings.NewReader(string(begin)), resp.Body), resp.Body}
	}
	resp.Body = &limited{ReadCloser: resp.Body, left: maxAnswer}
	return resp, nil
}

type rest struct {
	io.Reader
	io.Closer
}

type limited struct {
	io.ReadCloser
	left int64
}

func (l *limited) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	}
	n, err := l.ReadCloser.Read(b)
	l.left -= int64(n)
	return n, err
}

// failure explains why a server was not reached.
func (w *way) failure(ctx context.Context, m agent.MCPServer, err error) *agent.Error {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := &agent.Error{Class: agent.ClassInfrastructure, Hint: "check mcp_servers." + m.Name + ".url and the step's network"}
	switch {
	case w.status != 0:
		err = fmt.Errorf("HTTP %d %s: %s", w.status, http.StatusText(w.status), w.words)
		switch {
		case w.status == http.StatusUnauthorized || w.status == http.StatusForbidden:
			out.Class, out.Hint = agent.ClassInvalid, "a secret with `inject` for the host is added to the requests"
		case w.status < 500 && w.status != http.StatusTooManyRequests:
			out.Class, out.Hint = agent.ClassInvalid, "the url has to be that of a server that speaks streamable HTTP"
		}
	case w.err != nil:
		err = w.err
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	u, uerr := url.Parse(m.URL)
	at := ""
	if uerr == nil {
		at = " at " + u.Host
	}
	out.Err = fmt.Errorf("connect to the MCP server %s%s: %w", m.Name, at, err)
	return out
}

// plain takes the address out of an error: its query may hold a key.
func plain(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}
