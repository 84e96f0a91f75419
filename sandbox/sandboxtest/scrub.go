package sandboxtest

import (
	"strings"
	"testing"

	"flowrun.dev/flow/sandbox"
)

// testScrub: after Scrub nothing is seen of what an earlier command left outside of
// the home, whatever it did to keep it. The home stays.
func testScrub(t *testing.T, p *place) {
	s, ok := p.Sandbox.(sandbox.Scrubber)
	if !ok {
		t.Skip("it cannot be scrubbed")
	}
	scrub := func() {
		t.Helper()
		if err := s.Scrub(p.ctx()); err != nil {
			t.Fatal(err)
		}
	}
	scrub() // a new one
	const list = `find "$TMPDIR" -mindepth 1; for d in /var/tmp /dev/shm; do case "$TMPDIR" in /tmp) find "$d" -mindepth 1;; esac; done; ls`
	p.must(`echo home > f; cd "$TMPDIR"; echo x > f; echo x > .hidden; echo x > "-rf"; echo x > 'a
b'; mkdir -p d/e/f; echo x > d/e/f/g; chmod 0 d/e/f d/e d; ln -s "$HOME" home; mkfifo fifo; chmod 500 .
		deep=.; for i in 1 2 3 4 5 6 7 8; do deep=$deep/dddddddddddddddddddddddddddddddddddddddddddddddddddddd; done; chmod 700 . && mkdir -p $deep
		case "$TMPDIR" in /tmp) echo x > /dev/shm/f; echo x > /var/tmp/f;; esac
		(setsid sh -c 'sleep 300; echo late > "$TMPDIR/late"' &) >/dev/null 2>&1`)
	scrub()
	if got := p.must(list); strings.TrimSpace(got) != "f" {
		t.Errorf("left: %q", got)
	}
	p.must(`test -w "$TMPDIR" && echo again > "$TMPDIR/f"`) // it works as before
	scrub()
	if got := p.must(list); strings.TrimSpace(got) != "f" {
		t.Errorf("left: %q", got)
	}
}
