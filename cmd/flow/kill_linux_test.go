package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// middleFile has four steps. Each says when it has done half of its work, and waits
// there on its first attempt, so that a test ends flow exactly in the middle.
const middleFile = `name: kill
inputs:
  hold: {type: string, default: ""}
sandbox: {driver: DRIVER}
defaults: {timeout: 1m, shell: sh, env: {HOLD: "${{ inputs.hold }}"}}
steps:
` + middleStep + middleStep + middleStep + middleStep

const middleStep = `  - id: NAME
    run: |
      echo NAME half >> lines
      mkdir -p NAME.d; ln -sf ../lines NAME.d/link
      if [ "$HOLD" = NAME ] && [ "$FLOW_ATTEMPT" = 1 ]; then echo "in the middle of NAME"; sleep 50 & sleep 50; fi
      echo NAME whole >> lines
`

var middleNames = []string{"one", "two", "three", "four"}

func middleWorkflow(driver string) string {
	s := strings.Replace(middleFile, "DRIVER", driver, 1)
	for _, name := range middleNames {
		i := strings.Index(s, middleStep)
		s = s[:i] + strings.ReplaceAll(middleStep, "NAME", name) + s[i+len(middleStep):]
	}
	return s
}

// living is a flow process whose output is read line by line.
type living struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // closed at the end of its output
	said  []string
}

// start runs the real binary without waiting for its end.
func start(t *testing.T, dir string, args ...string) *living {
	t.Helper()
	p := &living{t: t, cmd: exec.Command(flowBinary(t), args...), lines: make(chan string, 1000)}
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), "FLOW_STATE=", "LANG=C.UTF-8")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		defer close(p.lines)
		defer r.Close()
		in := bufio.NewScanner(r)
		for in.Scan() {
			p.lines <- in.Text()
		}
	}()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// until reads output until a line holds a text.
func (p *living) until(text string) {
	p.t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case line, ok := <-p.lines:
			p.said = append(p.said, line)
			switch {
			case !ok:
				p.t.Fatalf("flow ended and never said %q:\n%s", text, strings.Join(p.said, "\n"))
			case strings.Contains(line, text):
				return
			}
		case <-limit:
			p.t.Fatalf("flow has not said %q within a minute:\n%s", text, strings.Join(p.said, "\n"))
		}
	}
}

// end waits for the process's end and returns its exit code (minus the signal
// where one ended it) and all that it said.
func (p *living) end() (int, string) {
	p.t.Helper()
	limit := time.AfterFunc(time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer limit.Stop()
	for line := range p.lines {
		p.said = append(p.said, line)
	}
	_ = p.cmd.Wait() // the state below says it
	ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return -int(ws.Signal()), strings.Join(p.said, "\n")
	}
	return ws.ExitStatus(), strings.Join(p.said, "\n")
}

func (p *living) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// treeHash is the content of a tree: names, kinds, modes, links and bytes.
func treeHash(t *testing.T, root string) string {
	t.Helper()
	sum := sha256.New()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		fmt.Fprintf(sum, "%q %s ", rel, info.Mode())
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(sum, "-> %q\n", to)
		case info.Mode().IsRegular():
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := io.Copy(sum, f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// resultHash exports the newest run's workspace and returns its hash.
func resultHash(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "result")
	if out, code := flow(t, dir, "export", "latest", to); code != 0 {
		t.Fatalf("flow export: exit %d\n%s", code, out)
	}
	return treeHash(t, to)
}

// attempts of the newest run's steps, and its status.
func attempts(t *testing.T, dir string) (status string, n map[string]int) {
	t.Helper()
	out, code := flow(t, dir, "show", "--json", "latest")
	var show struct {
		Run struct{ Status string } `json:"run"`
		// Both forms: a run's head may be nested or flat.
		Status string `json:"status"`
		Steps  []struct {
			ID       string `json:"id"`
			Attempts int    `json:"attempts"`
		} `json:"steps"`
	}
	if err := json.Unmarshal([]byte(out), &show); err != nil || code != 0 {
		t.Fatalf("flow show --json: exit %d, %v\n%s", code, err, out)
	}
	n = map[string]int{}
	for _, s := range show.Steps {
		n[s.ID] = s.Attempts
	}
	return show.Status + show.Run.Status, n
}

// drivers runs a test for each driver that works here.
func drivers(t *testing.T, f func(t *testing.T, driver string)) {
	for _, driver := range []string{"host", "local"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			if driver == "local" && !sandboxWorks() {
				t.Skip("the local sandbox does not work on this machine")
			}
			f(t, driver)
		})
	}
}

