package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestShellOnATerminal types at a real terminal: the shell is interactive, has job
// control, learns the size, and Ctrl-C ends what runs in it and not flow.
func TestShellOnATerminal(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"host", "local"} {
		if driver == "local" && !sandboxWorks() {
			continue
		}
		dir := t.TempDir()
		write(t, dir, "w.yaml", "name: w\nsandbox: {driver: "+driver+"}\nsteps:\n  - {id: one, run: echo one > f}\n")
		if out, code := flow(t, dir, "run", "--output", "plain", "w.yaml"); code != 0 {
			t.Fatalf("%s: flow run: exit %d\n%s", driver, code, out)
		}
		master, slave := terminalPair(t)
		if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 111}); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(flowBinary(t), "shell", "latest", "--at", "one")
		cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, slave, slave, slave
		cmd.Env = append(os.Environ(), "FLOW_STATE=", "TERM=xterm")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		slave.Close()
		s := &screen{t: t, r: master, driver: driver}
		s.wait("workspace ")
		fmt.Fprint(master, "cat f; stty size; echo flags=$-\r")
		s.wait("one\r\n33 111\r\nflags=")
		if flags, _, _ := strings.Cut(s.rest(), "\r"); !strings.Contains(flags, "i") || !strings.Contains(flags, "m") {
			t.Errorf("%s: the shell's flags are %q: it is not interactive or has no job control", driver, flags)
		}
		s.wait("workspace ")
		fmt.Fprint(master, "sh -c 'echo up; sleep 60'\r")
		s.wait("up\r\n")
		// Typed again until it is seen: a shell that is just forking may miss one.
		typed := make(chan struct{})
		go func() {
			tick := time.NewTicker(300 * time.Millisecond)
			defer tick.Stop()
			for {
				fmt.Fprint(master, "\x03")
				select {
				case <-typed:
					return
				case <-tick.C:
				}
			}
		}()
		s.wait("workspace ")
		close(typed)
		fmt.Fprint(master, "echo still $((40+2))\r")
		s.wait("still 42")
		fmt.Fprint(master, "exit\r")
		if err := cmd.Wait(); err != nil && !strings.Contains(err.Error(), "exit status 1") {
			t.Errorf("%s: flow shell: %v\n%s", driver, err, s.all.String())
		}
		master.Close()
		nothingLeft(t, driver, dir)
	}
}

func terminalPair(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no terminals on this machine: %v", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.SetNonblock(fd, true) // so that reads have deadlines
	return os.NewFile(uintptr(fd), "ptmx"), slave
}

// screen waits for what the terminal shows.
type screen struct {
	t      *testing.T
	r      *os.File
	driver string
	all    bytes.Buffer
	seen   int
}

func (s *screen) wait(text string) {
	s.t.Helper()
	buf := make([]byte, 4096)
	for {
		if i := bytes.Index(s.all.Bytes()[s.seen:], []byte(text)); i >= 0 {
			s.seen += i + len(text)
			return
		}
		s.r.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := s.r.Read(buf)
		s.all.Write(buf[:n])
		if err != nil && n == 0 {
			s.t.Fatalf("%s: waited for %q: %v\n%q", s.driver, text, err, s.all.String())
		}
	}
}

// rest reads up to the end of the line.
func (s *screen) rest() string {
	from := s.seen
	s.wait("\r\n")
	return string(s.all.Bytes()[from:s.seen])
}
