package egress

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
)

// BenchmarkLatency is one request on a connection of its own, over TLS: directly,
// through a tunnel, and with a credential put in; and over plain HTTP.
func BenchmarkLatency(b *testing.B) {
	w := newWorld(b, "good.test", "api.test")
	answer := func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "ok") }
	direct := map[string]string{}
	for _, host := range []string{"good.test", "api.test"} {
		direct["https://"+host] = w.https(host, answer).Listener.Addr().String()
		direct["http://"+host] = w.http(host, answer).Listener.Addr().String()
	}
	p, addr := w.proxy(Options{Intercept: []string{"api.test"}})
	c := w.admit(p, ClientConfig{Policy: w.policy(Rule{Host: "good.test"}, Rule{Host: "api.test"}), Credentials: []Credential{{Name: "A", Host: "api.test", Value: secretValue}}})
	for _, x := range []struct {
		name, url     string
		proxied, keep bool
	}{
		{"http/direct", "http://good.test", false, false}, {"http/proxied", "http://good.test", true, false},
		{"https/direct", "https://good.test", false, false}, {"https/proxied", "https://good.test", true, false}, {"https/injected", "https://api.test", true, false},
		{"kept/http/direct", "http://good.test", false, true}, {"kept/http/proxied", "http://good.test", true, true},
		{"kept/https/direct", "https://good.test", false, true}, {"kept/https/proxied", "https://good.test", true, true}, {"kept/https/injected", "https://api.test", true, true},
	} {
		b.Run(x.name, func(b *testing.B) {
			client := w.browser(addr, c)
			tr := client.Transport.(*http.Transport)
			tr.DisableKeepAlives = !x.keep
			if !x.proxied {
				tr.Proxy = nil
				tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, network, direct[x.url])
				}
				tr.TLSClientConfig = &tls.Config{RootCAs: w.roots}
			}
			for b.Loop() {
				resp, err := client.Get(x.url)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}
