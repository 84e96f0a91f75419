package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Holder is who owns a run, as its lock file tells it: for people. Whether
// somebody owns it is the kernel's answer alone.
type Holder struct {
	PID     int
	Host    string
	User    string
	Started time.Time
	Command string
}

func (h Holder) String() string {
	if h.PID == 0 {
		return "another process"
	}
	return fmt.Sprintf("process %d (%s) of %s on %s, since %s", h.PID, h.Command, h.User, h.Host, h.Started.Local().Format(time.DateTime))
}

func (h Holder) encode() []byte {
	line := strings.NewReplacer("\n", " ", "\r", " ")
	return fmt.Appendf(nil, "pid %d\nhost %s\nuser %s\nstarted %s\ncommand %s\n", h.PID,
		line.Replace(h.Host), line.Replace(h.User), h.Started.UTC().Format(time.RFC3339), line.Replace(h.Command))
}

// decodeHolder reads what is there: the file may be half written.
func decodeHolder(b []byte) (h Holder) {
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch key {
		case "pid":
			h.PID, _ = strconv.Atoi(value)
		case "host":
			h.Host = value
		case "user":
			h.User = value
		case "started":
			h.Started, _ = time.Parse(time.RFC3339, value)
		case "command":
			h.Command = value
		}
	}
	return h
}

func (s *Store) self() Holder {
	h := Holder{PID: os.Getpid(), User: strconv.Itoa(os.Getuid()), Started: s.opts.Now(), Command: s.opts.Command}
	h.Host, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		h.User = u.Username
	}
	if h.Command == "" {
		h.Command = strings.Join(os.Args, " ")
	}
	if len(h.Command) > 200 {
		h.Command = h.Command[:200]
	}
	return h
}

func (s *Store) lockPath(run string) string {
	return filepath.Join(s.dir, locksName, run+".lock")
}

// The locks are those of open file descriptions (F_OFD_SETLK): they end with the
// last descriptor, whatever kills the process, and two openings within one
// process exclude each other too.
func setLock(f *os.File, typ int16) error {
	l := unix.Flock_t{Type: typ, Whence: io.SeekStart}
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// setLockWait waits for the lock. Nobody keeps the one that it is used for long.
func setLockWait(f *os.File, typ int16) error {
	l := unix.Flock_t{Type: typ, Whence: io.SeekStart}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &l)
}

// held asks the kernel whether somebody holds the lock, without taking it.
func held(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
		return false, err
	}
	return l.Type != unix.F_UNLCK, nil
}

// IsAlive reports whether a process owns the run now. It takes no lock, so it
// never stands in an owner's way.
func (s *Store) IsAlive(run string) (bool, error) {
	if err := validRunID(run); err != nil {
		return false, err
	}
	alive, err := held(s.lockPath(run))
	return alive, wrap("ask for the lock of run "+run, err)
}

// Holder tells who owns the run; ok is false when nobody does.
func (s *Store) Holder(run string) (h Holder, ok bool, err error) {
	alive, err := s.IsAlive(run)
	if err != nil || !alive {
		return Holder{}, false, err
	}
	b, err := os.ReadFile(s.lockPath(run))
	return decodeHolder(b), true, wrap("read the lock of run "+run, err)
}

// orphanTime is how long the lock of a process that is gone may still be held: by a
// child that was about to execute a program when its parent was killed, which lets
// go of it then.
const orphanTime = 2 * time.Second

// gone: the holder was a process of this machine and is none any more.
func (h Holder) gone() bool {
	host, err := os.Hostname()
	return err == nil && h.PID > 0 && h.Host == host && errors.Is(unix.Kill(h.PID, 0), unix.ESRCH)
}

// lock takes the run's lock or says who has it.
func (s *Store) lock(run string) (*os.File, error) {
	path := s.lockPath(run)
	for late := time.Now().Add(orphanTime); ; {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, wrap("lock run "+run, err)
		}
		same, err := lockFile(f, path)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			b, rerr := io.ReadAll(io.LimitReader(f, 4096))
			if rerr != nil {
				b = nil // who it is is for people only; that it is busy is sure
			}
			f.Close()
			h := decodeHolder(b)
			if h.gone() && time.Now().Before(late) {
				time.Sleep(orphanTime / 100)
				continue
			}
			return nil, &BusyError{Run: run, Holder: h}
		}
		if err != nil {
			f.Close()
			return nil, wrap("lock run "+run, err)
		}
		if !same { // a removal came between open and lock
			f.Close()
			continue
		}
		if err := writeHolder(f, s.self()); err != nil {
			f.Close()
			return nil, wrap("lock run "+run, err)
		}
		return f, nil
	}
}

// lockFile locks f and reports whether path still is its name.
func lockFile(f *os.File, path string) (bool, error) {
	if err := setLock(f, unix.F_WRLCK); err != nil {
		return false, err
	}
	a, err := f.Stat()
	if err != nil {
		return false, err
	}
	b, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(a, b), err
}

func writeHolder(f *os.File, h Holder) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(h.encode(), 0)
	return err
}
