//go:build !linux

package local

import (
	"context"
	"errors"
	"runtime"

	"flowrun.dev/flow/sandbox"
)

// Driver cannot do anything on this system.
type Driver struct{}

// New returns a driver that says why it cannot work.
func New(Options) *Driver { return &Driver{} }

// InitMain does nothing here.
func InitMain([]string) (handled bool) { return false }

// Sweep finds nothing.
func Sweep() (gone []string) { return nil }

// Name is "local".
func (*Driver) Name() string { return "local" }

// Probe says that namespaces are a thing of Linux.
func (*Driver) Probe(context.Context) (sandbox.Capabilities, error) {
	return sandbox.Capabilities{}, unsupported("probe local sandbox")
}

// Create fails as Probe does.
func (*Driver) Create(_ context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	return nil, unsupported("create sandbox " + s.ID)
}

func unsupported(op string) error {
	return &sandbox.Error{Op: op, Class: sandbox.ClassInvalid,
		Err:  errors.New("the local sandbox needs Linux, this is " + runtime.GOOS),
		Hint: "Use driver host (no isolation), or run flow on Linux."}
}
