// Package loop is our own conversation loop, shared by the providers that bring a
// model only (anthropic, replay).
//
// A turn is one request to the Model with its answer and the results of the tools
// that it called.
//
// Invariants:
//
//  1. The model is offered the tools that the policy offers, and no other; every
//     call is judged before it is executed; a denial is a result for the model, is
//     rendered, and is in Result.Denials.
//  2. The calls of one answer are executed one after the other, in their order: they
//     share the workspace, and two edits of a file must not race.
//  3. Content blocks stay as they came (raw JSON), so that blocks unknown to this
//     program (thinking with its signature, new kinds) go back unchanged.
//  4. Request.Turn is called once for each complete turn, in order, before the next
//     request; its error ends the conversation. Usage counts every answer.
//  5. Only end_turn and stop_sequence are success. max_tokens, refusal, a full
//     context window and an unknown stop reason are failures; pause_turn goes on.
//  6. MCP servers are connected before the first request and end with the conversation;
//     what they offer is judged and executed like the other tools.
//  7. When a conversation no longer fits, old results of tools are left out of it; calls
//     and results stay in pairs, the turn says it, and a resume leaves out the same.
//  8. Every error is an *agent.Error.
//
// Imports of this module: agent, agent/mcp, agent/screen, agent/tools and sandbox.
package loop
