package egress

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func ask(t testing.TB, name string, typ dnsmessage.Type) []byte {
	t.Helper()
	n, err := dnsmessage.NewName(name)
	if err != nil {
		t.Fatal(err)
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{{Name: n, Type: typ, Class: dnsmessage.ClassINET}}}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, _ := w.proxy(Options{})
	c := w.client(p, "good.test", "*.wild.test")
	for _, x := range []struct {
		name  string
		typ   dnsmessage.Type
		code  dnsmessage.RCode
		found int
	}{
		{"good.test.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, 1},
		{"GOOD.test.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, 1},
		{"good.test.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, 0},
		{"good.test.", dnsmessage.TypeTXT, dnsmessage.RCodeSuccess, 0},
		{"a.b.wild.test.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, 1},
		{"wild.test.", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0},
		{"data-in-a-name.evil.test.", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0},
		{"data.evil.test.", dnsmessage.TypeTXT, dnsmessage.RCodeNameError, 0},
		{"127.0.0.1.", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0},
		{"a b.test.", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0},
		{".", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0},
	} {
		var m dnsmessage.Message
		if err := m.Unpack(p.answer(ask(t, x.name, x.typ), c)); err != nil {
			t.Errorf("%s: %v", x.name, err)
		} else if m.ID != 7 || !m.Response || m.RCode != x.code || len(m.Answers) != x.found {
			t.Errorf("%s %v: %+v", x.name, x.typ, m)
		}
	}
	if len(w.asked) > 0 {
		t.Errorf("somebody was asked: %v", w.asked)
	}
	var m dnsmessage.Message
	if err := m.Unpack(p.answer(ask(t, "good.test.", dnsmessage.TypeA), nil)); err != nil || m.RCode != dnsmessage.RCodeRefused {
		t.Errorf("without a step: %+v, %v", m, err)
	}
	for _, bad := range []string{"", "x", strings.Repeat("\xff", 600), string(ask(t, "good.test.", dnsmessage.TypeA)[:20])} {
		_ = p.answer([]byte(bad), c) // must not panic
	}
	for i := range maxNames + 10 {
		p.names.address(strings.Repeat("x", i%60+1) + strings.Repeat("y", i/60) + ".wild.test")
	}
	if n := len(p.names.ip); n > maxNames {
		t.Errorf("%d names are kept", n)
	}
}

// TestUnclearStep: a caught connection that can belong to several steps is refused.
func TestUnclearStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, _ := w.proxy(Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.ServeCaught(l, func() *Client { return nil }) }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+l.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
		resp.Body.Close()
		t.Errorf("served: %s", resp.Status)
	}
	l.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func FuzzNames(f *testing.F) {
	f.Add(ask(f, "good.test.", dnsmessage.TypeA))
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1})
	p := &Proxy{}
	policy, err := NewPolicy([]Rule{{Host: "good.test"}})
	if err != nil {
		f.Fatal(err)
	}
	c := &Client{proxy: p, policy: policy}
	f.Fuzz(func(t *testing.T, b []byte) {
		out := p.answer(b, c)
		var m dnsmessage.Message
		if out != nil && (m.Unpack(out) != nil || !m.Response || len(out) > 512) {
			t.Errorf("answer %x", out)
		}
	})
}
