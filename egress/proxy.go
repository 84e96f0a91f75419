package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Limits of what a client may make us hold.
const (
	// maxHeader bounds the head of a request or an answer, in bytes.
	maxHeader = 64 << 10
	// headTime is how long a client may take for the head of a request, or for the
	// first bytes in a tunnel whose protocol is checked.
	headTime = 20 * time.Second
	// idleTime is how long a connection without a request is kept.
	idleTime = 2 * time.Minute
	// maxAll connections of all clients; the kernel's backlog holds what comes beyond.
	maxAll = 4096
)

// Options of a Proxy.
type Options struct {
	Reach Reach
	// Roots that servers are checked against, where TLS is opened; nil: the machine's.
	Roots *x509.CertPool
	// Intercept lists the hosts to which credentials are bound: the authority may
	// sign for these and for nothing else. Empty: there is no authority.
	Intercept []string
	// HeadTime overrides headTime; for tests.
	HeadTime time.Duration
}

// Proxy serves the clients of one run. Close it when the run ends.
type Proxy struct {
	opts      Options
	dialer    dialer
	authority *authority // nil: no credentials
	names     nameTable
	room      chan struct{}
	outer     *http.Server // proxy requests
	inner     *http.Server // requests within a connection whose target is known
	conns     chan net.Conn
	innerEnd  chan struct{}

	mu      sync.Mutex
	closed  bool
	clients map[string]*Client
}

// New returns a proxy that serves nothing yet.
func New(o Options) (*Proxy, error) {
	if o.HeadTime == 0 {
		o.HeadTime = headTime
	}
	p := &Proxy{opts: o, dialer: dialer{reach: o.Reach}, room: make(chan struct{}, maxAll),
		conns: make(chan net.Conn), innerEnd: make(chan struct{}), clients: map[string]*Client{}}
	if len(o.Intercept) > 0 {
		var err error
		if p.authority, err = newAuthority(o.Intercept); err != nil {
			return nil, err
		}
	}
	server := func(h http.HandlerFunc) *http.Server {
		return &http.Server{Handler: h, ReadHeaderTimeout: o.HeadTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
			ErrorLog: log.New(io.Discard, "", 0), DisableGeneralOptionsHandler: true,
			ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }}
	}
	p.outer, p.inner = server(p.serveOuter), server(p.serveInner)
	p.outer.Protocols = new(http.Protocols)
	p.outer.Protocols.SetHTTP1(true)
	go func() {
		defer close(p.innerEnd)
		_ = p.inner.Serve(&pushed{conns: p.conns, done: make(chan struct{})}) // ends with Close
	}()
	return p, nil
}

// connKey finds the connection of a request in its context.
type connKey struct{}

// Serve answers proxy requests on l until l or the proxy is closed.
func (p *Proxy) Serve(l net.Listener) error {
	err := p.outer.Serve(&roomy{Listener: l, room: p.room})
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Close ends all clients, connections and listeners.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	var clients []*Client
	for _, c := range p.clients {
		clients = append(clients, c)
	}
	p.mu.Unlock()
	for _, c := range clients {
		c.Close()
	}
	p.outer.Close()
	p.inner.Close()
	<-p.innerEnd
}

// roomy is a listener that accepts while there is room.
type roomy struct {
	net.Listener
	room chan struct{}
}

func (l *roomy) Accept() (net.Conn, error) {
	l.room <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &roomyConn{TCPConn: c.(*net.TCPConn), room: l.room}, nil
}

// roomyConn gives its room back when it is closed. It stays a TCP connection, so
// that the kernel can move the bytes (splice).
type roomyConn struct {
	*net.TCPConn
	room chan struct{}
	once sync.Once
}

func (c *roomyConn) Close() error {
	c.once.Do(func() { <-c.room })
	return c.TCPConn.Close()
}

// pushed is a listener whose connections come over a channel.
type pushed struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pushed) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pushed) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pushed) Addr() net.Addr { return &net.TCPAddr{} }

// serveOuter is the handler of proxy requests.
func (p *Proxy) serveOuter(w http.ResponseWriter, r *http.Request) {
	c := p.clientOf(r)
	if c == nil {
		// Also for a program that asks first whether it has to show something.
		w.Header().Set("Proxy-Authenticate", `Basic realm="flow"`)
		http.Error(w, "flow: network: this proxy is for the steps of a run; use the address in HTTP_PROXY as it is", http.StatusProxyAuthRequired)
		return
	}
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	if r.Method == http.MethodConnect {
		p.connect(c, conn, w, r)
		return
	}
	t, err := plainTarget(r)
	if err != nil {
		c.ledger.add(Entry{Host: shown(r.URL.Host), Verdict: Refused, Reason: err.Error(), Count: 1})
		http.Error(w, "flow: network: "+err.Error(), http.StatusBadRequest)
		return
	}
	p.forward(w, r, c, conn, route{target: t, scheme: "http"})
}

// plainTarget is the destination of a proxy request that is not CONNECT.
func plainTarget(r *http.Request) (Target, error) {
	switch {
	case r.URL.Host == "":
		return Target{}, errors.New("not a proxy request: the URL has no host")
	case r.URL.Scheme != "http":
		return Target{}, errors.New("not a proxy request for http: use CONNECT")
	case r.URL.User != nil:
		return Target{}, errors.New("the URL holds a user name")
	}
	return parseAuthority(r.URL.Host, 80)
}

func (p *Proxy) clientOf(r *http.Request) *Client {
	coded, ok := strings.CutPrefix(r.Header.Get("Proxy-Authorization"), "Basic ")
	if !ok {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(coded)
	if err != nil {
		return nil
	}
	_, token, _ := strings.Cut(string(b), ":")
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clients[token]
}

func (p *Proxy) upstreamTLS() *tls.Config {
	return &tls.Config{RootCAs: p.opts.Roots, MinVersion: tls.VersionTLS12}
}
