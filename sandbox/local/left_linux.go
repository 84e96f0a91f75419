package local

import (
	"os"
	"path/filepath"
	"syscall"

	"flowrun.dev/flow/sandbox/internal/cgroup"
	"flowrun.dev/flow/sandbox/internal/owner"
)

// probePrefix of the folders in which a driver tries a sandbox.
const probePrefix = "flow-probe-"

// Sweep removes what killed processes left of sandboxes beside the folders that their
// makers own: control groups, and the folders of probes. It returns their paths. Processes
// and mounts are not among it: they ended with their makers.
func Sweep() (gone []string) {
	gone = cgroup.Find().Sweep(true)
	found, _ := filepath.Glob(filepath.Join(os.TempDir(), probePrefix+"*")) // the pattern is ours
	for _, dir := range found {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || owner.Alive(dir) {
			continue
		}
		// Anybody may make such a name in a folder that all share.
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
			continue
		}
		if os.RemoveAll(dir) == nil {
			gone = append(gone, dir)
		}
	}
	return gone
}
