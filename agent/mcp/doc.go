// Package mcp connects a conversation to the MCP servers of its step, for all
// providers: what a server may be asked for is decided here, on the host.
//
// Words: a server is a program in the sandbox that speaks over its stdin and stdout,
// or an address that is reached over HTTP; a tool of it is named mcp__SERVER__TOOL.
//
// Invariants:
//
//  1. A program runs in the sandbox, with the step's rights, environment and network,
//     and ends with the conversation. An address is reached through Request.HTTP only,
//     and no redirect is followed.
//  2. Only tools that the policy allows are offered (Specs), and every call is judged
//     again before the server is asked (Call).
//  3. A server that does not start, and an allowed tool that it does not have, are an
//     *agent.Error before the model is asked for anything.
//  4. What a server says is bounded: its messages, the number and size of its tools,
//     and the text of a result. Its name for a tool is made into one that the API takes.
//  5. A server is asked for its tools once: what it offers later is not offered.
//
// Imports of this module: agent, agent/child, agent/tools and sandbox.
package mcp
