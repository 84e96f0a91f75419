package egress

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

// auth is the head line with which a client shows its token.
func auth(c *Client) string {
	r, _ := http.NewRequest("GET", "http://x", nil)
	r.SetBasicAuth("flow", c.token)
	return "Proxy-Authorization: " + r.Header.Get("Authorization") + "\r\n"
}

// TestParsing is the table of requests that other proxies read differently from the
// servers behind them (abuse test 12).
func TestParsing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "good.test", "evil.test")
	w.http("good.test", hello("good"))
	w.http("evil.test", hello("evil"))
	w.https("good.test", hello("good"))
	w.https("evil.test", hello("evil"))
	p, addr := w.proxy(Options{HeadTime: 2 * time.Second})
	c := w.client(p, "good.test")
	a := auth(c)
	for _, x := range []struct{ name, send, want string }{
		{"as it should be", "GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\n" + a + "Connection: close\r\n\r\n", "good: GET / host=good.test"},
		{"NUL in the host", "GET http://good.test\x00.evil.test/ HTTP/1.1\r\nHost: good.test\r\n" + a + "\r\n", "400"},
		{"NUL in CONNECT", "CONNECT evil.test\x00.good.test:443 HTTP/1.1\r\nHost: good.test\r\n" + a + "\r\n", "400"},
		{"NUL, percent-encoded", "CONNECT good.test%00.evil.test:443 HTTP/1.1\r\nHost: good.test\r\n" + a + "\r\n", "400"},
		{"user name", "GET http://good.test@evil.test/ HTTP/1.1\r\nHost: good.test\r\n" + a + "Connection: close\r\n\r\n", "400"},
		{"user name in CONNECT", "CONNECT good.test@evil.test:443 HTTP/1.1\r\nHost: good.test\r\n" + a + "Connection: close\r\n\r\n", "400"},
		{"backslash", "GET http://good.test\\@evil.test/ HTTP/1.1\r\nHost: good.test\r\n" + a + "\r\n", "400"},
		{"trailing dot", "CONNECT evil.test.:443 HTTP/1.1\r\nHost: evil.test.\r\n" + a + "Connection: close\r\n\r\n", "403"},
		{"case", "CONNECT EVIL.test:443 HTTP/1.1\r\nHost: x\r\n" + a + "Connection: close\r\n\r\n", "403"},
		{"no port", "CONNECT good.test HTTP/1.1\r\nHost: good.test\r\n" + a + "Connection: close\r\n\r\n", "400"},
		{"port zero", "CONNECT good.test:0 HTTP/1.1\r\nHost: good.test\r\n" + a + "Connection: close\r\n\r\n", "400"},
		{"two ports", "CONNECT good.test:443:80 HTTP/1.1\r\nHost: good.test\r\n" + a + "Connection: close\r\n\r\n", "400"},
		{"number for an address", "CONNECT 2130706433:443 HTTP/1.1\r\nHost: x\r\n" + a + "Connection: close\r\n\r\n", "400"},
		{"octal address", "CONNECT 0177.0.0.1:443 HTTP/1.1\r\nHost: x\r\n" + a + "Connection: close\r\n\r\n", "400"},
		{"hexadecimal address", "CONNECT 0x7f.1:443 HTTP/1.1\r\nHost: x\r\n" + a + "Connection: close\r\n\r\n", "400"},
		{"loopback", "CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: x\r\n" + a + "Connection: close\r\n\r\n", "403"},
		{"mapped loopback", "CONNECT [::ffff:127.0.0.1]:443 HTTP/1.1\r\nHost: x\r\n" + a + "Connection: close\r\n\r\n", "403"},
		{"zone", "CONNECT [fe80::1%25lo]:443 HTTP/1.1\r\nHost: x\r\n" + a + "Connection: close\r\n\r\n", "400"},
		{"percent-encoded dot", "GET http://good%2etest/ HTTP/1.1\r\nHost: x\r\n" + a + "Connection: close\r\n\r\n", "400"},
		{"the URL decides, not Host", "GET http://good.test/ HTTP/1.1\r\nHost: evil.test\r\n" + a + "Connection: close\r\n\r\n", "good: GET / host=good.test"},
		{"Host decides nothing", "GET http://evil.test/ HTTP/1.1\r\nHost: good.test\r\n" + a + "Connection: close\r\n\r\n", "403"},
		{"two Hosts", "GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\nHost: evil.test\r\n" + a + "\r\n", "400"},
		{"https in absolute form", "GET https://good.test/ HTTP/1.1\r\nHost: good.test\r\n" + a + "Connection: close\r\n\r\n", "400"},
		{"another scheme", "GET file:///etc/passwd HTTP/1.1\r\nHost: good.test\r\n" + a + "Connection: close\r\n\r\n", "400"},
		{"no authority", "GET / HTTP/1.1\r\nHost: good.test\r\n" + a + "Connection: close\r\n\r\n", "400"},
		{"two lengths", "POST http://good.test/ HTTP/1.1\r\nHost: good.test\r\n" + a + "Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde", "400"},
		{"odd transfer encoding", "POST http://good.test/ HTTP/1.1\r\nHost: good.test\r\n" + a + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "501"},
		{"a space before the colon", "GET http://good.test/ HTTP/1.1\r\nHost : good.test\r\n" + a + "\r\n", "400"},
		{"a header that is too long", "GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\n" + a + "X: " + strings.Repeat("x", 2*maxHeader) + "\r\n\r\n", "431"},
		{"HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "407"},
		{"wrong token", "GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\nProxy-Authorization: Basic Zmxvdzp4\r\nConnection: close\r\n\r\n", "407"},
		{"no token", "CONNECT good.test:443 HTTP/1.1\r\nHost: good.test\r\nConnection: close\r\n\r\n", "407"},
		{"slow head", "GET http://good.test/ HTT", ""},
	} {
		got := w.talk(addr, "", x.send)
		if !strings.Contains(got, x.want) || strings.Contains(got, "evil: ") {
			t.Errorf("%s: %q", x.name, got)
		}
	}
	for _, name := range w.asked {
		if name != "good.test" {
			t.Errorf("%s was looked up", name)
		}
	}
}

