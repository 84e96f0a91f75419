package engine

import "context"

// Artifacts are files of the workspace that a step or a run hands on. Their contents
// are stored under their hash, like those of checkpoints.
type Artifacts struct {
	Files []Artifact `json:"files"` // sorted by path
	// Missing are the globs that matched nothing.
	Missing []string `json:"missing,omitempty"`
	// LeftOut are files that matched and were not taken, each with the reason.
	LeftOut []string `json:"left_out,omitempty"`
}

// Artifact is one file.
type Artifact struct {
	Path   string `json:"path"` // in the workspace
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	Exec   bool   `json:"exec,omitempty"`
}

// Collector is a Runner that can collect the run's own artifacts.
type Collector interface {
	// Collect takes the files of the workspace as it is now. The error says why some
	// are missing.
	Collect(ctx context.Context, globs []string) (*Artifacts, error)
}

// handOn takes the run's artifacts at its end. A run that will go on (interrupted,
// waiting) collects when it has ended. What could not be collected makes a run that
// would have succeeded fail.
func (l *Loop) handOn(b RunFinished) RunFinished {
	globs := l.Run.plan.Workflow.Artifacts
	c, ok := l.Runner.(Collector)
	if len(globs) == 0 || !ok || b.Status == RunInterrupted || b.Status == RunWaiting {
		return b
	}
	ctx, cancel := l.bounded("collect artifacts")
	defer cancel()
	var err error
	b.Artifacts, err = c.Collect(ctx, globs)
	if err != nil && b.Status == RunSucceeded {
		return RunFinished{Status: RunFailed, Class: ClassInvalid, Cause: err.Error(), Artifacts: b.Artifacts}
	}
	return b
}

// Collected are the artifacts of a run's newest events, by step ("" for the run's own).
// Those of a step that runs again are gone until it has ended again.
func Collected(events []Event) map[string]*Artifacts {
	out := map[string]*Artifacts{}
	for _, e := range events {
		switch b := e.Body.(type) {
		case RunResumed:
			delete(out, "")
			for _, r := range b.Reset {
				delete(out, r.Step)
			}
			for _, step := range b.Removed {
				delete(out, step)
			}
		case StepFinished:
			delete(out, b.Step)
			if b.Outcome.Artifacts != nil {
				out[b.Step] = b.Outcome.Artifacts
			}
		case RunFinished:
			if b.Artifacts != nil {
				out[""] = b.Artifacts
			}
		}
	}
	return out
}
