package local

import (
	"context"
	"os"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/sandboxtest"
)

func TestMain(m *testing.M) {
	if InitMain(os.Args) {
		return
	}
	if os.Getenv(refuseHelper) != "" {
		refuse()
		return
	}
	if os.Getenv(helperDir) != "" {
		helper()
		return
	}
	if os.Getenv(probeHelper) != "" {
		probe()
		return
	}
	goleak.VerifyTestMain(m)
}

// newDriver skips where the machine refuses sandboxes, and says why.
func newDriver(t testing.TB, o Options) *Driver {
	t.Helper()
	o.Path = os.Getenv("PATH")
	d := New(o)
	caps, err := d.Probe(context.Background())
	if err != nil {
		t.Skipf("no sandbox on this machine: %v", err)
	}
	if want := os.Getenv(expectTier); want != "" && want != string(caps.Tier) {
		t.Fatalf("tier %s (%s), want %s", caps.Tier, caps.Reason, want)
	}
	return d
}

func subject(t *testing.T, o Options) sandboxtest.Subject {
	return sandboxtest.Subject{
		Driver: newDriver(t, o),
		Lose: func(t *testing.T, sb sandbox.Sandbox) {
			if err := syscall.Kill(sb.Info().PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		},
		Bomb: true,
	}
}

// TestConformance is not parallel: its fork bomb wants to be alone.
func TestConformance(t *testing.T) {
	sandboxtest.Run(t, func(t *testing.T) sandboxtest.Subject { return subject(t, Options{}) })
}

// TestConformanceChown is root's way where the file system refuses idmapped mounts.
func TestConformanceChown(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root maps ids")
	}
	t.Parallel()
	sandboxtest.Run(t, func(t *testing.T) sandboxtest.Subject {
		s := subject(t, Options{noIDMappedMount: true})
		s.Bomb = false // once is enough
		return s
	})
}

// TestConformanceLandlock is the tier of machines that refuse namespaces.
func TestConformanceLandlock(t *testing.T) {
	t.Parallel()
	sandboxtest.Run(t, func(t *testing.T) sandboxtest.Subject {
		return flatSubject(t, Options{onlyLandlock: true})
	})
}

// flatSubject is the tier landlock.
func flatSubject(t *testing.T, o Options) sandboxtest.Subject {
	s := subject(t, o)
	s.LooseModes = true
	s.MoreEnv = []string{"GIT_CONFIG_NOSYSTEM"}
	s.Bomb = os.Geteuid() != 0 // the kernel does not count uid 0's processes
	if s.Bomb {
		s.Limits.Pids = 1500 // a user's are counted on the whole machine, and the suites beside this one need some too
	}
	return s
}
