// Package report shows runs: live (plain lines, JSON lines, a view on a
// terminal) and afterwards (runs, show, plan, logs), each also as JSON.
//
// Words: a Reporter follows one run while it happens; a view (RunRow, RunView,
// StepRow, PlanView) is plain data that a command prints, as text or as the same
// struct in JSON; Style says how text may look (width, colour, ASCII only).
//
// Invariants:
//
//  1. Observe never waits for the terminal or the pipe. What is not written yet
//     lies in a buffer; only Output waits when that buffer is full, so that a slow
//     reader slows the step that writes and nothing else. Once the run was asked
//     to stop, Output does not wait either (sink.go): a reader that stands still
//     cannot keep a run from ending.
//  2. A reader that went away (EPIPE) does not end the run. The first error is
//     kept and returned by Close; the caller must ignore SIGPIPE, or the Go
//     runtime ends the process at the first such write to file 1 or 2.
//  3. Text of others (output, errors, names, paths) never moves the cursor, sets
//     the title or asks the terminal anything: escape sequences are removed,
//     colours (SGR) stay only where the output of steps may be coloured, other
//     control characters are written as \xNN (scrub.go).
//  4. The last line of a run in plain and tui counts the denied tool calls; the
//     last object in json is the result with its exit code and class.
//  5. What comes in is redacted already; nothing here sees a secret.
//  6. Memory does not grow with a run's output; it grows with its number of steps.
//  7. No terminal is asked anything at start-up, and none is put into raw mode:
//     Ctrl-C stays a signal.
//
// Imports: of this module workflow and engine; the tui alone needs charm's
// libraries.
package report
