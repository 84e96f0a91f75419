package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refuseNamespaces runs a command as a container with the default profile would: no
// capabilities, and EPERM for whatever makes a namespace or a mount.
func refuseNamespaces() {
	runtime.LockOSThread()
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "refuse:", err)
			os.Exit(1)
		}
	}
	fail(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	fail(unix.Capset(&hdr, &none[0]))
	op := func(code uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: code, K: k, Jt: yes, Jf: no}
	}
	const (
		loadWord = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		anyBit   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret      = unix.BPF_RET | unix.BPF_K
		refuse   = unix.SECCOMP_RET_ERRNO
		spaces   = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	)
	f := []unix.SockFilter{
		op(loadWord, 0, 0, 0), // the number
		op(equal, unix.SYS_CLONE3, 0, 1), op(ret, refuse|uint32(unix.ENOSYS), 0, 0),
		op(equal, unix.SYS_UNSHARE, 2, 0), op(equal, unix.SYS_MOUNT, 1, 0), op(equal, unix.SYS_OPEN_TREE, 0, 1),
		op(ret, refuse|uint32(unix.EPERM), 0, 0),
		op(equal, unix.SYS_CLONE, 0, 3), op(loadWord, 16, 0, 0), // its flags
		op(anyBit, spaces, 0, 1), op(ret, refuse|uint32(unix.EPERM), 0, 0),
		op(ret, unix.SECCOMP_RET_ALLOW, 0, 0),
	}
	p := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&p))); e != 0 {
		fail(e)
	}
	path, err := exec.LookPath(os.Args[1])
	fail(err)
	fail(unix.Exec(path, os.Args[1:], os.Environ()))
}
