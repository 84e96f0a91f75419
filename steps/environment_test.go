package steps

import (
	"strings"
	"testing"

	"flowrun.dev/flow/engine"
)

// TestEnvironment prints what a command really gets: what the sandbox needs, the
// file's and the step's env, the secrets that the step names, FLOW_*, and nothing
// of flow's own environment.
func TestEnvironment(t *testing.T) {
	t.Setenv("HOST_ONLY", "leaked")
	r := newRig(t, `name: t
env: {A: file, B: file, PATH: /usr/bin:/bin}
secrets: [TOKEN, OTHER]
steps:
  - id: s
    shell: sh
    env: {B: "step ${{ 1 + 1 }}"}
    secrets: [TOKEN]
    run: env | sort
`, func(c *Config) {
		c.Secrets = map[string]string{"TOKEN": "hunter-number-2", "OTHER": "never-seen-3"}
	})
	out := r.run("s")
	if out.Status != engine.StepSucceeded {
		t.Fatalf("%s: %s", out.Status, out.Error)
	}
	got := out.Stdout.Head
	for _, want := range []string{"A=file", "B=step 2", "PATH=/usr/bin:/bin", "TOKEN=hunter-number-2", "FLOW=true", "FLOW_RUN_ID=run", "FLOW_STEP_ID=s", "FLOW_ATTEMPT=1"} {
		if !strings.Contains("\n"+got, "\n"+want+"\n") {
			t.Errorf("no %s in:\n%s", want, got)
		}
	}
	for _, never := range []string{"HOST_ONLY", "never-seen-3"} {
		if strings.Contains(got, never) {
			t.Errorf("%s is in:\n%s", never, got)
		}
	}
}

func TestEnvironmentThatCannotBe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ step, want string }{
		"NUL":       {`    env: {A: "x\0y"}`, "env A: the value holds a NUL byte"},
		"no secret": {"    secrets: [TOKEN]", "secret TOKEN has no value"},
		"both":      {"    secrets: [TOKEN]\n    env: {A: \"x\\0y\"}", "2 errors occurred"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "name: t\nsecrets: [TOKEN]\nsteps:\n  - id: s\n    run: \"true\"\n"+c.step+"\n", nil)
			out := r.run("s")
			if out.Status != engine.StepFailed || out.Class != engine.ClassInvalid || !strings.Contains(out.Error, c.want) {
				t.Errorf("%s (%s): %s, want %q", out.Status, out.Class, out.Error, c.want)
			}
		})
	}
}
