package sandboxtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"flowrun.dev/flow/sandbox"
)

// ask connects from inside, by bash, to a port, and prints the first line that
// comes.
const ask = `exec 3<>"/dev/tcp/$1/$2" && IFS= read -r line <&3 && echo "got $line"`

// askFrom runs ask; it needs bash inside.
func (p *place) askFrom(addr net.Addr) (string, sandbox.Result) {
	p.Helper()
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		p.Fatal(err)
	}
	return p.sh(`exec bash -c "$@"`, ask, "bash", host, port)
}

// serve answers each connection with one line, until the listener closes.
func serve(l net.Listener, line string) (ended chan error) {
	ended = make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			_, _ = io.WriteString(c, line+"\n") // the client misses it
			c.Close()
		}
	}()
	return ended
}

func (p *place) needBash() {
	p.Helper()
	if _, res := p.sh("command -v bash"); res.ExitCode != 0 {
		p.Skip("no bash inside")
	}
}

// testListen: a listener inside, served by the host, reached by a command; it
// can be closed and opened again; the sandbox's end ends it.
func testListen(t *testing.T, p *place) {
	p.needBash()
	l, err := p.Listen(p.ctx(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := serve(l, "first")
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() || tcp.Port == 0 {
		t.Fatalf("address = %v", l.Addr())
	}
	for range 2 {
		if out, res := p.askFrom(l.Addr()); res.ExitCode != 0 || out != "got first\n" {
			t.Fatalf("%+v %q", res, out)
		}
	}
	// The port is taken.
	_, err = p.Listen(p.ctx(), "tcp", l.Addr().String())
	if err == nil {
		t.Fatal("two listeners on one port")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	if out, res := p.askFrom(tcp); res.ExitCode == 0 {
		t.Errorf("a closed listener answers: %q", out)
	}
	l, err = p.Listen(p.ctx(), "tcp4", tcp.String())
	if err != nil {
		t.Fatalf("the same port again: %v", err)
	}
	ended = serve(l, "second")
	if out, res := p.askFrom(tcp); res.ExitCode != 0 || out != "got second\n" {
		t.Errorf("%+v %q", res, out)
	}
	for _, bad := range [][2]string{{"tcp", "0.0.0.0:0"}, {"tcp", "192.0.2.1:80"}, {"udp", "127.0.0.1:0"}, {"tcp", "nowhere"}, {"tcp", ":0"}} {
		_, err := p.Listen(p.ctx(), bad[0], bad[1])
		if err == nil {
			t.Errorf("listen %v: no error", bad)
			continue
		}
		p.wantClass(err, sandbox.ClassInvalid)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if l, err := p.Listen(gone, "tcp", "127.0.0.1:0"); err == nil {
		l.Close()
		t.Error("listen with an ended context: no error")
	}
	if err := p.Close(p.ctx()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after the sandbox's end: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the listener outlives the sandbox")
	}
	_, err = p.Listen(p.ctx(), "tcp", "127.0.0.1:0")
	if err == nil {
		t.Fatal("listen after close: no error")
	}
	p.wantClass(err, sandbox.ClassInvalid)
}

// testListenMany: listeners and commands at the same time.
func testListenMany(t *testing.T, p *place) {
	p.needBash()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			l, err := p.Listen(p.ctx(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			word := fmt.Sprintf("word%d", i)
			serve(l, word)
			if out, res := p.askFrom(l.Addr()); res.ExitCode != 0 || out != "got "+word+"\n" {
				t.Errorf("%+v %q", res, out)
			}
		})
	}
	wg.Wait()
}
