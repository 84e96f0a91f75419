package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flowrun.dev/flow/cmd/flow/internal/tracer"
)

// crashFile has four steps in a row and two side by side; every step leaves a
// line, so that a step that ran twice, or not at all, shows in the last one's sum.
const crashFile = `name: crash
sandbox: {driver: DRIVER}
defaults: {timeout: 1m, shell: sh}
steps:
  - {id: one, run: "echo one >> lines; head -c 300000 /dev/zero > big"}
  - {id: two, run: "echo two >> lines; echo deep > sub"}
  - {id: left, needs: [two], run: "echo left > left"}
  - {id: right, needs: [two], run: "echo right > right"}
  - {id: three, run: "echo three >> lines; rm sub; ln -s lines link"}
  - {id: sum, run: "cat lines left right; readlink link; wc -c < big; ls"}
`

const crashSum = "one\ntwo\nthree\nleft\nright\nlines\n300000\nbig\nleft\nlines\nlink\nright\n"

// crashRounds bounds the number of kill points tried for one driver; where a run
// has more, every Nth is taken, with another offset for each driver. With
// FLOW_LONG=1 every single one is.
const crashRounds = 12

// TestKillAtEveryDurableCall kills the real binary at each of the calls by which
// it makes something durable, looks at what is left, resumes, and checks that
// nothing that was recorded as done ran again and nothing was lost.
func TestKillAtEveryDurableCall(t *testing.T) {
	if testing.Short() {
		t.Skip("minutes of kills; -short")
	}
	// The last two are other ways to share sandboxes, in the words of the file.
	for i, driver := range []string{"host", "local", "host, reuse: pool, pool: {size: 2, warm: true}", "local, reuse: step"} {
		t.Run(driver, func(t *testing.T) {
			if strings.HasPrefix(driver, "local") && !sandboxWorks() {
				t.Skip("the local sandbox does not work on this machine")
			}
			ref := crashRun(t, driver, 0)
			if ref.ExitCode != 0 {
				t.Fatalf("reference run: exit %d", ref.ExitCode)
			}
			rounds := crashRounds
			if i > 1 {
				rounds = crashRounds / 4
			}
			step := max(1, ref.Calls/rounds)
			if os.Getenv("FLOW_LONG") != "" {
				step = 1
			}
			points := 0
			for at := 1 + i%step; at <= ref.Calls; at += step {
				crashRun(t, driver, at)
				points++
			}
			t.Logf("%s: %d durable calls in the reference run %v, %d killed runs", driver, ref.Calls, ref.ByName, points)
		})
	}
}

// crashRun runs the file in a new project, killed at the given call, then
// resumes it to its end.
func crashRun(t *testing.T, driver string, at int) tracer.Result {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "crash.yaml", strings.Replace(crashFile, "DRIVER", driver, 1))
	res := traced(t, tracer.Job{Argv: []string{flowBinary(t), "run", "--output", "plain", "crash.yaml"}, Dir: dir,
		Under: filepath.Join(dir, ".flow"), KillAt: at})
	where := fmt.Sprintf("%s, killed at call %d", driver, at)
	if at > 0 && !res.Killed {
		// Fewer calls than in the reference run: group commits differ. It must have succeeded then.
		if res.ExitCode != 0 {
			t.Fatalf("%s: not killed, exit %d", where, res.ExitCode)
		}
	}
	nothingLeft(t, where, dir)
	finishAfterKill(t, where, dir)
	return res
}

func traced(t *testing.T, job tracer.Job) tracer.Result {
	t.Helper()
	b, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), tracer.Env+"="+string(b))
	var text strings.Builder
	cmd.Stderr = &text
	if err := cmd.Run(); err != nil {
		t.Fatalf("tracer: %v\n%s", err, text.String())
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	var res tracer.Result
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &res); err != nil {
		t.Fatalf("tracer: %v\n%s", err, text.String())
	}
	return res
}

// finishAfterKill resumes the newest run, if the kill left one that is not done,
// and checks the promises.
func finishAfterKill(t *testing.T, where, dir string) {
	t.Helper()
	db := filepath.Join(dir, ".flow", "flow.db")
	before := map[string]int{}
	if _, err := os.Stat(db); err == nil {
		before = doneAttempts(t, where, db)
	}
	if out, code := flow(t, dir, "runs", "--json"); code != 0 {
		t.Fatalf("%s: flow runs: exit %d\n%s", where, code, out)
	}
	if status := latestStatus(t, dir); status != "succeeded" {
		args := []string{"resume", "--output", "plain"}
		if status == "" { // killed before the run was recorded at all
			args = []string{"run", "--output", "plain", "crash.yaml"}
		}
		if out, code := flow(t, dir, args...); code != 0 {
			t.Fatalf("%s (status %q): flow %s: exit %d\n%s", where, status, args[0], code, out)
		}
	}
	for step, n := range doneAttempts(t, where, db) {
		if b, ok := before[step]; ok && n != b {
			t.Errorf("%s: step %s was recorded as done after %d attempts and has %d now: it ran again", where, step, b, n)
		}
	}
	out, code := flow(t, dir, "logs", "latest", "sum", "--raw")
	if code != 0 || out != crashSum {
		t.Errorf("%s: the workspace at the end differs (exit %d):\n%s", where, code, out)
	}
	integrity(t, where, db)
	nothingLeft(t, where, dir)
}

