package local

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/sandbox"
)

// maxMounts bounds Spec.Mounts: as root each is a descriptor of one message.
const maxMounts = 64

// ownFolders of the root, beside shownDirs: what is mounted inside them would hide
// or be hidden by what the sandbox puts there.
var ownFolders = [...]string{"/etc", "/proc", "/dev", "/sys", "/tmp", "/var", "/run", "/home"}

// checkMounts refuses places that are not free, and what is not there.
func checkMounts(mounts []sandbox.Mount, flat bool) error {
	if flat {
		return checkFlatMounts(mounts)
	}
	if len(mounts) > maxMounts {
		return fmt.Errorf("%d mounts, at most %d are possible", len(mounts), maxMounts)
	}
	for i, m := range mounts {
		top := "/" + strings.SplitN(strings.TrimPrefix(m.To, "/"), "/", 2)[0]
		switch {
		case !filepath.IsAbs(m.Host):
			return fmt.Errorf("show %q: the path is not absolute", m.Host)
		case !path.IsAbs(m.To) || path.Clean(m.To) != m.To || m.To == "/" || strings.IndexByte(m.To, 0) >= 0:
			return fmt.Errorf("show %s at %q: the place is not a clean absolute path", m.Host, m.To)
		case slices.Contains(shownDirs[:], top) || slices.Contains(ownFolders[:], top):
			return fmt.Errorf("show %s at %s: %s is the sandbox's own", m.Host, m.To, top)
		}
		if _, err := os.Stat(m.Host); err != nil {
			return fmt.Errorf("show a path of the host: %w", err)
		}
		for _, other := range mounts[:i] {
			if strings.HasPrefix(m.To+"/", other.To+"/") || strings.HasPrefix(other.To+"/", m.To+"/") {
				return fmt.Errorf("show %s at %s: %s is shown there", m.Host, m.To, other.Host)
			}
		}
	}
	return nil
}

// checkFlatMounts: in the tier landlock a path can be shown where it is.
func checkFlatMounts(mounts []sandbox.Mount) error {
	for _, m := range mounts {
		if m.Host != m.To || !filepath.IsAbs(m.Host) {
			return fmt.Errorf("show %s at %s: %w", m.Host, m.To, errNoMounts)
		}
		if _, err := os.Stat(m.Host); err != nil {
			return fmt.Errorf("show a path of the host: %w", err)
		}
	}
	return nil
}

// openMounts appends detached read-only mounts of the host's paths.
func openMounts(fds []int, mounts []sandbox.Mount) ([]int, error) {
	for _, m := range mounts {
		fd, err := cloneTree(m.Host, attrsRead, unix.AT_RECURSIVE)
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// showMounts puts them into the new root.
func showMounts(mounts []sandbox.Mount, fds []int) error {
	for i, m := range mounts {
		target := newRoot + m.To
		if err := makeDir(path.Dir(target), 0o755); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fds[i], &st); err != nil {
			return step(err, "look at %s", m.To)
		}
		var err error
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = step(os.Mkdir(target, 0o755), "mkdir %s", m.To)
		} else {
			err = makeFile(target, nil)
		}
		if err != nil {
			return err
		}
		if err := attach(fds[i], target); err != nil {
			return err
		}
	}
	return nil
}
