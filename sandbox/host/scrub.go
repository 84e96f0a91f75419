package host

import (
	"context"
	"path/filepath"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/internal/scratch"
)

var _ sandbox.Scrubber = (*Sandbox)(nil)

// Scrub empties TMPDIR and ends what commands left running, as far as it is found
// (package comment). /tmp is the machine's, and stays.
func (s *Sandbox) Scrub(context.Context) error {
	EndLeft(s.id)
	if err := scratch.Empty(filepath.Join(filepath.Dir(s.home), "tmp")); err != nil {
		return driverError("reset the sandbox", sandbox.ClassInfrastructure, err)
	}
	return nil
}
