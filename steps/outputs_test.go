package steps

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/engine"
)

func TestParseOutputs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		want       map[string]string
		err        string
	}{
		{"nothing", "", map[string]string{}, ""},
		{"a line", "a=1\n", map[string]string{"a": "1"}, ""},
		{"no last newline", "a=1", map[string]string{"a": "1"}, ""},
		{"an empty value", "a=\n", map[string]string{"a": ""}, ""},
		{"= in the value", "a=b=c\n", map[string]string{"a": "b=c"}, ""},
		{"<< in the value", "a=x<<y\n", map[string]string{"a": "x<<y"}, ""},
		{"spaces are kept", "a= x \n", map[string]string{"a": " x "}, ""},
		{"CRLF", "a=1\r\nb=2\r\n", map[string]string{"a": "1", "b": "2"}, ""},
		{"empty lines", "\n  \na=1\n\n", map[string]string{"a": "1"}, ""},
		{"the last one wins", "a=1\na=2\n", map[string]string{"a": "2"}, ""},
		{"a block", "a<<END\none\n\ntwo=2\nEND\nb=1\n", map[string]string{"a": "one\n\ntwo=2", "b": "1"}, ""},
		{"an empty block", "a<<END\nEND\n", map[string]string{"a": ""}, ""},
		{"= in the delimiter", "a<<E=D\nx\nE=D\n", map[string]string{"a": "x"}, ""},
		{"a block whose end has no newline", "a<<END\nx\nEND", map[string]string{"a": "x"}, ""},
		{"names", "a-b_C9=1\n", map[string]string{"a-b_C9": "1"}, ""},
		{"a block that is not closed", "x=1\na<<END\none\n", nil, "line 2: `a<<END` is never closed"},
		{"no delimiter", "a<<\none\n\n", nil, "line 1: `a<<` is never closed"},
		{"neither", "x=1\nhello\n", nil, "line 2: expected name=value"},
		{"no name", "=1\n", nil, "line 1: the name before = is missing"},
		{"a digit first", "1a=1\n", nil, "line 1: an output's name"},
		{"a space in the name", "a b=1\n", nil, "line 1: an output's name"},
		{"a bad name of a block", "a b<<E\nx\nE\n", nil, "line 1: an output's name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			list, err := parseSettings("FLOW_OUTPUT", []byte(c.text), outputNameOK)
			got := map[string]string{}
			for _, s := range list {
				got[s.Name] = s.Value
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want one with %q", err, c.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Fatalf("%q, %v, want %q", got, err, c.want)
			}
		})
	}
}

// TestTakeFile: the step wrote the file, so it may be anything.
func TestTakeFile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		make func(dir string) error
		want string
		err  string
	}{
		{name: "nothing", make: func(string) error { return nil }},
		{name: "text", make: func(d string) error { return os.WriteFile(d+"/out", []byte("a=1"), 0o600) }, want: "a=1"},
		{name: "a link", make: func(d string) error { return os.Symlink("/etc/passwd", d+"/out") }, err: "too many levels of symbolic links"},
		{name: "a folder", make: func(d string) error { return os.Mkdir(d+"/out", 0o755) }, err: "not a file"},
		{name: "a fifo", make: func(d string) error { return unix.Mkfifo(d+"/out", 0o600) }, err: "not a file"},
		{name: "too large", make: func(d string) error {
			return os.WriteFile(d+"/out", []byte("a="+strings.Repeat("x", 1<<20)), 0o600)
		}, want: "a=" + strings.Repeat("x", 1<<20-2)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := c.make(dir); err != nil {
				t.Fatal(err)
			}
			got, err := takeFile(dir, "out", 1<<20)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want one with %q", err, c.err)
				}
			} else if err != nil || string(got) != c.want {
				t.Fatalf("%d bytes, %v, want %d", len(got), err, len(c.want))
			}
			if _, err := os.Lstat(filepath.Join(dir, "out")); c.name != "a folder" && !os.IsNotExist(err) {
				t.Errorf("the file is still there: %v", err)
			}
		})
	}
	t.Run("the folder is a link", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/out", []byte("a=1"), 0o600); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(dir, link); err != nil {
			t.Fatal(err)
		}
		if got, err := takeFile(link, "out", 1<<20); err != nil || got != nil {
			t.Errorf("%q, %v: a link was followed", got, err)
		}
	})
}

// TestSecretInOutput: an output that carries a secret, in whatever form, fails the
// step, and neither the error nor anything else tells the secret.
func TestSecretInOutput(t *testing.T) {
	t.Parallel()
	const secret = "correct-horse-battery"
	for name, script := range map[string]string{
		"plain":      `echo "a=$TOKEN" >> "$FLOW_OUTPUT"`,
		"in a block": `printf 'a<<E\nx\n%s\nE\n' "$TOKEN" >> "$FLOW_OUTPUT"`,
		"base64":     `echo "a=$(printf %s "$TOKEN" | base64)" >> "$FLOW_OUTPUT"`,
		"hex":        `echo "a=$(printf %s "$TOKEN" | od -An -tx1 | tr -d ' \n')" >> "$FLOW_OUTPUT"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "name: t\nsecrets: [TOKEN]\nsteps:\n  - id: s\n    secrets: [TOKEN]\n    shell: sh\n    run: |\n      "+script+"\n",
				func(c *Config) {
					c.Secrets = map[string]string{"TOKEN": secret}
					c.Redact = secrets(t, "TOKEN", secret)
				})
			out := r.run("s")
			if out.Status != engine.StepFailed || out.Class != engine.ClassInvalid || !strings.Contains(out.Error, "output a holds the secret TOKEN") {
				t.Errorf("%s (%s): %s", out.Status, out.Class, out.Error)
			}
			if strings.Contains(out.Error, secret) || len(out.Outputs) > 0 {
				t.Errorf("the secret got out: %s, %v", out.Error, out.Outputs)
			}
		})
	}
}

// TestOutputsOfAFailedStep are kept: a step says why it failed by them.
func TestOutputsOfAFailedStep(t *testing.T) {
	t.Parallel()
	r := newRig(t, "name: t\nsteps:\n  - {id: s, shell: sh, run: 'echo why=disk >> \"$FLOW_OUTPUT\"; exit 7'}\n", nil)
	out := r.run("s")
	if out.Status != engine.StepFailed || out.ExitCode != 7 || out.Outputs["why"] != "disk" {
		t.Errorf("%s, exit %d, outputs %v", out.Status, out.ExitCode, out.Outputs)
	}
}
