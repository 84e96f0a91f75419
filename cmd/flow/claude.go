package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"flowrun.dev/flow/agent/claudecode"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/steps"
	"flowrun.dev/flow/workflow"
)

// claude finds Claude Code's CLI: the setting FLOW_CLAUDE, else PATH. path is "" when
// there is none; sought says where it was looked for.
func (a *app) claude() (path, sought string) {
	if name := a.env("FLOW_CLAUDE"); name != "" {
		full, err := filepath.Abs(name)
		if err == nil {
			full, err = filepath.EvalSymlinks(full)
		}
		if err != nil {
			return "", fmt.Sprintf("at FLOW_CLAUDE=%s", name)
		}
		return full, ""
	}
	for _, dir := range filepath.SplitList(a.env("PATH")) {
		full, err := filepath.EvalSymlinks(filepath.Join(dir, "claude"))
		if err != nil || !filepath.IsAbs(full) {
			continue
		}
		if info, err := os.Stat(full); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return full, ""
		}
	}
	return "", "on PATH"
}

// mounts are what the plan's agents need of this machine inside the sandbox.
func (a *app) mounts(plan *workflow.Plan, o engine.Options, tier sandbox.Tier) []sandbox.Mount {
	if tier == sandbox.TierNone {
		return nil
	}
	wanted := false
	plan.Workflow.Walk(func(s *workflow.Step) {
		wanted = wanted || s.Kind == workflow.KindAgent && steps.ProviderFor(engine.Attempt{Step: s, Options: o}) == claudecode.Name
	})
	if !wanted {
		return nil
	}
	path, _ := a.claude()
	switch {
	case path == "":
	case !claudecode.OwnRoot(tier): // it stays where it is, and may be used
		return []sandbox.Mount{{Host: path, To: path}}
	default:
		return []sandbox.Mount{{Host: path, To: claudecode.InsidePath}}
	}
	return nil
}

// claudeCheck bounds the doctor's look at the CLI.
const claudeCheck = 20 * time.Second

// checkClaude starts the CLI for real, in a sandbox of driver host, and asks it for
// what the provider needs. Not having it is no illness.
func (a *app) checkClaude(ctx context.Context) check {
	c := check{Name: "claude-code", OK: true}
	path, sought := a.claude()
	if path == "" {
		c.Text = "not installed: there is no `claude` " + sought + " (only provider claude-code needs it)"
		c.OK = a.env("FLOW_CLAUDE") == ""
		return c
	}
	ctx, cancel := context.WithTimeoutCause(ctx, claudeCheck, fmt.Errorf("it did not answer within %s", claudeCheck))
	defer cancel()
	version, err := a.probeClaude(ctx, path)
	if err != nil {
		c.OK, c.Text = false, fmt.Sprintf("%s: %v", path, err)
		c.Hint = claudecode.UpdateHint
		return c
	}
	c.Text = fmt.Sprintf("version %s at %s", version, path)
	return c
}

func (a *app) probeClaude(ctx context.Context, path string) (string, error) {
	dir, err := os.MkdirTemp("", "flow-doctor-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	var host sandbox.Driver
	for _, d := range a.drivers() {
		if d.Name() == "host" {
			host = d
		}
	}
	sb, err := host.Create(ctx, sandbox.Spec{ID: "doctor", Dir: dir, Network: sandbox.NetworkFull})
	if err != nil {
		return "", err
	}
	defer sb.Close(context.WithoutCancel(ctx))
	return claudecode.Probe(ctx, sb, path)
}
