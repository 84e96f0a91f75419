package local

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// refusedHere are calls that only this architecture has.
var refusedHere = [...]uint32{}

// What of the tier landlock's tables only this architecture has.
var (
	flatRefusedHere = [...]uint32{}
	modeCallsHere   = [...]argCall{}
)

// filterABI: this architecture has one ABI per audit architecture.
func filterABI() []unix.SockFilter { return nil }
