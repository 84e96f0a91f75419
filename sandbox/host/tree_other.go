//go:build !linux

package host

import "syscall"

// rssUnit: the BSDs and macOS count ru_maxrss in bytes.
const rssUnit = 1

func processAttributes(terminal bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Setctty: terminal}
}

// keepDescriptors has no cheap form here: what flow's caller left open is seen.
func keepDescriptors() error { return nil }

// waitAll reaps the first process and kills its group, which is all that can be
// found here. A group's number is not given out while it has members.
func (t *tree) waitAll() (ws syscall.WaitStatus, ru syscall.Rusage, leftover int, err error) {
	ws, ru, err = t.reap()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.overNow()
	_ = syscall.Kill(-t.pid, syscall.SIGKILL) // ESRCH: nobody
	return ws, ru, 0, err
}

func (t *tree) signal(sig syscall.Signal) { _ = syscall.Kill(-t.pid, sig) } // ESRCH: ended