// TestKilledInTheMiddleOfAStep kills flow with SIGKILL in the middle of each of
// four steps. Any command says at once that the run is interrupted; the resume
// runs the steps before not again, the one in flight from its beginning, and its
// workspace is that of a run which nobody disturbed.
func TestKilledInTheMiddleOfAStep(t *testing.T) {
	t.Parallel()
	drivers(t, func(t *testing.T, driver string) {
		calm := t.TempDir()
		write(t, calm, "kill.yaml", middleWorkflow(driver))
		if out, code := flow(t, calm, "run", "--output", "plain", "kill.yaml"); code != 0 {
			t.Fatalf("the undisturbed run: exit %d\n%s", code, out)
		}
		want := resultHash(t, calm)
		for i, name := range middleNames {
			if testing.Short() && name != "three" {
				continue
			}
			dir := t.TempDir()
			write(t, dir, "kill.yaml", middleWorkflow(driver))
			p := start(t, dir, "run", "--output", "plain", "-i", "hold="+name, "kill.yaml")
			p.until("in the middle of " + name)
			p.signal(syscall.SIGKILL)
			if code, out := p.end(); code != -int(syscall.SIGKILL) {
				t.Fatalf("%s: flow ended with %d\n%s", name, code, out)
			}
			if out, code := flow(t, dir, "runs"); code != 0 || !strings.Contains(out, "interrupted") {
				t.Fatalf("%s: flow runs right after the kill: exit %d\n%s", name, code, out)
			}
			if driver == "local" { // driver host's are ended by the next flow that runs something
				nothingLeft(t, "killed in "+name, dir)
			}
			if out, code := flow(t, dir, "resume", "--output", "plain"); code != 0 {
				t.Fatalf("%s: flow resume: exit %d\n%s", name, code, out)
			}
			status, n := attempts(t, dir)
			if status != "succeeded" {
				t.Errorf("%s: the resumed run is %s", name, status)
			}
			for j, step := range middleNames {
				if wantN := map[bool]int{false: 1, true: 2}[i == j]; n[step] != wantN {
					t.Errorf("killed in %s: step %s had %d attempts, want %d", name, step, n[step], wantN)
				}
			}
			if got := resultHash(t, dir); got != want {
				t.Errorf("killed in %s: the workspace is another than that of an undisturbed run", name)
			}
			integrity(t, "killed in "+name, filepath.Join(dir, ".flow", "flow.db"))
			nothingLeft(t, "resumed after a kill in "+name, dir)
		}
	})
}

// TestTwoResumes: the second resume of a living run is refused and says who has it.
func TestTwoResumes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "two.yaml", `name: two
sandbox: {driver: host}
defaults: {shell: sh}
steps:
  - id: only
    run: |
      echo "attempt $FLOW_ATTEMPT runs"
      [ "$FLOW_ATTEMPT" = 3 ] || sleep 50
`)
	p := start(t, dir, "run", "--output", "plain", "two.yaml")
	p.until("attempt 1 runs")
	if out, code := flow(t, dir, "resume"); code != 2 || !strings.Contains(out, fmt.Sprint(p.cmd.Process.Pid)) {
		t.Errorf("a resume beside the run: exit %d, and it does not name process %d:\n%s", code, p.cmd.Process.Pid, out)
	}
	p.signal(syscall.SIGKILL)
	p.end()
	q := start(t, dir, "resume", "--output", "plain")
	q.until("attempt 2 runs")
	out, code := flow(t, dir, "resume")
	if code != 2 || !strings.Contains(out, fmt.Sprint(q.cmd.Process.Pid)) {
		t.Errorf("a second resume: exit %d, and it does not name process %d:\n%s", code, q.cmd.Process.Pid, out)
	}
	t.Logf("the second resume says: %s", strings.TrimSpace(out))
	q.signal(syscall.SIGKILL)
	q.end()
	if out, code := flow(t, dir, "resume", "--output", "plain"); code != 0 {
		t.Errorf("the third resume, alone: exit %d\n%s", code, out)
	}
}

