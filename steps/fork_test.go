package steps

import (
	"context"
	"testing"

	"flowrun.dev/flow/sandbox"
)

// reusable is a fakeDriver whose sandboxes say that they are clean, or not.
type reusableDriver struct {
	fakeDriver
	dirty bool
}

type reusableSandbox struct {
	*fakeSandbox
	dirty bool
}

func (d *reusableDriver) Create(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	sb, err := d.fakeDriver.Create(ctx, s)
	if err != nil {
		return nil, err
	}
	return &reusableSandbox{sb.(*fakeSandbox), d.dirty}, nil
}

func (s *reusableSandbox) Clean(context.Context) (bool, error) { return !s.dirty, nil }

// TestForksReuseSandboxes: a fork takes the sandbox of one that was merged, if that is
// clean and lives; otherwise it is closed and another made. Close closes all.
func TestForksReuseSandboxes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		dirty, lost bool
		made        int
	}{{"clean", false, false, 1}, {"dirty", true, false, 3}, {"lost", false, true, 3}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := &reusableDriver{fakeDriver: fakeDriver{name: "fake"}, dirty: c.dirty}
			r := newRig(t, oneStep, func(cfg *Config) { cfg.Driver, cfg.Capabilities.Forks = d, true })
			for range 3 {
				if out := r.run("s"); out.Status != "succeeded" {
					t.Fatal(out.Error)
				}
				if _, _, _, err := r.host.Checkpoint(t.Context(), []string{"s"}); err != nil {
					t.Fatal(err)
				}
				if c.lost {
					_ = d.made[len(d.made)-1].Close(t.Context())
				}
			}
			if len(d.made) != c.made {
				t.Errorf("%d sandboxes were made, want %d", len(d.made), c.made)
			}
			r.host.Close(t.Context())
			for i, sb := range d.made {
				if !ended(sb) {
					t.Errorf("sandbox %d is not closed", i+1)
				}
			}
		})
	}
}