// TestSmuggling: a request whose length can be read in two ways reaches the server as
// exactly one request with one meaning.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := make(chan string, 8)
	w.tcp("good.test", 80, func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(r.Body) // what came counts
			seen <- fmt.Sprintf("%s %s %q cl=%d te=%v", r.Method, r.URL, body, r.ContentLength, r.TransferEncoding)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	p, addr := w.proxy(Options{})
	c := w.client(p, "good.test")
	send := "POST http://good.test/one HTTP/1.1\r\nHost: good.test\r\n" + auth(c) +
		"Content-Length: 40\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\nGET http://evil.test/two HTTP/1.1\r\nX: y"
	got := w.talk(addr, "", send)
	c.Close()
	close(seen)
	var requests []string
	for s := range seen {
		requests = append(requests, s)
	}
	if len(requests) > 1 || strings.Contains(strings.Join(requests, ""), "evil") || strings.Count(got, "HTTP/1.1 ") != 1 {
		t.Errorf("the server saw %q, the client %q", requests, got)
	}
}

// tunnel opens one and returns the connection, after the answer.
func (w *world) tunnel(addr net.Addr, c *Client, authority string) (net.Conn, string) {
	w.Helper()
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		w.Fatal(err)
	}
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", authority, authority, auth(c)) // a failure shows in the read
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		w.Fatalf("CONNECT %s: %v", authority, err)
	}
	return conn, string(buf[:n])
}

