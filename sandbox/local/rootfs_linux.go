package local

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
)

// shownDirs of the host are visible at the same place, read-only, as far as they
// exist. Where one is a symlink (/bin → usr/bin) the link is made again.
var shownDirs = [...]string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix", "/snap", "/gnu"}

// shownEtc of /etc: what compilers, TLS, locales and shells read. Left out on
// purpose: gitconfig, npmrc, pip.conf, environment, profile.d and whatever else
// may hold credentials or settings of the host's people; passwd, group, hosts,
// hostname and resolv.conf are the sandbox's own.
var shownEtc = [...]string{"ssl", "ca-certificates", "pki", "crypto-policies",
	"alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone", "os-release",
	"nsswitch.conf", "protocols", "services", "mime.types", "magic",
	"bash.bashrc", "profile", "terminfo", "fonts", "perl", "java-*", "python*",
	"maven/m2.conf", "maven/logging"} // maven/settings.xml holds servers' passwords

// devices of the host that are visible in /dev.
var devices = [...]string{"null", "zero", "full", "random", "urandom", "tty"}

// procReadOnly and procMasked keep the kernel's switches and secrets from
// commands, beyond what their lack of privilege does.
var (
	procReadOnly = [...]string{"sys", "sysrq-trigger", "irq", "bus", "fs"}
	procMasked   = [...]string{"kcore", "keys", "timer_list", "latency_stats", "sched_debug", "kallsyms", "kmsg"}
)

// newRoot is where the new root is built: a directory that every host has and
// whose content is not needed once home and the binary have been opened.
const newRoot = "/tmp"

// buildRoot mounts everything and makes it the root.
func buildRoot(c *config, own ownMounts) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return step(err, "make mounts private")
	}
	if err := mountTmpfs(newRoot, unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=4m"); err != nil {
		return err
	}
	for _, part := range []func() error{
		showHost,
		func() error { return makeEtc(c) },
		makeProc,
		func() error { return makeDev(c) },
		func() error { return makeScratch(c) },
		func() error { return attach(own.home, newRoot+sandbox.HomeDir) },
		func() error {
			if own.view < 0 {
				return nil
			}
			return attach(own.view, newRoot+sandbox.WorkspaceDir)
		},
		func() error { return showMounts(c.Mounts, own.mounts) },
		changeRoot,
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func showHost() error {
	for _, dir := range shownDirs {
		if err := showEntry(dir); err != nil {
			return err
		}
	}
	return nil
}

// showEntry makes one path of the host visible; one that is not there, or that
// flow's user may not see, is left out. The directory that it is in exists.
//
// This and what it calls use plain system calls: the allocations of package os made
// up a tenth of a sandbox's creation. Copying the small files instead of mounting
// them was tried and takes twice as long (25 µs against 12 each).
func showEntry(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil
	}
	target := newRoot + path
	switch kind := st.Mode & unix.S_IFMT; {
	case kind == unix.S_IFLNK:
		link, err := os.Readlink(path)
		if err == nil {
			err = unix.Symlink(link, target)
		}
		return step(err, "link %s", path)
	case kind == unix.S_IFDIR:
		if err := unix.Mkdir(target, 0o755); err != nil {
			return step(err, "mkdir %s", path)
		}
	case kind == unix.S_IFREG:
		if err := makeFile(target, nil); err != nil {
			return err
		}
	default:
		return nil
	}
	err := show(path, target, attrsRead, unix.AT_RECURSIVE)
	if errors.Is(err, unix.EACCES) {
		return nil
	}
	return err
}

func makeEtc(c *config) error {
	for _, dir := range [...]string{"/etc", "/etc/maven"} {
		if err := makeDir(newRoot+dir, 0o755); err != nil {
			return err
		}
	}
	var names []string // of /etc, read when a pattern asks
	for _, entry := range shownEtc {
		prefix, pattern := strings.CutSuffix(entry, "*")
		if !pattern {
			if err := showEntry("/etc/" + entry); err != nil {
				return err
			}
			continue
		}
		if names == nil {
			d, err := os.Open("/etc")
			if err == nil {
				names, err = d.Readdirnames(-1)
				d.Close()
			}
			if err != nil {
				return step(err, "list /etc")
			}
		}
		for _, name := range names {
			if strings.HasPrefix(name, prefix) {
				if err := showEntry("/etc/" + name); err != nil {
					return err
				}
			}
		}
	}
	etc := newRoot + "/etc/"
	for _, f := range [...][2]string{
		{"passwd", fmt.Sprintf("root:x:0:0:root:/root:/bin/sh\nuser:x:%d:%d:user:/home/user:%s\nnobody:x:65534:65534:nobody:/:/bin/false\n", UserID, UserID, loginShell())},
		{"group", fmt.Sprintf("root:x:0:\nuser:x:%d:\nnogroup:x:65534:\n", UserID)},
		{"hosts", "127.0.0.1 localhost " + c.Hostname + "\n::1 localhost ip6-localhost ip6-loopback\n"},
		{"hostname", c.Hostname + "\n"},
		{"resolv.conf", string(c.Resolv)},
	} {
		if err := makeFile(etc+f[0], []byte(f[1])); err != nil {
			return err
		}
	}
	if err := addTrust(c.Trust); err != nil {
		return err
	}
	return step(unix.Symlink("/proc/mounts", etc+"mtab"), "link /etc/mtab")
}

