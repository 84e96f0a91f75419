package local

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/internal/landlock"
)

// server is init's second stage. Four kinds of goroutines: the loop, the thread that
// forks (see thread), the reaper, and one for each exec that is being killed.
type server struct {
	root  bool
	pids  uint64 // of commands that have our uid, 0: they do not
	flat  *flat  // the tier landlock; nil: namespaces
	null  int    // /dev/null
	score string // of commands, see oomScore
	aside calls  // for the loop's thread, while a command is started
	spare *thread
	apart *landlock.Ruleset // of every command's domain; nil: the kernel has none
	kept  [len(keptDirs)]dirState

	// Locks are taken in this order; mu is held while a command is forked.
	ending  sync.Mutex
	mu      sync.Mutex
	firstMu sync.Mutex

	// execs are those without a result yet, by the request's id (guarded by mu), and
	// by the pid of their first process while that lives (guarded by firstMu).
	execs map[uint64]*running
	first map[int]*running
	// forks counts the processes made, so that the reaper knows whether "no
	// children" is news; forked is signalled with it.
	forks  uint64
	forked *sync.Cond
}

// running is one exec. Fields below thread are guarded by server.mu.
type running struct {
	id  uint64
	pid int
	// thread is the one that forked it; with it goes what only it knows.
	thread *thread

	killed   bool      // a kill request came before its first process ended
	deadline time.Time // when the grace of that request ends
	ended    chan struct{}
	ender    chan struct{} // closed when that request has been served; nil: there is none
	leftover int           // how many processes besides the first that request killed
}

func stage2(args []string) int {
	if err := serveNamespaces(args); err != nil {
		// The host reads it when it asks why init is gone.
		fmt.Fprintf(os.Stderr, "flow-sandbox: %v\n", err)
		return exitSetup
	}
	return 0
}

func serveNamespaces(args []string) error {
	if len(args) != 3 {
		return errors.New("this is a sandbox's init; flow starts it, people do not")
	}
	// Before any command exists: nobody inside may look into this process.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return step(err, "set undumpable")
	}
	exe, err := strconv.Atoi(args[0])
	if err != nil {
		return step(err, "parse the binary's descriptor")
	}
	unix.Close(exe)
	unix.CloseOnExec(controlFD)
	root := args[1] == "true"
	pids, err := sharedPids(root)
	if err != nil {
		return err
	}
	s, err := newServer(&server{root: root, pids: pids, score: args[2]})
	if err != nil {
		return err
	}
	return s.serve()
}

// newServer completes a server and starts what runs beside its loop.
func newServer(s *server) (_ *server, err error) {
	s.execs, s.first = map[uint64]*running{}, map[int]*running{}
	s.forked = sync.NewCond(&s.mu)
	s.aside = make(calls)
	if s.flat == nil {
		if s.apart, err = apartRules(); err != nil {
			return nil, err
		}
		s.remember()
	}
	s.spare = s.newThread()
	if s.null, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, step(err, "open /dev/null")
	}
	return s, nil
}

// serve says ready and does what the host asks for.
func (s *server) serve() error {
	handled := make(chan struct{})
	go func() {
		defer close(handled)
		if !s.root { // commands of another uid cannot signal us
			signal.Notify(make(chan os.Signal, 1), deadly[:]...)
		}
	}()
	go s.reap()
	if _, err := unix.Write(controlFD, strconv.AppendInt([]byte{msgReady}, int64(os.Getpid()), 10)); err != nil {
		return step(err, "say ready")
	}
	<-handled // beside the way of "ready" to the host and back
	return s.loop()
}

// oomScore is added to the commands' score when the kernel chooses what to end for
// lack of memory: a command rather than init, or flow, or what else runs here. The
// kernel adds that many thousandths of the memory there is. Within a memory limit that
// is little (a third of 64 MiB is less than an init may have), so that a command has
// the whole limit added, and comes before init whatever their sizes are.
const (
	oomScore      = "300"
	oomScoreBound = "1000" // with a memory limit
)

func scoreFor(l *sandbox.Limits) string {
	if l.Memory > 0 {
		return oomScoreBound
	}
	return oomScore
}

// offer makes the kernel choose a command before init. It is set from outside once the
// command runs: were it ours while we fork, init could be chosen just then. A command
// can take it back to where init's is.
func (s *server) offer(pid int) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return // it has ended, or nobody may look at it
	}
	_, _ = unix.Write(fd, []byte(s.score)) // it has ended
	unix.Close(fd)
}

