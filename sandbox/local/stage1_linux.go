package local

import (
	"encoding/json"
	"errors"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
)

// controlFD is the socket's descriptor in both stages.
const controlFD = 3

// exitSetup is the exit status of an init that could not be set up; the reason
// went over the socket.
const exitSetup = 125

// stage1 builds the sandbox and executes stage 2. It returns only on failure.
func stage1() int {
	// What the caller of flow left open without O_CLOEXEC would reach every command
	// (the class of CVE-2024-21626).
	err := step(unix.CloseRange(controlFD+1, ^uint(0), unix.CLOSE_RANGE_CLOEXEC), "close_range")
	if err == nil {
		err = setUp()
	}
	return giveUp(err)
}

// giveUp tells the host why there is no init.
func giveUp(err error) int {
	f := failure{Op: "start init", Text: err.Error()}
	var at *stepError
	if errors.As(err, &at) {
		f.Op, f.Text = at.op, at.err.Error()
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		f.Errno = int(errno)
	}
	b, _ := json.Marshal(f) // strings and an int: cannot fail
	// The host notices the end of the socket if this fails.
	_, _ = unix.Write(controlFD, append([]byte{msgFailed}, b...))
	return exitSetup
}

func setUp() error {
	c, fds, err := receiveConfig()
	if err != nil {
		return err
	}
	unix.Umask(0o022)
	own, err := openOwn(c, fds)
	if err != nil {
		return err
	}
	if err := buildRoot(c, own); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
		return step(err, "set the host name")
	}
	if !c.Network {
		if err := loopbackUp(); err != nil {
			return err
		}
		if len(c.Catch) > 0 {
			if err := catchAll(c.Catch); err != nil {
				return err
			}
		}
	}
	if err := limit(c); err != nil {
		return err
	}
	if err := dropPrivileges(c.Root); err != nil {
		return err
	}
	return execStage2(own.exe, c)
}

func receiveConfig() (*config, []int, error) {
	buf, oob := make([]byte, 2*maxInline+1024), make([]byte, unix.CmsgSpace(4*(3+maxMounts)))
	n, oobn, _, _, err := unix.Recvmsg(controlFD, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 || buf[0] != msgConfig {
		return nil, nil, step(errors.Join(errors.New("no configuration came"), err), "read the configuration")
	}
	fds, err := receivedFDs(oob[:oobn])
	if err != nil {
		return nil, nil, step(err, "read the configuration's descriptors")
	}
	c := new(config)
	return c, fds, step(json.Unmarshal(buf[1:n], c), "parse the configuration")
}

func receivedFDs(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for i := range messages {
		part, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, err
		}
		fds = append(fds, part...)
	}
	return fds, nil
}

// openOwn returns detached mounts of the home tree and of this binary. Root's
// flow passes them, because our ids may not walk to them; otherwise we are the
// same user and open them before the host's root goes away.
//
// The binary is executed from a read-only mount of its own, so that /proc/1/exe
// is no file that a command could write (CVE-2019-5736). A sealed memfd would do
// as well, but copying 20-50 MB takes 8-20 ms (facts: sandbox technology).
func openOwn(c *config, fds []int) (o ownMounts, err error) {
	o.view = -1
	if c.Root {
		need := 2 + len(c.Mounts)
		if c.View {
			need++
		}
		if len(fds) != need {
			return o, step(unix.EBADMSG, "receive the home tree")
		}
		o.home, o.exe, o.mounts = fds[0], fds[1], fds[2:]
		if c.View {
			o.view, o.mounts = fds[2], fds[3:]
		}
		return o, nil
	}
	if o.home, err = cloneTree(c.Home, attrsShown, 0); err != nil {
		return o, err
	}
	if o.exe, err = cloneTree(c.Exe, attrsRead, 0); err != nil {
		return o, err
	}
	o.mounts, err = openMounts(nil, c.Mounts)
	return o, err
}

// ownMounts are detached mounts that stage 1 puts at their places.
type ownMounts struct {
	home, exe int
	view      int // the workspace, -1 where it is a directory of the home
	mounts    []int
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return step(err, "open a socket")
	}
	defer unix.Close(s)
	var ifr struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(ifr.name[:], "lo")
	ifr.flags = unix.IFF_UP | unix.IFF_RUNNING
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&ifr))); e != 0 {
		return step(e, "bring up lo")
	}
	return nil
}

// limit sets the resource limits that commands inherit.
func limit(c *config) error {
	pids := uint64(MaxProcesses)
	if c.Limits.Pids > 0 {
		pids = uint64(c.Limits.Pids)
	}
	if !c.Root {
		pids += initTasks
	}
	return limitAll(&c.Limits, pids)
}

// initTasks is how many threads init may have where commands have its uid, and the
// kernel so counts them together. Each command gets the bound without what init has
// left of it (narrow), so that a fork bomb does not take the threads that end it.
const initTasks = 64

// limitAll sets them; pids 0 leaves the number of processes as it is.
func limitAll(l *sandbox.Limits, pids uint64) error {
	for _, x := range [...]struct {
		what int
		most uint64
		set  bool
	}{{unix.RLIMIT_CORE, 0, true}, {unix.RLIMIT_NPROC, pids, pids > 0}, {unix.RLIMIT_FSIZE, uint64(l.FileSize), l.FileSize > 0},
		{unix.RLIMIT_NOFILE, uint64(l.OpenFiles), l.OpenFiles > 0}} {
		if !x.set {
			continue
		}
		if err := setLimit(x.what, x.most); err != nil {
			return err
		}
	}
	return nil
}

// setLimit lowers one, soft and hard; a lower one of the host's stays.
func setLimit(what int, most uint64) error {
	var r unix.Rlimit
	if err := unix.Getrlimit(what, &r); err != nil {
		return step(err, "read resource limit %d", what)
	}
	r.Max = min(r.Max, most)
	r.Cur = r.Max
	return step(unix.Setrlimit(what, &r), "set resource limit %d", what)
}

// execStage2 replaces this process, from the same thread, whose privileges every
// thread of stage 2 then has.
func execStage2(exe int, c *config) error {
	for _, fd := range [...]int{controlFD, exe} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return step(err, "keep descriptor %d", fd)
		}
	}
	argv := []string{"flow-sandbox", argStage2, strconv.Itoa(exe), strconv.FormatBool(c.Root), scoreFor(&c.Limits)}
	return step(unix.Exec("/proc/self/fd/"+strconv.Itoa(exe), argv, initEnv()), "execute stage 2")
}

// initEnv is the environment of both stages. The collector almost never runs, and
// nothing of the caller's comes along. GOMAXPROCS: the loop that forks, the reaper,
// and one for what kills, so that none waits for a blocked one to be noticed. (Not
// letting the runtime look for a CPU limit, by GODEBUG, gained nothing measurable.)
func initEnv() []string {
	return []string{"GOMAXPROCS=3", "GOGC=off", "GOMEMLIMIT=16MiB", "LANG=C"}
}
