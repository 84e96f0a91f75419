package host

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// endLeftWithin bounds EndLeft: a process that hangs in the kernel dies later.
const endLeftWithin = 2 * time.Second

// EndLeft ends the processes that a killed flow left of the sandbox with this id:
// all that carry the tag of one of its commands. Only call it when nobody owns the
// sandbox any more. It returns how many it ended, after they are gone.
func EndLeft(id string) int {
	seen := map[int]bool{}
	for limit := time.Now().Add(endLeftWithin); ; {
		fresh := false
		living := ofSandbox(id)
		for pid, fd := range living {
			if !seen[pid] {
				seen[pid], fresh = true, true
			}
			send(fd, unix.SIGSTOP) // so that it cannot fork away meanwhile
		}
		if !fresh {
			for _, fd := range living {
				send(fd, unix.SIGKILL)
			}
		}
		for _, fd := range living {
			unix.Close(fd)
		}
		if len(living) == 0 || time.Now().After(limit) {
			return len(seen)
		}
		time.Sleep(pollEvery)
	}
}

// ofSandbox lists the living processes of a sandbox with a pidfd each.
func ofSandbox(id string) map[int]int {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil // without /proc nobody is found (package comment)
	}
	out := map[int]int{}
	for _, e := range names {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !carries(pid, id) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // ended
		}
		if !carries(pid, id) { // again, now that the number is held
			unix.Close(fd)
			continue
		}
		out[pid] = fd
	}
	return out
}

// carries reports whether a process has the tag of a command of the sandbox. A
// zombie has no environment.
func carries(pid int, id string) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false // ended, or another user's
	}
	for kv := range bytes.SplitSeq(env, []byte{0}) {
		if value, ok := strings.CutPrefix(string(kv), tagName+"="); ok {
			return strings.HasPrefix(value, id+tagSplit)
		}
	}
	return false
}
