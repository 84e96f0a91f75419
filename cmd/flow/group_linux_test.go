package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

const groupFile = `name: group
inputs: {hold: {type: boolean, default: false}}
sandbox: {driver: host}
concurrency: {group: g}
steps:
  - id: work
    run: |
      if ${{ inputs.hold }} && [ "$FLOW_ATTEMPT" = 1 ]; then echo "has the group"; exec sleep 50; fi
`

// TestGroupOfTheDead: a holder that is killed frees its group at once, one that waits
// leaves nothing behind when it is interrupted, and a resume wants the group as well.
func TestGroupOfTheDead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "g.yaml", groupFile)
	holder := start(t, dir, "run", "g.yaml", "-i", "hold=true", "--output", "plain")
	holder.until("has the group")

	gone := start(t, dir, "run", "g.yaml", "--output", "plain")
	gone.until("concurrency group g: waiting for run")
	gone.signal(os.Interrupt)
	if code, out := gone.end(); code != -int(syscall.SIGINT) && code != codeInterrupted {
		t.Errorf("interrupted while waiting: exit code %d\n%s", code, out)
	}
	if out, _ := flow(t, dir, "runs", "--json"); strings.Count(out, `"id"`) != 1 {
		t.Errorf("the run that never began is recorded:\n%s", out)
	}

	waits := start(t, dir, "run", "g.yaml", "--output", "plain")
	waits.until("concurrency group g: waiting for run")
	if err := holder.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if code, out := waits.end(); code != 0 {
		t.Errorf("after the holder was killed: exit code %d\n%s", code, out)
	}

	second := start(t, dir, "run", "g.yaml", "-i", "hold=true", "--output", "plain")
	second.until("has the group")
	out, _ := flow(t, dir, "runs", "--json")
	killed := out[strings.LastIndex(out, `"id": "`)+7:] // the oldest
	resume := start(t, dir, "resume", killed[:strings.IndexByte(killed, '"')], "--output", "plain")
	resume.until("concurrency group g: waiting for run")
	if err := second.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if code, out := resume.end(); code != 0 {
		t.Errorf("resume: exit code %d\n%s", code, out)
	}
}