// loginShell is $SHELL of commands; it looks at the host, whose /bin is shown.
func loginShell() string {
	if _, err := os.Stat("/bin/bash"); err == nil {
		return "/bin/bash"
	}
	return "/bin/sh"
}

func makeProc() error {
	proc := newRoot + "/proc"
	if err := makeDir(proc, 0o555); err != nil {
		return err
	}
	// A command sees only the processes that it could trace: its own, as each is in a
	// domain of its own. (The option came with Linux 5.8.)
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	err := unix.Mount("proc", proc, "proc", flags, "hidepid=ptraceable")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("proc", proc, "proc", flags, "")
	}
	if err != nil {
		return step(err, "mount proc")
	}
	// No user namespace can be made inside, whatever a program tries. Written here,
	// while our own capabilities count and before /proc/sys turns read-only.
	if err := os.WriteFile(proc+"/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		return step(err, "forbid user namespaces inside")
	}
	for _, name := range procReadOnly {
		path := proc + "/" + name
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if err := show(path, path, attrsRead|unix.MOUNT_ATTR_NOEXEC, unix.AT_RECURSIVE); err != nil {
			return err
		}
	}
	for _, name := range procMasked {
		path := proc + "/" + name
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if err := show("/dev/null", path, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, 0); err != nil {
			return err
		}
	}
	return nil
}

// scratchOptions of each tmpfs that commands may write.
func scratchOptions(c *config) string {
	if c.Limits.Tmp > 0 {
		return fmt.Sprintf("mode=1777,size=%d", c.Limits.Tmp)
	}
	if c.Limits.Memory > 0 {
		// What lies there stays in memory: one that filled the limit would leave nothing
		// to end but init.
		return fmt.Sprintf("mode=1777,size=%d", c.Limits.Memory/2)
	}
	return "mode=1777"
}

func makeDev(c *config) error {
	dev := newRoot + "/dev"
	if err := makeDir(dev+"/", 0o755); err != nil {
		return err
	}
	if err := mountTmpfs(dev, unix.MS_NOSUID|unix.MS_NOEXEC, "mode=755,size=64k"); err != nil {
		return err
	}
	for _, name := range devices {
		if err := makeFile(dev+"/"+name, nil); err != nil {
			return err
		}
		if err := show("/dev/"+name, dev+"/"+name, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, 0); err != nil {
			return err
		}
	}
	for _, link := range [...][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}} {
		if err := os.Symlink(link[0], dev+"/"+link[1]); err != nil {
			return step(err, "link /dev/%s", link[1])
		}
	}
	for _, dir := range [...]string{"/pts", "/shm"} {
		if err := makeDir(dev+dir, 0o755); err != nil {
			return err
		}
	}
	err := unix.Mount("devpts", dev+"/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
	if err != nil {
		return step(err, "mount devpts")
	}
	if err := mountTmpfs(dev+"/shm", unix.MS_NOSUID|unix.MS_NODEV, scratchOptions(c)); err != nil {
		return err
	}
	// Where the message queues of mq_open can be seen; a kernel may be built without.
	if err := makeDir(newRoot+queues, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("mqueue", newRoot+queues, "mqueue", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil && !errors.Is(err, unix.ENODEV) {
		return step(err, "mount mqueue")
	}
	return setReadOnly(dev)
}

// makeScratch makes the directories that commands may write and that no
// checkpoint covers, and the mount point of the home.
func makeScratch(c *config) error {
	for _, dir := range [...]string{"/tmp", "/var/tmp", "/run", "/home/user"} {
		if err := makeDir(newRoot+dir, 0o755); err != nil {
			return err
		}
	}
	for _, dir := range [...]string{"/tmp", "/var/tmp"} {
		if err := mountTmpfs(newRoot+dir, unix.MS_NOSUID|unix.MS_NODEV, scratchOptions(c)); err != nil {
			return err
		}
	}
	owner := fmt.Sprintf("mode=755,uid=%d,gid=%d", UserID, UserID)
	return mountTmpfs(newRoot+"/run", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, owner)
}

// changeRoot makes newRoot the root and lets go of the host's.
func changeRoot() error {
	if err := unix.Chdir(newRoot); err != nil {
		return step(err, "chdir to the new root")
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return step(err, "pivot_root")
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return step(err, "unmount the host's root")
	}
	if err := unix.Chdir("/"); err != nil {
		return step(err, "chdir /")
	}
	return setReadOnly("/")
}
