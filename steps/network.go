package steps

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"

	"flowrun.dev/flow/egress"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// networkOf is that of a room's sandboxes: the host's as soon as one of its steps has it. The
// others are then refused sockets (reaching), or the preflight has refused the file.
func networkOf(list []*workflow.Step) sandbox.Network {
	if stepWith(list, workflow.NetworkFull) != nil {
		return sandbox.NetworkFull
	}
	return sandbox.NetworkNone
}

// reaching is the sandbox as one attempt sees it: held to the step's network.
type reaching struct {
	sandbox.Sandbox
	noSockets bool
	env       []string // beside BaseEnv
	// placeholders stand for the secrets that are put in outside, by name.
	placeholders map[string]string
	client       *egress.Client // nil: it reaches nothing
}

// BaseEnv is the sandbox's, and how programs find the way out.
func (r *reaching) BaseEnv() []string { return append(r.Sandbox.BaseEnv(), r.env...) }

// Exec runs a command with the step's network.
func (r *reaching) Exec(ctx context.Context, c sandbox.Cmd) (sandbox.Result, error) {
	c.Rights.NoSockets = c.Rights.NoSockets || r.noSockets
	return r.Sandbox.Exec(ctx, c)
}

// secretFor is what a step gets as the value of a secret that it names.
func (h *Host) secretFor(sb sandbox.Sandbox, name string) (value string, ok bool) {
	for _, s := range h.cfg.Workflow.Secrets {
		if s.Name == name && s.Inject != nil {
			r, _ := sb.(*reaching)
			if r == nil {
				return "", false // never the value
			}
			value, ok = r.placeholders[name]
			return value, ok
		}
	}
	value, ok = h.cfg.Secrets[name]
	return value, ok
}

// connect gives an attempt its network. left ends it, and tells what was decided.
func (h *Host) connect(ctx context.Context, sb sandbox.Sandbox, a engine.Attempt, emit func(engine.Body)) (on sandbox.Sandbox, left func(), err error) {
	switch a.Step.Network.Mode {
	case workflow.NetworkFull:
		return sb, func() {}, nil
	case workflow.NetworkAllow:
		return h.connectTo(ctx, sb, a, emit)
	}
	if r := h.roomOf(a.Step); r.network == sandbox.NetworkFull && r.Capabilities.SocketRights {
		return &reaching{Sandbox: sb, noSockets: true}, func() {}, nil
	}
	return sb, h.moveIn(sb.Info().ID, nil), nil
}

func (h *Host) connectTo(ctx context.Context, sb sandbox.Sandbox, a engine.Attempt, emit func(engine.Body)) (on sandbox.Sandbox, left func(), err error) {
	fail := func(err error) (sandbox.Sandbox, func(), error) {
		var se *sandbox.Error
		if !errors.As(err, &se) {
			err = &sandbox.Error{Op: "give the step its network", Class: sandbox.ClassInvalid, Err: err}
		}
		return nil, nil, err
	}
	door, err := h.door(ctx, sb)
	if err != nil {
		return fail(err)
	}
	policy, err := policyOf(a.Step.Network)
	if err != nil {
		return fail(err)
	}
	d := &decisions{step: a.Step.ID, attempt: a.Attempt, host: h, emit: emit}
	client, err := h.proxy.Client(egress.ClientConfig{Policy: policy, Credentials: h.credentials(a.Step), Report: d.first})
	if err != nil {
		return fail(err)
	}
	env := client.Env(door)
	if len(client.Placeholders()) > 0 {
		alone, bundle := sandbox.TrustFile, sandbox.TrustBundle
		if t, ok := sb.(sandbox.Truster); ok {
			alone, bundle = t.TrustFiles()
		}
		env = append(env, egress.TrustEnv(alone, bundle)...)
	}
	moveOut := h.moveIn(sb.Info().ID, client)
	on = &reaching{Sandbox: sb, env: env, placeholders: client.Placeholders(), client: client}
	return on, func() { moveOut(); d.last(client.Close()) }, nil
}

func policyOf(n workflow.Network) (*egress.Policy, error) {
	var rules []egress.Rule
	for _, a := range n.Allow {
		rules = append(rules, egress.Rule{Host: a.Host, Ports: a.Ports, Methods: a.Methods, Paths: a.Paths})
	}
	return egress.NewPolicy(rules)
}

func (h *Host) credentials(s *workflow.Step) (out []egress.Credential) {
	for _, name := range s.Secrets {
		for _, x := range h.cfg.Workflow.Secrets {
			if x.Name == name && x.Inject != nil {
				out = append(out, egress.Credential{Name: name, Host: x.Inject.Target(), Header: x.Inject.Header, Format: x.Inject.Format, Value: h.cfg.Secrets[name]})
			}
		}
	}
	return out
}

// caught ports: those of the web, and the low ones that a list names. Higher ones
// are left to what the steps themselves listen on; there the proxy has to be asked.
func (r *room) catchPorts() []int {
	if r.network != sandbox.NetworkNone || !r.Capabilities.Catch {
		return nil
	}
	var ports []int
	for _, s := range r.steps {
		if s.Network.Mode != workflow.NetworkAllow {
			continue
		}
		ports = append(ports, 80, 443)
		for _, a := range s.Network.Allow {
			for _, port := range a.Ports {
				if port < 1024 && port != 53 {
					ports = append(ports, port)
				}
			}
		}
	}
	slices.Sort(ports)
	ports = slices.Compact(ports)
	return ports[:min(len(ports), maxCatch)]
}

