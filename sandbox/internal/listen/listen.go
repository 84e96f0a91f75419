// Package listen is what the drivers share to implement sandbox.Sandbox.Listen.
package listen

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// Parse reads the arguments of Listen: network tcp, tcp4 or tcp6, and a loopback
// address with a port, "localhost:0" for 127.0.0.1. Everything else is refused: a
// listener on another address would be reachable from outside the sandbox where the
// network is the host's.
func Parse(network, addr string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %q: want a loopback address with a port, as 127.0.0.1:0", addr)
	}
	if host == "localhost" {
		host = "127.0.0.1"
		if network == "tcp6" {
			host = "::1"
		}
	}
	ap, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	switch {
	case err != nil:
		return netip.AddrPort{}, fmt.Errorf("address %q: %w", addr, err)
	case !ap.Addr().IsLoopback() || ap.Addr().Is4In6() || ap.Addr().Zone() != "":
		return netip.AddrPort{}, fmt.Errorf("address %q is not a loopback address", addr)
	}
	switch {
	case network == "tcp", network == "tcp4" && ap.Addr().Is4(), network == "tcp6" && ap.Addr().Is6():
		return ap, nil
	}
	return netip.AddrPort{}, fmt.Errorf("network %q does not fit address %q: want tcp, tcp4 or tcp6", network, addr)
}

// ErrClosed is what Add reports once the set is closed.
var ErrClosed = errors.New("the sandbox was closed")

// Set holds the open listeners of one sandbox, whose end closes them. The zero
// value is empty and open.
type Set struct {
	mu     sync.Mutex
	closed bool
	open   map[*member]struct{}
}

type member struct {
	net.Listener
	set *Set
}

// Close takes it out of the set too.
func (m *member) Close() error {
	m.set.mu.Lock()
	delete(m.set.open, m)
	m.set.mu.Unlock()
	return m.Listener.Close()
}

// Add makes l a member and returns it in the form to be handed out. It closes l if
// the set is closed.
func (s *Set) Add(l net.Listener) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		l.Close()
		return nil, ErrClosed
	}
	if s.open == nil {
		s.open = map[*member]struct{}{}
	}
	m := &member{Listener: l, set: s}
	s.open[m] = struct{}{}
	return m, nil
}

// Close closes all members, and those to come.
func (s *Set) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for m := range s.open {
		m.Listener.Close()
	}
	s.open = nil
}
