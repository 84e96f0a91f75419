// Package gateway stands between conversations and the Messages API: on the host,
// for agents that run in the sandbox (as an http.Handler) and for our own loop (as an
// http.RoundTripper).
//
// Words: a Gateway knows one API and its key; a Session is one attempt of one step.
//
// Invariants:
//
//  1. The real key is added here, goes to the one base URL and nowhere else (no
//     redirect is followed), and is in no error and no answer. Whoever talks to the
//     gateway shows its session's token; without one nothing is forwarded.
//  2. Only POST /v1/messages and /v1/messages/count_tokens are forwarded. Their bodies
//     and all that is unknown in them pass unchanged, both ways; answers stream.
//  3. Tokens and cost are counted from the answers (streamed or not) into the
//     session's Account, when an answer ends or breaks off.
//  4. A request is refused, before it is forwarded, when a budget is spent or when a
//     budget in dollars holds and the model has no price. Nothing is guessed.
//  5. Before a request to the model is forwarded, Options.Before is asked: it holds the
//     request while a turn is stored, and may refuse it.
//
// Imports of this module: agent.
package gateway