// TestTunnelContent: what is said in a tunnel has to agree with where it leads.
func TestTunnelContent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "good.test", "evil.test", "203.0.113.250")
	w.https("good.test", hello("good"))
	w.http("good.test", hello("good"))
	w.tcp("good.test", 22, func(c net.Conn) {
		fmt.Fprint(c, "SSH-2.0-server\r\n")
		_, _ = io.Copy(c, c) // an echo
	})
	w.tcp("good.test", 5000, func(c net.Conn) { _, _ = io.Copy(c, c) })
	p, addr := w.proxy(Options{HeadTime: time.Second})
	c := w.admit(p, ClientConfig{Policy: w.policy(Rule{Host: "good.test", Ports: []int{80, 443, 22, 5000}})})

	handshake := func(authority, sni string) error {
		conn, answer := w.tunnel(addr, c, authority)
		if !strings.Contains(answer, " 200 ") {
			return fmt.Errorf("CONNECT: %q", answer)
		}
		return tls.Client(conn, &tls.Config{ServerName: sni, InsecureSkipVerify: true}).Handshake()
	}
	if err := handshake("good.test:443", "good.test"); err != nil {
		t.Errorf("TLS to itself: %v", err)
	}
	for _, sni := range []string{"evil.test", "", "good.test.evil.test", "evil.test."} {
		if err := handshake("good.test:443", sni); err == nil {
			t.Errorf("SNI %q passes in a tunnel to good.test", sni)
		}
	}
	if err := handshake("good.test:5000", "evil.test"); err == nil {
		t.Error("SNI is not looked at on other ports")
	}
	for _, x := range []struct{ authority, send, want string }{
		{"good.test:80", "GET / HTTP/1.1\r\nHost: good.test\r\nConnection: close\r\n\r\n", "good: GET / host=good.test"},
		{"good.test:80", "GET / HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n", "421"},
		{"good.test:80", "GET http://evil.test/ HTTP/1.1\r\nHost: good.test\r\nConnection: close\r\n\r\n", "421"},
		{"good.test:80", "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n", "421"},
		{"good.test:80", "GET / HTTP/1.1\r\nHost: good.test\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n", "421"},
		{"good.test:443", "SSH-2.0-client\r\n", ""},
		{"good.test:443", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""},
		{"good.test:443", "\x16\x03\x01\x00\x05\x01\x00\xff\xff\xff", ""},
		{"good.test:443", "", ""}, // says nothing
	} {
		conn, answer := w.tunnel(addr, c, x.authority)
		if !strings.Contains(answer, " 200 ") {
			t.Errorf("%s: %q", x.authority, answer)
			continue
		}
		_, _ = io.WriteString(conn, x.send) // it may have closed
		got, _ := io.ReadAll(conn)          // until it closes
		if !strings.Contains(string(got), x.want) || x.want == "" && len(got) > 0 || strings.Contains(string(got), "evil: ") {
			t.Errorf("%s %q: %q", x.authority, x.send, got)
		}
	}
	// A server that speaks first is heard at once.
	conn, answer := w.tunnel(addr, c, "good.test:22")
	buf := make([]byte, 64)
	_, words, _ := strings.Cut(answer, "\r\n\r\n") // they may have come with the answer
	for len(words) < len("SSH-2.0-server\r\n") {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("first words of a server: %q, %v", words, err)
		}
		words += string(buf[:n])
	}
	fmt.Fprint(conn, "SSH-2.0-client\r\n")
	if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "SSH-2.0-client\r\n" {
		t.Errorf("answer: %q, %v", buf[:n], err)
	}
}

// TestAddresses: what a name leads to decides too (abuse test 11).
func TestAddresses(t *testing.T) {
	t.Parallel()
	own := []netip.Addr{netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("10.0.0.7")}
	for _, x := range []struct {
		addr          string
		spelt, silent bool // may be reached by a name that is spelt out, by a wildcard
	}{
		{"203.0.113.9", true, true}, {"2606:4700::1", true, true},
		{"10.1.2.3", true, false}, {"172.16.9.9", true, false}, {"192.168.1.1", true, false}, {"100.64.0.1", true, false}, {"fd12::1", true, false},
		{"64:ff9b::cb00:7109", true, true}, {"64:ff9b::a01:203", true, false},
		{"127.0.0.1", false, false}, {"127.9.9.9", false, false}, {"::1", false, false}, {"0.0.0.0", false, false}, {"::", false, false},
		{"::ffff:127.0.0.1", false, false}, {"64:ff9b::7f00:1", false, false}, {"2002:7f00:1::", false, false}, {"::127.0.0.1", false, false},
		{"169.254.169.254", false, false}, {"fe80::1", false, false}, {"64:ff9b::a9fe:a9fe", false, false}, {"fd00:ec2::254", false, false}, {"100.100.100.200", false, false}, {"168.63.129.16", false, false},
		{"192.0.2.77", false, false}, {"10.0.0.7", false, false}, {"224.0.0.1", false, false}, {"255.255.255.255", false, false}, {"ff02::1", false, false}, {"198.18.0.5", false, false}, {"240.0.0.1", false, false},
	} {
		a := netip.MustParseAddr(x.addr).Unmap()
		for private, want := range map[bool]bool{true: x.spelt, false: x.silent} {
			if reason := unfit(a, own, private); (reason == "") != want {
				t.Errorf("%s (spelt out: %v): %q", x.addr, private, reason)
			}
		}
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "good.test")
	w.http("good.test", hello("good"))
	w.https("good.test", hello("good"))
	p, addr := w.proxy(Options{})
	c := w.admit(p, ClientConfig{Policy: w.policy(Rule{Host: "good.test", Methods: []string{"GET"}, Paths: []string{"/v1/*", "/ok"}})})
	b := w.browser(addr, c)
	for raw, want := range map[string]int{"/ok": 200, "/v1/a/b": 200, "/v1/": 200, "/v1": 403, "/": 403, "/v2/x": 403, "/v1/../admin": 403, "/v1/%2e%2e/admin": 403,
		"/v1/..%2fadmin": 403, "/v1//x": 403, "/v1/x%00": 403, "/v1/x;y": 403, "/ok/": 403, "/OK": 403} {
		u := &url.URL{Scheme: "http", Host: "good.test", Opaque: "//good.test" + raw}
		resp, err := b.Do(&http.Request{Method: "GET", URL: u, Host: "good.test"})
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", raw, resp.StatusCode, want)
		}
	}
	if resp, err := b.Post("http://good.test/ok", "", nil); err != nil || resp.StatusCode != 403 {
		t.Errorf("POST: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	// What cannot be seen is not allowed.
	if status, body := w.get(b, "https://good.test/ok"); status != 0 {
		t.Errorf("TLS: %d %q", status, body)
	}
	if e := w.entry(c, "good.test", Refused); e.Count == 0 {
		t.Error("nothing was recorded")
	}
}

// TestRedirect: where an answer sends a client is decided anew.
func TestRedirect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.http("good.test", func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "http://evil.test/", http.StatusFound)
	})
	w.http("evil.test", hello("evil"))
	p, addr := w.proxy(Options{})
	b := w.browser(addr, w.client(p, "good.test"))
	b.CheckRedirect = nil
	if status, body := w.get(b, "http://good.test/"); status != 403 {
		t.Errorf("%d %q", status, body)
	}
}

