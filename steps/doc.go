// Package steps does what the engine decided: one file a kind of step (run,
// agent), and the one sandbox that they share.
//
// Words: a Host serves one run; the kinds table maps a step's kind to the
// function that executes one attempt of it.
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
//
// Imports of this module: engine, workflow, sandbox, agent, checkpoint, redact.
package steps
