// Package local is the sandbox driver of Linux: namespaces, no daemon, no root
// needed. On other systems its Probe and Create say that it cannot work there.
//
// The flow binary executes itself as the sandbox's init: pid 1 of new user,
// mount, pid, ipc, uts, cgroup and (without network) net namespaces. main() and
// every TestMain that makes sandboxes call InitMain before anything else.
//
// Two stages. Stage 1 has all capabilities of the new user namespace and builds
// the root file system. It then drops what is not needed, installs the seccomp
// filter and executes stage 2, so that those hold for every thread of it. Stage 2
// serves exec requests from one SOCK_SEQPACKET socket; standard input and output
// of a command arrive as descriptors and are never relayed.
//
// Invariants, besides those of package sandbox:
//
//  1. uid 0 of the host is never mapped. Run by root, a range of subordinate ids
//     is mapped (DefaultIDBase, or /etc/subuid) and commands run as uid 1000 in
//     it; the home tree is an idmapped mount, so that its files lie on disk as
//     uid 1000. Run by somebody else, their one uid is mapped to 1000.
//  2. A command sees the host's /usr, /bin, /sbin, /lib*, /opt, /nix, /snap, /gnu
//     and a list of /etc entries, all read-only, and nothing else of the host.
//  3. A command has no capability, no_new_privs, an empty bounding set, a seccomp
//     filter, and no way to make a namespace or a mount.
//  4. Each exec has a UTS namespace of its own, which it can neither leave nor
//     copy: it is the tag by which its processes are found and killed.
//  5. Each exec is in a landlock domain of its own: it can neither look into nor
//     signal the processes of another one, and does not see them in /proc (where the
//     kernel has scopes, Linux 6.12: Capabilities.Apart).
//  6. Rights.ReadOnly is a read-only mount of the home in a mount namespace of that
//     exec, with its writable paths mounted over it. So it covers modes, times and
//     attributes too, which landlock has no right for.
//  7. init ends when the thread that made it ends (PDEATHSIG) or the socket is
//     closed, whichever comes first, and everything inside with it.
//
// Where the machine refuses user namespaces (and Landlock has version 3, Linux 6.2)
// the tier is landlock: a guard and, below it, one stage of init, both subreapers, so
// that whichever is killed the other one ends what commands left; each command in a landlock
// domain and under two seccomp filters. Then HomeDir does not exist (BaseEnv's HOME is
// the real directory, Cmd.Dir is translated, as with driver host), /tmp is closed
// (TMPDIR is Spec.Dir/tmp), processes and users are the host's, and Rights.ReadOnly does
// not keep modes and times (Capabilities.LooseModes). Sockets of AF_UNIX are refused
// whatever the network is, and without a network all are, but to where Listen listens.
// Kept in this tier too: what a command reads and writes of the host's files, signals
// and tracing (Linux 6.12), that its processes end with it, with Close and with flow.
//
// Limits: the kernel's resource limits hold everywhere; memory and cpus need a control
// group (package cgroup), which init joins before it reads its configuration. Commands
// have a higher oom_score_adj than init, so that the kernel ends them and not it.
//
// Not promised: the kernel is shared. With network "full" the host's network
// namespace is kept, and with it the host's abstract AF_UNIX sockets can be
// reached where domains have no scopes (before Linux 6.12).
//
// Source: design page "Sandboxes", facts "Local sandbox technology".
package local

// The hidden first arguments by which the binary knows that it is an init.
const (
	argStage1 = "__flow-sandbox-init"
	argStage2 = "__flow-sandbox-serve"
	argFlat   = "__flow-sandbox-flat"
	argServe  = "__flow-sandbox-flat-serve"
)

// Ids and limits of every sandbox.
const (
	// UserID is the uid and gid of commands, inside.
	UserID = 1000
	// DefaultIDBase is the first host id of the range that root maps when
	// /etc/subuid grants root (or "flow") none. The range 231072..296607 lies above
	// what useradd hands out first (100000, 165536) and below 2^31.
	DefaultIDBase = 231072
	// IDCount is the size of that range.
	IDCount = 65536
	// MaxProcesses is RLIMIT_NPROC of commands: it bounds a fork bomb. The kernel
	// counts it per sandbox, because each has a user namespace of its own.
	MaxProcesses = 4096
)

// Options of the driver. The zero value is right for flow.
type Options struct {
	// Path is the PATH whose visible entries come first in BaseEnv's PATH, e.g.
	// os.Getenv("PATH"). Empty: only the standard directories.
	Path string
	// noIDMappedMount makes root use the chown fallback; for tests.
	noIDMappedMount bool
	// onlyLandlock makes it behave as where namespaces are refused; for tests.
	onlyLandlock bool
}
