package local

import "golang.org/x/sys/unix"

// Offsets in struct seccomp_data; arguments are 64 bits, low half first on the
// little-endian machines that are supported.
const (
	dataNr   = 0
	dataArch = 4
	dataArg0 = 16
	dataArg1 = 24
)

const (
	nsFlags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
		unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	tioclinux = 0x541C // x/sys/unix has TIOCSTI but not this one
)

// absent calls answer ENOSYS, so that programs take their older way: clone3's
// flags lie in memory that a filter cannot read; io_uring goes around filters.
var absent = [...]uint32{unix.SYS_CLONE3, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_USERFAULTFD, unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_OPEN_TREE_ATTR}

// refused calls answer EPERM: nothing that a build, a test or an agent does.
var refused = [...]uint32{
	// mounts and namespaces
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_SETNS,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT,
	// other processes
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
	unix.SYS_MOVE_PAGES, unix.SYS_MBIND,
	// the kernel
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE,
	unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT, unix.SYS_QUOTACTL,
	unix.SYS_QUOTACTL_FD, unix.SYS_ACCT, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_LOOKUP_DCOOKIE,
	unix.SYS_SYSLOG, unix.SYS_FANOTIFY_INIT, unix.SYS_VHANGUP,
}

// initOnly calls are left to init, which gives a command its mounts and its
// namespaces; commands are refused them.
var initOnly = [...]uint32{unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_MOUNT_SETATTR, unix.SYS_UNSHARE}

// families of sockets that a command may open.
var families = [...]uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

func stmt(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

func load(offset uint32) unix.SockFilter {
	return stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset)
}

func jump(test uint16, k uint32, yes, no int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, Jt: uint8(yes), Jf: uint8(no), K: k}
}

func answer(action uint32) unix.SockFilter { return stmt(unix.BPF_RET|unix.BPF_K, action) }

func fail(e unix.Errno) unix.SockFilter { return answer(unix.SECCOMP_RET_ERRNO | uint32(e)) }

// filter is the seccomp program of the whole sandbox: what is not named is allowed.
// It holds for init's second stage too, which makes UTS and mount namespaces;
// commandFilter takes that away.
func filter() []unix.SockFilter {
	allow := answer(unix.SECCOMP_RET_ALLOW)
	f := []unix.SockFilter{
		load(dataArch), jump(unix.BPF_JEQ, auditArch, 1, 0), answer(unix.SECCOMP_RET_KILL_PROCESS),
		load(dataNr),
	}
	f = append(f, filterABI()...)
	deny := func(nr uint32, e unix.Errno) {
		f = append(f, jump(unix.BPF_JEQ, nr, 0, 1), fail(e))
	}
	for _, nr := range absent {
		deny(nr, unix.ENOSYS)
	}
	for _, nr := range refused {
		deny(nr, unix.EPERM)
	}
	for _, nr := range refusedHere {
		deny(nr, unix.EPERM)
	}
	f = append(f,
		jump(unix.BPF_JEQ, unix.SYS_CLONE, 0, 4), load(dataArg0),
		jump(unix.BPF_JSET, nsFlags, 0, 1), fail(unix.EPERM), allow,

		jump(unix.BPF_JEQ, unix.SYS_UNSHARE, 0, 5), load(dataArg0),
		jump(unix.BPF_JEQ, unix.CLONE_NEWUTS, 2, 0), jump(unix.BPF_JEQ, unix.CLONE_NEWNS, 1, 0), fail(unix.EPERM), allow,

		// The kernel looks at the low 32 bits of an ioctl's command, so does this
		// (CVE-2019-10063).
		jump(unix.BPF_JEQ, unix.SYS_IOCTL, 0, 5), load(dataArg1),
		jump(unix.BPF_JEQ, unix.TIOCSTI, 1, 0), jump(unix.BPF_JEQ, tioclinux, 0, 1), fail(unix.EPERM), allow,
	)
	n := len(families)
	f = append(f, jump(unix.BPF_JEQ, unix.SYS_SOCKET, 0, n+3), load(dataArg0))
	for i, family := range families {
		f = append(f, jump(unix.BPF_JEQ, family, n-i, 0))
	}
	return append(f, fail(unix.EAFNOSUPPORT), allow, allow)
}

// commandFilter is added to filter for one command.
func commandFilter(noSockets bool) []unix.SockFilter {
	allow := answer(unix.SECCOMP_RET_ALLOW)
	f := []unix.SockFilter{load(dataNr)} // filter has judged the ABI
	for _, nr := range initOnly {
		f = append(f, jump(unix.BPF_JEQ, nr, 0, 1), fail(unix.EPERM))
	}
	// The limits of another process: Landlock knows no rule for them.
	f = append(f, jump(unix.BPF_JEQ, unix.SYS_PRLIMIT64, 0, 4), load(dataArg0),
		jump(unix.BPF_JEQ, 0, 1, 0), fail(unix.EPERM), allow)
	if noSockets {
		f = append(f, jump(unix.BPF_JEQ, unix.SYS_SOCKET, 0, 4), load(dataArg0),
			jump(unix.BPF_JEQ, unix.AF_UNIX, 1, 0), fail(unix.EACCES), allow)
	}
	return append(f, allow)
}
