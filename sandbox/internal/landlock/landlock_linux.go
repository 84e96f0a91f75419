// Package landlock is the three system calls of Landlock, for one thread. (The
// field's library, go-landlock, restricts all threads of a process at once; a
// sandbox's init gives each command a domain of its own, from a thread that ends
// with the fork.)
//
// A domain, once set, cannot be left; each call of Restrict makes a new one, also
// with the same Ruleset, and what is in one domain can neither trace nor look into
// the processes of another that is not below it.
package landlock

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Groups of rights on files.
const (
	// Read is what looking needs.
	Read = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	// Execute is needed besides to run a program.
	Execute = unix.LANDLOCK_ACCESS_FS_EXECUTE
	// WriteFile is all that changes the content of one file.
	WriteFile = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	// Write is all that changes a tree, device nodes left out.
	Write = WriteFile | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER
	// Devices is making device nodes and controlling devices.
	Devices = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	// onFile are the rights that a rule for a file, not a directory, may name.
	onFile = unix.LANDLOCK_ACCESS_FS_READ_FILE | Execute | WriteFile | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// Versions of the interface with which something came.
const (
	ABIRefer    = 2 // renames and links between directories (Linux 5.19)
	ABITruncate = 3 // Linux 6.2
	ABINet      = 4 // TCP ports (Linux 6.7)
	ABIIoctl    = 5 // Linux 6.10
	ABIScope    = 6 // signals and abstract sockets (Linux 6.12)
)

// ABI is the version of the interface that the running kernel has, 0 for none.
func ABI() int {
	v, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return 0
	}
	return int(v)
}

// Handled is what a ruleset takes away unless a rule gives it back. What the
// kernel does not know is left out: see ABI.
type Handled struct{ FS, Net, Scoped uint64 }

// known leaves what a version of the interface knows.
func (h Handled) known(abi int) Handled {
	if abi < ABIRefer {
		h.FS &^= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi < ABITruncate {
		h.FS &^= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi < ABIIoctl {
		h.FS &^= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi < ABINet {
		h.Net = 0
	}
	if abi < ABIScope {
		h.Scoped = 0
	}
	return h
}

// Ruleset is a set of rules that is no domain yet.
type Ruleset struct {
	fd      int
	handled Handled
}

// New makes a ruleset; the caller closes it. h must not be empty for this kernel.
func New(h Handled) (*Ruleset, error) {
	h = h.known(ABI())
	attr := unix.LandlockRulesetAttr{Handled_access_fs: h.FS, Handled_access_net: h.Net, Scoped: h.Scoped}
	size := unsafe.Sizeof(uint64(0)) // of the attributes that every kernel knows
	switch {
	case h.Scoped != 0:
		size *= 3
	case h.Net != 0:
		size *= 2
	}
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if e != 0 {
		return nil, fmt.Errorf("make a landlock ruleset: %w", e)
	}
	return &Ruleset{fd: int(fd), handled: h}, nil
}

// Close lets go of the ruleset; domains made from it stay.
func (r *Ruleset) Close() { unix.Close(r.fd) }

// Allow gives rights to what path (an O_PATH descriptor) names, and below it.
// Rights that the ruleset does not handle, or that a file cannot have, are left out.
func (r *Ruleset) Allow(path int, access uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(path, &st); err != nil {
		return fmt.Errorf("allow a path: %w", err)
	}
	access &= r.handled.FS
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= onFile
	}
	if access == 0 {
		return nil
	}
	// struct landlock_path_beneath_attr is packed: 8 and 4 bytes.
	attr := struct {
		access uint64
		parent int32
	}{access, int32(path)}
	_, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(r.fd), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if e != 0 {
		return fmt.Errorf("allow a path: %w", e)
	}
	return nil
}

// ruleNetPort is LANDLOCK_RULE_NET_PORT, which x/sys/unix lacks.
const ruleNetPort = 2

// AllowConnect lets programs connect to a TCP port, of whatever address.
func (r *Ruleset) AllowConnect(port uint16) error {
	attr := [2]uint64{unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, uint64(port)}
	_, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(r.fd), ruleNetPort, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if e != 0 {
		return fmt.Errorf("allow port %d: %w", port, e)
	}
	return nil
}

// Restrict puts the calling thread into a new domain with the rules. The thread
// must be locked (runtime.LockOSThread), never be unlocked, and have no_new_privs.
func (r *Ruleset) Restrict() error {
	_, _, e := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(r.fd), 0, 0)
	if e != 0 {
		return fmt.Errorf("enter a landlock domain: %w", e)
	}
	return nil
}
