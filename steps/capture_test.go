package steps

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"flowrun.dev/flow/engine"
)

func TestExcerptChars(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		n          int
		first      string
		last       string
	}{
		{"short", "abc", 5, "abc", "abc"},
		{"bytes", "abcdef", 2, "ab", "ef"},
		{"characters", "äöü€😀", 2, "äö", "€😀"},
		{"not UTF-8", "\xff\xfea\xff", 2, "\xff\xfe", "a\xff"},
		{"half a character at the end", "ab\xe2\x82", 3, "ab\xe2", "b\xe2\x82"},
		{"nothing", "", 3, "", ""},
	} {
		if got := firstChars([]byte(c.text), c.n); got != c.first {
			t.Errorf("%s: first %q, want %q", c.name, got, c.first)
		}
		if got := lastChars([]byte(c.text), c.n); got != c.last {
			t.Errorf("%s: last %q, want %q", c.name, got, c.last)
		}
	}
}

// TestCapture: both streams, whole in the log, their ends in the record.
func TestCapture(t *testing.T) {
	t.Parallel()
	r := newRig(t, `name: t
steps:
  - {id: short, shell: sh, run: "echo out; echo err >&2"}
  - {id: long, shell: sh, run: "seq 1 100000; echo done"}
  - {id: silent, shell: sh, run: "true"}
`, nil)
	out := r.run("short")
	if out.Stdout.Head != "out\n" || out.Stdout.Tail != "" || out.Stderr.Head != "err\n" || out.Stdout.Bytes != 4 {
		t.Errorf("short: %+v %+v", out.Stdout, out.Stderr)
	}
	out = r.run("long")
	if n := len(out.Stdout.Head); n != excerptChars || !strings.HasPrefix(out.Stdout.Head, "1\n2\n3\n") {
		t.Errorf("long: the head has %d characters: %.20q", n, out.Stdout.Head)
	}
	if n := len(out.Stdout.Tail); n != excerptChars || !strings.HasSuffix(out.Stdout.Tail, "99999\n100000\ndone\n") {
		t.Errorf("long: the tail has %d characters: %q", n, out.Stdout.Tail)
	}
	whole, err := r.logs.Tail(context.Background(), out.Log, Stdout, 10<<20)
	if err != nil || int64(len(whole)) != out.Stdout.Bytes || strings.Count(string(whole), "\n") != 100001 {
		t.Errorf("long: the log has %d bytes, %v, the record says %d", len(whole), err, out.Stdout.Bytes)
	}
	if out := r.run("silent"); out.Log != "" || out.Stdout.Bytes != 0 {
		t.Errorf("silent: log %q, %+v", out.Log, out.Stdout)
	}
}

// TestSecretInOutputStream: what is shown, logged and recorded is redacted, also
// where a secret came in two writes.
func TestSecretInOutputStream(t *testing.T) {
	t.Parallel()
	const secret = "correct-horse-battery"
	r := newRig(t, `name: t
secrets: [TOKEN]
steps:
  - id: s
    shell: sh
    secrets: [TOKEN]
    run: |
      printf 'a %s ' "$TOKEN"
      printf 'b correct-hor'; : | cat; printf 'se-battery\n'
      echo "err $TOKEN" >&2
`, func(c *Config) {
		c.Secrets = map[string]string{"TOKEN": secret}
		c.Redact = secrets(t, "TOKEN", secret)
	})
	out := r.run("s")
	logged, err := r.logs.Tail(context.Background(), out.Log, Stdout, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	const want = "a ***REDACTED*** b ***REDACTED***\n"
	if string(logged) != want || out.Stdout.Head != want || out.Stderr.Head != "err ***REDACTED***\n" {
		t.Errorf("log %q, record %q, %q", logged, out.Stdout.Head, out.Stderr.Head)
	}
	for _, text := range []string{r.shown.String(), out.Command, out.Error} {
		if strings.Contains(text, secret) {
			t.Errorf("the secret is in %q", text)
		}
	}
}

// TestLogBroken: a command is not blocked by a full disk, but its attempt does not
// count as done.
func TestLogBroken(t *testing.T) {
	t.Parallel()
	r := newRig(t, "name: t\nsteps:\n  - {id: s, shell: sh, run: 'seq 1 100000'}\n", nil)
	r.logs.broken = errors.New("no space left on device")
	out := r.run("s")
	if out.Status != engine.StepFailed || out.Class != engine.ClassInfrastructure || !strings.Contains(out.Error, "no space left") {
		t.Errorf("%s (%s): %s", out.Status, out.Class, out.Error)
	}
}

// TestStopped: the cause of an attempt's end is its outcome.
func TestStopped(t *testing.T) {
	t.Parallel()
	const text = "name: t\nsteps:\n  - {id: s, shell: sh, run: 'echo there; sleep 50'}\n"
	t.Run("timeout", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, text, nil)
		a := r.attempt("s")
		a.Timeout = 50 * time.Millisecond
		out := r.host.Run(context.Background(), a, r.emit)
		if out.Status != engine.StepTimedOut || out.Class != engine.ClassTimeout || out.Error != "timed out after 50ms" {
			t.Errorf("%s (%s): %s", out.Status, out.Class, out.Error)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(context.Background())
		r := newRig(t, text, func(c *Config) {
			c.Output = func(string, Stream, []byte) {
				cancel(&engine.StopError{Status: engine.StepInterrupted, Reason: "told to"})
			}
		})
		out := r.host.Run(ctx, r.attempt("s"), r.emit)
		if out.Status != engine.StepInterrupted || out.Class != engine.ClassCancelled || out.Error != "told to" {
			t.Errorf("%s (%s): %s", out.Status, out.Class, out.Error)
		}
	})
	t.Run("before it began", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(&engine.StopError{Status: engine.StepInterrupted, Reason: "early"})
		r := newRig(t, text, nil)
		if out := r.host.Run(ctx, r.attempt("s"), r.emit); out.Status != engine.StepInterrupted || out.Error != "early" {
			t.Errorf("%s: %s", out.Status, out.Error)
		}
	})
}

// TestLongScript goes through a file, which no list of changes shows.
func TestLongScript(t *testing.T) {
	t.Parallel()
	r := newRig(t, "name: t\nsteps:\n  - id: s\n    shell: sh\n    run: |\n      # "+strings.Repeat("x", maxScriptArg)+"\n      echo long; echo a > new\n", nil)
	out := r.run("s")
	if out.Status != engine.StepSucceeded || out.Stdout.Head != "long\n" {
		t.Fatalf("%s: %s, %q", out.Status, out.Error, out.Stdout.Head)
	}
	_, changed, n, err := r.host.Checkpoint(context.Background(), []string{"s"})
	if err != nil || n != 1 || changed[0].Path != "new" {
		t.Errorf("changed %v (%d), %v", changed, n, err)
	}
}

// TestOutputsExpressions sees the step's own outcome.
func TestOutputsExpressions(t *testing.T) {
	t.Parallel()
	r := newRig(t, `name: t
steps:
  - id: s
    shell: sh
    run: echo hello; echo n=3 >> "$FLOW_OUTPUT"
    outputs:
      text: ${{ trim(self.stdout) }}
      twice: ${{ self.outputs.n + self.outputs.n }}
`, nil)
	out := r.run("s")
	if out.Outputs["text"] != "hello" || out.Outputs["twice"] != "33" || out.Outputs["n"] != "3" {
		t.Errorf("%v, %s", out.Outputs, out.Error)
	}
}
