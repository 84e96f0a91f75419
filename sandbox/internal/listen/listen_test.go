package listen

import (
	"errors"
	"net"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ network, addr, want string }{
		{"tcp", "127.0.0.1:0", "127.0.0.1:0"},
		{"tcp4", "127.9.9.9:80", "127.9.9.9:80"},
		{"tcp", "[::1]:8080", "[::1]:8080"},
		{"tcp6", "[::1]:8080", "[::1]:8080"},
		{"tcp", "localhost:1", "127.0.0.1:1"},
		{"tcp6", "localhost:1", "[::1]:1"},
		{"tcp6", "127.0.0.1:1", ""}, {"tcp4", "[::1]:1", ""}, {"udp", "127.0.0.1:1", ""}, {"", "127.0.0.1:1", ""},
		{"tcp", ":0", ""}, {"tcp", "0.0.0.0:0", ""}, {"tcp", "[::]:0", ""}, {"tcp", "10.0.0.1:0", ""}, {"tcp", "example.com:0", ""},
		{"tcp", "127.0.0.1", ""}, {"tcp", "127.0.0.1:http", ""}, {"tcp", "127.0.0.1:65536", ""}, {"tcp", "[::ffff:127.0.0.1]:0", ""}, {"tcp", "[::1%lo]:0", ""}, {"tcp", "", ""},
	} {
		got, err := Parse(c.network, c.addr)
		if c.want == "" && err == nil || c.want != "" && (err != nil || got.String() != c.want) {
			t.Errorf("%s %s = %v, %v; want %q", c.network, c.addr, got, err, c.want)
		}
	}
}

func TestSet(t *testing.T) {
	t.Parallel()
	var s Set
	open := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	first, err := s.Add(open())
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Add(open())
	if err != nil || len(s.open) != 2 {
		t.Fatal(err, len(s.open))
	}
	if err := second.Close(); err != nil || len(s.open) != 1 {
		t.Error(err, len(s.open))
	}
	s.Close()
	if _, err := first.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	late := open()
	if _, err := s.Add(late); !errors.Is(err, ErrClosed) {
		t.Errorf("add after close: %v", err)
	}
	if _, err := late.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the late one is open: %v", err)
	}
	s.Close()
}
