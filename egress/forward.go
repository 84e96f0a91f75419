package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
)

// route is where requests of a connection go.
type route struct {
	// target; a zero Host is decided by the Host of each request, Port is then that
	// of the connection.
	target Target
	scheme string // http or https
	cred   *credential
}

// push serves the requests of a connection whose route is known, until it ends.
func (p *Proxy) push(c *Client, conn net.Conn, r route) {
	b := &bound{Conn: conn, client: c, route: r, done: make(chan struct{})}
	p.hand(b, b)
}

// hand gives a connection, which is b or lies around it, to the inner server.
func (p *Proxy) hand(conn net.Conn, b *bound) {
	select {
	case p.conns <- conn:
		<-b.done
	case <-p.innerEnd:
		b.Close()
	}
}

// serveInner is the handler of requests in a tunnel.
func (p *Proxy) serveInner(w http.ResponseWriter, r *http.Request) {
	b := boundOf(r)
	if b == nil {
		panic("egress: a connection without a route")
	}
	c, rt := b.client, b.route
	def := 80
	if rt.scheme == "https" {
		def = 443
	}
	t, err := parseAuthority(r.Host, def)
	if err == nil && rt.target.Host == "" {
		if t.Port != rt.target.Port {
			err = errPort
		}
		rt.target = t
	}
	if err == nil && r.URL.Host != "" && (r.URL.Scheme != rt.scheme || r.URL.User != nil) {
		err = errHost
	}
	if err != nil || t != rt.target || r.Method == http.MethodConnect {
		reason := "the request's Host is " + shown(r.Host)
		c.refuse(rt.target, reason)
		http.Error(w, refusal(rt.target, reason), http.StatusMisdirectedRequest)
		return
	}
	p.forward(w, r, c, nil, rt)
}

func boundOf(r *http.Request) *bound {
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = t.NetConn()
	}
	b, _ := conn.(*bound)
	return b
}

// routeKey finds the route of a request in its context.
type routeKey struct{}

// forward decides on one request and passes it on. conn is closed with the client;
// nil: somebody else sees to that.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, c *Client, conn net.Conn, rt route) {
	if conn != nil {
		leave, ok := c.enter(conn)
		if !ok {
			c.refuse(rt.target, reasonCrowd)
			http.Error(w, "flow: network: "+reasonCrowd, http.StatusServiceUnavailable)
			return
		}
		defer leave()
	}
	if reason := c.policy.request(rt.target, r.Method, r.URL); reason != "" {
		c.refuse(rt.target, reason)
		http.Error(w, refusal(rt.target, reason), http.StatusForbidden)
		return
	}
	c.notePlaceholders(r, rt)
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), routeKey{}, rt))
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	body := &counted{ReadCloser: r.Body}
	out := r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		out.Body = body
	}
	defer func() {
		c.ledger.add(Entry{Host: rt.target.Host, Port: rt.target.Port, Verdict: Allowed, Sent: body.n})
	}()
	c.reverse.ServeHTTP(w, out)
}

// counted counts what is read.
type counted struct {
	io.ReadCloser
	n    int64
	done func(n int64)
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.n += int64(n)
	return n, err
}

func (c *counted) Close() error {
	if c.done != nil {
		c.done(c.n)
		c.done = nil
	}
	return c.ReadCloser.Close()
}

func (c *Client) reverseProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        c.rewrite,
		Transport:      roundTripper(c.roundTrip),
		FlushInterval:  -1, // as it comes: streams of events
		ModifyResponse: c.modify,
		ErrorHandler:   c.failed,
		ErrorLog:       log.New(io.Discard, "", 0),
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (c *Client) rewrite(pr *httputil.ProxyRequest) {
	rt := pr.In.Context().Value(routeKey{}).(route)
	pr.Out.URL.Scheme, pr.Out.URL.Host = rt.scheme, rt.target.String()
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery // as it was
	pr.Out.Host = rt.target.headerFor(rt.scheme)
	for _, name := range [...]string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v := pr.In.Header[name]; v != nil {
			pr.Out.Header[name] = v // the client's own business
		}
	}
	if rt.cred != nil {
		rt.cred.put(pr.Out.Header)
	}
}

func (c *Client) roundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Upgrade") != "" {
		return c.upgrade.RoundTrip(r)
	}
	return c.direct.RoundTrip(r)
}

// modify sees every answer, also that of an upgrade.
func (c *Client) modify(resp *http.Response) error {
	rt := resp.Request.Context().Value(routeKey{}).(route)
	t := rt.target
	c.ledger.add(Entry{Host: t.Host, Port: t.Port, Verdict: Allowed, Count: 1})
	if rt.cred != nil {
		if err := c.scrubAnswer(resp); err != nil {
			return err
		}
	}
	if _, both := resp.Body.(io.ReadWriteCloser); !both {
		resp.Body = &counted{ReadCloser: resp.Body, done: func(n int64) {
			c.ledger.add(Entry{Host: t.Host, Port: t.Port, Verdict: Allowed, Received: n})
		}}
	}
	return nil
}

// failed answers a request that got no answer.
func (c *Client) failed(w http.ResponseWriter, r *http.Request, err error) {
	rt := r.Context().Value(routeKey{}).(route)
	var odd *encodingError
	switch {
	case errors.As(err, &odd):
		http.Error(w, fmt.Sprintf("flow: network: the answer of %s is dropped: %v", rt.target, err), http.StatusBadGateway)
	case errors.Is(err, context.Canceled):
		panic(http.ErrAbortHandler) // the client went, or the step ended
	default:
		code, text := c.notReached(rt.target, err)
		http.Error(w, c.scrub.String(text), code)
	}
}

// notePlaceholders records a credential's placeholder that goes to another host.
func (c *Client) notePlaceholders(r *http.Request, rt route) {
	for i := range c.creds {
		cred := &c.creds[i]
		if rt.cred == cred || !carries(r, cred.placeholder) {
			continue
		}
		c.ledger.add(Entry{Host: rt.target.Host, Port: rt.target.Port, Verdict: Placeholder, Reason: cred.Name, Count: 1})
	}
}

func carries(r *http.Request, text string) bool {
	if strings.Contains(r.URL.String(), text) {
		return true
	}
	for _, values := range r.Header {
		for _, v := range values {
			if strings.Contains(v, text) {
				return true
			}
		}
	}
	return false
}
