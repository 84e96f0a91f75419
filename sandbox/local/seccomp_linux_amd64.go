package local

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// refusedHere are calls that only this architecture has.
var refusedHere = [...]uint32{unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT}

// What of the tier landlock's tables only this architecture has.
var (
	flatRefusedHere = [...]uint32{unix.SYS_CHOWN, unix.SYS_LCHOWN}
	modeCallsHere   = [...]argCall{{unix.SYS_CHMOD, dataArg1}}
)

// filterABI refuses the x32 numbers, which would go around the table.
func filterABI() []unix.SockFilter {
	return []unix.SockFilter{jump(unix.BPF_JGE, 0x40000000, 0, 1), fail(unix.ENOSYS)}
}
