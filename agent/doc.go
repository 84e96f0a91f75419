// Package agent holds one conversation of a coding agent inside a sandbox.
//
// Words: a Provider holds conversations (anthropic, replay; later claude-code,
// acp); a Policy is the step's tool allowlist; a Transcript is the conversation
// as the host keeps it, turn by turn.
//
// Invariants:
//
//  1. A tool that the Policy does not allow is not offered to the model.
//  2. Every call is judged by the Policy before it is executed; what cannot be
//     judged is denied; each denial is reported.
//  3. Tools are executed in the sandbox, by Sandbox.Exec, never on the host.
//  4. No key enters the sandbox.
//
// Imports of this module: sandbox and redact.
package agent
