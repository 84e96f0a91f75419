package egress

import (
	"strings"
	"testing"
)

func TestAllowedAndRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "good.test", "evil.test")
	w.http("good.test", hello("plain"))
	w.https("good.test", hello("tls"))
	w.http("evil.test", hello("evil"))
	w.https("evil.test", hello("evil"))
	p, addr := w.proxy(Options{})
	c := w.client(p, "good.test")
	b := w.browser(addr, c)
	for _, x := range []struct {
		url    string
		status int
		want   string
	}{
		{"http://good.test/a?b=%20c;d", 200, "plain: GET /a?b=%20c;d host=good.test"},
		{"https://good.test/a", 200, "tls: GET /a host=good.test"},
		{"http://GOOD.test./x", 200, "plain: GET /x host=good.test"},
		{"http://evil.test/", 403, "evil.test:80 is refused: not in the step's allow list"},
		{"https://evil.test/", 0, "Forbidden"},
		{"http://good.test:8080/", 403, "with other ports"},
		{"http://sub.good.test/", 403, "not in"},
	} {
		status, body := w.get(b, x.url)
		if status != x.status || !strings.Contains(body, x.want) {
			t.Errorf("%s: %d %q", x.url, status, body)
		}
	}
	if e := w.entry(c, "good.test", Allowed); e.Count != 2 || e.Port != 80 || e.Received == 0 {
		t.Errorf("good.test: %+v", e)
	}
	if e := w.entry(c, "evil.test", Refused); e.Count != 1 || e.Reason != reasonHost {
		t.Errorf("evil.test: %+v", e)
	}
	for _, name := range w.asked {
		if name != "good.test" {
			t.Errorf("%s was looked up", name)
		}
	}
	// Nobody without a token.
	if status, body := w.get(w.browser(addr, nil), "http://good.test/"); status != 407 {
		t.Errorf("no token: %d %q", status, body)
	}
	c.Close()
	if status, _ := w.get(w.browser(addr, c), "http://good.test/"); status != 407 {
		t.Errorf("after the step: %d", status)
	}
}
