package local

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// explanation is why the machine refuses sandboxes, and what would lift it.
type explanation struct{ reason, hint string }

// readSysctl returns a setting below /proc/sys, "" where it does not exist.
func readSysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

const orHost = " Or use driver host, which isolates nothing."

// explain finds the setting of the machine that made the start of a sandbox fail.
// Not ok: the cause may pass (no memory, too many processes, a cancelled start).
func explain(err error, sysctl func(string) string, root bool) (explanation, bool) {
	var at *stepError
	op := ""
	if errors.As(err, &at) {
		op = at.op
	}
	var errno unix.Errno
	errors.As(err, &errno)
	refused := errno == unix.EPERM || errno == unix.EACCES
	switch {
	case errno == unix.ENOSYS:
		return explanation{"the kernel lacks a call that the sandbox needs",
			"Use Linux 5.12 or newer (" + op + ")." + orHost}, true
	case sysctl("user/max_user_namespaces") == "0" && (refused || errno == unix.ENOSPC):
		return explanation{"user.max_user_namespaces is 0",
			"Allow user namespaces: sysctl -w user.max_user_namespaces=15000 (or, inside another sandbox, run flow outside of it)." + orHost}, true
	case refused && !root && sysctl("kernel/unprivileged_userns_clone") == "0":
		return explanation{"kernel.unprivileged_userns_clone is 0",
			"Allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1, or run flow as root." + orHost}, true
	case refused && !root && sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return explanation{"AppArmor restricts user namespaces of ordinary users",
			"Run flow as root (it then uses subordinate ids), give its binary an AppArmor profile with \"userns,\", or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0." + orHost}, true
	case refused && op == opExecuteSelf && root:
		return explanation{"flow's binary cannot be executed by other users, or a seccomp profile or missing capabilities forbid namespaces",
			"chmod o+rx the flow binary; in a container add --privileged, or --cap-add SYS_ADMIN --security-opt seccomp=unconfined." + orHost}, true
	case refused && op == "mount proc":
		return explanation{"a fresh /proc is refused, because the container masks parts of its own",
			"Start the container with --security-opt systempaths=unconfined (podman: unmask=ALL)." + orHost}, true
	case refused && op == opExecuteSelf:
		return explanation{"namespaces are refused, as by the seccomp profile of a container",
			"Start the container with --security-opt seccomp=unconfined, or flow outside of it." + orHost}, true
	case refused:
		return explanation{"the machine refuses a step of the set-up",
			"In a container, start it with --privileged; a security module may refuse it too (see the kernel's log)." + orHost}, true
	}
	return explanation{}, false
}
