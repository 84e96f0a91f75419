package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/sandbox"
)

// Steps of the start that the host does; explain tells them apart.
const (
	opExecuteSelf = "start init in new namespaces"
	opReady       = "wait for init"
)

// setUpCaps are what stage 1 needs where it is not uid 0 of the namespace, and so
// would lose them at execve: mounts, limits of namespaces, the loopback interface and its low ports,
// and to drop and hand on capabilities.
var setUpCaps = [...]uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_RESOURCE, unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_SETPCAP,
	unix.CAP_KILL, unix.CAP_SYS_PTRACE}

// makeHome makes the home tree where there is none, and gives what it made to the
// commands' user.
func (s *Sandbox) makeHome() error {
	for _, dir := range [...]string{s.home, filepath.Join(s.home, "workspace")} {
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err == nil {
			err = os.Chmod(dir, 0o755) // whatever the umask is
		}
		if err == nil && s.ids.root {
			err = os.Lchown(dir, UserID, UserID)
		}
		if err != nil {
			return step(err, "make the home tree")
		}
	}
	return nil
}

// start makes init and waits until it is ready.
func (s *Sandbox) start(ctx context.Context, spec sandbox.Spec, o Options) (err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return step(err, "make the control socket")
	}
	hostEnd, initEnd := os.NewFile(uintptr(fds[0]), "sandbox"), os.NewFile(uintptr(fds[1]), "init")
	defer hostEnd.Close() // FileConn makes a copy
	defer initEnd.Close()
	stderr, stderrWrite, err := os.Pipe()
	if err != nil {
		return step(err, "make init's error pipe")
	}
	defer stderrWrite.Close()
	conn, err := net.FileConn(hostEnd)
	if err != nil {
		stderr.Close()
		return step(err, "open the control socket")
	}
	s.conn, s.stderr = conn.(*net.UnixConn), stderr
	if err := s.spawn(spec, initEnd, stderrWrite); err != nil {
		s.conn.Close()
		stderr.Close()
		return err
	}
	// From here on the process exists and wait closes what it holds. Our copies of
	// init's ends must be gone, or we would never see them end.
	initEnd.Close()
	stderrWrite.Close()
	stop := context.AfterFunc(ctx, func() { s.kill() })
	err = s.join(spec)
	if err == nil {
		err = s.configure(spec, o)
	}
	if err == nil {
		err = s.awaitReady()
	}
	if !stop() && ctx.Err() != nil {
		err = step(context.Cause(ctx), opReady)
	}
	if err != nil {
		s.kill()
		<-s.done
		return err
	}
	go s.receive()
	return nil
}

// spawn executes this binary as stage 1. The thread that makes a child is the one
// whose end PDEATHSIG means, so a goroutine holds its thread as long as init lives,
// and waits on it.
func (s *Sandbox) spawn(spec sandbox.Spec, socket, stderr *os.File) error {
	attr, stage := s.attributes(spec)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return step(err, "open %s", os.DevNull)
	}
	defer null.Close()
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		// Not os.StartProcess: the first one of a process makes a child more, to find
		// out what pidfds can do here.
		pid, err := syscall.ForkExec("/proc/self/exe", []string{"flow-sandbox", stage}, &syscall.ProcAttr{
			Dir: "/", Env: initEnv(), Files: []uintptr{null.Fd(), null.Fd(), stderr.Fd(), socket.Fd()}, Sys: attr,
		})
		s.pid = pid
		started <- err
		if err == nil {
			s.wait()
		}
	}()
	homeErr := s.makeHome() // meanwhile
	if err := <-started; err != nil {
		return step(err, opExecuteSelf)
	}
	if homeErr != nil {
		stderr.Close() // wait reads it to its end
		s.kill()
		<-s.done
	}
	return homeErr
}

// attributes of init's process, and the argument by which it knows its stage.
func (s *Sandbox) attributes(spec sandbox.Spec) (attr *syscall.SysProcAttr, stage string) {
	if s.flat() {
		// No PDEATHSIG: it has to end its commands first. It notices our end by the socket's.
		return &syscall.SysProcAttr{Setsid: true}, argFlat
	}
	uid, gid := s.ids.maps(os.Geteuid(), os.Getegid())
	attr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC |
			unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
		UidMappings: uid, GidMappings: gid,
		Pdeathsig: syscall.SIGKILL,
		Setsid:    true, // a Ctrl-C at flow's terminal is flow's to handle
	}
	if spec.Network == sandbox.NetworkNone {
		attr.Cloneflags |= unix.CLONE_NEWNET
	}
	if s.ids.root {
		attr.Credential = &syscall.Credential{Uid: 0, Gid: 0}
		attr.GidMappingsEnableSetgroups = true
	} else {
		attr.AmbientCaps = setUpCaps[:]
	}
	return attr, argStage1
}

