// Package acp is the agent provider `acp`: any agent that speaks the Agent Client
// Protocol over its stdin and stdout, as a child in the run's sandbox.
//
// Words: the agent is the program that the step names (`command`); a request is what
// it asks us to do or to allow: read or write a file, run a command in a terminal,
// permit a call of a tool of its own.
//
// Invariants:
//
//  1. Every request is judged by the step's policy before it is executed or permitted;
//     what cannot be judged is denied; files are read and written, and terminals run,
//     in the sandbox by package agent/tools and Sandbox.Exec.
//  2. A permission is given once, never for always.
//  3. The agent has tools of its own that need not ask. What a step allows is therefore
//     bounded by the system's rights as well, and rules that only a judge could keep
//     (patterns of commands, files that must not be read) are refused by Check.
//  4. No key enters the sandbox: the agent's environment has the address of the
//     gateway and the conversation's token.
//  5. A prompt is one turn: the protocol says nothing of requests to a model. A
//     conversation that was cut off begins anew.
//
// Imports of this module: agent, agent/child, agent/gateway, agent/loop, agent/screen,
// agent/tools and sandbox.
package acp
