package local

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Capabilities that init needs after the set-up, in the sandbox's user namespace:
// SYS_ADMIN for the UTS namespace of each exec, KILL and SYS_PTRACE to find and
// end processes that made themselves undumpable, and as root SETUID and SETGID to
// become UserID.
const (
	capsUser uint64 = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_KILL | 1<<unix.CAP_SYS_PTRACE
	capsRoot        = capsUser | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
)

// dropPrivileges leaves this thread what stage 2 needs: the capabilities above
// (ambient, so that they survive execve), an empty bounding set, no_new_privs and
// the seccomp filter.
func dropPrivileges(root bool) error {
	keep := capsUser
	if root {
		keep = capsRoot
	}
	if err := setInheritable(keep); err != nil {
		return err
	}
	for c := uintptr(0); c <= 63; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == unix.EINVAL {
			break // the kernel's last capability was the one before
		}
		if err != nil {
			return step(err, "drop capability %d", c)
		}
	}
	// What the host gave us for the set-up does not go on.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return step(err, "clear ambient capabilities")
	}
	for c := uintptr(0); c <= 63; c++ {
		if keep>>c&1 == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0); err != nil {
			return step(err, "keep capability %d", c)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return step(err, "set no_new_privs")
	}
	return installFilter(filter())
}

// clearInherited makes this thread's children start without any capability: the
// ambient and the inheritable set are per thread, and only this one forks.
func clearInherited() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return step(err, "clear ambient capabilities")
	}
	return setInheritable(0)
}

func setInheritable(caps uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return step(err, "read capabilities")
	}
	data[0].Inheritable, data[1].Inheritable = uint32(caps), uint32(caps>>32)
	return step(unix.Capset(&hdr, &data[0]), "set inheritable capabilities")
}

func installFilter(f []unix.SockFilter) error {
	p := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&p)))
	if e != 0 {
		return step(e, "install the seccomp filter")
	}
	return nil
}
