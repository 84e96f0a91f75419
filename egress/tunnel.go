package egress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// connect serves CONNECT.
func (p *Proxy) connect(c *Client, conn net.Conn, w http.ResponseWriter, r *http.Request) {
	t, err := parseAuthority(r.RequestURI, 0)
	if err != nil {
		c.ledger.add(Entry{Host: shown(r.RequestURI), Verdict: Refused, Reason: err.Error(), Count: 1})
		http.Error(w, "flow: network: CONNECT "+shown(r.RequestURI)+": "+err.Error(), http.StatusBadRequest)
		return
	}
	leave, ok := c.enter(conn)
	if !ok {
		c.refuse(t, reasonCrowd)
		http.Error(w, "flow: network: "+reasonCrowd, http.StatusServiceUnavailable)
		return
	}
	defer leave()
	if reason := c.policy.host(t, false); reason != "" {
		c.refuse(t, reason)
		http.Error(w, refusal(t, reason), http.StatusForbidden)
		return
	}
	cred := c.credentialFor(t)
	var up net.Conn
	if cred == nil {
		if up, err = c.dial(r.Context(), t); err != nil {
			code, text := c.notReached(t, err)
			http.Error(w, text, code)
			return
		}
		defer up.Close()
		defer c.keep(up)()
	}
	client, err := hijack(w)
	if err != nil {
		return
	}
	defer client.Close()
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	if cred != nil {
		p.intercept(c, client, route{target: t, scheme: "https", cred: cred})
		return
	}
	p.tunnel(c, t, client, up)
}

func refusal(t Target, reason string) string {
	return fmt.Sprintf("flow: network: %s is refused: %s. The step's `network: {allow: [...]}` says what it may reach.", t, reason)
}

// notReached is the answer to a connection that was allowed and did not come about.
func (c *Client) notReached(t Target, err error) (code int, text string) {
	var refused *addressError
	if errors.As(err, &refused) {
		c.refuse(t, refused.reason)
		return http.StatusForbidden, refusal(t, refused.reason)
	}
	c.ledger.add(Entry{Host: t.Host, Port: t.Port, Verdict: Allowed, Reason: "not reached", Count: 1})
	return http.StatusBadGateway, fmt.Sprintf("flow: network: %s is allowed, but cannot be reached: %v", t, err)
}

// stream is a client's connection whose first bytes may have been read already.
type stream struct {
	net.Conn
	early []byte
}

func (s *stream) Read(b []byte) (int, error) {
	if len(s.early) > 0 {
		n := copy(b, s.early)
		s.early = s.early[n:]
		return n, nil
	}
	return s.Conn.Read(b)
}

// hijack takes a connection from the HTTP server, with what it has read too far.
func hijack(w http.ResponseWriter) (*stream, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered()) // that many are there
	// The server's deadline for a head does not hold for what follows.
	if err := conn.SetDeadline(time.Time{}); err != nil {
		conn.Close()
		return nil, err
	}
	return &stream{Conn: conn, early: bytes.Clone(early)}, nil
}

// strict ports are those of the web: nothing but TLS and HTTP goes through.
func strict(port int) bool { return port == 80 || port == 443 }

// tunnel moves bytes between a client and the target that it may reach, once it is
// clear that they mean that target. A server that speaks first is heard at once on
// other ports than those of the web.
func (p *Proxy) tunnel(c *Client, t Target, client *stream, up net.Conn) {
	var back *pump
	if !strict(t.Port) {
		back = startPump(client.Conn, up)
	}
	first, h := p.hear(client, strict(t.Port))
	if h.speech == speechHTTP {
		if back != nil && back.stop(up) > 0 {
			h = heard{speech: speechOther, bad: "HTTP after the server's first words"}
		} else {
			// Each request is decided by itself, over connections of its own.
			up.Close()
			client.early = append(first, client.early...)
			p.push(c, client, route{target: t, scheme: "http"})
			return
		}
	}
	if reason := c.judge(t, h); reason != "" {
		if h.speech == speechTLS {
			_, _ = client.Conn.Write(alertUnrecognizedName) // it is closed anyway
		}
		if len(first) > 0 { // who says nothing is not judged
			c.refuse(t, reason)
		}
		client.Close()
		up.Close()
		if back != nil {
			back.wait()
		}
		return
	}
	c.ledger.add(Entry{Host: t.Host, Port: t.Port, Verdict: Allowed, Count: 1})
	if back == nil {
		back = startPump(client.Conn, up)
	}
	sent, err := up.Write(first)
	n := int64(0)
	if err == nil {
		n, err = io.Copy(up, directly(client))
	}
	if err != nil { // one of them is gone, and with it the tunnel
		up.Close()
		client.Close()
	}
	closeWrite(up)
	received := back.wait()
	c.ledger.add(Entry{Host: t.Host, Port: t.Port, Verdict: Allowed, Sent: int64(sent) + n, Received: received})
}

