package steps

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
)

// cacheName is the scratch folder for what programs cache (XDG_CACHE_HOME: compilers,
// package tools). In the home, where it would be by default, it would be a part of every
// checkpoint, and a step that may not change the home could not use it.
const cacheName = "flow-cache"

// cacheDir is that folder, "" where there is no scratch folder.
func cacheDir(base []string) string {
	for _, kv := range base {
		if tmp, ok := strings.CutPrefix(kv, "TMPDIR="); ok {
			return tmp + "/" + cacheName
		}
	}
	return ""
}

// rightsOf compiles `access` of a step. A bounded step still writes its outputs and
// what else it has a channel for: their files are made beforehand and stay writable.
func rightsOf(sb sandbox.Sandbox, a engine.Attempt) (sandbox.Rights, error) {
	access := a.Step.Access
	if !access.ReadOnly {
		return sandbox.Rights{}, nil
	}
	r := sandbox.Rights{ReadOnly: true, Write: slices.Clone(access.Write)}
	if sb.Home() != "" {
		if err := makeStepDir(sb); err != nil {
			return sandbox.Rights{}, err
		}
	}
	for _, c := range channelsOf(a.Step) {
		if err := c.make(sb, a); err != nil {
			return sandbox.Rights{}, fmt.Errorf("make $%s: %w", c.variable, err)
		}
		r.Write = append(r.Write, "~/"+stepDirName+"/"+c.name(a))
	}
	return r, nil
}

// make makes the file, empty, for a step that cannot make it itself. An earlier step
// may have left something under its name: it goes.
func (c channel) make(sb sandbox.Sandbox, a engine.Attempt) error {
	if sb.Home() == "" {
		return nil
	}
	root, err := os.OpenRoot(sb.Home())
	if err != nil {
		return err
	}
	defer root.Close()
	name := filepath.Join(stepDirName, c.name(a))
	if err := root.RemoveAll(name); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	owner, err := ownerOf(sb.Home())
	if err != nil || owner == nil {
		return err
	}
	return f.Chown(owner.UID, owner.GID)
}
