package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/internal/landlock"
)

// Driver makes namespace sandboxes. Its methods may be called from several goroutines.
type Driver struct {
	opts Options
	env  func() []string // BaseEnv, found once
}

// New returns the driver. It starts nothing and looks at nothing.
func New(o Options) *Driver {
	return &Driver{opts: o, env: sync.OnceValue(func() []string { return baseEnv(o.Path) })}
}

// Name is "local".
func (d *Driver) Name() string { return "local" }

const (
	// createTimeout bounds the set-up of a sandbox (typically 6 ms).
	createTimeout = 20 * time.Second
	// probeTimeout bounds a whole Probe.
	probeTimeout = 30 * time.Second
	// maxHostname is the kernel's limit (__NEW_UTS_LEN).
	maxHostname = 64
)

// maxID is the longest Spec.ID, in bytes.
const maxID = 128

// isID: no regular expression, which would be compiled in each stage of each init.
func isID(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= maxID
}

// Probe makes a sandbox in a temporary directory, runs echo in it, and removes it.
func (d *Driver) Probe(ctx context.Context) (sandbox.Capabilities, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, errors.New("probing the local sandbox took too long"))
	defer cancel()
	dir, err := os.MkdirTemp("", "flow-probe-")
	if err != nil {
		return sandbox.Capabilities{}, &sandbox.Error{Op: "probe local sandbox", Class: sandbox.ClassInfrastructure, Err: err}
	}
	defer os.RemoveAll(dir)
	sb, err := d.create(ctx, sandbox.Spec{ID: "probe", Dir: dir})
	if err != nil {
		return sandbox.Capabilities{}, err
	}
	defer sb.Close(context.WithoutCancel(ctx))
	if err := sb.sayHello(ctx); err != nil {
		return sandbox.Capabilities{}, &sandbox.Error{Op: "probe local sandbox", Class: sandbox.ClassInvalid, Err: err,
			Hint: "The sandbox starts, but no command runs in it; see the cause."}
	}
	return sandbox.Capabilities{
		Driver: "local", Tier: sb.ids.tier, Reason: sb.reason,
		NoNetwork: true, Network: true, EgressList: true, KillTree: true, PathRights: true, SocketRights: true,
		Apart: landlock.ABI() >= landlock.ABIScope,
	}, nil
}

// sayHello is the health check: a command must run and its output must arrive.
func (s *Sandbox) sayHello(ctx context.Context) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	res, err := s.Exec(ctx, sandbox.Cmd{Argv: []string{"echo", "hello"}, Env: s.BaseEnv(), Stdout: w, Stderr: w})
	w.Close()
	if err != nil {
		return fmt.Errorf("run echo: %w", err)
	}
	out := make([]byte, 256)
	n, _ := r.Read(out) // the text below shows what came
	if text := string(bytes.TrimSpace(out[:n])); res.ExitCode != 0 || text != "hello" {
		return fmt.Errorf("run echo: exit code %d, output %q", res.ExitCode, text)
	}
	return nil
}

// Create starts a sandbox.
func (d *Driver) Create(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	sb, err := d.create(ctx, s)
	if err != nil {
		return nil, err // a nil *Sandbox must not become a non-nil interface
	}
	return sb, nil
}

func (d *Driver) create(ctx context.Context, spec sandbox.Spec) (*Sandbox, error) {
	invalid := func(err error, hint string) (*Sandbox, error) {
		return nil, &sandbox.Error{Op: "create sandbox " + spec.ID, Class: sandbox.ClassInvalid, Err: err, Hint: hint}
	}
	if !isID(spec.ID) {
		return invalid(fmt.Errorf("id %q is not of the form [a-z0-9-]", spec.ID), "")
	}
	if !filepath.IsAbs(spec.Dir) {
		return invalid(fmt.Errorf("directory %q is not absolute", spec.Dir), "")
	}
	switch spec.Network {
	case "":
		spec.Network = sandbox.NetworkNone
	case sandbox.NetworkNone, sandbox.NetworkFull:
	default:
		return invalid(fmt.Errorf("unknown network %q", spec.Network), "The local driver knows none and full.")
	}
	if spec.Hostname == "" {
		spec.Hostname = "sandbox"
	}
	if len(spec.Hostname) > maxHostname || strings.ContainsFunc(spec.Hostname, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return invalid(fmt.Errorf("host name %q is not of up to %d printable ASCII characters", spec.Hostname, maxHostname), "")
	}
	if err := checkMounts(spec.Mounts); err != nil {
		return invalid(err, "")
	}
	if err := context.Cause(ctx); err != nil {
		return nil, createError(spec.ID, err)
	}
	ids, err := chooseIDs(os.Geteuid(), os.ReadFile)
	if err != nil {
		return invalid(err, "Run flow as an ordinary user, or use driver host.")
	}
	sb := &Sandbox{
		id: spec.ID, ids: ids, home: filepath.Join(spec.Dir, "home"), reason: ids.reason,
		calls: map[uint64]chan *execResult{}, listens: map[uint64]chan listened{}, done: make(chan struct{}),
		env: d.env(),
	}
	ctx, cancel := context.WithTimeoutCause(ctx, createTimeout, fmt.Errorf("not ready after %v", createTimeout))
	defer cancel()
	if err := sb.start(ctx, spec, d.opts); err != nil {
		return nil, createError(spec.ID, err)
	}
	sb.tracker = checkpoint.NewTracker(sb.home, checkpoint.Options{Owner: sb.owner})
	return sb, nil
}

// createError classes the cause and finds what would mend it.
func createError(id string, err error) error {
	e := &sandbox.Error{Op: "create sandbox " + id, Class: sandbox.ClassInfrastructure, Err: err}
	if why, ok := explain(err, readSysctl, os.Geteuid() == 0); ok {
		e.Class, e.Err, e.Hint = sandbox.ClassInvalid, fmt.Errorf("%w (%s)", err, why.reason), why.hint
	}
	return e
}
