// Package agenttest tests providers: a conformance suite that every agent.Provider
// runs (Run), a scripted Messages API on loopback (NewServer), and a sandbox.
//
// It is linked into tests only.
package agenttest
