// Package tracer runs a program under ptrace and counts the system calls by which
// it makes something durable below a folder. Asked to, it kills the program at one
// of them, before the call takes effect: the most exact kill -9 there is.
//
// Invariants:
//
//  1. Threads of the program are traced, its children are not.
//  2. Trace waits for any child of its process, so the process must have no other:
//     a test runs itself again as the tracer (Env, Main).
package tracer

import (
	"encoding/json"
	"fmt"
	"io"
)

// Env holds a Job as JSON; a test binary that finds it set calls Main.
const Env = "FLOW_TEST_TRACER"

// Job is a program to run.
type Job struct {
	Argv []string
	Dir  string
	// Under is the folder whose files count.
	Under string
	// KillAt is the number of the call at which the program is killed, 0 for never.
	KillAt int
	// FailAt is the number of the call that fails with Errno instead of taking
	// effect, 0 for none; with FailOn all that come after it do, as on a full disk.
	FailAt int
	FailOn bool
	Errno  int
	// Tree counts, instead of what is made durable, the calls by which a sandbox is made,
	// of the program and of all its descendants. The program is killed at one of them, in
	// whatever process, and the descendants are let go.
	Tree bool
}

// Result is what it did.
type Result struct {
	Calls    int
	ByName   map[string]int // write, truncate, fsync, rename, mkdir, unlink
	Killed   bool
	Failed   int // calls that were made to fail
	ExitCode int // 128 plus the signal where one ended it
	PID      int // of the program, with Job.Tree
}

// Main runs the job of Env's text, prints the result as the last line of w, and
// returns the exit code of the tracer itself.
func Main(text string, w io.Writer) int {
	var job Job
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		fmt.Fprintln(w, err)
		return 2
	}
	res, err := Trace(job)
	if err != nil {
		fmt.Fprintln(w, err)
		return 2
	}
	if err := json.NewEncoder(w).Encode(res); err != nil {
		return 2
	}
	return 0
}
