package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
)

// How programs that know no proxy are caught (Spec.Catch): inside, every IPv4 address
// is a local one, so that a connection to any of them ends at the sockets that stage 1
// opens on the caught ports, for the host. There is no route for IPv6, nobody
// listens on other ports, and UDP has one listener, for names.

// dnsAddr is where the resolver of resolv.conf is, inside.
const dnsAddr = "127.0.0.1"

// resolvCaught is resolv.conf of such a sandbox.
const resolvCaught = "nameserver " + dnsAddr + "\noptions timeout:3 attempts:1\n"

// maxCaught ports; their descriptors go in one message (SCM_MAX_FD is 253).
const maxCaught = 64

// lo is the index of the loopback interface, the first of every network namespace.
const lo = 1

// catchAll makes the routes and the sockets, and sends those to the host.
func catchAll(ports []int) error {
	if err := routeAllToLo(); err != nil {
		return err
	}
	var fds []int
	defer func() { closeAll(fds) }()
	dns, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return step(err, "open the socket for names")
	}
	fds = append(fds, dns)
	if err := unix.Bind(dns, &unix.SockaddrInet4{Port: 53, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return step(err, "bind the socket for names")
	}
	for _, port := range ports {
		fd, err := listenSocket(fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			return step(err, "catch port %d", port)
		}
		fds = append(fds, fd)
	}
	return step(unix.Sendmsg(controlFD, []byte{msgCaught}, unix.UnixRights(fds...), nil, 0), "send the caught sockets")
}

// routeAllToLo is `ip route add local 0.0.0.0/0 dev lo`.
func routeAllToLo() error {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return step(err, "open a netlink socket")
	}
	defer unix.Close(s)
	var req struct {
		head  unix.NlMsghdr
		route unix.RtMsg
		oif   unix.RtAttr
		index uint32
	}
	req.head = unix.NlMsghdr{Len: uint32(unsafe.Sizeof(req)), Type: unix.RTM_NEWROUTE,
		Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_EXCL, Seq: 1}
	req.route = unix.RtMsg{Family: unix.AF_INET, Table: unix.RT_TABLE_LOCAL, Protocol: unix.RTPROT_BOOT, Scope: unix.RT_SCOPE_HOST, Type: unix.RTN_LOCAL}
	req.oif = unix.RtAttr{Len: unix.SizeofRtAttr + 4, Type: unix.RTA_OIF}
	req.index = lo
	b := unsafe.Slice((*byte)(unsafe.Pointer(&req)), unsafe.Sizeof(req))
	if err := unix.Sendto(s, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return step(err, "add a route")
	}
	answer := make([]byte, 1024)
	n, _, err := unix.Recvfrom(s, answer, 0)
	if err != nil {
		return step(err, "add a route")
	}
	const errorAt = unix.SizeofNlMsghdr
	if n < errorAt+4 {
		return step(unix.EBADMSG, "add a route")
	}
	if code := *(*int32)(unsafe.Pointer(&answer[errorAt])); code != 0 {
		return step(unix.Errno(-code), "add a route")
	}
	return nil
}

var _ sandbox.Catcher = (*Sandbox)(nil)

// Caught are the sockets of Spec.Catch. The sandbox's end closes them.
func (s *Sandbox) Caught() (streams []net.Listener, names net.PacketConn) {
	return s.caught, s.names
}

// receiveCaught takes over the sockets that stage 1 sent.
func (s *Sandbox) receiveCaught(oob []byte) error {
	fds, err := receivedFDs(oob)
	if err != nil {
		return err
	}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "caught")
		if i == 0 {
			s.names, err = net.FilePacketConn(f)
		} else {
			var l net.Listener
			if l, err = net.FileListener(f); err == nil {
				l, err = s.listeners.Add(l)
				s.caught = append(s.caught, l)
			}
		}
		f.Close()
		if err != nil {
			closeAll(fds[i+1:])
			return err
		}
	}
	if s.names == nil {
		return errors.New("no sockets came")
	}
	return nil
}

// awaitReady reads stage 1's verdict.
func (s *Sandbox) awaitReady() error {
	buf, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*(1+maxCaught)))
	for {
		n, oobn, _, _, err := s.conn.ReadMsgUnix(buf, oob)
		switch {
		case err != nil || n == 0:
			return step(errors.Join(errors.New("it ended while it was set up"), s.lastWords()), opReady)
		case buf[0] == msgReady:
			return step(s.holdInit(buf[1:n]), opReady)
		case buf[0] == msgCaught:
			if err := s.receiveCaught(oob[:oobn]); err != nil {
				return step(err, "receive the caught sockets")
			}
			continue
		case buf[0] != msgFailed:
			return step(unix.EBADMSG, opReady)
		}
		var f failure
		if err := json.Unmarshal(buf[1:n], &f); err != nil {
			return step(err, opReady)
		}
		if f.Errno != 0 {
			return &stepError{op: f.Op, err: unix.Errno(f.Errno)}
		}
		return &stepError{op: f.Op, err: errors.New(f.Text)}
	}
}