// maxCatch ports of a run; more are reached through the proxy only.
const maxCatch = 32

// watch serves what the sandbox's network catches.
func (h *Host) watch(r *room, sb sandbox.Sandbox) error {
	catcher, ok := sb.(sandbox.Catcher)
	if !ok || len(r.catch) == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.makeProxy(); err != nil {
		return err
	}
	id, p := sb.Info().ID, h.proxy
	who := func() *egress.Client { return h.tenant(id) }
	streams, names := catcher.Caught()
	// They end with the sandbox.
	for _, l := range streams {
		go func() { _ = p.ServeCaught(l, who) }()
	}
	if names != nil {
		go func() { _ = p.ServeNames(names, who) }()
	}
	return nil
}

// tenants are the attempts in one sandbox.
type tenants map[*egress.Client]int

// moveIn registers an attempt (nil: one that reaches nothing) in a sandbox, so that
// what programs without a token connect to has its step.
func (h *Host) moveIn(sandboxID string, c *egress.Client) (moveOut func()) {
	h.tenantsMu.Lock()
	defer h.tenantsMu.Unlock()
	if h.tenants == nil {
		h.tenants = map[string]tenants{}
	}
	in := h.tenants[sandboxID]
	if in == nil {
		in = tenants{}
		h.tenants[sandboxID] = in
	}
	in[c]++
	return func() {
		h.tenantsMu.Lock()
		defer h.tenantsMu.Unlock()
		if in[c]--; in[c] == 0 {
			delete(in, c)
		}
	}
}

// tenant is the only attempt in a sandbox, nil where there are several or none: then
// nobody can tell whose a connection is.
func (h *Host) tenant(sandboxID string) *egress.Client {
	h.tenantsMu.Lock()
	defer h.tenantsMu.Unlock()
	in := h.tenants[sandboxID]
	if len(in) != 1 {
		return nil
	}
	for c := range in {
		return c
	}
	return nil
}

// door is the address inside a sandbox at which the proxy listens.
func (h *Host) door(ctx context.Context, sb sandbox.Sandbox) (net.Addr, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := sb.Info().ID
	if addr := h.doors[id]; addr != nil {
		return addr, nil
	}
	if err := h.makeProxy(); err != nil {
		return nil, err
	}
	l, err := sb.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	// It ends with the sandbox or with the proxy.
	go func(p *egress.Proxy) { _ = p.Serve(l) }(h.proxy)
	if h.doors == nil {
		h.doors = map[string]net.Addr{}
	}
	h.doors[id] = l.Addr()
	return l.Addr(), nil
}

// makeProxy makes the run's proxy. Callers hold mu.
func (h *Host) makeProxy() (err error) {
	if h.proxy != nil {
		return nil
	}
	var intercept []string
	for _, s := range h.cfg.Workflow.Secrets {
		if s.Inject != nil {
			intercept = append(intercept, s.Inject.Target())
		}
	}
	h.proxy, err = egress.New(egress.Options{Reach: h.cfg.Reach, Roots: h.cfg.Roots, Intercept: intercept})
	return err
}

// trust is the authority that a room's sandboxes trust, nil where no secret is
// injected.
func (h *Host) trust(r *room) ([]byte, error) {
	if !slices.ContainsFunc(h.cfg.Workflow.Secrets, func(s workflow.Secret) bool { return s.Inject != nil }) {
		return nil, nil // without a look at each step, for each fork
	}
	for _, s := range r.steps {
		if len(h.credentials(s)) == 0 {
			continue
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if err := h.makeProxy(); err != nil {
			return nil, err
		}
		return h.proxy.CertPEM(), nil
	}
	return nil, nil
}

// forgetDoor: a sandbox has ended, and the listener in it.
func (h *Host) forgetDoor(sandboxID string) {
	h.mu.Lock()
	delete(h.doors, sandboxID)
	h.mu.Unlock()
	h.tenantsMu.Lock()
	delete(h.tenants, sandboxID)
	h.tenantsMu.Unlock()
}

// closeProxy ends the way out. mu is held.
func (h *Host) closeProxy() {
	if h.proxy != nil {
		h.proxy.Close()
		h.proxy, h.doors = nil, nil
	}
}

// decisions turns those of one attempt into events.
type decisions struct {
	step    string
	attempt int
	host    *Host

	mu   sync.Mutex
	emit func(engine.Body) // nil once the attempt has ended
}

func (d *decisions) body(e egress.Entry) engine.Egress {
	r := d.host.cfg.Redact
	return engine.Egress{Step: d.step, Attempt: d.attempt, Host: r.String(e.Host), Port: e.Port, Verdict: string(e.Verdict),
		Reason: r.String(e.Reason), Count: e.Count, Sent: e.Sent, Received: e.Received}
}

func (d *decisions) first(e egress.Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.emit != nil {
		d.emit(d.body(e))
	}
}

// last tells how often the decisions fell, where that is not known already.
func (d *decisions) last(entries []egress.Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range entries {
		if e.Count > 1 || e.Sent+e.Received > 0 {
			d.emit(d.body(e))
		}
	}
	d.emit = nil
}
