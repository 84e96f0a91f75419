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

// rightsOf compiles `access` of a step. A bounded step still writes its outputs: their
// file is made beforehand and stays writable.
func rightsOf(sb sandbox.Sandbox, a engine.Attempt) (sandbox.Rights, error) {
	access := a.Step.Access
	if !access.ReadOnly {
		return sandbox.Rights{}, nil
	}
	if err := makeOutput(sb, a); err != nil {
		return sandbox.Rights{}, err
	}
	r := sandbox.Rights{ReadOnly: true, Write: append(slices.Clone(access.Write), "~/"+stepDirName+"/"+outputName(a))}
	return r, nil
}

// makeOutput makes the file behind $FLOW_OUTPUT, empty, for a step that cannot make
// it itself. An earlier step may have left something under its name: it goes.
func makeOutput(sb sandbox.Sandbox, a engine.Attempt) error {
	if sb.Home() == "" {
		return nil
	}
	if err := makeStepDir(sb); err != nil {
		return err
	}
	root, err := os.OpenRoot(sb.Home())
	if err != nil {
		return fmt.Errorf("make $FLOW_OUTPUT: %w", err)
	}
	defer root.Close()
	name := filepath.Join(stepDirName, outputName(a))
	if err := root.RemoveAll(name); err != nil {
		return fmt.Errorf("make $FLOW_OUTPUT: %w", err)
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("make $FLOW_OUTPUT: %w", err)
	}
	defer f.Close()
	owner, err := ownerOf(sb.Home())
	if err != nil || owner == nil {
		return err
	}
	if err := f.Chown(owner.UID, owner.GID); err != nil {
		return fmt.Errorf("make $FLOW_OUTPUT: %w", err)
	}
	return nil
}
