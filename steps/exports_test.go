package steps

import (
	"strings"
	"testing"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/workflow"
)

// TestExports: what $FLOW_ENV, $FLOW_PATH and $FLOW_SUMMARY take, and what they refuse.
func TestExports(t *testing.T) {
	t.Parallel()
	const secret = "correct-horse-battery"
	for name, c := range map[string]struct {
		script, more string
		env, path    string // name=value of what is exported, comma separated; folders
		summary, err string
	}{
		"nothing":               {script: "true"},
		"an empty file":         {script: `: > "$FLOW_ENV"; : > "$FLOW_PATH"; : > "$FLOW_SUMMARY"`},
		"a line and a block":    {script: `printf 'A=1\nB<<E\nx\ny\nE\nA=2\n' >> "$FLOW_ENV"`, env: "A=2,B=x\ny"},
		"a path":                {script: `printf '/opt/a\n\n/opt/b/../c\r\n' >> "$FLOW_PATH"`, path: "/opt/a,/opt/c"},
		"the home is marked":    {script: `echo "$HOME/bin" >> "$FLOW_PATH"; echo "J=$HOME/jdk:$HOME" >> "$FLOW_ENV"`, env: "J=\x00/jdk:\x00", path: "\x00/bin"},
		"a summary":             {script: `echo '# hi' >> "$FLOW_SUMMARY"`, summary: "# hi\n"},
		"a secret in a summary": {script: `echo "it is $TOKEN" >> "$FLOW_SUMMARY"`, summary: "it is ***REDACTED***\n"},
		"NUL in a summary":      {script: `printf 'a\0b' >> "$FLOW_SUMMARY"`, summary: "a\uFFFDb"},
		"a secret in the env":   {script: `echo "A=x$TOKEN" >> "$FLOW_ENV"`, err: "A holds the secret TOKEN"},
		"a secret in the path":  {script: `echo "/$TOKEN" >> "$FLOW_PATH"`, err: "line 1: it holds the secret TOKEN"},
		"PATH":                  {script: `echo PATH=/x >> "$FLOW_ENV"`, err: "writing folders to $FLOW_PATH"},
		"FLOW_X":                {script: `echo FLOW_X=1 >> "$FLOW_ENV"`, err: "FLOW_X cannot be set"},
		"LD_PRELOAD":            {script: `echo LD_PRELOAD=/x.so >> "$FLOW_ENV"`, err: "LD_PRELOAD cannot be set"},
		"BASH_ENV":              {script: `echo BASH_ENV=/x >> "$FLOW_ENV"`, err: "BASH_ENV cannot be set"},
		"a function of bash":    {script: `echo 'BASH_FUNC_ls%%=() { :; }' >> "$FLOW_ENV"`, err: "letters, digits and underscores"},
		"the name of a secret":  {script: `echo TOKEN=mine >> "$FLOW_ENV"`, err: "TOKEN is the name of a secret"},
		"NUL in a value":        {script: `printf 'A=x\0y\n' >> "$FLOW_ENV"`, err: "NUL byte"},
		"not UTF-8":             {script: `printf 'A=\377\n' >> "$FLOW_ENV"`, err: "is not UTF-8"},
		"a huge value":          {script: `printf 'A=%061440d\n' 0 >> "$FLOW_ENV"; printf 'A=%061441d\n' 0 > "$FLOW_ENV"`, err: "larger than 61440 bytes"},
		"a huge file":           {script: `head -c 70000 /dev/zero | tr '\0' x > "$FLOW_ENV"`, err: "$FLOW_ENV: it is larger than 65536 bytes"},
		"a relative path":       {script: `echo bin >> "$FLOW_PATH"`, err: "absolute path"},
		"a colon":               {script: `echo /a:/b >> "$FLOW_PATH"`, err: "no colon"},
		"a link":                {script: `ln -s /etc/hostname "$FLOW_ENV"`, err: "read $FLOW_ENV"},
		"a fifo":                {script: `mkfifo "$FLOW_SUMMARY"`, err: "$FLOW_SUMMARY: the step replaced it by something that is not a file"},
		"all mistakes":          {script: `echo x >> "$FLOW_ENV"; echo y >> "$FLOW_OUTPUT"`, err: "$FLOW_OUTPUT line 1: expected name=value or name<<DELIMITER; read $FLOW_ENV line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "name: t\nsecrets: [TOKEN]\nsteps:\n  - id: s\n    secrets: [TOKEN]\n    shell: sh\n    run: |\n      "+c.script+"\n", func(cfg *Config) {
				cfg.Secrets = map[string]string{"TOKEN": secret}
				cfg.Redact = secrets(t, "TOKEN", secret)
			})
			out := r.run("s")
			if c.err != "" {
				if out.Status != engine.StepFailed || out.Class != engine.ClassInvalid || !strings.Contains(out.Error, c.err) || strings.Contains(out.Error, secret) {
					t.Fatalf("%s (%s): %s, want %q", out.Status, out.Class, out.Error, c.err)
				}
				return
			}
			if out.Status != engine.StepSucceeded {
				t.Fatalf("%s: %s", out.Status, out.Error)
			}
			var env, path string
			if x := out.Exports; x != nil {
				var list []string
				for _, s := range x.Env {
					list = append(list, s.Name+"="+s.Value)
				}
				env, path = strings.Join(list, ","), strings.Join(x.Path, ",")
			}
			if env != c.env || path != c.path || out.Summary != c.summary {
				t.Errorf("env %q, path %q, summary %q", env, path, out.Summary)
			}
		})
	}
}

