package egress

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"flowrun.dev/flow/redact"
)

const secretValue = "s3cret-value-of-the-day"

// TestInjection is abuse test 13: the value goes to its host and nowhere else.
func TestInjection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "api.test", "other.test", "b.test")
	w.https("api.test", hello("api"))
	w.http("api.test", hello("api-plain"))
	w.https("other.test", hello("other"))
	w.https("b.test", hello("b"))
	p, addr := w.proxy(Options{Intercept: []string{"api.test", "b.test"}})
	c := w.admit(p, ClientConfig{Policy: w.policy(Rule{Host: "api.test"}, Rule{Host: "other.test"}, Rule{Host: "b.test", Methods: []string{"GET"}}),
		Credentials: []Credential{{Name: "A", Host: "api.test", Format: "Bearer {}", Value: secretValue}, {Name: "B", Host: "b.test", Header: "X-Key", Value: "another-value"}}})
	b := w.browser(addr, c)
	place := c.Placeholders()["A"]
	do := func(method, url, authorization string) string {
		r, err := http.NewRequest(method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", authorization)
		resp, err := b.Do(r)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		return fmt.Sprintf("%d %s", resp.StatusCode, body)
	}
	for _, x := range []struct{ method, url, auth, want string }{
		{"GET", "https://api.test/", "Bearer " + place, `auth="Bearer ` + redact.Mark},
		{"GET", "https://api.test/", "Bearer stolen-key", `auth="Bearer ` + redact.Mark}, // not with somebody else's account
		{"GET", "http://api.test/", place, `auth="` + place},                             // never in clear
		{"GET", "https://b.test/", place, `auth="` + place},
		{"POST", "https://b.test/", place, "403 "},
	} {
		if got := do(x.method, x.url, x.auth); !strings.Contains(got, x.want) || strings.Contains(got, secretValue) {
			t.Errorf("%s %s: %s", x.method, x.url, got)
		}
	}
	// TLS to others is not opened: the certificate is the server's own.
	conn, _ := w.tunnel(addr, c, "other.test:443")
	tc := tls.Client(conn, &tls.Config{ServerName: "other.test", RootCAs: w.roots})
	if err := tc.Handshake(); err != nil {
		t.Errorf("other.test: %v", err)
	}
	if e := w.entry(c, "b.test", Placeholder); e.Count != 1 || e.Reason != "A" {
		t.Errorf("the placeholder at b.test: %+v", e)
	}
	if e := w.entry(c, "api.test", Placeholder); e.Count != 1 || e.Port != 80 {
		t.Errorf("the placeholder in clear: %+v", e)
	}
	// Another step has nothing of it.
	plain := w.client(p, "api.test")
	if status, body := w.get(w.browser(addr, plain), "https://api.test/"); status != 200 || !strings.Contains(body, `auth=""`) {
		t.Errorf("a step without the secret: %d %q", status, body)
	}
	// The name in TLS must be the host's.
	conn, _ = w.tunnel(addr, c, "api.test:443")
	if err := tls.Client(conn, &tls.Config{ServerName: "b.test", InsecureSkipVerify: true}).Handshake(); err == nil {
		t.Error("another name in TLS is served")
	}
}

