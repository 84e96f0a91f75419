// Package sandboxtest is the conformance suite of package sandbox: every driver
// and every fake of it runs the same tests.
//
//	func TestConformance(t *testing.T) {
//		sandboxtest.Run(t, func(t *testing.T) sandboxtest.Subject { … })
//	}
//
// It needs a POSIX shell, coreutils and setsid inside.
package sandboxtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flowrun.dev/flow/sandbox"
)

// Subject is what is tested.
type Subject struct {
	Driver sandbox.Driver
	// ExtraEnv names the variables that the driver adds to every command, which it
	// must document.
	ExtraEnv []string
	// MoreEnv names what its BaseEnv may have besides, which it must document.
	MoreEnv []string
	// Lose makes a living sandbox break, as if its init had been killed. Nil: it
	// cannot.
	Lose func(t *testing.T, sb sandbox.Sandbox)
	// LooseModes is set when Rights.ReadOnly does not keep modes and times.
	LooseModes bool
	// Mounted is set when the workspace is a mount of its own: it cannot be replaced, and
	// a later sandbox in the same Dir begins anew.
	Mounted bool
	// Limits of the suite's sandboxes.
	Limits sandbox.Limits
	// Bomb is set when processes are bounded, so that a fork bomb may be let off.
	Bomb bool
}

// Run runs the suite. The factory is called once for each test.
func Run(t *testing.T, factory func(t *testing.T) Subject) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *place)
	}{
		{"Probe", testProbe},
		{"Info", testInfo},
		{"BaseEnv", testBaseEnv},
		{"EnvironmentIsExact", testEnvironment},
		{"LargeEnvironment", testLargeEnvironment},
		{"LongArguments", testLongArguments},
		{"NoDescriptorLeaks", testDescriptors},
		{"Stdio", testStdio},
		{"LargeOutput", testLargeOutput},
		{"ExitCodes", testExitCodes},
		{"Lookup", testLookup},
		{"BadRequests", testBadRequests},
		{"Usage", testUsage},
		{"State", testState},
		{"ManyAtOnce", testManyAtOnce},
		{"CancelledBefore", testCancelledBefore},
		{"CancelKillsTheTree", testCancelKillsTree},
		{"CancelGivesGrace", testGrace},
		{"LeftoversAreKilled", testLeftovers},
		{"KillingOneLeavesTheOther", testKillOne},
		{"Rights", testRights},
		{"RightsRequests", testRightsRequests},
		{"Sockets", testSockets},
		{"Apart", testApart},
		{"ForkBomb", testForkBomb},
		{"Listen", testListen},
		{"ListenManyAtOnce", testListenMany},
		{"Files", testFiles},
		{"FilesAreBeneath", testFilesBeneath},
		{"Checkpoints", testCheckpoints},
		{"Scrub", testScrub},
		{"Close", testClose},
		{"CloseEndsExecs", testCloseEndsExecs},
		{"Loss", testLoss},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name != "ForkBomb" { // alone, for it slows everything down
				t.Parallel()
			}
			s := factory(t)
			p := &place{T: t, subject: s}
			if c.name != "NoDescriptorLeaks" { // it prepares before the sandbox is made
				p.create()
			}
			c.test(t, p)
		})
	}
}

// place is one sandbox and its test.
type place struct {
	*testing.T
	subject Subject
	id      string
	sandbox.Sandbox
}

// patience bounds everything that a test waits for; far above what it takes.
const patience = 30 * time.Second

func (p *place) create() {
	p.Helper()
	p.id = fmt.Sprintf("conformance-%d", markers.Add(1)) // Scrub may look for what carries it
	sb, err := p.subject.Driver.Create(p.ctx(), sandbox.Spec{ID: p.id, Dir: p.TempDir(), Limits: p.subject.Limits})
	if err != nil {
		p.Fatalf("create: %v", err)
	}
	p.Sandbox = sb
	p.Cleanup(func() {
		if err := sb.Close(context.Background()); err != nil {
			p.Errorf("close: %v", err)
		}
	})
}

func (p *place) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	p.Cleanup(cancel)
	return ctx
}

// output collects what a command writes.
type output struct {
	w    *os.File
	done chan struct{}
	buf  bytes.Buffer
}

