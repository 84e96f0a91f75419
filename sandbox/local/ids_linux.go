package local

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"flowrun.dev/flow/sandbox"
)

// ids is how ids of the host and of the sandbox correspond.
type ids struct {
	tier   sandbox.Tier
	reason string // why not the strongest tier
	root   bool   // a range is mapped; commands switch from 0 to UserID
	base   int    // with root: the host id of the sandbox's id 0
}

// chooseIDs decides for this process. The strongest is a range of subordinate
// ids, which only root can map without a setuid helper. Host uid 0 is never
// mapped: it owns /proc/sys and could write core_pattern from inside.
func chooseIDs(euid int, read func(string) ([]byte, error)) (ids, error) {
	user := ids{tier: sandbox.TierNamespaceUser,
		reason: "not run by root: commands have the host rights of the user, but none of the files"}
	if euid != 0 {
		return user, nil
	}
	table, err := read("/proc/self/uid_map")
	if err != nil {
		return ids{}, fmt.Errorf("read the user namespace's map: %w", err)
	}
	var inside, outside, count int
	if _, err := fmt.Sscan(string(table), &inside, &outside, &count); err != nil {
		return ids{}, fmt.Errorf("parse the user namespace's map: %w", err)
	}
	base := subordinate(read)
	switch {
	case inside == 0 && outside != 0:
		// A container without privileges: its root is an ordinary user outside.
		user.reason = "root of a user namespace: mapped like an ordinary user"
		return user, nil
	case inside == 0 && base+IDCount <= count:
		return ids{tier: sandbox.TierNamespaceRoot, root: true, base: base}, nil
	}
	return ids{}, fmt.Errorf("ids %d..%d are not mapped in the user namespace that flow runs in", base, base+IDCount-1)
}

// subordinate is the range of "root" (or of "flow") in /etc/subuid if it is large
// enough and /etc/subgid has the same, else DefaultIDBase.
func subordinate(read func(string) ([]byte, error)) int {
	for _, name := range [...]string{"flow", "root", "0"} {
		uid, ok := grant("/etc/subuid", name, read)
		gid, same := grant("/etc/subgid", name, read)
		if ok && same && uid == gid {
			return uid
		}
	}
	return DefaultIDBase
}

func grant(file, name string, read func(string) ([]byte, error)) (int, bool) {
	b, err := read(file)
	if err != nil {
		return 0, false // there is none: the default holds
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		f := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(f) != 3 || f[0] != name {
			continue
		}
		base, err := strconv.Atoi(f[1])
		count, err2 := strconv.Atoi(f[2])
		if err == nil && err2 == nil && base > 0 && count >= IDCount {
			return base, true
		}
	}
	return 0, false
}

// maps for the process attributes of init.
func (i ids) maps(euid, egid int) (uid, gid []syscall.SysProcIDMap) {
	if i.root {
		m := []syscall.SysProcIDMap{{ContainerID: 0, HostID: i.base, Size: IDCount}}
		return m, m
	}
	return []syscall.SysProcIDMap{{ContainerID: UserID, HostID: euid, Size: 1}},
		[]syscall.SysProcIDMap{{ContainerID: UserID, HostID: egid, Size: 1}}
}
