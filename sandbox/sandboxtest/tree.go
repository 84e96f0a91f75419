package sandboxtest

import (
	"testing"
	"time"
)

// promptly is how soon a command has to end that is killed. The real time is
// milliseconds; a loaded machine under the race detector needs more.
const promptly = 10 * time.Second

// stubborn is a tree that tries to survive: own sessions, double forks, ignored
// signals. Its first argument is the marker.
const stubborn = `
	trap "" TERM HUP INT
	setsid sh -c 'trap "" TERM HUP; (sh -c "trap \"\" TERM; while :; do sleep 0.01; done" "$0" &) ; while :; do sleep 0.01; done' "$1" &
	(setsid sh -c 'setsid sh -c "while :; do sleep 0.01; done" "$0" & exit 0' "$1" &)
	sh -c 'kill -STOP $$; while :; do sleep 0.01; done' "$1" &
`

func testCancelKillsTree(t *testing.T, p *place) {
	for _, grace := range []time.Duration{0, 50 * time.Millisecond} {
		mark := marker()
		s := p.start(grace, stubborn+`echo ready; while :; do sleep 0.01; done`, mark)
		p.until("the tree grows", func() bool { return len(survivors(mark)) >= 5 })
		begin := time.Now()
		s.cancel()
		p.wait(s, promptly)
		t.Logf("grace %v: ended after %v, leftover %d", grace, time.Since(begin), s.res.Leftover)
		if s.err != nil || !s.res.Killed || s.res.Signal != 9 || s.res.ExitCode != 137 {
			t.Errorf("%+v, %v", s.res, s.err)
		}
		p.gone(mark)
	}
	p.must("true")
}

func testGrace(t *testing.T, p *place) {
	// The first process and a child of its own both use the grace to clean up; the
	// first is quicker, and the child is still given its time.
	s := p.start(patience, `sh -c 'trap "sleep 0.05; echo x > child; exit 0" TERM; : > armed; while :; do sleep 0.01; done' &
		trap 'echo x > parent; exit 7' TERM; while [ ! -e armed ]; do sleep 0.01; done; echo ready; while :; do sleep 0.01; done`)
	s.cancel()
	p.wait(s, promptly)
	if s.err != nil || !s.res.Killed || s.res.ExitCode != 7 || s.res.Signal != 0 {
		t.Errorf("%+v, %v", s.res, s.err)
	}
	p.must("test -e parent && test -e child")
}

func testLeftovers(t *testing.T, p *place) {
	if _, res := p.sh("true"); res.Leftover != 0 {
		t.Errorf("nothing left, counted %d", res.Leftover)
	}
	mark := marker()
	text, res := p.sh(`sh -c 'while :; do sleep 0.01; done' "$1" & setsid sh -c 'trap "" TERM; while :; do sleep 0.01; done' "$1" & echo out; exit 4`, mark)
	if res.ExitCode != 4 || res.Killed || res.Leftover < 2 || text != "out\n" {
		t.Errorf("%+v, %q", res, text)
	}
	p.gone(mark)
	mark = marker()
	text, res = p.sh(stubborn+`echo out`, mark)
	if res.ExitCode != 0 || res.Leftover == 0 || text != "out\n" {
		t.Errorf("%+v, %q", res, text)
	}
	p.gone(mark)
	// What ended by itself is no leftover.
	if _, res := p.sh("sleep 0.01 & wait; (exit 3)"); res.ExitCode != 3 || res.Leftover != 0 {
		t.Errorf("%+v", res)
	}
}

// testKillOne: two execs at the same time have nothing to do with each other.
func testKillOne(t *testing.T, p *place) {
	markA, markB := marker(), marker()
	a := p.start(0, `setsid sh -c 'while :; do sleep 0.01; done' "$1" & P=$!; echo ready; read line; kill -0 $P && exit 9; exit 1`, markA)
	b := p.start(0, stubborn+`echo ready; while :; do sleep 0.01; done`, markB)
	p.until("the trees grow", func() bool { return len(survivors(markB)) >= 5 && len(survivors(markA)) >= 2 })
	b.cancel()
	p.wait(b, promptly)
	if b.err != nil || !b.res.Killed {
		t.Errorf("killed: %+v, %v", b.res, b.err)
	}
	p.gone(markB)
	// A third one, ending by itself beside A, with a leftover.
	mark := marker()
	if _, res := p.sh(`setsid sh -c 'while :; do sleep 0.01; done' "$1" & exit 0`, mark); res.Leftover < 1 {
		t.Errorf("beside another: %+v", res)
	}
	p.gone(mark)
	if _, err := a.stdin.WriteString("go on\n"); err != nil {
		t.Fatal(err)
	}
	p.wait(a, promptly)
	if a.err != nil || a.res.ExitCode != 9 || a.res.Killed || a.res.Leftover < 1 {
		t.Errorf("left alone: %+v, %v", a.res, a.err)
	}
	p.gone(markA)
}

func testForkBomb(t *testing.T, p *place) {
	if !p.subject.Bomb {
		t.Skip("this driver does not bound the number of processes")
	}
	if testing.Short() {
		t.Skip("-short")
	}
	for _, beside := range []bool{false, true} {
		if beside { // then kill(-1) is no way
			other := p.start(0, `echo ready; read line; exit 9`)
			defer func() {
				if _, err := other.stdin.WriteString("\n"); err != nil {
					t.Error(err)
				}
				p.wait(other, promptly)
				if other.err != nil || other.res.ExitCode != 9 {
					t.Errorf("beside the bomb: %+v, %v", other.res, other.err)
				}
			}()
		}
		mark, before := marker(), processes()
		s := p.start(0, `f() { f "$1" & f "$1" & wait; }; trap "" TERM; echo ready; f "$1" 2>/dev/null; while :; do sleep 0.01; done`, mark)
		// Counted, not looked at: reading a process's arguments waits for its fork.
		p.until("the bomb explodes", func() bool { return processes()-before >= 1000 })
		begin := time.Now()
		s.cancel()
		p.wait(s, patience)
		t.Logf("beside another %v: ended after %v, leftover %d", beside, time.Since(begin), s.res.Leftover)
		if s.err != nil || !s.res.Killed {
			t.Errorf("%+v, %v", s.res, s.err)
		}
		p.gone(mark)
	}
}
