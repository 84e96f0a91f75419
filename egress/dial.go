package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Resolver finds the addresses of a name. net.DefaultResolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Reach is how the proxy gets to the network. The zero value is right for flow; a
// test gives its own, so that a server on loopback can play a host.
type Reach struct {
	// Resolver of names; nil: the machine's.
	Resolver Resolver
	// Dial connects to an address that was found fit; nil: net.Dialer.
	Dial func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
	// Own lists the addresses of this machine; nil: those of its interfaces.
	Own func() ([]netip.Addr, error)
}

// Limits of a connection to the outside.
const (
	resolveTimeout = 10 * time.Second
	connectTimeout = 10 * time.Second
	// maxAddresses of one name that are tried.
	maxAddresses = 8
)

// addressError is a refusal by address: a decision, not a failure.
type addressError struct{ reason string }

func (e *addressError) Error() string { return e.reason }

// dialer connects to targets that the policy allowed.
type dialer struct {
	reach Reach

	mu      sync.Mutex
	own     []netip.Addr
	ownRead time.Time
}

// ownEvery is how long the list of the machine's addresses is believed.
const ownEvery = 5 * time.Second

func (d *dialer) ownAddrs() ([]netip.Addr, error) {
	if d.reach.Own != nil {
		return d.reach.Own()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.own != nil && time.Since(d.ownRead) < ownEvery {
		return d.own, nil
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this machine's addresses: %w", err)
	}
	var own []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr().Unmap())
		}
	}
	d.own, d.ownRead = own, time.Now()
	return own, nil
}

// dial resolves and connects. private says whether private addresses may be dialled.
func (d *dialer) dial(ctx context.Context, t Target, private bool) (net.Conn, error) {
	addrs, err := d.resolve(ctx, t)
	if err != nil {
		return nil, err
	}
	own, err := d.ownAddrs()
	if err != nil {
		return nil, err
	}
	var refused *addressError
	var fit []netip.Addr
	for _, a := range addrs {
		a = a.Unmap()
		if reason := unfit(a, own, private); reason != "" {
			if refused == nil {
				refused = &addressError{reason: "it is at " + a.String() + ", " + reason}
			}
			continue
		}
		fit = append(fit, a)
	}
	if len(fit) == 0 && refused != nil {
		return nil, refused
	}
	var last error
	for _, a := range fit[:min(len(fit), maxAddresses)] {
		c, err := d.connect(ctx, netip.AddrPortFrom(a, uint16(t.Port)))
		if err == nil {
			return c, nil
		}
		last = err
		if ctx.Err() != nil {
			break
		}
	}
	if last == nil {
		last = errors.New("the name has no address")
	}
	return nil, last
}

func (d *dialer) connect(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if d.reach.Dial != nil {
		return d.reach.Dial(ctx, addr)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", addr.String())
}

func (d *dialer) resolve(ctx context.Context, t Target) ([]netip.Addr, error) {
	if t.IP.IsValid() {
		return []netip.Addr{t.IP}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	var r Resolver = net.DefaultResolver
	if d.reach.Resolver != nil {
		r = d.reach.Resolver
	}
	// The final dot: the search list of resolv.conf must not turn it into another name.
	addrs, err := r.LookupNetIP(ctx, "ip", t.Host+".")
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", t.Host, err)
	}
	return addrs, nil
}

// never are ranges that are nobody's to reach, and metadata services of clouds
// outside of link-local.
var never = prefixes("0.0.0.0/8", "192.0.0.0/24", "240.0.0.0/4", "255.255.255.255/32", "198.18.0.0/15",
	"100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::254/128", "fd20:ce::254/128",
	"::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "fec0::/10")

// privateNets may hold anything of the network that this machine is in.
var privateNets = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func within(a netip.Addr, list []netip.Prefix) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// unfit says why an address is not dialled, "" if it is. a is unmapped.
func unfit(a netip.Addr, own []netip.Addr, private bool) string {
	if v4, ok := embedded(a); ok {
		return unfit(v4, own, private)
	}
	switch {
	case a.IsLoopback(), a.IsUnspecified(), slices.Contains(own, a):
		return "an address of this machine"
	case a.IsLinkLocalUnicast():
		return "a link-local address (cloud metadata)"
	case a.IsMulticast(), within(a, never), a.Zone() != "":
		return "an address that is never reached"
	case !private && (a.IsPrivate() || within(a, privateNets)):
		return "a private address, which only a name that the allow list spells out may have"
	}
	return ""
}

var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4 = netip.MustParsePrefix("2002::/16")
)

// embedded is the IPv4 address that a translator on the way would take out.
func embedded(a netip.Addr) (netip.Addr, bool) {
	b := a.As16()
	switch {
	case nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:])), true
	case sixTo4.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}