// latestStatus of the newest run, "" when there is none.
func latestStatus(t *testing.T, dir string) string {
	t.Helper()
	out, _ := flow(t, dir, "runs", "--json")
	var runs []struct{ Status string }
	if err := json.Unmarshal([]byte(out), &runs); err != nil {
		t.Fatalf("flow runs --json: %v\n%s", err, out)
	}
	if len(runs) == 0 {
		return ""
	}
	return runs[0].Status
}

// doneAttempts lists the steps that are done for good (succeeded, and covered by
// a checkpoint) in the newest run, with how many attempts they took.
func doneAttempts(t *testing.T, where, path string) map[string]int {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path+"?mode=ro&_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	out := map[string]int{}
	var tables int
	if err := db.QueryRow(`SELECT count(*) FROM sqlite_master WHERE name = 'events'`).Scan(&tables); err != nil || tables == 0 {
		return out // killed before the schema was there
	}
	rows, err := db.Query(`SELECT json_extract(body,'$.step'), json_extract(body,'$.attempt'), coalesce(json_extract(body,'$.checkpoint'),'')
		FROM events WHERE type = 'step_finished' AND json_extract(body,'$.outcome.status') = 'succeeded' ORDER BY seq`)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	defer rows.Close()
	open := map[string]int{}
	for rows.Next() {
		var step, checkpoint string
		var attempt int
		if err := rows.Scan(&step, &attempt, &checkpoint); err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		open[step] = attempt
		if checkpoint != "" { // covers all that ended before it
			for s, n := range open {
				out[s] = n
			}
		}
	}
	return out
}

func integrity(t *testing.T, where, path string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path+"?_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var word string
	if err := db.QueryRow(`PRAGMA integrity_check`).Scan(&word); err != nil || word != "ok" {
		t.Errorf("%s: integrity_check: %q %v", where, word, err)
	}
	var broken int
	if err := db.QueryRow(`SELECT count(*) FROM pragma_foreign_key_check`).Scan(&broken); err != nil || broken != 0 {
		t.Errorf("%s: foreign_key_check: %d rows, %v", where, broken, err)
	}
}

// nothingLeft fails when a process still has the project in its mounts, working
// directory or command line, when this process sees a mount below the project, or
// when a cgroup has a run of it in its name. The kernel takes a moment to end a
// namespace.
func nothingLeft(t *testing.T, where, dir string) {
	t.Helper()
	processesGone(t, where, dir, func() []string { return cgroupsOf(t, dir) })
}

// processesGone is nothingLeft with what else is to be gone.
func processesGone(t *testing.T, where, dir string, more func() []string) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		left := append(processesOf(dir), more()...)
		if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), dir) {
			left = append(left, "a mount")
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: left behind: %s", where, strings.Join(left, "; "))
		}
		<-time.After(5 * time.Millisecond)
	}
}

// cgroupsOf lists the control groups that are named after a run of the project.
func cgroupsOf(t *testing.T, dir string) []string {
	t.Helper()
	locks, err := filepath.Glob(filepath.Join(dir, ".flow", "locks", "*.lock"))
	if err != nil || len(locks) == 0 {
		return nil
	}
	var out []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil // not for this user, or gone
		}
		for _, l := range locks {
			if strings.Contains(e.Name(), strings.TrimSuffix(filepath.Base(l), ".lock")) {
				out = append(out, "cgroup "+path)
			}
		}
		return nil
	})
	return out
}

func processesOf(dir string) []string {
	var out []string
	entries, _ := os.ReadDir("/proc")
	self := fmt.Sprint(os.Getpid())
	for _, e := range entries {
		if e.Name()[0] < '0' || e.Name()[0] > '9' || e.Name() == self {
			continue
		}
		p := "/proc/" + e.Name()
		cmdline, _ := os.ReadFile(p + "/cmdline")
		cwd, _ := os.Readlink(p + "/cwd")
		mounts, _ := os.ReadFile(p + "/mountinfo")
		stat, _ := os.ReadFile(p + "/stat")
		if i := strings.LastIndexByte(string(stat), ')'); i > 0 && i+2 < len(stat) && stat[i+2] == 'Z' {
			continue // dead, its parent has not looked yet
		}
		if strings.Contains(string(cmdline), dir) || strings.HasPrefix(cwd, dir) || strings.Contains(string(mounts), dir) {
			out = append(out, e.Name()+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return out
}
