package egress

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// Names that programs ask for inside get addresses that exist there only: a
// connection to one tells which name was meant, whatever the protocol. Nobody outside
// is ever asked, so that a question can carry nothing out.

// fakeNet is where those addresses are: a range for benchmarks of networks
// (RFC 2544), which is nobody's on the Internet and which dial refuses.
var fakeNet = netip.MustParsePrefix("198.18.0.0/15")

// maxNames bounds the table; a wildcard would allow any number.
const maxNames = 4096

// nameTTL in seconds; a name keeps its address as long as the proxy lives.
const nameTTL = 60

type nameTable struct {
	mu   sync.Mutex
	ip   map[string]netip.Addr
	name map[netip.Addr]string
	last netip.Addr
}

// address of a name, made when it has none. Not ok: the table is full.
func (t *nameTable) address(name string) (ip netip.Addr, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ip, ok = t.ip[name]; ok {
		return ip, true
	}
	if len(t.ip) >= maxNames {
		return ip, false
	}
	if t.ip == nil {
		t.ip, t.name = map[string]netip.Addr{}, map[netip.Addr]string{}
		t.last = fakeNet.Addr()
	}
	t.last = t.last.Next()
	t.ip[name], t.name[t.last] = t.last, name
	return t.last, true
}

func (t *nameTable) nameOf(ip netip.Addr) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.name[ip]
}

// maxQuestion is the largest datagram that is read.
const maxQuestion = 1232

// ServeNames answers questions of DNS that come on pc until that is closed. who is the
// Client that can have asked, nil if that is not clear: nothing is known then.
func (p *Proxy) ServeNames(pc net.PacketConn, who func() *Client) error {
	buf := make([]byte, maxQuestion)
	for {
		n, from, err := pc.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if answer := p.answer(buf[:n], who()); answer != nil {
			_, _ = pc.WriteTo(answer, from) // who asked may be gone
		}
	}
}

// answer to one question; nil for what is none.
func (p *Proxy) answer(question []byte, c *Client) []byte {
	var parser dnsmessage.Parser
	head, err := parser.Start(question)
	if err != nil || head.Response {
		return nil
	}
	q, err := parser.Question()
	reply := dnsmessage.Header{ID: head.ID, Response: true, OpCode: head.OpCode, RecursionDesired: head.RecursionDesired, RecursionAvailable: true, Authoritative: true}
	if err != nil || head.OpCode != 0 {
		reply.RCode = dnsmessage.RCodeNotImplemented
		return pack(reply, nil, netip.Addr{})
	}
	host, literal, err := parseHost(q.Name.String())
	switch {
	case c == nil:
		reply.RCode = dnsmessage.RCodeRefused
	case err != nil || literal.IsValid() || !c.policy.knows(host):
		reply.RCode = dnsmessage.RCodeNameError
		if err != nil {
			host = shown(q.Name.String())
		}
		c.ledger.add(Entry{Host: host, Verdict: Refused, Reason: reasonHost, Count: 1})
	case q.Type == dnsmessage.TypeA && q.Class == dnsmessage.ClassINET:
		ip, ok := p.names.address(host)
		if !ok {
			reply.RCode = dnsmessage.RCodeServerFailure
			break
		}
		return pack(reply, &q, ip)
	}
	// Allowed, and another type (AAAA, HTTPS …): the name exists and has none.
	return pack(reply, &q, netip.Addr{})
}

func pack(head dnsmessage.Header, q *dnsmessage.Question, ip netip.Addr) []byte {
	b := dnsmessage.NewBuilder(make([]byte, 0, 512), head)
	if q == nil {
		out, err := b.Finish()
		if err != nil {
			return nil
		}
		return out
	}
	err := errors.Join(b.StartQuestions(), b.Question(*q), b.StartAnswers())
	if err == nil && ip.IsValid() {
		err = b.AResource(dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: nameTTL}, dnsmessage.AResource{A: ip.As4()})
	}
	if err != nil {
		return nil
	}
	out, err := b.Finish()
	if err != nil {
		return nil
	}
	return out
}

// ServeCaught takes the connections of programs that know no proxy: the local
// address of each is the one that was meant. who is the Client that it can belong to,
// nil if that is not clear, and then it is refused.
func (p *Proxy) ServeCaught(l net.Listener, who func() *Client) error {
	l = &roomy{Listener: l, room: p.room}
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go p.caught(conn.(*roomyConn), who())
	}
}

func (p *Proxy) caught(conn *roomyConn, c *Client) {
	defer conn.Close()
	// A refusal looks like that of a machine that does not listen.
	reset := func() { _ = conn.SetLinger(0) }
	addr, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil || c == nil || addr.Addr().Unmap().IsLoopback() {
		reset()
		return
	}
	ip := addr.Addr().Unmap()
	t := Target{Host: ip.String(), Port: int(addr.Port()), IP: ip}
	if fakeNet.Contains(ip) {
		if t.Host, t.IP = p.names.nameOf(ip), (netip.Addr{}); t.Host == "" {
			t.Host, t.IP = ip.String(), ip // a guess
		}
	}
	leave, ok := c.enter(conn)
	if !ok {
		c.refuse(t, reasonCrowd)
		reset()
		return
	}
	defer leave()
	if reason := c.policy.host(t, false); reason != "" {
		c.refuse(t, reason)
		reset()
		return
	}
	client := &stream{Conn: conn}
	if cred := c.credentialFor(t); cred != nil {
		p.intercept(c, client, route{target: t, scheme: "https", cred: cred})
		return
	}
	up, err := c.dial(c.ctx, t)
	if err != nil {
		c.notReached(t, err)
		reset()
		return
	}
	defer up.Close()
	defer c.keep(up)()
	p.tunnel(c, t, client, up)
}