func FuzzClassify(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n"), false)
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"), true)
	f.Add(clientHello(f, "good.test"), false)
	f.Fuzz(func(t *testing.T, b []byte, all bool) {
		h := classify(b, all)
		if all && h.speech == speechMore {
			t.Error("undecided at the end")
		}
		if h.speech == speechTLS && len(b) < 9 {
			t.Error("a ClientHello out of nothing")
		}
		// What is decided is not decided otherwise with more bytes.
		if h.speech == speechTLS || h.speech == speechHTTP {
			if again := classify(append(b[:len(b):len(b)], "more"...), all); again != h {
				t.Errorf("%+v, then %+v", h, again)
			}
		}
	})
}

func FuzzAuthority(f *testing.F) {
	for _, s := range []string{"good.test:443", "[::1]:1", "GOOD.test.:80", "127.0.0.1:1", "a@b:1", "x\x00y:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAuthority(s, 0)
		if err != nil {
			return
		}
		b, err := parseAuthority(a.String(), 0)
		if err != nil || a != b {
			t.Errorf("%q became %v, then %v, %v", s, a, b, err)
		}
		if strings.ContainsAny(a.Host, "\x00@/\\% ") || a.Host != strings.ToLower(a.Host) {
			t.Errorf("%q became %q", s, a.Host)
		}
	})
}

// clientHello is what crypto/tls says first.
func clientHello(t testing.TB, sni string) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() { _ = tls.Client(a, &tls.Config{ServerName: sni, InsecureSkipVerify: true}).Handshake() }() // it is cut
	buf := make([]byte, 1<<14)
	n, err := io.ReadAtLeast(b, buf, 5)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// TestClassify: each prefix of a ClientHello waits for more, cut into records or not.
func TestClassify(t *testing.T) {
	t.Parallel()
	hello := clientHello(t, "good.test")
	for n := range hello {
		if h := classify(hello[:n], false); h.speech != speechMore {
			t.Fatalf("%d of %d bytes: %+v", n, len(hello), h)
		}
	}
	if h := classify(hello, false); h.speech != speechTLS || h.sni != "good.test" {
		t.Errorf("whole: %+v", h)
	}
	var cut []byte
	for body := hello[5:]; len(body) > 0; {
		n := min(7, len(body))
		cut = append(append(cut, 22, 3, 1, 0, byte(n)), body[:n]...)
		body = body[n:]
	}
	if h := classify(cut, false); h.speech != speechTLS || h.sni != "good.test" {
		t.Errorf("in records of 7 bytes: %+v", h)
	}
	for text, want := range map[string]speech{"GET / HTTP/1.1\r\n": speechHTTP, "SSH-2.0-x\r\n": speechOther, "EHLO me\r\n": speechOther, "G": speechMore, "GET /": speechMore,
		"PRI * HTTP/2.0\r\n": speechOther, "\x00": speechOther, "get / HTTP/1.1\r\n": speechOther} {
		if h := classify([]byte(text), false); h.speech != want {
			t.Errorf("%q: %+v, want %d", text, h, want)
		}
	}
}
