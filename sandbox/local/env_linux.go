package local

import (
	"path/filepath"
	"slices"
	"strings"

	"flowrun.dev/flow/sandbox"
)

// standardPath is searched after what the caller's PATH names.
var standardPath = [...]string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// baseEnv is the environment that commands start from.
func baseEnv(callersPath string) []string {
	return []string{
		"PATH=" + visiblePath(callersPath), "HOME=" + sandbox.HomeDir, "USER=user", "LOGNAME=user", "SHELL=" + loginShell(),
		"LANG=C.UTF-8", "TERM=dumb", "TMPDIR=/tmp",
	}
}

// flatEnv is the environment in the tier landlock, where the home and the scratch
// folder are the host's directories.
func flatEnv(base []string, home, tmp string) []string {
	env := slices.Clone(base)
	for i, kv := range env {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "HOME":
			env[i] = "HOME=" + home
		case "TMPDIR":
			env[i] = "TMPDIR=" + tmp
		}
	}
	// A /etc/gitconfig that is there and cannot be read ends git.
	return append(env, "GIT_CONFIG_NOSYSTEM=1")
}

// visiblePath keeps the entries of the caller's PATH that exist inside, in order,
// and appends the standard directories. An entry that reaches a hidden directory
// through a symlink is not visible.
func visiblePath(callersPath string) string {
	var dirs []string
	add := func(dir string) {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range filepath.SplitList(callersPath) {
		if !filepath.IsAbs(dir) {
			continue
		}
		dir = filepath.Clean(dir)
		if real, err := filepath.EvalSymlinks(dir); err == nil && isShown(dir) && isShown(real) {
			add(dir)
		}
	}
	for _, dir := range standardPath {
		add(dir)
	}
	return strings.Join(dirs, ":")
}

func isShown(path string) bool {
	return slices.ContainsFunc(shownDirs[:], func(dir string) bool {
		return path == dir || strings.HasPrefix(path, dir+"/")
	})
}
