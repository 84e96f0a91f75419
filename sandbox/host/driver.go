package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/internal/beneath"
	"flowrun.dev/flow/sandbox/internal/listen"
	"flowrun.dev/flow/sandbox/internal/lookup"
)

// Options of the driver.
type Options struct {
	// Path is the PATH of commands, e.g. os.Getenv("PATH"). Empty: lookup.DefaultPath.
	Path string
}

// Driver runs commands without isolation. It may be used by several goroutines.
type Driver struct{ opts Options }

// New returns the driver.
func New(o Options) *Driver {
	if o.Path == "" {
		o.Path = lookup.DefaultPath
	}
	return &Driver{opts: o}
}

// Name is "host".
func (d *Driver) Name() string { return "host" }

func driverError(op string, class sandbox.Class, err error) *sandbox.Error {
	return &sandbox.Error{Op: op, Class: class, Err: err}
}

// Probe starts nothing: what this process can do, a command of this driver can, and
// every run would pay for it.
func (d *Driver) Probe(context.Context) (sandbox.Capabilities, error) {
	return sandbox.Capabilities{
		Forks:   true, // a tree on this host can be had twice
		InPlace: true,
		Driver:  "host", Tier: sandbox.TierNone, Network: true,
		Reason: "driver host runs commands on this machine without isolation, network included",
	}, nil
}

// Create makes the private home.
func (d *Driver) Create(_ context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	op := "create sandbox " + s.ID
	switch s.Network {
	case "", sandbox.NetworkNone, sandbox.NetworkFull: // see the package comment
	default:
		return nil, driverError(op, sandbox.ClassInvalid, fmt.Errorf("unknown network %q", s.Network))
	}
	if len(s.Trust)+len(s.Catch) > 0 {
		return nil, driverError(op, sandbox.ClassInvalid, errors.New("trust certificates and catch connections: driver host has no root and no network of its own"))
	}
	if len(s.Mounts) > 0 {
		return nil, driverError(op, sandbox.ClassInvalid, fmt.Errorf("show %s at %s: driver host has no root of its own", s.Mounts[0].Host, s.Mounts[0].To))
	}
	if !filepath.IsAbs(s.Dir) {
		return nil, driverError(op, sandbox.ClassInvalid, fmt.Errorf("directory %q is not absolute", s.Dir))
	}
	home, tmp := filepath.Join(s.Dir, "home"), filepath.Join(s.Dir, "tmp")
	workspace := filepath.Join(home, "workspace")
	dirs := map[string]os.FileMode{workspace: 0o755, tmp: 0o700}
	if s.InPlace != "" {
		dirs = map[string]os.FileMode{home: 0o755, tmp: 0o700}
	}
	for dir, mode := range dirs {
		if err := os.MkdirAll(dir, mode); err != nil {
			return nil, driverError(op, sandbox.ClassInfrastructure, err)
		}
	}
	files := beneath.Dir{Home: home, Sub: "workspace"}
	if s.InPlace != "" {
		tree, err := linkInPlace(s.InPlace, workspace)
		if err != nil {
			return nil, driverError(op, sandbox.ClassInvalid, err)
		}
		files = beneath.Dir{Home: filepath.Dir(tree), Sub: filepath.Base(tree)}
	}
	if err := keepDescriptors(); err != nil {
		return nil, driverError(op, sandbox.ClassInfrastructure, fmt.Errorf("keep flow's descriptors from commands: %w", err))
	}
	shell := "/bin/sh"
	if _, err := exec.LookPath("/bin/bash"); err == nil {
		shell = "/bin/bash"
	}
	return &Sandbox{
		id: s.ID, home: home, files: files,
		env: []string{"PATH=" + d.opts.Path, "HOME=" + home, "USER=user", "LOGNAME=user", "SHELL=" + shell,
			"LANG=C.UTF-8", "TERM=dumb", "TMPDIR=" + tmp},
		tracker: checkpoint.NewTracker(home, checkpoint.Options{}),
		done:    make(chan struct{}), running: map[int]context.CancelCauseFunc{},
	}, nil
}