const stopFile = `name: stop
sandbox: {driver: DRIVER}
defaults: {timeout: 1m, shell: sh}
steps:
  - id: long
    run: |
      echo "attempt $FLOW_ATTEMPT runs"
      [ "$FLOW_ATTEMPT" -gt 1 ] || sleep 50
  - {id: after, run: echo after}
finally:
  - id: tidy
    run: |
      echo "tidy runs"
      [ "$FLOW_ATTEMPT" -gt 1 ] || sleep TIDY
      echo "tidy is done"
`

// TestStopped: Ctrl-C and SIGTERM end the step, run `finally` within the grace
// time, exit 130 and 143, and leave a run that is interrupted and resumes. A
// second one, or the end of the grace time, ends `finally` too.
func TestStopped(t *testing.T) {
	t.Parallel()
	drivers(t, func(t *testing.T, driver string) {
		for _, c := range []struct {
			name, tidy, grace string
			first, second     syscall.Signal
			code              int
			tidied            bool
		}{
			{name: "Ctrl-C", tidy: "0", grace: "10s", first: syscall.SIGINT, code: 130, tidied: true},
			{name: "SIGTERM", tidy: "0", grace: "10s", first: syscall.SIGTERM, code: 143, tidied: true},
			{name: "Ctrl-C twice", tidy: "50", grace: "50s", first: syscall.SIGINT, second: syscall.SIGINT, code: 130},
			{name: "SIGTERM, finally too slow", tidy: "50", grace: "100ms", first: syscall.SIGTERM, code: 143},
		} {
			dir := t.TempDir()
			write(t, dir, "stop.yaml", strings.NewReplacer("DRIVER", driver, "TIDY", c.tidy).Replace(stopFile))
			p := start(t, dir, "run", "--output", "plain", "--grace", c.grace, "stop.yaml")
			p.until("attempt 1 runs")
			p.signal(c.first)
			if c.second != 0 {
				p.until("tidy runs")
				p.signal(c.second)
			}
			code, out := p.end()
			if code != c.code {
				t.Errorf("%s: exit %d, want %d\n%s", c.name, code, c.code, out)
			}
			if got := strings.Contains(out, "tidy is done"); got != c.tidied {
				t.Errorf("%s: finally ended by itself: %v, want %v\n%s", c.name, got, c.tidied, out)
			}
			if !strings.Contains(out, "flow resume") || strings.Contains(out, "| after") {
				t.Errorf("%s: the next step ran, or nothing says how to go on:\n%s", c.name, out)
			}
			if out, _ := flow(t, dir, "runs"); !strings.Contains(out, "interrupted") {
				t.Errorf("%s: flow runs does not say interrupted:\n%s", c.name, out)
			}
			nothingLeft(t, c.name, dir)
			if out, code := flow(t, dir, "resume", "--output", "plain"); code != 0 || !strings.Contains(out, "| after") {
				t.Errorf("%s: flow resume: exit %d\n%s", c.name, code, out)
			}
			nothingLeft(t, c.name, dir)
		}
	})
}

// TestFollow: `flow logs -f` prints output while it comes, and ends with its run,
// also when that is killed, without asking again and again.
func TestFollow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "follow.yaml", `name: follow
sandbox: {driver: host}
defaults: {shell: sh, env: {GATE: "`+gate+`"}}
steps:
  - {id: first, run: "echo one; cat $GATE; printf half"}
  - {id: second, run: "echo two; cat $GATE; sleep 50"}
`)
	run := start(t, dir, "run", "--output", "plain", "follow.yaml")
	run.until("one")
	logs := start(t, dir, "logs", "-f")
	logs.until("one")
	open := func() { // a reader is there: the step is at its gate
		t.Helper()
		if err := os.WriteFile(gate, []byte("through\n"), 0); err != nil {
			t.Fatal(err)
		}
	}
	open()
	logs.until("through")
	logs.until("half")
	logs.until("two")
	open()
	logs.until("through")
	run.signal(syscall.SIGKILL)
	run.end()
	if code, out := logs.end(); code != 0 {
		t.Errorf("flow logs -f: exit %d after the run was killed\n%s", code, out)
	}
	if out, _ := flow(t, dir, "runs", "--json"); !strings.Contains(out, `"steps_done": 1`) || !strings.Contains(out, `"steps_total": 2`) {
		t.Errorf("flow runs counts wrongly:\n%s", out)
	}
}
