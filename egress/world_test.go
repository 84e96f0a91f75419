package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds everything that a test waits for.
const patience = 20 * time.Second

// world is a network of names whose servers are on loopback.
type world struct {
	testing.TB
	mu     sync.Mutex
	names  map[string][]netip.Addr
	places map[netip.AddrPort]string // address → loopback address
	asked  []string                  // names looked up
	roots  *x509.CertPool
	ca     *authority // signs for the servers
}

var errNoSuchHost = errors.New("no such host")

func newWorld(t testing.TB, hosts ...string) *world {
	t.Helper()
	ca, err := newAuthority(append(hosts, "a.test"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, names: map[string][]netip.Addr{}, places: map[netip.AddrPort]string{}, roots: x509.NewCertPool(), ca: ca}
	w.roots.AddCert(ca.cert)
	return w
}

func (w *world) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	host = strings.TrimSuffix(host, ".")
	w.asked = append(w.asked, host)
	if a := w.names[host]; a != nil {
		return a, nil
	}
	return nil, errNoSuchHost
}

func (w *world) dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	place := w.places[addr]
	w.mu.Unlock()
	if place == "" {
		return nil, fmt.Errorf("connect to %v: connection refused", addr)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", place)
}

// name gives a name an address.
func (w *world) name(host string, addrs ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range addrs {
		w.names[host] = append(w.names[host], netip.MustParseAddr(a))
	}
}

// at puts a server of loopback at an address.
func (w *world) at(addr, loopback string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.places[netip.MustParseAddrPort(addr)] = loopback
}

var hostNumber struct {
	sync.Mutex
	n int
}

// http starts a server of a host on port 80.
func (w *world) http(host string, h http.HandlerFunc) *httptest.Server {
	w.Helper()
	s := httptest.NewServer(h)
	w.Cleanup(s.Close)
	w.host(host, 80, s.Listener.Addr().String())
	return s
}

// https starts a server of a host on port 443.
func (w *world) https(host string, h http.HandlerFunc) *httptest.Server {
	w.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	leaf, err := w.ca.leaf(Target{Host: host})
	if err != nil {
		w.Fatal(err)
	}
	s.TLS = &tls.Config{Certificates: []tls.Certificate{*leaf}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes are cut on purpose
	s.StartTLS()
	w.Cleanup(s.Close)
	w.host(host, 443, s.Listener.Addr().String())
	return s
}

func (w *world) host(host string, port int, loopback string) {
	hostNumber.Lock()
	hostNumber.n++
	addr := fmt.Sprintf("203.0.113.%d", hostNumber.n%250+1)
	hostNumber.Unlock()
	w.mu.Lock()
	known := w.names[host]
	w.mu.Unlock()
	if len(known) > 0 {
		addr = known[0].String()
	} else {
		w.name(host, addr)
	}
	w.at(fmt.Sprintf("%s:%d", addr, port), loopback)
}

// tcp serves a host's port by a function of the connection.
func (w *world) tcp(host string, port int, serve func(net.Conn)) {
	w.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				serve(c)
			})
		}
	})
	w.Cleanup(func() { l.Close(); wg.Wait() })
	w.host(host, port, l.Addr().String())
}

// proxy starts one in this world.
func (w *world) proxy(o Options) (*Proxy, net.Addr) {
	w.Helper()
	o.Reach = Reach{Resolver: w, Dial: w.dial, Own: func() ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("192.0.2.77")}, nil
	}}
	o.Roots = w.roots
	p, err := New(o)
	if err != nil {
		w.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.Serve(l) }()
	w.Cleanup(func() {
		p.Close()
		if err := <-served; err != nil {
			w.Errorf("serve: %v", err)
		}
	})
	return p, l.Addr()
}

// client admits one that may reach the hosts.
func (w *world) client(p *Proxy, hosts ...string) *Client {
	w.Helper()
	var rules []Rule
	for _, h := range hosts {
		rules = append(rules, rule4(h))
	}
	return w.admit(p, ClientConfig{Policy: w.policy(rules...)})
}

// rule4 reads "host" or "host:port".
func rule4(s string) Rule {
	host, port, ok := strings.Cut(s, ":")
	if !ok {
		return Rule{Host: host}
	}
	var n int
	fmt.Sscan(port, &n)
	return Rule{Host: host, Ports: []int{n}}
}

func (w *world) policy(rules ...Rule) *Policy {
	w.Helper()
	p, err := NewPolicy(rules)
	if err != nil {
		w.Fatal(err)
	}
	return p
}

func (w *world) admit(p *Proxy, cfg ClientConfig) *Client {
	w.Helper()
	c, err := p.Client(cfg)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	return c
}

// browser is an HTTP client that uses the proxy as a program inside would.
func (w *world) browser(addr net.Addr, c *Client) *http.Client {
	u := &url.URL{Scheme: "http", Host: addr.String()}
	if c != nil {
		u.User = url.UserPassword("flow", c.token)
	}
	roots := w.roots.Clone()
	if c != nil && c.proxy.authority != nil {
		roots.AddCert(c.proxy.authority.cert)
	}
	tr := &http.Transport{Proxy: http.ProxyURL(u), TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	w.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// get returns the status and body of a request.
func (w *world) get(b *http.Client, url string) (int, string) {
	w.Helper()
	resp, err := b.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// talk sends raw bytes to the proxy and returns all that comes until it closes, or
// until want has come.
func (w *world) talk(addr net.Addr, want string, send ...string) string {
	w.Helper()
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		w.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		w.Fatal(err)
	}
	var got []byte
	buf := make([]byte, 4096)
	for i, s := range send {
		if i > 0 { // after an answer
			n, err := conn.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				return string(got)
			}
		}
		if _, err := io.WriteString(conn, s); err != nil {
			break // it has closed; what it said counts
		}
	}
	for want == "" || !strings.Contains(string(got), want) {
		n, err := conn.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				w.Errorf("no end and no %q in %q", want, got)
			}
			break
		}
	}
	return string(got)
}

// entry finds one decision.
func (w *world) entry(c *Client, host string, v Verdict) Entry {
	for _, e := range c.Entries() {
		if e.Host == host && e.Verdict == v {
			return e
		}
	}
	return Entry{}
}

func hello(who string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s: %s %s host=%s auth=%q", who, r.Method, r.URL.RequestURI(), r.Host, r.Header.Get("Authorization"))
	}
}
