// Package workflow is the language: text → checked definition → plan. It knows
// nothing of running.
//
// Words: a Workflow is a checked file; a Step is one entry of its `steps` or
// `finally`; a Plan is the Workflow's steps as a graph, indexed by Node; an Expr
// is one compiled expression; a Template is a string with `${{ }}` in it; Vars
// are the values that expressions see.
//
// Invariants:
//
//  1. Parse reports every mistake of a file at once, as Diagnostics sorted by
//     position; with any error in them it returns no Workflow.
//  2. keys.go is the ONE table of keys that the parser reads; schema.json and
//     docs/language.md will come from it. A key of the language that does not work yet
//     is in the table with Supported=false and is rejected by name.
//  3. The verdict depends on the text alone (and the files that it names),
//     never on the machine.
//  4. Nothing here runs a step, opens a socket or reads the environment.
//
// Imports: yaml, expr, multierror; of this module
// nothing but redact.
package workflow