// TestLongSummary is cut: it is for people.
func TestLongSummary(t *testing.T) {
	t.Parallel()
	r := newRig(t, "name: t\nsteps:\n  - {id: s, shell: sh, run: 'head -c 2000000 /dev/zero | tr \"\\0\" x > \"$FLOW_SUMMARY\"'}\n", nil)
	out := r.run("s")
	if out.Status != engine.StepSucceeded || len(out.Summary) > summaryChannel.max+100 || !strings.Contains(out.Summary, "cut after 1048576 bytes") {
		t.Errorf("%s %s: %d bytes", out.Status, out.Error, len(out.Summary))
	}
}

// TestExportedEnvironment: over the file's env, below the step's own.
func TestExportedEnvironment(t *testing.T) {
	t.Parallel()
	r := newRig(t, `name: t
env: {A: file, B: file, C: file}
steps:
  - id: s
    shell: sh
    env: {B: step}
    run: printf '%s\n' "$A" "$B" "$C" "$D" "$PATH"
`, nil)
	a := r.attempt("s")
	a.Exports = engine.Exports{Env: []engine.EnvSet{{Name: "A", Value: "one"}, {Name: "B", Value: "one"}, {Name: "A", Value: "two"}, {Name: "D", Value: "d"}},
		Path: []string{"/p/one", "/p/two", "/p/one"}}
	out := r.host.Run(t.Context(), a, r.emit)
	if !strings.HasPrefix(out.Stdout.Head, "two\nstep\nfile\nd\n/p/one:/p/two:") {
		t.Errorf("%s %s: %q", out.Status, out.Error, out.Stdout.Head)
	}
	a.Exports.Env = []engine.EnvSet{}
	for i := range 10 {
		a.Exports.Env = append(a.Exports.Env, engine.EnvSet{Name: "N" + string(rune('A'+i)), Value: strings.Repeat("x", 59<<10)})
	}
	a.Attempt = 2
	if out := r.host.Run(t.Context(), a, r.emit); out.Class != engine.ClassInvalid || !strings.Contains(out.Error, "earlier steps set") {
		t.Errorf("%s (%s): %s", out.Status, out.Class, out.Error)
	}
}

// TestChannelsOf: what may change nothing sets no PATH, and no model sets an environment.
func TestChannelsOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		step workflow.Step
		want string
	}{
		{workflow.Step{Kind: workflow.KindRun}, "FLOW_OUTPUT FLOW_ENV FLOW_PATH FLOW_SUMMARY"},
		{workflow.Step{Kind: workflow.KindRun, Access: workflow.Access{ReadOnly: true}}, "FLOW_OUTPUT FLOW_ENV FLOW_SUMMARY"},
		{workflow.Step{Kind: workflow.KindAgent}, "FLOW_OUTPUT"},
	} {
		var got []string
		for _, ch := range channelsOf(&c.step) {
			got = append(got, ch.variable)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v", c.step.Kind, got)
		}
	}
}
