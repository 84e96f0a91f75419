package steps

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-multierror"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// checkMounts: only a sandbox with a root of its own can show something at another
// place.
func checkMounts(v *wishes) error {
	if len(v.w.MountsOf(v.spec)) == 0 || v.caps.Tier.Strong() {
		return nil
	}
	return fmt.Errorf("mounts: driver %s (tier %s) has no root of its own, and cannot show a folder of this machine at another place; with driver host commands reach it where it lies",
		v.caps.Driver, v.caps.Tier)
}

// closedPlaces of the host show nothing: what lies there is no file, or another
// program's business (sockets, devices).
var closedPlaces = []string{"/proc", "/sys", "/dev", "/run", "/var/run"}

// HostMounts finds what `mounts` names on this machine. fileDir is the workflow file's
// folder, home the user's, closed are folders that must not be seen inside (flow's own
// state: it holds the files and the output of other runs). Links are followed here, once,
// so that what is judged is what is shown.
func HostMounts(list []workflow.Mount, fileDir, home string, closed ...string) ([]sandbox.Mount, error) {
	var out []sandbox.Mount
	var errs *multierror.Error
	for _, m := range list {
		path, err := hostPath(m.Host, fileDir, home)
		if err == nil {
			err = openPlace(path, closed)
		}
		if err != nil {
			errs = multierror.Append(errs, fmt.Errorf("mounts: show %s at %s: %w", m.Host, m.To, err))
			continue
		}
		out = append(out, sandbox.Mount{Host: path, To: m.To})
	}
	if err := errs.ErrorOrNil(); err != nil {
		return nil, &sandbox.Error{Op: "check what this machine can do", Class: sandbox.ClassInvalid, Err: err}
	}
	return out, nil
}

func hostPath(name, fileDir, home string) (string, error) {
	path := name
	if rest, ok := strings.CutPrefix(name, "~"); ok && (rest == "" || rest[0] == '/') {
		if home == "" {
			return "", errors.New("this process has no home (HOME)")
		}
		path = home + rest
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(fileDir, path)
	}
	path, err := filepath.Abs(path)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", errors.New(reason(err))
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", errors.New(reason(err))
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return "", errors.New("it is neither a folder nor a file")
	}
	return path, nil
}

// openPlace refuses what must not be seen.
func openPlace(path string, closed []string) error {
	if path == "/" {
		return errors.New("the whole machine is not shown")
	}
	for _, c := range closedPlaces {
		if within(path, c) {
			return fmt.Errorf("%s is not shown", c)
		}
	}
	for _, c := range closed {
		real, err := filepath.EvalSymlinks(c)
		if err != nil {
			real = c // not there yet
		}
		switch {
		case within(path, real):
			return errors.New("it lies in flow's own state")
		case within(real, path):
			return fmt.Errorf("flow's own state lies in it (%s)", real)
		}
	}
	return nil
}

// within: path is dir or lies below it.
func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