// alertUnrecognizedName is what a TLS server says to a name that it does not serve.
var alertUnrecognizedName = []byte{21, 3, 3, 0, 2, 2, 112}

// judge compares what a client says with where it is connected to. "" allows.
func (c *Client) judge(t Target, h heard) (reason string) {
	switch {
	case h.speech == speechTLS:
		if reason := c.policy.host(t, true); reason != "" {
			return reason
		}
		if t.IP.IsValid() && h.sni == "" {
			return ""
		}
		name, _, err := parseHost(h.sni)
		if h.sni == "" {
			return "TLS without a server name (SNI)"
		}
		if err != nil || name != t.Host {
			return "the server name in TLS (SNI) is " + shown(h.sni)
		}
		return ""
	case strict(t.Port), h.bad != "" && h.bad != badNothing:
		if h.bad != "" {
			return "neither TLS nor HTTP: " + h.bad
		}
		return "neither TLS nor HTTP"
	}
	return c.policy.host(t, true)
}

// badNothing is what a client says that only listens.
const badNothing = "no bytes came"

// hear reads until it is clear what the client speaks.
func (p *Proxy) hear(client *stream, hurry bool) (first []byte, h heard) {
	if hurry {
		// An error shows in the read.
		_ = client.SetReadDeadline(time.Now().Add(p.opts.HeadTime))
		defer func() { _ = client.SetReadDeadline(time.Time{}) }()
	}
	buf := make([]byte, 2048)
	for {
		n, err := client.Read(buf)
		first = append(first, buf[:n]...)
		if h = classify(first, err != nil); h.speech != speechMore {
			return first, h
		}
	}
}

// directly is the client's connection itself once what was read early is used up,
// so that the kernel can move the bytes.
func directly(s *stream) io.Reader {
	if len(s.early) > 0 {
		return s
	}
	if r, ok := s.Conn.(*roomyConn); ok {
		return r.TCPConn
	}
	return s.Conn
}

func closeWrite(c net.Conn) {
	if s, ok := c.(*stream); ok {
		c = s.Conn
	}
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite() // the other side may be gone
		return
	}
	c.Close()
}

// pump copies from one connection to another.
type pump struct {
	done     chan struct{}
	n        int64
	stopping atomic.Bool
}

func startPump(dst, src net.Conn) *pump {
	p := &pump{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		var w io.Writer = dst
		if r, ok := dst.(*roomyConn); ok {
			w = r.TCPConn
		}
		var err error
		p.n, err = io.Copy(w, src)
		switch {
		case p.stopping.Load():
		case err != nil: // one of them is gone, and with it the tunnel
			dst.Close()
			src.Close()
		default:
			closeWrite(dst)
		}
	}()
	return p
}

func (p *pump) wait() int64 {
	<-p.done
	return p.n
}

// stop ends the pump and leaves its destination open. It returns what went through.
func (p *pump) stop(src net.Conn) int64 {
	p.stopping.Store(true)
	_ = src.SetReadDeadline(time.Unix(1, 0)) // if that fails the source has ended
	return p.wait()
}

// bound is a connection that is handed to the inner server, with what is known of it.
type bound struct {
	net.Conn
	client *Client
	route  route
	once   sync.Once
	done   chan struct{}
}

func (b *bound) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.Conn.Close()
}
