package steps

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"flowrun.dev/flow/sandbox"
)

// autoDrivers is the order in which `auto` tries; never a remote driver, never
// one without isolation (design: sandbox, The interface).
var autoDrivers = []string{"local"}

// Choose finds the driver for a word of the workflow file ("" is auto) and
// probes it. `host` is not probed: starting it needs nothing that could fail.
func Choose(ctx context.Context, word string, drivers []sandbox.Driver) (sandbox.Driver, sandbox.Capabilities, error) {
	names := []string{word}
	if word == "" || word == "auto" {
		names = autoDrivers
	}
	var errs []error
	for _, name := range names {
		for _, d := range drivers {
			if d.Name() != name {
				continue
			}
			caps, err := d.Probe(ctx)
			if err == nil {
				return d, caps, nil
			}
			errs = append(errs, fmt.Errorf("driver %s: %w", name, err))
		}
	}
	if len(errs) == 0 {
		return nil, sandbox.Capabilities{}, fmt.Errorf("unknown sandbox driver %q", strings.Join(names, ", "))
	}
	return nil, sandbox.Capabilities{}, errors.Join(errs...)
}