// configure tells stage 1 what to build.
func (s *Sandbox) configure(spec sandbox.Spec, o Options) error {
	exe, err := os.Executable()
	if err != nil {
		return step(err, "find flow's binary")
	}
	if s.flat() {
		return s.configureFlat(spec)
	}
	c := config{Limits: spec.Limits, Root: s.ids.root, Network: spec.Network == sandbox.NetworkFull, Hostname: spec.Hostname, Mounts: spec.Mounts, Trust: spec.Trust, Catch: spec.Catch}
	if c.Network {
		// A copy: the file is often a link to somewhere that is not visible inside.
		if c.Resolv, err = readLimited("/etc/resolv.conf", maxInline); err != nil {
			return step(err, "read /etc/resolv.conf")
		}
	}
	if len(c.Catch) > 0 {
		c.Resolv = []byte(resolvCaught)
	}
	var fds []int
	if s.ids.root {
		fds, err = s.cloneOwn(exe, o)
		defer func() {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}()
		if err == nil && s.view != nil {
			c.View = true
			var fd int
			if fd, err = unix.FcntlInt(s.view.mount.Fd(), unix.F_DUPFD_CLOEXEC, 0); err == nil {
				fds = append(fds, fd)
			}
		}
		if err == nil {
			fds, err = openMounts(fds, spec.Mounts)
		}
		if err != nil {
			return err
		}
	} else {
		c.Home, c.Exe = s.home, exe
	}
	b, err := json.Marshal(c)
	if err != nil {
		return step(err, "encode the configuration")
	}
	_, _, err = s.conn.WriteMsgUnix(append([]byte{msgConfig}, b...), unix.UnixRights(fds...), nil)
	return step(err, "send the configuration")
}

// holdInit notes which process init is, where it is not our child.
func (s *Sandbox) holdInit(pid []byte) error {
	if !s.flat() {
		return nil
	}
	below, err := strconv.Atoi(string(pid))
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(below, 0)
	if err != nil {
		return err // it has ended already
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.below, s.holds = below, fd
	return nil
}

// top is the process below which the commands are.
func (s *Sandbox) top() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.below > 0 {
		return s.below
	}
	return s.pid
}

// configureFlat is configure in the tier landlock, where commands see the host's paths.
func (s *Sandbox) configureFlat(spec sandbox.Spec) error {
	if len(spec.Catch) > 0 {
		return step(errNoMounts, "catch connections")
	}
	if err := s.addFlatTrust(spec.Trust); err != nil {
		return err
	}
	if err := os.Mkdir(s.tmp, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return step(err, "make the scratch folder")
	}
	c := config{Limits: spec.Limits, Network: spec.Network == sandbox.NetworkFull, Home: s.home, Tmp: s.tmp, Mounts: spec.Mounts}
	b, err := json.Marshal(c)
	if err != nil {
		return step(err, "encode the configuration")
	}
	_, err = s.conn.Write(append([]byte{msgConfig}, b...))
	return step(err, "send the configuration")
}

var errNoMounts = errors.New("the tier landlock cannot show it at another place")

// readLimited reads a file of the host; one that does not exist is empty.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// cloneOwn makes, with root's rights, the detached mounts of the home tree and of
// the binary.
func (s *Sandbox) cloneOwn(exe string, o Options) (fds []int, err error) {
	home, err := cloneTree(s.home, attrsShown, 0)
	if err != nil {
		return nil, err
	}
	fds = append(fds, home)
	if s.view != nil { // the ids of the host, as in its upper tree
		self, err := cloneTree(exe, attrsRead, 0)
		if err != nil {
			return fds, err
		}
		return append(fds, self), chownTree(s.home, s.owner.UID)
	}
	s.owner = &checkpoint.Owner{UID: UserID, GID: UserID}
	err = s.mapIDs(home)
	if o.noIDMappedMount {
		err = unix.EINVAL
	}
	if err != nil {
		s.reason = fmt.Sprintf("idmapped mounts are refused for %s (%v): the tree is owned by id %d on disk", s.home, err, s.ids.base+UserID)
		s.owner = &checkpoint.Owner{UID: s.ids.base + UserID, GID: s.ids.base + UserID}
		if o.noIDMappedMount {
			unix.Close(home)
			if fds[0], err = cloneTree(s.home, attrsShown, 0); err != nil {
				return nil, err
			}
		}
		if err := chownTree(s.home, s.owner.UID); err != nil {
			return fds, err
		}
	}
	self, err := cloneTree(exe, attrsRead, 0)
	if err != nil {
		return fds, err
	}
	return append(fds, self), nil
}

// mapIDs makes a detached mount show files of id N on disk as id N inside.
func (s *Sandbox) mapIDs(mount int) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", s.pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	return unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd()),
	})
}

// chownTree gives a tree to id, links themselves and not what they name. Nothing
// runs in it yet.
func chownTree(root string, id int) error {
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, id, id)
	})
	return step(err, "give the home tree to id %d", id)
}

// lastWords is what init wrote to its standard error, as an error; nil for nothing.
func (s *Sandbox) lastWords() error {
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	if text := strings.TrimSpace(s.words); text != "" {
		return errors.New(text)
	}
	return nil
}
