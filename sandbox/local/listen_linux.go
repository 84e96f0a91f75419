package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/internal/listen"
)

// listenBacklog of sockets that init opens; the kernel caps it at somaxconn.
const listenBacklog = 4096

// listened is init's answer: a socket or an error.
type listened struct {
	file *os.File
	err  error
}

// Listen asks init for a listening socket in the sandbox's network namespace. The
// descriptor is the host's alone afterwards.
func (s *Sandbox) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	ap, err := listen.Parse(network, addr)
	if err != nil {
		return nil, listenError(sandbox.ClassInvalid, err)
	}
	f, err := s.askListener(ctx, ap)
	if err != nil {
		return nil, err
	}
	l, err := net.FileListener(f) // a copy
	f.Close()
	if err != nil {
		return nil, listenError(sandbox.ClassInfrastructure, err)
	}
	if l, err = s.listeners.Add(l); err != nil {
		return nil, listenError(sandbox.ClassInvalid, err)
	}
	return l, nil
}

func listenError(class sandbox.Class, err error) error {
	return &sandbox.Error{Op: "listen in the sandbox", Class: class, Err: err}
}

func (s *Sandbox) askListener(ctx context.Context, addr netip.AddrPort) (*os.File, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, listenError(sandbox.ClassInfrastructure, err)
	}
	answer := make(chan listened, 1)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, listenError(sandbox.ClassInvalid, listen.ErrClosed)
	}
	s.next++
	id := s.next
	s.listens[id] = answer
	s.mu.Unlock()

	r := listenRequest{ID: id, Addr: addr.String()}
	_, cause := s.conn.Write(r.append([]byte{msgListen}))
	if cause == nil {
		select {
		case got := <-answer:
			return got.file, got.err
		case <-s.done:
		case <-ctx.Done():
			cause = context.Cause(ctx)
		}
	}
	s.mu.Lock()
	delete(s.listens, id)
	s.mu.Unlock()
	select {
	case got := <-answer: // it came meanwhile; none comes any more
		return got.file, got.err
	default:
		return nil, s.failed(cause)
	}
}

// receiveListener hands an answer of init to who waits for it. Not ok: the message
// makes no sense.
func (s *Sandbox) receiveListener(body, oob []byte) (ok bool) {
	fds, err := receivedFDs(oob)
	var r listenResult
	if err != nil || r.parse(body) != nil || (r.Why == "") != (len(fds) == 1) {
		closeAll(fds)
		return false
	}
	var got listened
	if r.Why == "" {
		got.file = os.NewFile(uintptr(fds[0]), "listener")
	} else {
		class := sandbox.ClassInfrastructure
		switch unix.Errno(r.Errno) {
		case unix.EADDRINUSE, unix.EACCES, unix.EADDRNOTAVAIL, unix.EAFNOSUPPORT:
			class = sandbox.ClassInvalid // it will not pass
		}
		got.err = listenError(class, errors.New(r.Why))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := s.listens[r.ID]
	delete(s.listens, r.ID)
	if answer == nil { // nobody waits any more
		closeAll(fds)
		return true
	}
	answer <- got // it has room; under mu, so that after a delete none comes
	return true
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// listenFor is init's side. The socket is the host's after this.
func (s *server) listenFor(r *listenRequest) {
	var fd int
	err := error(nil)
	if s.flat != nil {
		err = s.flat.mayListen()
	}
	if err == nil {
		fd, err = listenSocket(r.Addr)
	}
	res := listenResult{ID: r.ID}
	var rights []byte
	if err != nil {
		res.Why = fmt.Sprintf("listen on %s: %v", r.Addr, err)
		var errno unix.Errno
		if errors.As(err, &errno) {
			res.Errno = int(errno)
		}
	} else {
		rights = unix.UnixRights(fd)
		defer unix.Close(fd)
		if s.flat != nil {
			s.flat.open = append(s.flat.open, addressOf(fd))
		}
	}
	// If the host is gone the loop notices.
	_ = unix.Sendmsg(controlFD, res.append([]byte{msgSocket}), rights, nil, 0)
}

// addressOf a bound TCP socket.
func addressOf(fd int) netip.AddrPort {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{} // nobody can connect to it
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func listenSocket(addr string) (fd int, err error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return -1, err
	}
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(ap.Port())})
	if ap.Addr().Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
	} else {
		sa.(*unix.SockaddrInet4).Addr = ap.Addr().As4()
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	// A port whose last connections are in TIME_WAIT can be had again.
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil {
		err = unix.Listen(fd, listenBacklog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
