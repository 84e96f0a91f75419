// Package sandbox is the contract between whoever runs a command and the place
// where it runs.
//
// Words: a Driver makes Sandboxes; a Sandbox is one isolated machine-like place
// with a home directory (HomeDir) and, in it, the workspace (WorkspaceDir); an
// Exec is one command in it; Rights are what one Exec may do there.
//
// Invariants that every driver keeps (package sandboxtest checks them):
//
//  1. The environment of an Exec is exactly Cmd.Env. Nothing is inherited.
//  2. When Exec returns, every process that it started has ended, whatever it
//     did to hide (setsid, double fork, ignored signals). Driver host is the one
//     exception, and says so in its Capabilities.
//  3. Close ends everything and leaves nothing behind on the host; it may be
//     called twice, and after the sandbox was lost.
//  4. What the caller's death leaves behind ends by itself.
//  5. An error of the place (not of the command) is an *Error whose Class is
//     infrastructure or invalid; a command that ran and failed is no error.
//
// The drivers are folders below this one: local, host. This package imports
// none of them; the table of drivers is in cmd/flow.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"flowrun.dev/flow/checkpoint"
)

// Paths inside every sandbox, the same for all drivers, so that a workflow means
// the same thing everywhere.
const (
	HomeDir      = "/home/user"
	WorkspaceDir = "/home/user/workspace"
	// TrustFile holds the certificates of Spec.Trust alone, TrustBundle them and the
	// system's. They exist where Spec.Trust is given.
	TrustFile   = "/etc/flow/ca.crt"
	TrustBundle = "/etc/flow/ca-bundle.crt"
)

// Tier is how strong an isolation really is on this machine.
type Tier string

// The tiers, strongest first (facts: sandbox technology, "Tiers").
const (
	TierNamespaceRoot Tier = "ns-root"  // namespaces, subuid map, idmapped workspace
	TierNamespaceUser Tier = "ns-user"  // namespaces of an ordinary user
	TierLandlock      Tier = "landlock" // reserved for the landlock fallback
	TierNone          Tier = "none"     // no isolation: driver host
)

// Strong reports whether a tier satisfies sandbox.require: strong, i.e. whether
// commands have a root, processes and a network of their own.
func (t Tier) Strong() bool { return t == TierNamespaceRoot || t == TierNamespaceUser }

// Capabilities is what a driver can do on this machine, found by really starting
// a sandbox, never by a version check. The preflight of plan and run refuses a
// workflow that asks for more.
type Capabilities struct {
	Driver     string `json:"driver"`
	Tier       Tier   `json:"tier"`
	Reason     string `json:"reason,omitempty"` // why this tier and not a stronger one
	Lift       string `json:"lift,omitempty"`   // what would give a stronger one on this machine
	NoNetwork  bool   `json:"no_network"`       // can run a sandbox without any network
	Network    bool   `json:"network"`          // can give it the full network
	PathRights bool   `json:"path_rights"`      // Rights.ReadOnly and Write are enforced by the system
	// LooseModes: Rights.ReadOnly does not keep modes, owners, times and attributes
	// of files, so that what a command changed has to be looked at afterwards.
	LooseModes bool `json:"loose_modes,omitempty"`
	// SocketRights: Rights.NoSockets is enforced by the system.
	SocketRights bool `json:"socket_rights"`
	// Apart: commands that run at the same time can neither look into each other's
	// processes nor signal them.
	Apart bool `json:"apart"`
	// EgressList: with NetworkNone nothing is reached but what Listen opens, so that a
	// proxy behind it can hold commands to a list of hosts.
	EgressList bool `json:"egress_list"`
	// Catch: with EgressList, also programs that know no proxy (Spec.Catch).
	Catch    bool `json:"catch"`
	KillTree bool `json:"kill_tree"` // invariant 2 holds
	// Limits that can be enforced, by the names of their keys.
	Limits []string `json:"limits"`
	Forks  bool     `json:"forks"` // overlapping steps get a fork each
	// InPlace: Spec.InPlace is possible.
	InPlace bool `json:"in_place,omitempty"`
	// Overlay: Spec.Lower is worth asking for. Whether it works for a source is seen
	// when a sandbox is made (ErrNoOverlay).
	Overlay bool `json:"overlay,omitempty"`
}

// Weakness is what people are told at the start of a run: why the tier is weaker than
// namespaces, "" for those.
func (c Capabilities) Weakness() string {
	if c.Tier.Strong() {
		return ""
	}
	return c.Reason
}