// linkInPlace makes the workspace a link to the tree. A checkpoint holds the link, a
// restore compares it, the end of the sandbox removes it: nothing of them follows one.
//
// It returns the tree's own path, where dir is a link to it.
func linkInPlace(dir, workspace string) (tree string, err error) {
	tree, err = filepath.EvalSymlinks(dir)
	if err == nil {
		var info os.FileInfo
		if info, err = os.Stat(tree); err == nil && !info.IsDir() {
			err = syscall.ENOTDIR
		}
	}
	if err != nil || !filepath.IsAbs(tree) {
		return "", fmt.Errorf("work in %s: %w", dir, cmp.Or(err, fs.ErrInvalid))
	}
	if was, err := os.Readlink(workspace); err == nil && was == tree {
		return tree, nil // of an earlier sandbox in this directory
	}
	return tree, os.Symlink(tree, workspace)
}

// Sandbox is a private home on this machine.
type Sandbox struct {
	id, home string
	files    beneath.Dir
	env      []string
	tracker  *checkpoint.Tracker
	done     chan struct{}

	listeners listen.Set

	mu      sync.Mutex
	closed  bool
	next    int
	running map[int]context.CancelCauseFunc
	execs   sync.WaitGroup
}

var _ sandbox.Sandbox = (*Sandbox)(nil)

// Info describes the sandbox.
func (s *Sandbox) Info() sandbox.Info {
	return sandbox.Info{ID: s.id, Driver: "host", Tier: sandbox.TierNone}
}

// Home is Spec.Dir/home.
func (s *Sandbox) Home() string { return s.home }

// BaseEnv is PATH, HOME (the real one), USER, LOGNAME, SHELL, LANG, TERM and TMPDIR.
func (s *Sandbox) BaseEnv() []string { return append([]string(nil), s.env...) }

// Files reads beneath the workspace.
func (s *Sandbox) Files() sandbox.Files { return s.files }

// Done is closed by Close.
func (s *Sandbox) Done() <-chan struct{} { return s.done }

// Snapshot stores the home tree.
func (s *Sandbox) Snapshot(ctx context.Context, st checkpoint.Store) (checkpoint.Snapshot, error) {
	return s.tracker.Snapshot(ctx, st)
}

// Restore makes the home tree equal to m.
func (s *Sandbox) Restore(ctx context.Context, st checkpoint.Store, m *checkpoint.Manifest) error {
	return s.tracker.Restore(ctx, st, m)
}

// Listen listens on this machine's loopback, where every process of it can connect.
func (s *Sandbox) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	const op = "listen in the sandbox"
	ap, err := listen.Parse(network, addr)
	if err != nil {
		return nil, driverError(op, sandbox.ClassInvalid, err)
	}
	if err := context.Cause(ctx); err != nil {
		return nil, driverError(op, sandbox.ClassInfrastructure, err)
	}
	l, err := net.Listen("tcp", ap.String()) // a literal: it cannot block
	if err != nil {
		return nil, driverError(op, sandbox.ClassInfrastructure, err)
	}
	if l, err = s.listeners.Add(l); err != nil {
		return nil, driverError(op, sandbox.ClassInvalid, err)
	}
	return l, nil
}

var errClosed = errors.New("the sandbox was closed")

// enter registers an exec, so that Close can end it and wait for it.
func (s *Sandbox) enter(cancel context.CancelCauseFunc) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	s.next++
	key := s.next
	s.running[key] = cancel
	s.execs.Add(1)
	return func() {
		s.mu.Lock()
		delete(s.running, key)
		s.mu.Unlock()
		s.execs.Done()
	}, nil
}

// Close kills what runs and waits for it, at most closeTimeout, also when ctx has ended.
func (s *Sandbox) Close(ctx context.Context) error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	for _, cancel := range s.running {
		cancel(errClosed)
	}
	s.mu.Unlock()
	s.listeners.Close()
	if first {
		go func() {
			s.execs.Wait()
			close(s.done)
		}()
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), closeTimeout, fmt.Errorf("commands did not end within %v", closeTimeout))
	defer cancel()
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return driverError("close sandbox "+s.id, sandbox.ClassInfrastructure, context.Cause(ctx))
	}
}
