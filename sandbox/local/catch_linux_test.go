package local

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"flowrun.dev/flow/sandbox"
)

func TestCatch(t *testing.T) {
	t.Parallel()
	sb := newSandbox(t, sandbox.Spec{Catch: []int{80, 443}})
	if _, res := run(t, sb, "command -v bash"); res.ExitCode != 0 {
		t.Skip("no bash inside")
	}
	streams, names := sb.(sandbox.Catcher).Caught()
	if len(streams) != 2 || names == nil {
		t.Fatal(len(streams), names)
	}
	for _, l := range streams {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "meant %s\n", c.LocalAddr()) // the client may miss it
				c.Close()
			}
		}()
	}
	asked := make(chan string, 1)
	go func() {
		buf := make([]byte, 512)
		n, from, err := names.ReadFrom(buf)
		if err == nil {
			_, _ = names.WriteTo([]byte("answer\n"), from)
			asked <- string(buf[:n])
		}
	}()
	out, res := run(t, sb, `exec bash -c '
		ask() { (exec 3<>"/dev/$1/$2/$3" && { [ -z "${4:-}" ] || echo "$4" >&3; line=$(timeout 5 dd bs=512 count=1 <&3 2>/dev/null) && [ -n "$line" ] && echo "$line"; }) 2>/dev/null || echo "no $1 $2 $3"; }
		ask tcp 192.0.2.9 80; ask tcp 10.1.2.3 443; ask tcp 127.0.0.1 80; ask udp 127.0.0.1 53 hello
		ask tcp 192.0.2.9 8080; ask tcp 2001:db8::1 80; ask udp 192.0.2.1 53 x; cat /etc/resolv.conf | head -1; echo x 2>/dev/null >/dev/udp/[2001:db8::1]/53 || echo no6'`)
	want := []string{"meant 192.0.2.9:80", "meant 10.1.2.3:443", "meant 127.0.0.1:80", "answer",
		"no tcp 192.0.2.9 8080", "no tcp 2001:db8::1 80", "no udp 192.0.2.1 53", "nameserver 127.0.0.1", "no6"}
	if got := strings.Split(strings.TrimSpace(out), "\n"); res.ExitCode != 0 || !slices.Equal(got, want) {
		t.Errorf("%+v\n%s", res, out)
	}
	if got := <-asked; got != "hello\n" {
		t.Errorf("asked %q", got)
	}
	// Low ports cannot be taken from the host's listeners.
	if _, res := run(t, sb, "command -v python3"); res.ExitCode == 0 {
		if out, res := run(t, sb, `python3 -c 'import socket; s = socket.socket(); s.bind(("192.0.2.9", 81))'`); res.ExitCode == 0 {
			t.Errorf("a command listens on a low port: %s", out)
		}
	}
	if err := sb.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := streams[0].Accept(); err == nil {
		t.Error("a caught listener outlives the sandbox")
	}
	if _, _, err := names.ReadFrom(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the socket for names outlives the sandbox: %v", err)
	}
}
