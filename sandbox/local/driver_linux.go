package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/internal/cgroup"
	"flowrun.dev/flow/sandbox/internal/landlock"
	"flowrun.dev/flow/sandbox/internal/owner"
)

// Driver makes namespace sandboxes. Its methods may be called from several goroutines.
type Driver struct {
	opts Options
	env  func() []string // BaseEnv, found once

	maps idMaps

	mu     sync.Mutex
	chosen *choice
}

// choice is the tier of a driver's sandboxes: the strongest that really started once.
// It does not change, so that nothing steps down in silence.
type choice struct {
	ids
	lift string // what would give a stronger tier
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

// maxTrust bounds Spec.Trust: it goes in the one message of the configuration.
const maxTrust = 16 << 10

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
	dir := filepath.Join(os.TempDir(), owner.Name(probePrefix+strconv.FormatUint(rand.Uint64(), 36)))
	err := os.Mkdir(dir, 0o700)
	if err != nil {
		return sandbox.Capabilities{}, &sandbox.Error{Op: "probe local sandbox", Class: sandbox.ClassInfrastructure, Err: err}
	}
	defer os.RemoveAll(dir)
	c, err := d.choose(ctx, sandbox.Spec{ID: "probe", Dir: dir})
	if err != nil {
		return sandbox.Capabilities{}, err
	}
	return sandbox.Capabilities{
		Forks:   true, // a tree on this host can be had twice
		Overlay: c.ids.root && hasOverlay(),
		Driver:  "local", Tier: c.tier, Reason: c.reason, Lift: c.lift,
		NoNetwork: true, Network: true, EgressList: c.tier != sandbox.TierLandlock || canHold(), Catch: c.tier != sandbox.TierLandlock, KillTree: true, PathRights: true, SocketRights: true,
		LooseModes: c.tier == sandbox.TierLandlock,
		Limits:     d.limits(c),
		Apart:      landlock.ABI() >= landlock.ABIScope,
	}, nil
}

// limits that can be enforced. By the kernel's resource limits always, but that it does
// not count the processes of uid 0; what counts a whole tree needs a control group.
func (d *Driver) limits(c *choice) []string {
	l := []string{"file_size", "open_files", "disk"}
	groups := cgroup.Find().Can()
	for _, x := range [...][2]string{{"memory", "memory"}, {"cpu", "cpus"}} {
		if slices.Contains(groups, x[0]) {
			l = append(l, x[1])
		}
	}
	if c.tier != sandbox.TierLandlock || os.Getuid() != 0 || slices.Contains(groups, "pids") {
		l = append(l, "pids")
	}
	if c.tier != sandbox.TierLandlock {
		l = append(l, "tmp")
	}
	return l
}

// checkLimits refuses what is not in the list.
func checkLimits(asked sandbox.Limits, can []string) error {
	for _, name := range asked.Asked() {
		if !slices.Contains(can, name) {
			return fmt.Errorf("the limit %s cannot be enforced on this machine", name)
		}
	}
	if asked.OpenFiles != 0 && asked.OpenFiles < minOpenFiles || asked.Pids != 0 && asked.Pids < minPids {
		return fmt.Errorf("limits are too small: at least %d open files and %d processes", minOpenFiles, minPids)
	}
	return nil
}

// What init itself needs.
const (
	minOpenFiles = 64
	minPids      = 16
)

// choose finds the tier by starting a sandbox, and remembers it.
func (d *Driver) choose(ctx context.Context, probe sandbox.Spec) (*choice, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.chosen != nil {
		return d.chosen, nil
	}
	c, err := d.tryNamespaces(ctx, probe)
	var refused *sandbox.Error
	if errors.As(err, &refused) && refused.Class == sandbox.ClassInvalid {
		flat, flatErr := d.tryFlat(ctx, probe, refused)
		if flatErr != nil {
			return nil, &sandbox.Error{Op: refused.Op, Class: sandbox.ClassInvalid, Hint: refused.Hint,
				Err: fmt.Errorf("%w; and without namespaces: %w", refused.Err, flatErr)}
		}
		c, err = flat, nil
	}
	if err != nil {
		return nil, err
	}
	d.chosen = c
	return c, nil
}

func (d *Driver) tryNamespaces(ctx context.Context, probe sandbox.Spec) (*choice, error) {
	if d.opts.onlyLandlock {
		return nil, &sandbox.Error{Op: "probe local sandbox", Class: sandbox.ClassInvalid, Err: errors.New("a test asks for it")}
	}
	i, err := chooseIDs(os.Geteuid(), os.ReadFile)
	if err != nil {
		return nil, &sandbox.Error{Op: "probe local sandbox", Class: sandbox.ClassInvalid, Err: err,
			Hint: "Run flow as an ordinary user, or use driver host."}
	}
	c := &choice{ids: i}
	if !i.root {
		c.lift = "Run by root, flow maps a range of subordinate ids (/etc/subuid) instead of the user's one."
	}
	return c, d.try(ctx, probe, c)
}

