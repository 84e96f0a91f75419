package steps

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// way is how this process makes a request for a step (to an MCP server): with the step's
// network, as if the step had made it. The zero way leads nowhere.
type way struct {
	http *http.Transport
	door net.Listener
}

// way out of an attempt. A list of hosts is kept, and secrets are put in, by the run's
// proxy, through a door of its own on this host; it asks for the attempt's token, like
// the one inside.
func (h *Host) way(sb sandbox.Sandbox, a engine.Attempt) (*way, error) {
	if !slices.ContainsFunc(a.Step.Agent.MCPServers, func(m workflow.MCPServer) bool { return m.URL != "" && a.Step.Agent.Uses(m.Name) }) {
		return &way{}, nil
	}
	switch on, _ := sb.(*reaching); {
	case a.Step.Network.Mode == workflow.NetworkFull:
		return &way{http: http.DefaultTransport.(*http.Transport).Clone()}, nil
	case on == nil || on.client == nil:
		return &way{}, nil
	default:
		return h.wayThrough(on)
	}
}

func (h *Host) wayThrough(on *reaching) (*way, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.proxy == nil {
		return &way{}, nil
	}
	roots := h.cfg.Roots
	if roots == nil {
		var err error
		if roots, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("read this machine's certificates: %w", err)
		}
	}
	roots = roots.Clone()
	roots.AppendCertsFromPEM(h.proxy.CertPEM())
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open a door to the network: %w", err)
	}
	proxy, err := url.Parse(on.client.URL(door.Addr()))
	if err != nil {
		_ = door.Close()
		return nil, fmt.Errorf("open a door to the network: %w", err)
	}
	go func(p interface{ Serve(net.Listener) error }) { _ = p.Serve(door) }(h.proxy) // ends with close
	return &way{door: door, http: &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}, nil
}

func (w *way) transport() http.RoundTripper {
	if w.http == nil {
		return nil
	}
	return w.http
}

func (w *way) close() {
	if w.http != nil {
		w.http.CloseIdleConnections()
	}
	if w.door != nil {
		_ = w.door.Close()
	}
}
