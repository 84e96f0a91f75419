package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// placeFile holds a step in the middle of its work, in a sandbox of each kind.
const placeFile = `name: places
inputs:
  hold: {type: boolean, default: false}
sandbox: {driver: DRIVER, SANDBOX}
sandboxes: {other: {driver: DRIVER}}
defaults: {timeout: 1m, shell: sh, env: {HOLD: "${{ inputs.hold }}"}}
steps:
  - {id: one, run: 'echo one > a'}
  - {id: beside, sandbox: other, run: 'echo beside > c'}
  - id: two
    STEP
    run: |
      echo half >> b; rm a
      if [ "$HOLD" = true ] && [ "$FLOW_ATTEMPT" = 1 ]; then echo "in the middle"; sleep MARK & sleep MARK; fi
      echo whole >> b
  - {id: three, run: 'cat b c; test ! -e a'}
`

// placeKinds are the lines that make step two run in each kind of place.
var placeKinds = map[string][2]string{
	"fresh": {"reuse: run", "sandbox: fresh"}, "named": {"reuse: run", "sandbox: other"},
	"step": {"reuse: step", "name: two"}, "pool": {"reuse: pool, pool: {size: 3, warm: true}", "name: two"},
}

// withMark are the living processes with a word in their command line.
func withMark(t *testing.T, mark string) (n int) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && bytes.Contains(b, []byte("\x00"+mark+"\x00")) {
			n++
		}
	}
	return n
}

// noTrace: no process, no mount and no folder of a run.
func noTrace(t *testing.T, dir, mark string) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); withMark(t, mark) > 0; {
		if time.Now().After(limit) {
			t.Fatalf("%d processes are left", withMark(t, mark))
		}
		time.Sleep(time.Millisecond) // they have been killed; the kernel takes its time
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || bytes.Contains(mounts, []byte(dir)) {
		t.Errorf("a mount is left, or %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".flow/runs/*/sandboxes/*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestStoppedInOtherSandboxes ends flow while a step runs in a sandbox that is not the
// run's own: by kill -9, and by Ctrl-C. Nothing is left, and the resume's result is that
// of a run which nobody disturbed.
func TestStoppedInOtherSandboxes(t *testing.T) {
	t.Parallel()
	drivers(t, func(t *testing.T, driver string) {
		for kind, lines := range placeKinds {
			for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
				if testing.Short() && (kind != "pool" || sig != syscall.SIGKILL) {
					continue
				}
				t.Run(fmt.Sprint(kind, " ", sig), func(t *testing.T) {
					t.Parallel()
					mark := fmt.Sprintf("50.%d", 1e9+rand.Int64N(1e9))
					file := strings.NewReplacer("DRIVER", driver, "SANDBOX", lines[0], "STEP", lines[1], "MARK", mark).Replace(placeFile)
					dir := t.TempDir()
					write(t, dir, "places.yaml", file)
					p := start(t, dir, "run", "--output", "plain", "-i", "hold=true", "places.yaml")
					p.until("in the middle")
					p.signal(sig)
					code, said := p.end()
					if want := map[syscall.Signal]int{syscall.SIGKILL: -9, syscall.SIGINT: 130}[sig]; code != want {
						t.Fatalf("exit %d, want %d\n%s", code, want, said)
					}
					if sig == syscall.SIGINT {
						noTrace(t, dir, mark)
					}
					out, code := flow(t, dir, "resume", "--output", "plain")
					if code != 0 || !strings.Contains(out, "half\n") && !strings.Contains(out, "| half") {
						t.Fatalf("resume: exit %d\n%s", code, out)
					}
					noTrace(t, dir, mark)
					out, _ = flow(t, dir, "logs", "latest", "three", "--raw")
					if out != "half\nwhole\nbeside\n" {
						t.Errorf("result: %q", out)
					}
				})
			}
		}
	})
}

// TestStoppedInPlace: Ctrl-C and kill -9 leave the user's tree as the step had it, the
// resume goes on there, and nothing of it ever goes.
func TestStoppedInPlace(t *testing.T) {
	t.Parallel()
	const file = `name: place
sandbox: {driver: host}
workspace: {from: tree, in_place: true}
defaults: {shell: sh}
steps:
  - {id: one, run: 'echo one > made'}
  - id: two
    run: |
      echo $FLOW_ATTEMPT >> tries; mkdir -p d; echo x > d/half
      if [ "$FLOW_ATTEMPT" = 1 ]; then echo "in the middle"; sleep MARK & sleep MARK; fi
`
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		mark := fmt.Sprintf("50.%d", 1e9+rand.Int64N(1e9))
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "tree/.git"), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, dir, "tree/mine", "mine\n")
		write(t, dir, "tree/.git/HEAD", "ref\n")
		write(t, dir, "place.yaml", strings.ReplaceAll(file, "MARK", mark))
		p := start(t, dir, "run", "--output", "plain", "place.yaml")
		p.until("in the middle")
		p.signal(sig)
		p.end()
		check := func(name, want string) {
			t.Helper()
			if b, err := os.ReadFile(filepath.Join(dir, "tree", name)); err != nil || string(b) != want {
				t.Errorf("%s after %v: %q, %v", name, sig, b, err)
			}
		}
		check("tries", "1\n")
		check("d/half", "x\n")
		if out, code := flow(t, dir, "resume", "--output", "plain"); code != 0 {
			t.Fatalf("resume: exit %d\n%s", code, out)
		}
		noTrace(t, dir, mark)
		check("tries", "1\n2\n")
		check("made", "one\n")
		check("mine", "mine\n")
		check(".git/HEAD", "ref\n")
		if out, code := flow(t, dir, "gc", "--keep", "0"); code != 0 {
			t.Fatalf("gc: exit %d\n%s", code, out)
		}
		check("mine", "mine\n")
		check("d/half", "x\n")
	}
}