func (d *Driver) tryFlat(ctx context.Context, probe sandbox.Spec, why *sandbox.Error) (*choice, error) {
	if abi := landlock.ABI(); abi < flatMinABI {
		return nil, fmt.Errorf("the kernel's Landlock has version %d, and %d is needed (Linux 6.2, enabled at boot)", abi, flatMinABI)
	}
	c := &choice{ids: ids{tier: sandbox.TierLandlock, reason: "no namespaces: " + why.Err.Error()}, lift: why.Hint}
	if landlock.ABI() < landlock.ABIScope {
		c.reason += "; before Linux 6.12 commands can also signal the user's other processes"
	}
	return c, d.try(ctx, probe, c)
}

// try starts a sandbox and runs echo in it.
func (d *Driver) try(ctx context.Context, probe sandbox.Spec, c *choice) error {
	sb, err := d.create(ctx, probe, c)
	if err != nil {
		return err
	}
	defer sb.Close(context.WithoutCancel(ctx))
	if err := sb.sayHello(ctx); err != nil {
		return &sandbox.Error{Op: "probe local sandbox", Class: sandbox.ClassInvalid, Err: err,
			Hint: "The sandbox starts, but no command runs in it; see the cause."}
	}
	return nil
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
	if s.InPlace != "" {
		return nil, &sandbox.Error{Op: "create sandbox " + s.ID, Class: sandbox.ClassInvalid, Err: errors.New("work in a folder of the host: only driver host can")}
	}
	c, err := d.tier(ctx)
	if err != nil {
		return nil, err
	}
	sb, err := d.create(ctx, s, c)
	if err != nil {
		return nil, err // a nil *Sandbox must not become a non-nil interface
	}
	return sb, nil
}

// tier is the choice, made now if Probe was not called.
func (d *Driver) tier(ctx context.Context) (*choice, error) {
	d.mu.Lock()
	c := d.chosen
	d.mu.Unlock()
	if c != nil {
		return c, nil
	}
	if _, err := d.Probe(ctx); err != nil {
		return nil, err
	}
	return d.tier(ctx)
}

func (d *Driver) create(ctx context.Context, spec sandbox.Spec, c *choice) (*Sandbox, error) {
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
	if len(spec.Limits.Asked()) > 0 {
		if err := checkLimits(spec.Limits, d.limits(c)); err != nil {
			return invalid(err, "`flow doctor` says which limits this machine can enforce.")
		}
	}
	if spec.Hostname == "" {
		spec.Hostname = "sandbox"
	}
	if len(spec.Hostname) > maxHostname || strings.ContainsFunc(spec.Hostname, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return invalid(fmt.Errorf("host name %q is not of up to %d printable ASCII characters", spec.Hostname, maxHostname), "")
	}
	for _, port := range spec.Catch {
		if spec.Network != sandbox.NetworkNone || port < 1 || port > 65535 || len(spec.Catch) > maxCaught {
			return invalid(fmt.Errorf("catch %d ports (%v) with network %s: at most %d ports of a sandbox without network", len(spec.Catch), spec.Catch, spec.Network, maxCaught), "")
		}
	}
	if len(spec.Trust) > maxTrust {
		return invalid(fmt.Errorf("the certificates to trust have %d bytes, more than %d", len(spec.Trust), maxTrust), "")
	}
	if err := checkMounts(spec.Mounts, c.tier == sandbox.TierLandlock); err != nil {
		return invalid(err, "")
	}
	if err := context.Cause(ctx); err != nil {
		return nil, createError(spec.ID, err)
	}
	sb := &Sandbox{
		id: spec.ID, ids: c.ids, holds: -1, home: filepath.Join(spec.Dir, "home"), reason: c.reason,
		limits: spec.Limits,
		calls:  map[uint64]chan *execResult{}, listens: map[uint64]chan listened{}, done: make(chan struct{}),
		env: d.env(),
	}
	if sb.flat() {
		sb.tmp = filepath.Join(spec.Dir, "tmp")
		sb.env = flatEnv(sb.env, sb.home, sb.tmp)
	}
	if spec.Lower != nil {
		if err := d.layer(ctx, sb, spec); err != nil {
			return nil, createError(spec.ID, err)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, createTimeout, fmt.Errorf("not ready after %v", createTimeout))
	defer cancel()
	if err := sb.start(ctx, spec, d.opts); err != nil {
		sb.view.close()
		return nil, createError(spec.ID, err)
	}
	if sb.view == nil {
		sb.tracker = checkpoint.NewTracker(sb.home, checkpoint.Options{Owner: sb.owner})
		return sb, nil
	}
	sb.layer = checkpoint.NewLayer(sb.home, checkpoint.LayerOptions{At: path.Base(sandbox.WorkspaceDir),
		Upper: sb.view.upper, View: sb.view.path, Prefix: sb.view.prefix, Owner: sb.owner})
	sb.tracker = sb.layer
	return sb, nil
}

// createError classes the cause and finds what would mend it.
func createError(id string, err error) error {
	e := &sandbox.Error{Op: "create sandbox " + id, Class: sandbox.ClassInfrastructure, Err: err}
	if errors.Is(err, sandbox.ErrNoOverlay) {
		e.Class = sandbox.ClassInvalid
		return e
	}
	if why, ok := explain(err, readSysctl, os.Geteuid() == 0); ok {
		e.Class, e.Err, e.Hint = sandbox.ClassInvalid, fmt.Errorf("%w (%s)", err, why.reason), why.hint
	}
	return e
}
