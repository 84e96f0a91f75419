package local

import (
	"os"
	"runtime"
)

// Not in main, but while this package is initialised: most of what flow links (its
// HTTP client, the agents' SDK, the terminal's library) is initialised after it,
// for nothing, in both stages of every sandbox. It is no registration: nobody sees
// it but a process that was started to be an init.
var _ = InitMain(os.Args)

// InitMain becomes a sandbox's init when args (os.Args) say so; it then never
// returns. Otherwise it returns false at once. It is called first thing in main()
// and in TestMain, before anything expensive: each sandbox starts with two passes
// through here.
func InitMain(args []string) (handled bool) {
	if len(args) < 2 {
		return false
	}
	switch args[1] {
	case argStage1:
		runtime.LockOSThread()
		os.Exit(stage1())
	case argFlat:
		runtime.LockOSThread()
		os.Exit(guardFlat())
	case argServe:
		// The first thread stays out of every domain: it stands for this process where
		// somebody wants to signal it.
		runtime.LockOSThread()
		os.Exit(serveFlat())
	case argEmpty:
		_, _ = os.Stdin.Read(make([]byte, 1)) // until it is killed, or our maker ends
		os.Exit(0)
	case argStage2:
		runtime.LockOSThread()
		os.Exit(stage2(args[2:]))
	}
	return false
}
