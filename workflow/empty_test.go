package workflow

import (
	"errors"
	"strings"
	"testing"
)

// TestEmptySteps: defaults of agents in a file without a step are no panic.
func TestEmptySteps(t *testing.T) {
	t.Parallel()
	_, err := Parse("x.yaml", []byte("name: x\ndefaults: {agent: {model: m}}\nsteps: []\n"), ParseOptions{})
	var bad *Diagnostics
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "steps is empty") {
		t.Errorf("got %v", err)
	}
}
