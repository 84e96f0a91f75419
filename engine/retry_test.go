package engine

import (
	"math"
	"testing"
	"time"

	"flowrun.dev/flow/workflow"
)

func TestDelay(t *testing.T) {
	t.Parallel()
	s := time.Second
	cases := []struct {
		name   string
		policy workflow.Retry
		want   []time.Duration
	}{
		{"default", workflow.Retry{}, []time.Duration{2 * s, 4 * s, 8 * s, 10 * s, 10 * s}},
		{"constant", workflow.Retry{Backoff: "constant", Initial: 3 * s}, []time.Duration{3 * s, 3 * s}},
		{"fibonacci", workflow.Retry{Backoff: "fibonacci", Initial: s, Max: 5 * s}, []time.Duration{1 * s, 2 * s, 3 * s, 5 * s, 5 * s}},
		{"initial above the default cap", workflow.Retry{Backoff: "constant", Initial: time.Minute}, []time.Duration{time.Minute}},
		{"cap below initial", workflow.Retry{Initial: time.Minute, Max: s}, []time.Duration{s}},
		{"no overflow", workflow.Retry{Initial: math.MaxInt64 / 2, Max: math.MaxInt64}, []time.Duration{math.MaxInt64 / 2, math.MaxInt64 - 1, math.MaxInt64, math.MaxInt64}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for k, want := range c.want {
				if got := delay(c.policy, k+1, "key"); got != want {
					t.Errorf("after %d tries: %s, want %s", k+1, got, want)
				}
			}
		})
	}
	if got := delay(workflow.Retry{}, math.MaxInt, "k"); got != 10*s {
		t.Errorf("after very many tries: %s", got)
	}
}

func TestJitterDependsOnItsKeyAlone(t *testing.T) {
	t.Parallel()
	p := workflow.Retry{Backoff: "constant", Initial: 10 * time.Second, Max: time.Minute, Jitter: 2 * time.Second}
	seen := map[time.Duration]bool{}
	for _, key := range []string{"r/a/1", "r/a/2", "r/b/1", "q/a/1"} {
		d := delay(p, 1, key)
		if d != delay(p, 1, key) {
			t.Errorf("%s: two answers", key)
		}
		if d < 8*time.Second || d > 12*time.Second {
			t.Errorf("%s: %s is not within 10s ± 2s", key, d)
		}
		seen[d] = true
	}
	if len(seen) < 3 {
		t.Errorf("hardly any jitter: %v", seen)
	}
	p.Jitter = math.MaxInt64
	for _, tries := range []int{1, 5, 80} {
		if d := delay(p, tries, "k"); d < 0 || d > time.Minute {
			t.Errorf("huge jitter gives %s", d)
		}
	}
}

func TestRetriedClasses(t *testing.T) {
	t.Parallel()
	all := []Class{ClassNone, ClassExitCode, ClassTimeout, ClassInfrastructure, ClassRateLimit, ClassBudget, ClassDenied, ClassInvalid, ClassCancelled}
	cases := []struct {
		name   string
		policy workflow.Retry
		want   map[Class]bool
	}{
		{"not written", workflow.Retry{}, map[Class]bool{ClassInfrastructure: true, ClassRateLimit: true}},
		{"written", workflow.Retry{Written: true}, map[Class]bool{ClassExitCode: true, ClassTimeout: true, ClassInfrastructure: true, ClassRateLimit: true}},
		{"on", workflow.Retry{Written: true, On: []string{"timeout"}}, map[Class]bool{ClassTimeout: true}},
	}
	for _, c := range cases {
		for _, class := range all {
			if got := retried(c.policy, class); got != c.want[class] {
				t.Errorf("%s: class %q retried = %v", c.name, class, got)
			}
		}
	}
}
