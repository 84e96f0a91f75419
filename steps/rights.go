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

// cacheName is the scratch folder for the caches of steps that may not write the
// home, where they would be by default; what is in it does not reach a checkpoint.
const cacheName = "flow-cache"

// rights compiles `access` of a step. A bounded step still writes its outputs: their
// file is made beforehand and stays writable.
func (h *Host) rights(sb sandbox.Sandbox, a engine.Attempt, env []string) (sandbox.Rights, []string, error) {
	access := a.Step.Access
	if !access.ReadOnly {
		return sandbox.Rights{}, env, nil
	}
	if err := makeOutput(sb, a); err != nil {
		return sandbox.Rights{}, env, err
	}
	r := sandbox.Rights{ReadOnly: true, Write: append(slices.Clone(access.Write), "~/"+stepDirName+"/"+outputName(a))}
	return r, ScratchEnv(r, env), nil
}

// ScratchEnv points what programs cache (XDG_CACHE_HOME: compilers, package tools) to
// a scratch folder, unless the rights let them write ~/.cache or the environment
// says otherwise already.
func ScratchEnv(r sandbox.Rights, env []string) []string {
	tmp := "/tmp"
	for _, kv := range env {
		if strings.HasPrefix(kv, "XDG_CACHE_HOME=") {
			return env
		}
		if v, ok := strings.CutPrefix(kv, "TMPDIR="); ok {
			tmp = v
		}
	}
	for _, w := range r.Write {
		if w == "~/.cache/" || w == "~/.cache" {
			return env
		}
	}
	if !r.ReadOnly {
		return env
	}
	return append(slices.Clone(env), "XDG_CACHE_HOME="+tmp+"/"+cacheName)
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
