package egress

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"flowrun.dev/flow/redact"
)

// maxConnections of one Client at the same time; more are refused, so that one step
// cannot take the descriptors of all.
const maxConnections = 1024

// ClientConfig is what one attempt of a step may do.
type ClientConfig struct {
	Policy *Policy
	// Credentials that are put into its requests.
	Credentials []Credential
	// Report is told of the first decision of each kind, as it falls; it must not
	// block. May be nil.
	Report func(Entry)
}

// Client is one attempt of a step on its way out.
type Client struct {
	proxy   *Proxy
	token   string
	policy  *Policy
	creds   []credential
	scrub   *redact.Set
	ledger  ledger
	ctx     context.Context
	cancel  context.CancelFunc
	direct  *http.Transport // HTTP/1 and 2
	upgrade *http.Transport // HTTP/1 only, for WebSocket
	reverse *httputil.ReverseProxy

	mu     sync.Mutex
	closed bool
	open   map[io.Closer]struct{} // what Close ends
	inside int                    // connections that have entered
	busy   sync.WaitGroup
}

// Client admits one more.
func (p *Proxy) Client(cfg ClientConfig) (*Client, error) {
	if cfg.Policy == nil {
		return nil, errors.New("admit a client: no policy")
	}
	var raw [16]byte
	rand.Read(raw[:]) // never fails (crypto/rand)
	c := &Client{proxy: p, token: hex.EncodeToString(raw[:]), policy: cfg.Policy, ledger: ledger{report: cfg.Report}, open: map[io.Closer]struct{}{}}
	if err := c.bind(cfg.Credentials); err != nil {
		return nil, fmt.Errorf("admit a client: %w", err)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.direct = c.transport(true)
	c.upgrade = c.transport(false)
	c.reverse = c.reverseProxy()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.cancel()
		return nil, errors.New("admit a client: the proxy is closed")
	}
	p.clients[c.token] = c
	return c, nil
}

// Token is what the Client shows as the password of its proxy requests.
func (c *Client) Token() string { return c.token }

// Entries are the decisions until now.
func (c *Client) Entries() []Entry { return c.ledger.all() }

// Close ends every connection of the Client and returns what was decided.
func (c *Client) Close() []Entry {
	c.proxy.mu.Lock()
	delete(c.proxy.clients, c.token)
	c.proxy.mu.Unlock()
	c.mu.Lock()
	c.closed = true
	for conn := range c.open {
		conn.Close()
	}
	c.mu.Unlock()
	c.cancel()
	c.busy.Wait()
	c.direct.CloseIdleConnections()
	c.upgrade.CloseIdleConnections()
	return c.ledger.all()
}

// enter registers a connection that Close has to end. Not ok: there is no room, or
// the Client is closed.
func (c *Client) enter(conn io.Closer) (leave func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.inside >= maxConnections {
		return nil, false
	}
	c.open[conn] = struct{}{}
	c.inside++
	c.busy.Add(1)
	return func() {
		c.mu.Lock()
		delete(c.open, conn)
		c.inside--
		c.mu.Unlock()
		c.busy.Done()
	}, true
}

// keep adds the other side of a connection that has entered.
func (c *Client) keep(conn io.Closer) (drop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		conn.Close()
		return func() {}
	}
	c.open[conn] = struct{}{}
	return func() {
		c.mu.Lock()
		delete(c.open, conn)
		c.mu.Unlock()
	}
}

const reasonCrowd = "the step has too many connections at the same time"

func (c *Client) refuse(t Target, reason string) {
	c.ledger.add(Entry{Host: t.Host, Port: t.Port, Verdict: Refused, Reason: reason, Count: 1})
}

// dial connects to a target that the policy has allowed.
func (c *Client) dial(ctx context.Context, t Target) (net.Conn, error) {
	return c.proxy.dialer.dial(ctx, t, c.policy.spelt(t))
}

func (c *Client) transport(http2 bool) *http.Transport {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			t, err := parseAuthority(addr, 0)
			if err != nil {
				return nil, err
			}
			return c.dial(ctx, t)
		},
		TLSClientConfig: c.proxy.upstreamTLS(), TLSHandshakeTimeout: connectTimeout,
		ForceAttemptHTTP2: http2, MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second,
		ExpectContinueTimeout: time.Second, MaxResponseHeaderBytes: maxHeader,
		// The client asked for the encoding that it wants.
		DisableCompression: true,
	}
	if !http2 {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP1(true)
	}
	return t
}
