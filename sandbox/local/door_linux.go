package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox/internal/landlock"
)

// How commands of the tier landlock that have no network reach where the host listens
// for them (Listen), and nothing else. Landlock knows ports but no addresses: a port of
// the loopback would be one of every machine too. So each connect(2) of theirs is held
// by the kernel (seccomp's user notification) and made by init, to an address that init
// has read once: what the command changes in its memory meanwhile changes nothing.

// canHold reports whether this kernel, and what bounds this process, can do that.
func canHold() bool {
	action := uint32(unix.SECCOMP_RET_USER_NOTIF)
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	if e != 0 || landlock.ABI() < landlock.ABINet {
		return false
	}
	// Yama's stricter settings keep a process from looking at those below it.
	scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	return err != nil || strings.TrimSpace(string(scope)) < "2"
}

// notification is struct seccomp_notif, answerTo struct seccomp_notif_resp, addFD struct
// seccomp_notif_addfd.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type answerTo struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

type addFD struct {
	id                              uint64
	flags, srcFD, newFD, newFDFlags uint32
}

// What x/sys/unix lacks of linux/seccomp.h.
const (
	notifyAddFD = 0x40182103 // SECCOMP_IOCTL_NOTIF_ADDFD
	notifyValid = 0x40082102 // SECCOMP_IOCTL_NOTIF_ID_VALID
)

// installHeld installs a filter whose held calls come to the descriptor that it returns.
// Once one is read, only a deadly signal ends it: a program that gets others often, as
// Go's runtime sends itself, would begin it again and again.
func installHeld(f []unix.SockFilter) (int, error) {
	p := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&p)))
	if e != 0 {
		return -1, step(e, "install the filter that holds connections")
	}
	return int(fd), nil
}

// doors answers held calls until nobody is under the filter any more.
func doors(held int, open []netip.AddrPort) {
	defer unix.Close(held)
	for {
		fds := []unix.PollFd{{Fd: int32(held), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if fds[0].Revents&unix.POLLIN == 0 {
			if fds[0].Revents != 0 {
				return
			}
			continue
		}
		var n notification // zero: the kernel wants that
		if ioctl(held, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)) != nil {
			continue // its caller has ended
		}
		a := answerTo{id: n.id}
		if err := connectFor(held, &n, open); err != nil {
			a.err = -int32(unix.EACCES)
			var errno unix.Errno
			if errors.As(err, &errno) {
				a.err = -int32(errno)
			}
		}
		_ = ioctl(held, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a)) // its caller may have ended
	}
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

// connectFor makes one connection for who called connect(2).
func connectFor(held int, n *notification, open []netip.AddrPort) error {
	if n.nr != unix.SYS_CONNECT {
		return unix.EPERM
	}
	sa, err := theirAddress(held, n)
	if err != nil {
		return err
	}
	to, ok := parseAddress(sa)
	if !ok || !slices.Contains(open, to) {
		return unix.EACCES
	}
	tgid, err := groupOf(n.pid)
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(tgid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	their := int(int32(n.args[0]))
	sock, err := unix.PidfdGetfd(pidfd, their, 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		return replaceSocket(held, n, tgid, their, to) // as in a container with the default profile
	}
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	return connectRaw(sock, sa)
}

// theirAddress reads the argument of the call, once.
func theirAddress(held int, n *notification) ([]byte, error) {
	size := n.args[2]
	if size < 2 || size > unix.SizeofSockaddrAny {
		return nil, unix.EINVAL
	}
	mem, err := unix.Open(fmt.Sprintf("/proc/%d/mem", n.pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, unix.EACCES
	}
	defer unix.Close(mem)
	// The number may have passed to another process before we opened it.
	if err := ioctl(held, notifyValid, unsafe.Pointer(&n.id)); err != nil {
		return nil, err
	}
	sa := make([]byte, size)
	if got, err := unix.Pread(mem, sa, int64(n.args[1])); err != nil || got != len(sa) {
		return nil, unix.EFAULT
	}
	return sa, nil
}

// parseAddress reads a struct sockaddr of TCP.
func parseAddress(sa []byte) (netip.AddrPort, bool) {
	port := func() uint16 { return binary.BigEndian.Uint16(sa[2:]) }
	switch family := binary.NativeEndian.Uint16(sa); {
	case family == unix.AF_INET && len(sa) >= unix.SizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(sa[4:8])), port()), true
	case family == unix.AF_INET6 && len(sa) >= unix.SizeofSockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(sa[8:24])).Unmap(), port()), true
	}
	return netip.AddrPort{}, false
}

func connectRaw(sock int, sa []byte) error {
	if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(sock), uintptr(unsafe.Pointer(&sa[0])), uintptr(len(sa))); e != 0 {
		return e
	}
	return nil
}

// groupOf is the process of a thread.
func groupOf(tid uint32) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0, unix.ESRCH
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "Tgid:"); ok {
			return strconv.Atoi(strings.TrimSpace(text))
		}
	}
	return 0, unix.ESRCH
}

// replaceSocket puts a connected socket of ours in the place of theirs. Options that were
// set on that one before are lost.
func replaceSocket(held int, n *notification, tgid, their int, to netip.AddrPort) error {
	flags, err := theirFlags(tgid, their)
	if err != nil {
		return unix.EBADF
	}
	sock, err := dialDoor(to)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	if flags&unix.O_NONBLOCK != 0 {
		if err := unix.SetNonblock(sock, true); err != nil {
			return err
		}
	}
	add := addFD{id: n.id, flags: unix.SECCOMP_ADDFD_FLAG_SETFD, srcFD: uint32(sock), newFD: uint32(their), newFDFlags: uint32(flags & unix.O_CLOEXEC)}
	return ioctl(held, notifyAddFD, unsafe.Pointer(&add))
}

func dialDoor(to netip.AddrPort) (int, error) {
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(to.Port())})
	if to.Addr().Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	} else {
		sa.(*unix.SockaddrInet4).Addr = to.Addr().As4()
	}
	sock, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(sock, sa); err != nil {
		unix.Close(sock)
		return -1, err
	}
	return sock, nil
}

// theirFlags of a descriptor that has to be a socket.
func theirFlags(tgid, fd int) (int, error) {
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tgid, fd))
	if err != nil || !strings.HasPrefix(link, "socket:") {
		return 0, unix.ENOTSOCK
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", tgid, fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "flags:"); ok {
			flags, err := strconv.ParseInt(strings.TrimSpace(text), 8, 64)
			return int(flags), err
		}
	}
	return 0, unix.EINVAL
}