// Driver makes sandboxes of one kind.
type Driver interface {
	// Name is the word of the workflow file: "local", "host".
	Name() string
	// Probe says what the driver can do here, by really starting a sandbox and
	// executing a command in it. The error (an *Error) says why it can do
	// nothing here and what would mend it.
	Probe(ctx context.Context) (Capabilities, error)
	// Create starts a sandbox. It does not retry: the caller does, for errors
	// whose class is infrastructure.
	Create(ctx context.Context, s Spec) (Sandbox, error)
}

// Network is the network of a whole sandbox.
type Network string

const (
	NetworkNone Network = "none" // only a loopback interface of its own; the default
	NetworkFull Network = "full" // the host's network
)

// Limits of a whole sandbox; 0 is none, or the driver's default. A driver refuses
// (class invalid) what its Capabilities.Limits does not name.
type Limits struct {
	CPUs      float64 // "cpus": processors' time per time
	Memory    int64   // "memory": bytes of all processes and of what they keep in tmpfs
	Pids      int     // "pids": processes and threads at the same time
	FileSize  int64   // "file_size": bytes of one file that is written
	OpenFiles int     // "open_files": descriptors of one process
	Tmp       int64   // "tmp": bytes of each scratch folder
	// Disk is bytes of the home, measured while commands run (Stats.Disk): whoever asked
	// for it ends the command that goes beyond.
	Disk int64 // "disk"
}

// Asked lists the names of the limits that are set.
func (l Limits) Asked() (names []string) {
	for _, x := range [...]struct {
		name string
		set  bool
	}{{"cpus", l.CPUs != 0}, {"memory", l.Memory != 0}, {"pids", l.Pids != 0}, {"file_size", l.FileSize != 0},
		{"open_files", l.OpenFiles != 0}, {"tmp", l.Tmp != 0}, {"disk", l.Disk != 0}} {
		if x.set {
			names = append(names, x.name)
		}
	}
	return names
}

// Stats is what a sandbox takes at a moment. What a driver cannot know is 0.
type Stats struct {
	Memory    int64 // bytes that its processes hold (shared pages count for each, without a memory limit)
	Processes int   // threads are not counted
	Disk      int64 // bytes of the home
}

// Meter is a sandbox that can be measured; not every driver's can.
type Meter interface {
	// Stats measures; disk too when asked, which takes a walk over the home.
	Stats(ctx context.Context, disk bool) (Stats, error)
}

// Reusable is a sandbox that may serve somebody else once its home was restored; not
// every driver's can.
type Reusable interface {
	// Clean reports whether it is, but for the home, as it was made: no process runs
	// inside, and commands left nothing in the scratch folders and no object of IPC.
	Clean(ctx context.Context) (bool, error)
}

// Scrubber is a sandbox that can be made, but for its home, as it was when it was new.
type Scrubber interface {
	// Scrub empties the scratch folders and ends what is left of processes and objects
	// of IPC. It wants no Exec running. An error means that something may be left: the
	// sandbox is then not to be used again.
	Scrub(ctx context.Context) error
}

// Spec is what a sandbox is made from.
type Spec struct {
	// ID names the sandbox in records: unique, [a-z0-9-].
	ID string
	// Dir is a host directory owned by this sandbox (0700), which exists and is
	// empty or holds what an earlier sandbox of the same run left. The driver
	// keeps the tree that checkpoints cover in Dir/home. The caller removes Dir
	// after Close.
	Dir string
	// InPlace is the absolute path of a folder that is the workspace itself, "" for one of
	// its own. No Snapshot, Restore or Close touches what is in it. Only where
	// Capabilities.InPlace is set.
	InPlace string
	// Network of every exec in it.
	Network Network
	// Limits of everything in it together.
	Limits Limits
	// Hostname inside; default "sandbox".
	Hostname string
	// Mounts show files and folders of the host, read-only. Driver host has no root of
	// its own and refuses them.
	Mounts []Mount
	// Trust are certificates (PEM, at most 16 KiB) of authorities that commands trust
	// beside the system's: inside only. Driver host refuses them.
	Trust []byte
	// Lower, where given, makes the workspace an overlay over a tree of the host, which
	// is only read, instead of a directory. Create fails with ErrNoOverlay where that
	// cannot be had; the caller copies the tree then.
	Lower *Lower
	// Catch are ports of TCP: connections from inside to any IPv4 address on one of
	// them come to the host, and so do questions for names (see Catcher). Only with
	// NetworkNone, and only where Capabilities.Catch is set.
	Catch []int
}

