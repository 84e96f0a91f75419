package local

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/internal/landlock"
)

// flat is what init knows in the tier landlock, where the machine refuses
// namespaces: commands see the host's paths, and what they may do with them is
// their landlock domain. The home is the real directory, as with driver host.
type flat struct {
	self    int // our pid
	home    string
	tmp     string
	shown   []sandbox.Mount // of the host, where they are
	network bool
	pids    uint64           // of the user on this machine, those of commands with them; 0: no bound
	scoped  bool             // domains bound signals too
	open    []netip.AddrPort // where the host listens for commands
	// rules of every command: what the host shows, the home and tmp.
	rules *landlock.Ruleset
}

// flatMinABI is the first version of Landlock that also bounds truncate(2); before,
// every file of the user could be emptied.
const flatMinABI = landlock.ABITruncate

// Paths besides shownDirs and shownEtc that commands may read. Nothing of other
// processes: /proc/PID stays closed, our own too, because a rule cannot tell them apart.
var (
	flatEtc  = [...]string{"passwd", "group", "hosts", "hostname", "resolv.conf", "maven/m2.conf"}
	flatProc = [...]string{"cpuinfo", "meminfo", "stat", "uptime", "version", "loadavg", "filesystems", "sys"}
	flatRead = [...]string{"/sys/devices/system/cpu", "/sys/kernel/mm/transparent_hugepage"}
	// flatDevices also may be written. No terminals: the user's own are among them.
	flatDevices = [...]string{"null", "zero", "full", "random", "urandom"}
)

// serveFlat is init in this tier: one stage, because each command is bounded on the
// thread that forks it, and init itself runs only this code.
func serveFlat() int {
	err := step(unix.CloseRange(controlFD+1, ^uint(0), unix.CLOSE_RANGE_CLOEXEC), "close_range")
	var s *server
	if err == nil {
		s, err = newFlatServer()
	}
	if err != nil {
		return giveUp(err)
	}
	err = s.serve()
	s.endEverything()
	if err != nil {
		fmt.Fprintf(os.Stderr, "flow-sandbox: %v\n", err)
		return exitSetup
	}
	return 0
}

func newFlatServer() (*server, error) {
	unix.CloseOnExec(controlFD)
	c, _, err := receiveConfig()
	if err != nil {
		return nil, err
	}
	unix.Umask(0o022)
	// Orphans become our children, so that all that a command leaves is below us.
	if err := standAbove(); err != nil {
		return nil, err
	}
	f := &flat{self: os.Getpid(), home: c.Home, tmp: c.Tmp, shown: c.Mounts, network: c.Network, scoped: landlock.ABI() >= landlock.ABIScope}
	if err := f.limit(&c.Limits); err != nil {
		return nil, err
	}
	if f.rules, err = f.makeRules(); err != nil {
		return nil, step(err, "make the rules of commands")
	}
	return newServer(&server{flat: f, score: scoreFor(&c.Limits)})
}

// limit sets the limits that commands inherit. The kernel counts the processes
// of the user on the whole machine, so those that there are come on top.
func (f *flat) limit(l *sandbox.Limits) error {
	tasks, err := tasksOf(os.Getuid())
	if err != nil {
		return step(err, "count the user's processes")
	}
	most := uint64(MaxProcesses)
	if l.Pids > 0 {
		most = uint64(l.Pids)
	}
	if f.pids = tasks + most; os.Getuid() == 0 {
		f.pids = 0 // not counted
	}
	return limitAll(l, 0)
}

// narrow gives what is forked before widen is called the bound of processes. Init itself
// keeps the host's: the kernel counts all of the user's processes, those of other
// sandboxes too, and a Go program that cannot make a thread ends. That leaves commands a
// higher hard limit, so that their filter keeps them from changing this one.
func (f *flat) narrow() (widen func()) {
	var own unix.Rlimit
	if f.pids == 0 || unix.Getrlimit(unix.RLIMIT_NPROC, &own) != nil {
		return func() {}
	}
	haveThreads()
	low := unix.Rlimit{Cur: min(f.pids, own.Max), Max: own.Max}
	if unix.Setrlimit(unix.RLIMIT_NPROC, &low) != nil {
		return func() {}
	}
	return func() { _ = unix.Setrlimit(unix.RLIMIT_NPROC, &own) } // it was ours before
}

// spareThreads are more than the runtime wants to run at a time (GOMAXPROCS of initEnv).
const spareThreads = 4

// haveThreads sees to it that the runtime has threads to spare, and so makes none while
// the bound is narrow: goroutines that are locked to their threads at the same time have
// one each, and leave it behind, idle.
func haveThreads() {
	var all, out sync.WaitGroup
	release := make(chan struct{})
	for range spareThreads {
		all.Add(1)
		out.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			all.Done()
			<-release
		})
	}
	all.Wait()
	close(release)
	out.Wait()
}

// tasksOf counts the threads of a user.
func tasksOf(uid int) (n uint64, err error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range dirs {
		var st unix.Stat_t
		if unix.Stat(dir, &st) != nil || int(st.Uid) != uid {
			continue // ended, or somebody else's
		}
		if tasks, err := os.ReadDir(dir + "/task"); err == nil {
			n += uint64(len(tasks))
		}
	}
	return n, nil
}