// TestAuthorityIsNarrow: its certificate is good for the hosts with credentials only.
func TestAuthorityIsNarrow(t *testing.T) {
	t.Parallel()
	a, err := newAuthority([]string{"api.test", "203.0.113.5"})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.pem) {
		t.Fatal("not PEM")
	}
	for host, good := range map[string]bool{"api.test": true, "203.0.113.5": true, "evil.test": false, "203.0.113.6": false} {
		target, err := parseAuthority(host, 443)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := a.leaf(target)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(leaf.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Verify(x509.VerifyOptions{DNSName: host, Roots: roots}); (err == nil) != good {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// TestEcho: an answer that repeats the value, in parts, headers or encodings.
func TestEcho(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "api.test")
	w.https("api.test", func(rw http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("X-Key")
		switch r.URL.Path {
		case "/header":
			rw.Header().Set("X-Echo", key)
		case "/slow":
			for _, c := range key {
				fmt.Fprintf(rw, "%c", c)
				rw.(http.Flusher).Flush()
			}
		case "/gzip":
			rw.Header().Set("Content-Encoding", "gzip")
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			fmt.Fprint(z, key)
			z.Close()
			_, _ = rw.Write(b.Bytes())
		case "/range":
			fmt.Fprintf(rw, "range=%q encoding=%q", r.Header.Get("Range"), r.Header.Get("Accept-Encoding"))
		default:
			fmt.Fprintf(rw, "%x and %s", key, key)
		}
	})
	p, addr := w.proxy(Options{Intercept: []string{"api.test"}})
	c := w.admit(p, ClientConfig{Policy: w.policy(Rule{Host: "api.test"}), Credentials: []Credential{{Name: "A", Host: "api.test", Header: "X-Key", Value: secretValue}}})
	b := w.browser(addr, c)
	for path, want := range map[string]string{"/": redact.Mark + " and " + redact.Mark, "/slow": redact.Mark, "/header": "", "/gzip": "cannot be searched", "/range": `range="" encoding="identity"`} {
		r, err := http.NewRequest("GET", "https://api.test"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Range", "bytes=0-3")
		resp, err := b.Do(r)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(body), want) || strings.Contains(string(body)+fmt.Sprint(resp.Header), secretValue) {
			t.Errorf("%s: %v %q %v", path, err, body, resp.Header)
		}
		if path == "/header" && resp.Header.Get("X-Echo") != redact.Mark {
			t.Errorf("header: %v", resp.Header)
		}
	}
}

// TestHTTP2AndWebSocket through CONNECT: opaque, and where TLS is opened.
func TestHTTP2AndWebSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "good.test", "api.test")
	h := func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "websocket" {
			conn, rwb, err := http.NewResponseController(rw).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprintf(rwb, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			rwb.Flush()
			line, err := rwb.ReadString('\n')
			if err == nil {
				fmt.Fprintf(conn, "echo %s", line)
			}
			return
		}
		fmt.Fprintf(rw, "%s key=%q", r.Proto, r.Header.Get("X-Key"))
	}
	for _, host := range []string{"good.test", "api.test"} {
		w.https(host, h)
		w.http(host, h)
	}
	p, addr := w.proxy(Options{Intercept: []string{"api.test"}})
	c := w.admit(p, ClientConfig{Policy: w.policy(Rule{Host: "good.test"}, Rule{Host: "api.test"}), Credentials: []Credential{{Name: "A", Host: "api.test", Header: "X-Key", Value: secretValue}}})
	b := w.browser(addr, c)
	for url, want := range map[string]string{"https://good.test/": `HTTP/2.0 key=""`, "https://api.test/": `HTTP/2.0 key="` + redact.Mark + `"`} {
		if status, body := w.get(b, url); status != 200 || body != want {
			t.Errorf("%s: %d %q, want %q", url, status, body, want)
		}
	}
	roots := w.roots.Clone()
	roots.AddCert(p.authority.cert)
	for _, authority := range []string{"good.test:443", "api.test:443", "good.test:80"} {
		conn, _ := w.tunnel(addr, c, authority)
		host, _, _ := strings.Cut(authority, ":")
		if strings.HasSuffix(authority, ":443") {
			tc := tls.Client(conn, &tls.Config{ServerName: host, RootCAs: roots, NextProtos: []string{"http/1.1"}})
			if err := tc.Handshake(); err != nil {
				t.Errorf("%s: %v", authority, err)
				continue
			}
			conn = tc
		}
		fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", host)
		br := bufio.NewReader(conn)
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != 101 {
			t.Errorf("%s: upgrade: %v, %v", authority, resp, err)
			continue
		}
		fmt.Fprint(conn, "hello\n")
		if line, err := br.ReadString('\n'); line != "echo hello\n" {
			t.Errorf("%s: %q, %v", authority, line, err)
		}
	}
}

// TestManyConnections: a thousand at once, in bounded memory, and no more than a
// step's share.
func TestManyConnections(t *testing.T) {
	// Not parallel: it measures memory.
	w := newWorld(t)
	w.tcp("good.test", 5000, func(c net.Conn) { _, _ = io.Copy(c, c) })
	p, addr := w.proxy(Options{})
	c := w.admit(p, ClientConfig{Policy: w.policy(Rule{Host: "good.test", Ports: []int{5000}})})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const many = 1000
	conns := make([]net.Conn, many)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 50)
	for i := range many {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			conn, answer := w.tunnel(addr, c, "good.test:5000")
			if !strings.Contains(answer, " 200 ") {
				t.Errorf("%d: %q", i, answer)
			}
			fmt.Fprint(conn, "x")
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				t.Errorf("%d: %v", i, err)
			}
			conns[i] = conn
		})
	}
	wg.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse)) / many
	t.Logf("%d tunnels, both ends and the server in this process: %d KiB each", many, each>>10)
	if each > 200<<10 {
		t.Errorf("%d bytes a connection", each)
	}
	if entries := c.Entries(); len(entries) != 1 {
		t.Errorf("%d entries", len(entries))
	}
	for range maxConnections - many {
		conn, _ := w.tunnel(addr, c, "good.test:5000")
		fmt.Fprint(conn, "x")
	}
	if _, answer := w.tunnel(addr, c, "good.test:5000"); !strings.Contains(answer, " 503 ") {
		t.Errorf("beyond the share: %q", answer)
	}
	other := w.admit(p, ClientConfig{Policy: w.policy(Rule{Host: "good.test", Ports: []int{5000}})})
	if _, answer := w.tunnel(addr, other, "good.test:5000"); !strings.Contains(answer, " 200 ") {
		t.Errorf("another step: %q", answer)
	}
	done := make(chan struct{})
	go func() { defer close(done); c.Close() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the end of the step does not end its connections")
	}
	if _, err := conns[0].Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives its step")
	}
}

// TestLedgerIsBounded: a flood of destinations does not become one of events.
func TestLedgerIsBounded(t *testing.T) {
	t.Parallel()
	reports := 0
	l := ledger{report: func(Entry) { reports++ }}
	for i := range 10000 {
		l.add(Entry{Host: fmt.Sprintf("h%d.test", i%5000), Port: 443, Verdict: Refused, Reason: reasonHost, Count: 1})
	}
	total := int64(0)
	for _, e := range l.all() {
		total += e.Count
	}
	if n := len(l.all()); n > maxEntries+1 || reports != n || total != 10000 {
		t.Errorf("%d entries, %d reports, %d decisions", n, reports, total)
	}
}