// deadly are the signals that end a Go program when somebody sends them and nobody
// asked for them. A command of our uid could send them to pid 1. (KILL and STOP do
// nothing to an init from inside; ignoring signals would be inherited.) Each costs
// 50 µs to ask for.
var deadly = [...]os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS,
	unix.SIGFPE, unix.SIGSEGV, unix.SIGTERM, unix.SIGSTKFLT, unix.SIGSYS}

// loop serves requests until the host's end of the socket is closed. Our return
// ends pid 1, and with it every process inside.
func (s *server) loop() error {
	buf, oob := make([]byte, 2*maxInline), make([]byte, unix.CmsgSpace(4*8))
	for {
		n, oobn, _, _, err := unix.Recvmsg(controlFD, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return step(err, "receive a request")
		}
		if n == 0 {
			return nil
		}
		fds, err := receivedFDs(oob[:oobn])
		if err != nil {
			return step(err, "receive descriptors")
		}
		if err := s.handle(buf[0], buf[1:n], fds); err != nil {
			return err
		}
	}
}

// handle does one request. An error means that host and init no longer
// understand each other, which ends the sandbox.
func (s *server) handle(kind byte, body []byte, fds []int) error {
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	switch kind {
	case msgKill:
		var r killRequest
		if err := r.parse(body); err != nil {
			return step(err, "parse a kill request")
		}
		s.kill(r)
		return nil
	case msgClean:
		var r killRequest
		if err := r.parse(body); err != nil {
			return step(err, "parse a question")
		}
		res := execResult{ID: r.ID, Code: 1}
		if s.flat == nil && s.clean() {
			res.Code = 0
		}
		reply(&res)
		return nil
	case msgListen:
		var r listenRequest
		if err := r.parse(body); err != nil {
			return step(err, "parse a listen request")
		}
		s.listenFor(&r)
		return nil
	case msgExecBig:
		if len(fds) == 0 {
			return step(unix.EBADMSG, "receive a large request")
		}
		var err error
		if body, err = readAll(fds[len(fds)-1]); err != nil {
			return step(err, "read a large request")
		}
		fallthrough
	case msgExec:
		var r execRequest
		if err := r.parse(body); err != nil {
			return step(err, "parse a request")
		}
		s.exec(&r, fds)
		return nil
	}
	return step(unix.EBADMSG, "understand request %q", kind)
}

// readAll reads a memfd from its start.
func readAll(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	b := make([]byte, st.Size)
	for n := 0; n < len(b); {
		k, err := unix.Pread(fd, b[n:], int64(n))
		if err != nil || k == 0 {
			return nil, errors.Join(err, errTruncated)
		}
		n += k
	}
	return b, nil
}

func reply(r *execResult) {
	// If the host is gone the loop notices; there is nobody to tell here.
	_, _ = unix.Write(controlFD, r.append([]byte{msgResult}))
}

// reap waits for every child, also for the orphans that the kernel hands to pid 1.
func (s *server) reap() {
	for {
		s.mu.Lock()
		forks := s.forks
		s.mu.Unlock()
		var ws unix.WaitStatus
		var ru unix.Rusage
		pid, err := unix.Wait4(-1, &ws, 0, &ru)
		if err != nil {
			if errors.Is(err, unix.ECHILD) {
				s.mu.Lock()
				for s.forks == forks {
					s.forked.Wait()
				}
				s.mu.Unlock()
			}
			continue
		}
		s.mu.Lock() // whoever is just being forked is not registered yet
		s.firstMu.Lock()
		r := s.first[pid]
		delete(s.first, pid)
		s.firstMu.Unlock()
		s.mu.Unlock()
		if r != nil {
			s.finish(r, resultOf(r, ws, &ru))
		}
	}
}

func resultOf(r *running, ws unix.WaitStatus, ru *unix.Rusage) *execResult {
	res := &execResult{
		ID: r.id, PID: r.pid,
		User:   time.Duration(syscall.TimevalToNsec(syscall.Timeval(ru.Utime))),
		System: time.Duration(syscall.TimevalToNsec(syscall.Timeval(ru.Stime))),
		MaxRSS: ru.Maxrss << 10,
	}
	if ws.Signaled() {
		res.Signal = int(ws.Signal())
		res.Code = 128 + res.Signal
	} else {
		res.Code = ws.ExitStatus()
	}
	return res
}
