package steps

import (
	"context"
	"fmt"

	"flowrun.dev/flow/checkpoint"
)

// Apply brings the newest checkpoint's workspace back into dst, three-way against
// what was imported. Without a sandbox ever made there is nothing to bring.
func (h *Host) Apply(ctx context.Context, dst string) (checkpoint.ApplyReport, error) {
	h.mu.Lock()
	last, base := h.last, h.base
	h.mu.Unlock()
	if last == "" || last == base {
		return checkpoint.ApplyReport{}, nil
	}
	result, err := h.cfg.Checkpoints.Manifest(ctx, last)
	if err != nil {
		return checkpoint.ApplyReport{}, fmt.Errorf("read checkpoint %s: %w", last, err)
	}
	before := &checkpoint.Manifest{}
	if base != "" {
		if before, err = h.cfg.Checkpoints.Manifest(ctx, base); err != nil {
			return checkpoint.ApplyReport{}, fmt.Errorf("read checkpoint %s: %w", base, err)
		}
	}
	return checkpoint.Apply(ctx, result.Subtree(workspaceInTar), before.Subtree(workspaceInTar), h.cfg.Checkpoints, dst, checkpoint.ApplyOptions{Exclude: h.cfg.Workflow.Workspace.Exclude})
}