// ErrNoOverlay: the workspace cannot be an overlay over this source, on this machine.
var ErrNoOverlay = errors.New("the workspace cannot be an overlay here")

// Lower is a tree that shows in the workspace without being copied.
type Lower struct {
	Dir string // absolute
	// UID and GID own what shows as the commands' own.
	UID, GID int
	// Fill prepares the upper layer, a directory that is there and empty, before
	// anything is mounted. What it makes belongs to owner, nil for the process.
	Fill func(ctx context.Context, upper string, owner *checkpoint.Owner) error
}

// Layered is a sandbox that may have been made with Spec.Lower. Such a one does not know
// what its home holds until SetLower said what the lower tree does.
type Layered interface {
	// Layered reports whether it was.
	Layered() bool
	// Workspace is the host's path of what WorkspaceDir shows, as long as the sandbox
	// lives: it is not in Home.
	Workspace() string
	// Begin notes, before the first command, what lies in the home and over the lower
	// tree, so that SetLower may come later: First then is the tree as it was at Begin.
	// Nothing else is asked in between.
	Begin(ctx context.Context, st checkpoint.Store) (checkpoint.Batch, error)
	First() (checkpoint.Snapshot, error)
	// SetLower says what the lower tree holds, before the first Snapshot or Restore and
	// whenever it was found changed; a Restore follows then.
	SetLower(m *checkpoint.Manifest)
}

// Truster is a Sandbox in which the files of Spec.Trust lie elsewhere than TrustFile and
// TrustBundle say.
type Truster interface {
	TrustFiles() (alone, bundle string)
}

// Catcher is a Sandbox that was made with Spec.Catch.
type Catcher interface {
	// Caught returns a listener for each caught port, whose connections have the
	// address that the program meant as their local one, and the socket that gets
	// the questions of DNS. The sandbox's end closes them.
	Caught() (streams []net.Listener, names net.PacketConn)
}

// Mount shows a file or folder of the host inside.
type Mount struct {
	// Host is its absolute path on the host, which is followed when it is a link.
	Host string
	// To is its path inside: absolute, and in no folder that a sandbox has itself
	// (/usr, /etc, /tmp, /home …). In the tier landlock it is Host.
	To string
}

// Info describes a living sandbox for records and for people.
type Info struct {
	ID     string `json:"id"`
	Driver string `json:"driver"`
	Tier   Tier   `json:"tier"`
	// PID of its init as the host sees it, 0 where there is none.
	PID int `json:"pid,omitempty"`
}

// Sandbox is one living sandbox. All methods may be called from several
// goroutines, except that Snapshot and Restore want no Exec running (the caller
// sees to that).
type Sandbox interface {
	Info() Info
	// Home is the host's directory with the tree that HomeDir shows inside. Only
	// drivers whose tree lies on this host have one; the others return "".
	Home() string
	// BaseEnv is the environment that every Exec should start from: PATH, HOME,
	// USER, LANG, TERM, TMPDIR as they are right inside. The caller adds to a copy.
	BaseEnv() []string
	// Exec runs one command to its end. A cancelled ctx ends the whole tree of
	// processes: SIGTERM, then SIGKILL after Cmd.Grace. The result then says
	// Killed, and err is nil: the caller knows why it cancelled (context.Cause).
	Exec(ctx context.Context, c Cmd) (Result, error)
	// Listen opens a listening socket inside the sandbox's network and hands it to
	// the host, where the caller accepts: the way by which something on the host is
	// reached from a sandbox without any network. network is tcp, tcp4 or tcp6, addr a
	// loopback address with a port, 0 for a free one (see Addr). Every command of
	// the sandbox can connect, so who it is has to be asked (a token). Where the
	// network is the host's (NetworkFull, driver host) so can everybody on the host.
	// The end of the sandbox closes the listener; accepted connections are the caller's.
	Listen(ctx context.Context, network, addr string) (net.Listener, error)
	// Files gives access to the workspace from the host's side, beneath it:
	// a symlink that leads outside is an error (fs.ErrPermission), never followed.
	Files() Files
	// Snapshot stores the home tree (incl. the workspace) and returns its
	// manifest and what changed since the sandbox's last Snapshot or Restore.
	Snapshot(ctx context.Context, st checkpoint.Store) (checkpoint.Snapshot, error)
	// Restore makes the home tree equal to m, differentially, and verifies it.
	Restore(ctx context.Context, st checkpoint.Store, m *checkpoint.Manifest) error
	// Close ends everything inside and releases what the sandbox held on the
	// host. It has its own bounded time; it does not remove Spec.Dir.
	Close(ctx context.Context) error
	// Done is closed when the sandbox is lost (its init died) or closed.
	Done() <-chan struct{}
}

