package local

import "golang.org/x/sys/unix"

// Offsets in struct seccomp_data; arguments are 64 bits, low half first on the
// little-endian machines that are supported.
const (
	dataNr   = 0
	dataArch = 4
	dataArg0 = 16
	dataArg1 = 24
	dataArg2 = 32
	dataArg3 = 40
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

// flatRefused calls are refused in the tier landlock besides: what namespaces of its
// own make harmless in the others, and what landlock has no right for.
var flatRefused = [...]uint32{
	unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_SEMGET, unix.SYS_SEMCTL, unix.SYS_MSGGET, unix.SYS_MSGCTL,
	unix.SYS_MQ_OPEN, unix.SYS_MQ_UNLINK, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
}

// argCall is a call and the offset of the argument that is judged.
type argCall struct{ nr, arg uint32 }

// ofOthers are calls about a process, which must be the caller's own: the argument
// with its number is 0.
var ofOthers = [...]argCall{{unix.SYS_SCHED_SETAFFINITY, dataArg0}, {unix.SYS_SCHED_SETSCHEDULER, dataArg0}, {unix.SYS_SCHED_SETPARAM, dataArg0},
	{unix.SYS_SCHED_SETATTR, dataArg0}, {unix.SYS_SETPRIORITY, dataArg1}, {unix.SYS_IOPRIO_SET, dataArg1}, {unix.SYS_MIGRATE_PAGES, dataArg0}}

// modeCalls set a mode, in the argument at the offset: no setuid, no setgid.
var modeCalls = [...]argCall{{unix.SYS_FCHMOD, dataArg1}, {unix.SYS_FCHMODAT, dataArg2}, {unix.SYS_FCHMODAT2, dataArg2}}

// fastOpen are calls whose flags can ask for a connection (MSG_FASTOPEN), past the
// domain's rules for connect.
var fastOpen = [...]argCall{{unix.SYS_SENDTO, dataArg3}, {unix.SYS_SENDMSG, dataArg2}, {unix.SYS_SENDMMSG, dataArg3}}

// byNumber are calls that name the process or thread to be signalled. The thread of
// init that forked a command is in the command's domain, so landlock does not keep the
// command from it, and a signal that ends one thread ends init.
var byNumber = [...]argCall{{unix.SYS_KILL, dataArg0}, {unix.SYS_TKILL, dataArg0}, {unix.SYS_TGKILL, dataArg1},
	{unix.SYS_RT_SIGQUEUEINFO, dataArg0}, {unix.SYS_RT_TGSIGQUEUEINFO, dataArg1}, {unix.SYS_PIDFD_OPEN, dataArg0}}

// setSignal are commands of fcntl that let a descriptor's events signal any thread with
// any signal.
var setSignal = [...]uint32{unix.F_SETSIG, unix.F_SETOWN_EX}

// flatFilter is added in the tier landlock. There the network, the sockets and the
// processes are the host's. AF_UNIX is refused whatever the network is: no rule keeps a
// command from the host's sockets (docker.sock, D-Bus, an ssh agent). Pairs that
// cannot be connected elsewhere are let through.
func flatFilter(network, tcp, scoped bool, thread uint32) []unix.SockFilter {
	allow := answer(unix.SECCOMP_RET_ALLOW)
	f := []unix.SockFilter{load(dataNr)}
	deny := func(nr uint32, e unix.Errno) {
		f = append(f, jump(unix.BPF_JEQ, nr, 0, 1), fail(e))
	}
	for _, nr := range flatRefused {
		deny(nr, unix.EPERM)
	}
	for _, nr := range flatRefusedHere {
		deny(nr, unix.EPERM)
	}
	for _, c := range ofOthers {
		f = append(f, jump(unix.BPF_JEQ, c.nr, 0, 4), load(c.arg), jump(unix.BPF_JEQ, 0, 1, 0), fail(unix.EPERM), allow)
	}
	for _, c := range append(modeCalls[:], modeCallsHere[:]...) {
		f = append(f, jump(unix.BPF_JEQ, c.nr, 0, 4), load(c.arg), jump(unix.BPF_JSET, unix.S_ISUID|unix.S_ISGID, 0, 1), fail(unix.EPERM), allow)
	}
	for _, c := range byNumber {
		second := thread
		if !scoped { // everybody: the user's other processes would be meant too
			second = ^uint32(0)
		}
		f = append(f, jump(unix.BPF_JEQ, c.nr, 0, 5), load(c.arg), jump(unix.BPF_JEQ, thread, 1, 0), jump(unix.BPF_JEQ, second, 0, 1), fail(unix.EPERM), allow)
	}
	f = append(f, jump(unix.BPF_JEQ, unix.SYS_FCNTL, 0, 5), load(dataArg1), jump(unix.BPF_JEQ, setSignal[0], 1, 0),
		jump(unix.BPF_JEQ, setSignal[1], 0, 1), fail(unix.EPERM), allow)
	// The bound of processes, see flat.narrow.
	f = append(f, jump(unix.BPF_JEQ, unix.SYS_SETRLIMIT, 0, 4), load(dataArg0), jump(unix.BPF_JEQ, unix.RLIMIT_NPROC, 0, 1), fail(unix.EPERM), allow,
		jump(unix.BPF_JEQ, unix.SYS_PRLIMIT64, 0, 8), load(dataArg1), jump(unix.BPF_JEQ, unix.RLIMIT_NPROC, 0, 5), load(dataArg2), jump(unix.BPF_JEQ, 0, 0, 2),
		load(dataArg2+4), jump(unix.BPF_JEQ, 0, 1, 0), fail(unix.EPERM), allow)
	if tcp {
		f = append(f, jump(unix.BPF_JEQ, unix.SYS_CONNECT, 0, 1), answer(unix.SECCOMP_RET_USER_NOTIF)) // see doors
		deny(unix.SYS_BIND, unix.EACCES)
		deny(unix.SYS_LISTEN, unix.EACCES) // a port that nobody named would be open to everybody
		for _, c := range fastOpen {
			f = append(f, jump(unix.BPF_JEQ, c.nr, 0, 4), load(c.arg), jump(unix.BPF_JSET, unix.MSG_FASTOPEN, 0, 1), fail(unix.EACCES), allow)
		}
	}
	const kind = 0xf // SOCK_TYPE_MASK
	f = append(f, jump(unix.BPF_JEQ, unix.SYS_SOCKETPAIR, 0, 7), load(dataArg1), stmt(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, kind),
		jump(unix.BPF_JEQ, unix.SOCK_STREAM, 3, 0), jump(unix.BPF_JEQ, unix.SOCK_SEQPACKET, 2, 0), fail(unix.EACCES), allow, allow)
	f = append(f, jump(unix.BPF_JEQ, unix.SYS_SOCKET, 1, 0), allow)
	switch {
	case network:
		f = append(f, load(dataArg0), jump(unix.BPF_JEQ, unix.AF_INET, 3, 0), jump(unix.BPF_JEQ, unix.AF_INET6, 2, 0),
			jump(unix.BPF_JEQ, unix.AF_NETLINK, 1, 0), fail(unix.EACCES), allow)
	case tcp: // the ports are the domain's to judge, which knows of TCP only
		f = append(f, load(dataArg0), jump(unix.BPF_JEQ, unix.AF_INET, 2, 0), jump(unix.BPF_JEQ, unix.AF_INET6, 1, 0), fail(unix.EACCES),
			load(dataArg1), stmt(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, kind), jump(unix.BPF_JEQ, unix.SOCK_STREAM, 1, 0), fail(unix.EACCES),
			load(dataArg2), jump(unix.BPF_JEQ, 0, 2, 0), jump(unix.BPF_JEQ, unix.IPPROTO_TCP, 1, 0), fail(unix.EACCES), allow)
	default:
		f = append(f, fail(unix.EACCES))
	}
	return f
}
