package steps

import (
	"strings"
	"testing"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// TestCacheNeedsForksWhereStepsOverlap: a driver without forks says so before
// anything starts; steps in a row, and one at a time, are well everywhere.
func TestCacheNeedsForksWhereStepsOverlap(t *testing.T) {
	t.Parallel()
	const file = `name: w
MAX
steps:
  - {id: one, needs: [], run: 'true', cache: true}
  - {id: two, needs: [NEEDS], run: 'true'}
`
	for _, c := range []struct {
		max, needs string
		forks      bool
		want       string
	}{
		{"", "", false, "step one has cache and may run beside other steps, and driver d cannot give each a fork"},
		{"", "", true, ""},
		{"", "one", false, ""},
		{"max_parallel: 1", "", false, ""},
	} {
		text := strings.NewReplacer("MAX", c.max, "NEEDS", c.needs).Replace(file)
		w, err := workflow.Parse("w.yaml", []byte(text), workflow.ParseOptions{})
		if err != nil {
			t.Fatal(err)
		}
		err = Preflight(w, map[string]sandbox.Capabilities{"": {Driver: "d", Forks: c.forks, NoNetwork: true}})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
