//go:build unix

// Package owner names what one process leaves on the machine if it is killed, so that
// another one can tell that nobody needs it any more: the name ends with a hyphen and
// the maker's pid.
package owner

import (
	"errors"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
)

// Name is a name of this process's.
func Name(prefix string) string { return prefix + "-" + strconv.Itoa(os.Getpid()) }

// Alive reports whether the process that a name names may be alive. It says yes to a
// name of another form, and to one whose number is another process's by now.
func Alive(name string) bool {
	base := path.Base(name)
	pid, err := strconv.Atoi(base[strings.LastIndexByte(base, '-')+1:])
	if err != nil || pid <= 0 {
		return true
	}
	return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
