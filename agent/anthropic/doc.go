// Package anthropic holds conversations over the Messages API, by the official Go
// SDK, streaming.
//
// Invariants:
//
//  1. It reads no environment variable, file or profile: what it uses is in Options.
//  2. The key is the gateway's: requests carry a token of their step, and what is
//     spent is counted and bounded there.
//  3. An answer counts only when it came whole (message_stop): a stream that breaks
//     off is an error of class infrastructure, never a short answer.
//  4. System prompt and the last user message carry cache marks, so that a turn pays
//     for what is new in it.
//
// Imports of this module: agent, agent/gateway and agent/loop.
package anthropic