func (p *place) output() *output {
	p.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		p.Fatal(err)
	}
	o := &output{w: w, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		defer r.Close()
		_, _ = io.Copy(&o.buf, r) // an error shows as missing text
	}()
	return o
}

// text closes our end and waits for the others to do so.
func (o *output) text() string {
	o.w.Close()
	<-o.done
	return o.buf.String()
}

// sh runs a script to its end and returns what it wrote.
func (p *place) sh(script string, args ...string) (string, sandbox.Result) {
	p.Helper()
	out := p.output()
	res, err := p.Exec(p.ctx(), sandbox.Cmd{Argv: append([]string{"sh", "-c", script, "sh"}, args...), Env: p.BaseEnv(), Stdout: out.w, Stderr: out.w})
	text := out.text()
	if err != nil {
		p.Fatalf("exec %q: %v\n%s", script, err, text)
	}
	return text, res
}

// must is sh for a script that succeeds.
func (p *place) must(script string, args ...string) string {
	p.Helper()
	text, res := p.sh(script, args...)
	if res.ExitCode != 0 {
		p.Fatalf("exec %q: exit code %d\n%s", script, res.ExitCode, text)
	}
	return text
}

// started is a command that runs.
type started struct {
	cancel context.CancelFunc
	stdin  *os.File
	done   chan struct{}
	res    sandbox.Result
	err    error
}

// start runs a script and waits for its first line of output.
func (p *place) start(grace time.Duration, script string, args ...string) *started {
	p.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, w, err := os.Pipe()
	if err != nil {
		p.Fatal(err)
	}
	inRead, inWrite, err := os.Pipe()
	if err != nil {
		p.Fatal(err)
	}
	s := &started{cancel: cancel, done: make(chan struct{}), stdin: inWrite}
	go func() {
		defer close(s.done)
		s.res, s.err = p.Exec(ctx, sandbox.Cmd{Argv: append([]string{"sh", "-c", script, "sh"}, args...),
			Env: p.BaseEnv(), Stdin: inRead, Stdout: w, Stderr: w, Grace: grace})
		w.Close()
		inRead.Close()
	}()
	p.Cleanup(func() {
		cancel()
		<-s.done
		r.Close()
		inWrite.Close()
	})
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		p.Fatal(err)
	}
	line := make([]byte, 256)
	n, err := r.Read(line)
	if err != nil || !strings.HasPrefix(string(line[:n]), "ready") {
		p.Fatalf("command did not get ready: %q, %v", line[:n], err)
	}
	return s
}

// wait waits for the end of a started command.
func (p *place) wait(s *started, within time.Duration) {
	p.Helper()
	select {
	case <-s.done:
	case <-time.After(within):
		p.Fatalf("command did not end within %v", within)
	}
}

var markers atomic.Int64

// marker is an argument that no other process of the machine has.
func marker() string { return fmt.Sprintf("flowmark-%d-%d", os.Getpid(), markers.Add(1)) }

// survivors lists the processes of this machine that have an argument.
func survivors(mark string) (found []string) {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return []string{"cannot look: " + err.Error()}
	}
	for _, e := range names {
		if e.Name()[0] < '0' || e.Name()[0] > '9' {
			continue
		}
		line, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && slices.Contains(strings.Split(string(line), "\x00"), mark) {
			found = append(found, e.Name()+": "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

// processes counts those of this machine, roughly.
func processes() int {
	d, err := os.Open("/proc")
	if err != nil {
		return 0
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1) // what was read until an error counts
	return len(names)
}

// gone fails the test if a process with the marker lives.
func (p *place) gone(mark string) {
	p.Helper()
	if left := survivors(mark); len(left) > 0 {
		p.Errorf("%d processes survived, first: %s", len(left), left[0])
	}
}

// until polls a condition.
func (p *place) until(what string, ok func() bool) {
	p.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			p.Fatalf("waited in vain: %s", what)
		}
	}
}

// wantClass checks that an error is a *sandbox.Error of a class.
func (p *place) wantClass(err error, class sandbox.Class) {
	p.Helper()
	var e *sandbox.Error
	if !errors.As(err, &e) {
		p.Errorf("error %v (%T), want a *sandbox.Error", err, err)
	} else if e.Class != class {
		p.Errorf("class of %q = %s, want %s", err, e.Class, class)
	}
}
