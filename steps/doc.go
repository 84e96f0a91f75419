// Package steps does what the engine decided: one file a kind of step (run,
// agent), and the sandboxes that they run in.
//
// Words: a Host serves one run; the kinds table maps a step's kind to the
// function that executes one attempt of it; a room is a kind of sandbox (the run's, or a
// named one), a member one living sandbox of it, the house all of them; a fork is the
// place of an attempt outside of the run's own sandbox.
//
// Invariants:
//
//  1. The sandbox is made when the first step needs it, retried for
//     infrastructure errors only, checked by really running `echo` (where there is
//     isolation that could be broken), and closed whatever happens.
//  2. Nothing leaves this package unredacted: output, logs, errors, outputs and
//     commands pass through the run's redact.Set. Checkpoints stay exact.
//  3. An attempt's output is durable before Run returns.
//  4. A lost sandbox is an infrastructure failure of the attempt; the next
//     attempt starts in a new one, restored from the newest checkpoint.
//  5. The house is never fuller than max_sandboxes says, and nobody waits for ever: who
//     waits holds none, who holds one ends and gives it back, and what nobody uses makes
//     room.
//  6. A sandbox serves a second step only as it was made, but for the tree that it is
//     given: the run's own and a named one (reuse: run) are the exceptions, by design.
//
// Imports of this module: engine, workflow, sandbox, agent, checkpoint, redact.
package steps