// Files is read-only access to the workspace. Names are slash paths relative to
// the workspace; "..", absolute names and links that leave it are refused.
type Files interface {
	fs.ReadFileFS
	// Glob lists workspace files (not directories) that match a doublestar
	// pattern, sorted.
	Glob(pattern string) ([]string, error)
}

// Rights bound one Exec beyond the bounds of its sandbox. A driver that cannot
// enforce them (Capabilities.PathRights, SocketRights) refuses (class invalid) an
// Exec that asks for less than everything; it never runs it with more.
type Rights struct {
	// ReadOnly makes the whole home, and so the workspace, read-only for this Exec:
	// what lies in the home beside the workspace (settings, caches) decides what
	// later commands do. The scratch folders (/tmp, TMPDIR, /dev/shm) stay writable.
	ReadOnly bool
	// Write lists what stays writable when ReadOnly: slash paths relative to the
	// workspace, or "~/…" relative to the home. One that ends with a slash is a
	// folder, made when it is missing; another one that is missing is an error, and
	// so is one that leads through a symlink.
	Write []string
	// NoSockets refuses sockets of every family but AF_UNIX to this Exec, also where
	// the sandbox has a network.
	NoSockets bool
}

// All reports whether nothing is taken away.
func (r Rights) All() bool { return !r.ReadOnly && !r.NoSockets }

// Check refuses names that cannot be writable paths; what a name leads to is judged
// when the command starts.
func (r Rights) Check() error {
	if len(r.Write) > 0 && !r.ReadOnly {
		return errors.New("writable paths are named, and everything is writable")
	}
	for _, name := range r.Write {
		if strings.IndexByte(name, 0) >= 0 {
			return errors.New("a writable path holds a NUL byte")
		}
		rest := strings.TrimSuffix(strings.TrimPrefix(name, "~/"), "/")
		if !fs.ValidPath(rest) || rest == "." || rest == "~" {
			return fmt.Errorf("writable path %q is not of the form a/b, a/b/ or ~/a/b", name)
		}
	}
	return nil
}

// Cmd is one command.
type Cmd struct {
	// Argv is the program and its arguments. A program without a slash is looked
	// up on the PATH of Env, inside the sandbox.
	Argv []string
	// Env is the whole environment, "K=V".
	Env []string
	// Dir is the working directory inside; default WorkspaceDir.
	Dir string
	// Stdin, Stdout and Stderr are passed as descriptors, not relayed; nil is
	// /dev/null. The caller closes them after Exec.
	Stdin, Stdout, Stderr *os.File
	// Terminal says that Stdin is a terminal, which becomes the controlling one of
	// the command: job control works, Ctrl-C reaches it.
	Terminal bool
	// Rights of this exec; the zero value is everything that the sandbox may do.
	Rights Rights
	// Grace is the time between SIGTERM and SIGKILL when ctx is cancelled;
	// 0 kills at once.
	Grace time.Duration
}

// Result is how a command ended.
type Result struct {
	// ExitCode is the exit status, or 128+Signal.
	ExitCode int
	// Signal that ended it, 0 for none.
	Signal int
	// Killed is set when ctx's end made the driver kill it.
	Killed bool
	// Leftover is the number of processes that outlived the command's first
	// process and were killed at its end.
	Leftover int
	// Hit is the limit that a command which failed ran into, by its name as in Limits,
	// or "host_disk" when the host's disk is full; "" for none that is known.
	Hit string
	// PID of the first process, as seen inside the sandbox.
	PID int
	// UserTime, SystemTime and MaxRSS (bytes) of the command's first process and
	// the children that it waited for.
	UserTime, SystemTime time.Duration
	MaxRSS               int64
}

// Class says who has to act on an Error.
type Class string

const (
	ClassInfrastructure Class = "infrastructure" // may pass: worth another try
	ClassInvalid        Class = "invalid"        // will not pass: the call or the machine is wrong
)

// Error is a failure of the place where commands run.
type Error struct {
	Op    string // "create sandbox", "exec", …
	Class Class
	Hint  string // what to do about it, a sentence; may be empty
	Err   error
}

func (e *Error) Error() string { return e.Op + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }
