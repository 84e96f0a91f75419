package steps

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// How `ready` of a background step is looked at.
const (
	probeEvery = 100 * time.Millisecond
	probeTime  = 10 * time.Second // of one try
)

// probe tries until the port is listened on or the script succeeds. last is what a
// script said at its last try.
func (h *Host) probe(ctx context.Context, on sandbox.Sandbox, a engine.Attempt, env []string, last *string) bool {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		var ok bool
		if a.Step.Ready.Port != 0 {
			ok = h.listens(ctx, on, a)
		} else {
			var said string
			if ok, said = h.readyScript(ctx, on, a, env); said != "" {
				*last = said
			}
		}
		if ok {
			return ctx.Err() == nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// listens looks for a listening socket of TCP in the sandbox's own network. Nothing
// is connected to: a server that takes one connection only is not spoilt.
func (h *Host) listens(ctx context.Context, on sandbox.Sandbox, a engine.Attempt) bool {
	tables := []string{"/proc/net/tcp", "/proc/net/tcp6"}
	var out []byte
	if h.roomOf(a.Step).network == sandbox.NetworkFull || on.Info().Tier == sandbox.TierNone {
		// The network is this process's own; the tier landlock shows no /proc inside.
		for _, name := range tables {
			b, _ := os.ReadFile(name) // no IPv6: no such table
			out = append(out, b...)
		}
	} else {
		_, out = h.look(ctx, on, sandbox.Cmd{Argv: append([]string{"cat"}, tables...), Env: on.BaseEnv()})
	}
	want := fmt.Sprintf(":%04X", a.Step.Ready.Port)
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		const listening = "0A"
		if f := strings.Fields(lines.Text()); len(f) > 3 && strings.HasSuffix(f[1], want) && f[3] == listening {
			return true
		}
	}
	return false
}

func (h *Host) readyScript(ctx context.Context, on sandbox.Sandbox, a engine.Attempt, env []string) (ok bool, said string) {
	script, err := a.Step.Ready.Run.EvalString(a.Vars)
	if err != nil {
		return false, err.Error()
	}
	argv := append(slices.Clone(shells["sh"]), "-c", script)
	if s := a.Step.Run.Shell; s != "" {
		inline := "-c"
		if s == "node" {
			inline = "-e"
		}
		argv = append(slices.Clone(shells[s]), inline, script)
	}
	code, out := h.look(ctx, on, sandbox.Cmd{Argv: argv, Env: env})
	return code == 0, strings.TrimSpace(h.cfg.Redact.String(lastChars(out, 300)))
}

// look executes a short command and returns what it printed, at most 1 MiB.
func (h *Host) look(ctx context.Context, on sandbox.Sandbox, cmd sandbox.Cmd) (code int, out []byte) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return -1, nil
	}
	defer r.Close()
	var reading sync.WaitGroup
	reading.Go(func() {
		out, _ = io.ReadAll(io.LimitReader(r, 1<<20))
		_, _ = io.Copy(io.Discard, r)
	})
	cmd.Stdout, cmd.Stderr = w, w
	res, err := on.Exec(ctx, cmd)
	w.Close()
	_ = r.SetReadDeadline(time.Now().Add(drainTime))
	reading.Wait()
	if err != nil {
		return -1, out
	}
	return res.ExitCode, out
}

// lineWatch looks for a line in both streams of a step's output.
type lineWatch struct {
	re   *regexp.Regexp
	once sync.Once
	seen chan struct{} // closed at the first match

	mu   sync.Mutex
	open map[Stream][]byte // the line so far
}

func newLineWatch(r *workflow.Ready) (*lineWatch, error) {
	w := &lineWatch{seen: make(chan struct{}), open: map[Stream][]byte{}}
	if r == nil || r.Log == "" {
		return w, nil
	}
	re, err := regexp.Compile(r.Log)
	if err != nil {
		return nil, fmt.Errorf("ready: log: %w", err)
	}
	w.re = re
	return w, nil
}

// maxWatchedLine bounds a line that does not end.
const maxWatchedLine = 64 << 10

func (w *lineWatch) see(s Stream, p []byte) {
	if w.re == nil {
		return
	}
	select {
	case <-w.seen:
		return
	default:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	buf := append(w.open[s], p...)
	for len(buf) > 0 {
		line, rest, whole := bytes.Cut(buf, []byte("\n"))
		if w.re.Match(line) { // a line that is not whole yet may match as well
			w.once.Do(func() { close(w.seen) })
			return
		}
		if !whole {
			break
		}
		buf = rest
	}
	if len(buf) > maxWatchedLine {
		buf = buf[len(buf)-maxWatchedLine:]
	}
	w.open[s] = append([]byte(nil), buf...)
}

func notReady(r *workflow.Ready, last string) string {
	text := fmt.Sprintf("not ready after %s: ", r.Timeout)
	switch {
	case r.Port != 0:
		text += fmt.Sprintf("nothing in the sandbox listens on port %d", r.Port)
	case r.Log != "":
		text += fmt.Sprintf("no line of its output matches %q", r.Log)
	default:
		text += "the script of `ready: {run}` did not succeed"
		if last != "" {
			text += ": " + last
		}
	}
	return text
}
