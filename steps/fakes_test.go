package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/redact"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/host"
	"flowrun.dev/flow/workflow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeLogs keeps what is written in memory.
type fakeLogs struct {
	mu   sync.Mutex
	text map[string]map[Stream]*bytes.Buffer
	// broken is what Write says from the first byte on, nil for a log that works.
	broken error
}

func (l *fakeLogs) OpenLog(run, step string, attempt int) (LogWriter, error) {
	return &fakeLog{l: l, ref: fmt.Sprintf("log/%s/%s/%d", run, step, attempt)}, nil
}

func (l *fakeLogs) Tail(_ context.Context, ref string, s Stream, n int) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.text[ref][s]
	if b == nil {
		return nil, nil
	}
	return b.Bytes()[max(0, b.Len()-n):], nil
}

type fakeLog struct {
	l   *fakeLogs
	ref string
	any bool
}

func (w *fakeLog) Write(s Stream, p []byte) error {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	if w.l.broken != nil {
		return w.l.broken
	}
	w.any = true
	if w.l.text == nil {
		w.l.text = map[string]map[Stream]*bytes.Buffer{}
	}
	if w.l.text[w.ref] == nil {
		w.l.text[w.ref] = map[Stream]*bytes.Buffer{Stdout: {}, Stderr: {}}
	}
	w.l.text[w.ref][s].Write(p)
	return nil
}

func (w *fakeLog) Finish() (string, error) {
	if !w.any {
		return "", nil
	}
	return w.ref, nil
}

// memory is the Checkpoints of a run without a database.
type memory struct {
	*checkpoint.MemStore
	mu    sync.Mutex
	trees map[string]*checkpoint.Manifest
	// broken is what StageCheckpoint says, nil for one that works.
	broken error
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = err
}

func newMemory() *memory {
	return &memory{MemStore: new(checkpoint.MemStore), trees: map[string]*checkpoint.Manifest{}}
}

func (m *memory) StageCheckpoint(_ context.Context, run string, snap checkpoint.Snapshot, _ string) (string, error) {
	if snap.Batch != nil {
		if err := snap.Batch.Seal(); err != nil {
			return "", err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return "", m.broken
	}
	id := fmt.Sprintf("%s-c%d", run, len(m.trees)+1)
	m.trees[id] = snap.Manifest
	return id, nil
}

func (m *memory) Manifest(_ context.Context, id string) (*checkpoint.Manifest, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.trees[id]
	if !ok {
		return nil, fmt.Errorf("checkpoint %s: %w", id, os.ErrNotExist)
	}
	return t, nil
}

// fakeDriver makes fakeSandboxes, after the failures that it was told to have.
type fakeDriver struct {
	name  string
	probe error

	mu       sync.Mutex
	fails    []error  // of the next creations; nil succeeds
	echoes   []string // what the next sandboxes answer to echo; "ok" when there is none
	made     []*fakeSandbox
	attempts int
}

func (d *fakeDriver) Name() string { return d.name }

func (d *fakeDriver) Probe(context.Context) (sandbox.Capabilities, error) {
	return sandbox.Capabilities{Driver: d.name}, d.probe
}

func (d *fakeDriver) Create(_ context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attempts++
	if len(d.fails) > 0 {
		err := d.fails[0]
		d.fails = d.fails[1:]
		if err != nil {
			return nil, err
		}
	}
	sb := &fakeSandbox{id: s.ID, echo: "ok", done: make(chan struct{})}
	if len(d.echoes) > 0 {
		sb.echo, d.echoes = d.echoes[0], d.echoes[1:]
	}
	d.made = append(d.made, sb)
	return sb, nil
}

// fakeSandbox has no tree. Its commands succeed and say what echo is.
type fakeSandbox struct {
	id, echo string
	done     chan struct{}

	mu       sync.Mutex
	closed   bool
	restored *checkpoint.Manifest
}

func (s *fakeSandbox) Info() sandbox.Info {
	return sandbox.Info{ID: s.id, Driver: "fake", Tier: sandbox.TierNamespaceUser}
}
func (*fakeSandbox) Home() string      { return "" }
func (*fakeSandbox) BaseEnv() []string { return []string{"PATH=/bin", "HOME=/home/user"} }

func (s *fakeSandbox) Exec(_ context.Context, c sandbox.Cmd) (sandbox.Result, error) {
	if c.Stdout != nil {
		fmt.Fprintln(c.Stdout, s.echo)
	}
	return sandbox.Result{}, nil
}

func (*fakeSandbox) Listen(context.Context, string, string) (net.Listener, error) {
	return nil, errors.ErrUnsupported
}
func (*fakeSandbox) Files() sandbox.Files { return nil }

func (*fakeSandbox) Snapshot(context.Context, checkpoint.Store) (checkpoint.Snapshot, error) {
	return checkpoint.Snapshot{Manifest: &checkpoint.Manifest{}}, nil
}

func (s *fakeSandbox) Restore(_ context.Context, _ checkpoint.Store, m *checkpoint.Manifest) error {
	s.restored = m
	return nil
}

func (s *fakeSandbox) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	return nil
}

func (s *fakeSandbox) Done() <-chan struct{} { return s.done }

// rig is a Host over driver host, with everything else in memory.
type rig struct {
	t     *testing.T
	host  *Host
	plan  *workflow.Plan
	logs  *fakeLogs
	store *memory

	mu     sync.Mutex
	events []engine.Body
	shown  bytes.Buffer
}

// newRig parses a workflow and makes its Host; change may adjust the Config.
func newRig(t *testing.T, text string, change func(*Config)) *rig {
	t.Helper()
	dir := t.TempDir()
	w, err := workflow.Parse(filepath.Join(dir, "w.yaml"), []byte(text), workflow.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, plan: workflow.BuildPlan(w), logs: &fakeLogs{}, store: newMemory()}
	none, err := redact.New()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{RunID: "run", Workflow: w, Driver: host.New(host.Options{Path: os.Getenv("PATH")}), Dir: filepath.Join(dir, "run"),
		FileDir: dir, Checkpoints: r.store, Logs: r.logs, Redact: none,
		Output: func(_ string, _ Stream, p []byte) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.shown.Write(p)
		}}
	if change != nil {
		change(&cfg)
	}
	r.host = NewHost(cfg)
	t.Cleanup(func() { r.host.Close(context.Background()) })
	return r
}

func (r *rig) emit(b engine.Body) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, b)
}

// attempt is what the engine would hand over for a step's first try.
func (r *rig) attempt(id string) engine.Attempt {
	r.t.Helper()
	i, ok := r.plan.ByID[id]
	if !ok {
		r.t.Fatalf("there is no step %s", id)
	}
	s := r.plan.Nodes[i].Step
	return engine.Attempt{RunID: "run", Step: s, Attempt: 1, Timeout: s.Timeout, Vars: workflow.Vars{Success: true}}
}

func (r *rig) run(id string) engine.Outcome {
	r.t.Helper()
	return r.host.Run(context.Background(), r.attempt(id), r.emit)
}

// secrets makes a redactor of name=value pairs.
func secrets(t *testing.T, pairs ...string) *redact.Set {
	t.Helper()
	var list []redact.Secret
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, redact.Secret{Name: pairs[i], Value: pairs[i+1]})
	}
	set, err := redact.New(list...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}
