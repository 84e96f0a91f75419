package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// pty is a terminal for a command in a sandbox: what is typed at ours goes to it,
// what it shows comes back. The command never gets our own, whose settings and
// input queue it could change.
type pty struct {
	master, slave *os.File
	restore       func()
	resized       chan os.Signal
	shown         sync.WaitGroup
}

// openPTY makes a terminal of the size of in, which is set to raw until close.
func openPTY(in *os.File, out io.Writer) (*pty, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	p := &pty{master: os.NewFile(uintptr(fd), "ptmx"), restore: func() {}, resized: make(chan os.Signal, 1)}
	if err := p.start(in, out); err != nil {
		p.master.Close()
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	return p, nil
}

func (p *pty) start(in *os.File, out io.Writer) error {
	fd := int(p.master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return err
	}
	s, err := unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	p.slave = os.NewFile(uintptr(s), "pts")
	p.resize(in)
	old, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		p.slave.Close()
		return err
	}
	p.restore = func() { _ = term.Restore(int(in.Fd()), old) } // the shell's user has stty sane
	signal.Notify(p.resized, unix.SIGWINCH)
	go func() {
		for range p.resized {
			p.resize(in)
		}
	}()
	// Reading the real terminal cannot be broken off: this goroutine ends with the
	// process, which has nothing else to do by then.
	go func() { _, _ = io.Copy(p.master, in) }()
	p.shown.Go(func() { _, _ = io.Copy(out, p.master) }) // ends with EIO when the last slave is closed
	return nil
}

func (p *pty) resize(in *os.File) {
	if ws, err := unix.IoctlGetWinsize(int(in.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(p.master.Fd()), unix.TIOCSWINSZ, ws)
	}
}

// close shows what is left and puts our terminal back.
func (p *pty) close() {
	p.slave.Close()
	p.shown.Wait()
	signal.Stop(p.resized)
	close(p.resized)
	p.master.Close()
	p.restore()
}
