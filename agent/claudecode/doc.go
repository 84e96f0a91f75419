// Package claudecode is the agent provider `claude-code`: the real CLI, as a child
// in the run's sandbox, with this process as the judge of its tool calls.
//
// Words: the CLI is Anthropic's `claude` program; the control protocol is JSON lines
// both ways over its stdin and stdout; the gateway is the only way to the model's API.
//
// Invariants:
//
//  1. Only the tools that the policy offers are on the CLI's command line (--tools);
//     a CLI that says it has another one is ended before it is asked anything.
//  2. Every call is judged here, in a PreToolUse hook whose failure blocks. A CLI
//     that does not confirm that it knows such hooks is not used.
//     The step's MCP servers are connected here (package mcp), and the CLI reaches their
//     allowed tools through us.
//  3. Nothing of the workspace configures the CLI: no setting source, no MCP server of its own,
//     no CLAUDE.md, one configuration directory of its own for each attempt.
//  4. The key of the API is not in the sandbox. The CLI gets the conversation's token
//     over its stdin, never in its arguments or environment, and children cannot
//     open its stdin and stdout, which are a socket.
//  5. A turn is what went over the wire: one answer of the API, and the results that
//     the next request holds. That request waits until Request.Turn has returned.
//  6. Success is exit code 0, no is_error, and an answer that ended by itself.
//     Everything else is an *agent.Error (outcome.go).
//
// Measured with version 2.1.330; other versions are used when they pass 1 and 2.
//
// Imports of this module: agent, agent/anthropic, agent/child, agent/gateway,
// agent/loop, agent/mcp, agent/replay, agent/screen, agent/tools and sandbox.
package claudecode