// makeRules is the domain that every command is in: a list of what may be read, and
// the two trees that may be written.
func (f *flat) makeRules() (*landlock.Ruleset, error) {
	rules, err := landlock.New(landlock.Handled{
		FS:     landlock.Read | landlock.Execute | landlock.Write | landlock.Devices,
		Scoped: unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET,
	})
	if err != nil {
		return nil, err
	}
	if err := f.fillRules(rules); err != nil {
		rules.Close()
		return nil, err
	}
	return rules, nil
}

func (f *flat) fillRules(rules *landlock.Ruleset) error {
	var errs []error
	allow := func(access uint64, names ...string) {
		for _, name := range names {
			if err := allowPath(rules, name, access); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EACCES) {
				errs = append(errs, err)
			}
		}
	}
	allow(landlock.Read|landlock.Execute, shownDirs[:]...)
	for _, entry := range shownEtc {
		names := []string{"/etc/" + entry}
		if strings.HasSuffix(entry, "*") {
			names, _ = filepath.Glob("/etc/" + entry) // the pattern is ours
		}
		allow(landlock.Read, names...)
	}
	allow(landlock.Read, within("/etc/", flatEtc[:])...)
	allow(landlock.Read, within("/proc/", flatProc[:])...)
	allow(landlock.Read, flatRead[:]...)
	allow(landlock.Read|landlock.WriteFile|unix.LANDLOCK_ACCESS_FS_IOCTL_DEV, within("/dev/", flatDevices[:])...)
	allow(landlock.Read, filepath.Join(filepath.Dir(f.home), trustDir))
	for _, m := range f.shown {
		allow(landlock.Read|landlock.Execute, m.Host)
	}
	for _, dir := range [...]string{f.home, f.tmp} {
		if err := allowPath(rules, dir, landlock.Read|landlock.Execute|landlock.Write); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func within(dir string, names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = dir + name
	}
	return out
}

func allowPath(rules *landlock.Ruleset, name string, access uint64) error {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return step(err, "open %s", name)
	}
	defer unix.Close(fd)
	return rules.Allow(fd, access)
}

// prepare bounds a thread before it is known what it will run.
func (f *flat) prepare() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return step(err, "set no_new_privs")
	}
	if err := dropAll(); err != nil {
		return err
	}
	if err := f.rules.Restrict(); err != nil {
		return err
	}
	return installFilter(filter())
}

// dropAll leaves the thread no capability. no_new_privs keeps an execve by uid 0
// from giving any back.
func dropAll() error {
	for c := uintptr(0); c <= 63; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			break // without CAP_SETPCAP there is nothing to drop from, or c is past the last
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return step(err, "clear ambient capabilities")
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return step(unix.Capset(&hdr, &data[0]), "drop capabilities")
}

// confine bounds it to one request.
func (f *flat) confine(r *execRequest) error {
	if r.ReadOnly {
		if err := f.restrictPaths(r.Write); err != nil {
			return err
		}
	}
	tcp := !f.network && len(f.open) > 0 && !r.NoSockets
	if tcp {
		if err := f.restrictPorts(); err != nil {
			return err
		}
	}
	if err := installFilter(commandFilter(false)); err != nil {
		return err
	}
	last := flatFilter(f.network && !r.NoSockets, tcp, f.scoped, uint32(unix.Gettid()))
	if !tcp {
		return installFilter(last)
	}
	held, err := installHeld(last)
	if err == nil {
		go doors(held, slices.Clone(f.open))
	}
	return err
}

// restrictPaths is a second domain within the first: nothing may be written but tmp,
// the devices and what is named.
func (f *flat) restrictPaths(writable []string) error {
	rules, err := landlock.New(landlock.Handled{FS: landlock.Write})
	if err != nil {
		return err
	}
	defer rules.Close()
	trees, err := openWritable(f.home, writable)
	defer trees.close()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		if err := rules.Allow(tree, landlock.Write); err != nil {
			return err
		}
	}
	if err := allowPath(rules, f.tmp, landlock.Write); err != nil {
		return err
	}
	for _, name := range flatDevices {
		if err := allowPath(rules, "/dev/"+name, landlock.WriteFile); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return rules.Restrict()
}

// mayListen: without a network, commands can be let to one place only by a kernel
// that can hold their calls.
func (f *flat) mayListen() error {
	if !f.network && !canHold() {
		return errors.New("in the tier landlock this needs Linux 6.7 and that Yama lets a process look at its children (kernel.yama.ptrace_scope 0 or 1), or sandbox.network full")
	}
	return nil
}

// restrictPorts lets commands of a sandbox without network reach what the host
// listens on for them, and no other port.
func (f *flat) restrictPorts() error {
	rules, err := landlock.New(landlock.Handled{Net: unix.LANDLOCK_ACCESS_NET_CONNECT_TCP | unix.LANDLOCK_ACCESS_NET_BIND_TCP})
	if err != nil {
		return err
	}
	defer rules.Close()
	for _, to := range f.open {
		if err := rules.AllowConnect(to.Port()); err != nil {
			return err
		}
	}
	return rules.Restrict()
}

// real translates a directory of the contract to this machine.
func (f *flat) real(dir string) string {
	clean := path.Clean(dir)
	if below, ok := strings.CutPrefix(clean, sandbox.HomeDir); ok && (below == "" || below[0] == '/') {
		return filepath.Join(f.home, filepath.FromSlash(below))
	}
	return clean
}
