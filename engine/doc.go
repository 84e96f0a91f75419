// Package engine decides. A run is its events: Apply folds them into a Run,
// Decide turns (plan, run, now) into actions, Loop appends events and then acts.
//
// Invariants:
//
//  1. Append, then act: step_started is durable before the process exists;
//     step_finished is appended after its output and its checkpoint are durable.
//     "k is done" and "k+1 starts" are one Append.
//  2. Decide is pure and total. Its rules stand above it and are asserted after
//     each call. Nothing but Apply changes a Run.
//  3. An impossible (state, event) pair is an error that carries its history.
//  4. Interrupted is not failed.
//  5. A run has one owner; what others want arrives through the inbox.
//
// Imports no os, net, database; of this module only workflow (and redact).
package engine
