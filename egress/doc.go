// Package egress is the one way out of a sandbox whose steps may reach some hosts
// of the network and no others (`network: {allow: [...]}`).
//
// A Proxy runs in flow, outside of every sandbox. It serves listeners that lie
// inside a sandbox's network (sandbox.Sandbox.Listen). A Client is what one attempt
// of a step may reach; each connection belongs to exactly one.
//
// Ways in: a proxy request (CONNECT, or a plain HTTP request in absolute form) with
// the Client's token in Proxy-Authorization; or, for programs that know no proxy, a
// connection that the sandbox's network caught (ServeCaught) together with a DNS
// server that never asks anybody (ServeDNS).
//
// Invariants:
//
//  1. What a Client's Policy does not allow is not connected to, whatever way the
//     request takes. No name is resolved before it is allowed.
//  2. The authority of CONNECT, or of the request's URL, decides. Where what
//     follows can be read, it must agree: the SNI of TLS, the Host of HTTP. On
//     the ports 80 and 443 what cannot be read is refused.
//  3. Names are resolved here and dialled by address, so that an answer cannot
//     change in between. Addresses of this machine (loopback, link-local, those of
//     its interfaces), of cloud metadata services and such that are no
//     unicast address are never dialled; private ones only for a name that the
//     policy spells out, not for a wildcard.
//  4. Plain HTTP is parsed and written anew, request by request: what the server
//     gets has one meaning (no smuggling), and each request is decided by itself.
//  5. TLS is opened only for a host to which a credential of the Client is bound,
//     with a certificate of an authority that exists for this process alone. The
//     credential goes into requests to that host and nowhere else; where an
//     answer holds it, it is replaced by redact.Mark.
//  6. Every decision is counted in the Client's ledger. The number of its entries,
//     the connections of a Client, and the memory of a connection are bounded.
//  7. Client.Close ends all its connections and waits for them.
//
// Not promised: an allowed host may pass on what it is sent (a package registry
// that takes uploads, a CDN that serves other names behind the same address); the
// inner name of an encrypted ClientHello cannot be seen.
//
// Source: design page "Sandboxes" (Egress), facts "Local sandbox technology".
package egress
