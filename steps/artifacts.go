package steps

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
)

const (
	// maxArtifacts of one step: they are listed in an event.
	maxArtifacts = 10000
	// collectWithin bounds collecting, which also follows a step that timed out.
	collectWithin = 10 * time.Minute
	// namedLeftOut bounds what a record says of files that were not taken.
	namedLeftOut = 20
)

// globSet is `artifacts:` as read: what to take, and what not.
type globSet struct{ take, leave []string }

func newGlobSet(globs []string) globSet {
	var s globSet
	for _, g := range globs {
		if rest, no := strings.CutPrefix(g, "!"); no {
			s.leave = append(s.leave, path.Clean(rest))
		} else {
			s.take = append(s.take, path.Clean(g))
		}
	}
	return s
}

// matches: the glob names the file, or a folder that it lies in. What is hidden (a
// name that begins with a dot, which is where settings and secrets stand) is taken
// only by a glob that names something hidden itself.
func matches(glob, name string) bool {
	if hidden(name) && !hidden(glob) {
		return false
	}
	for p := name; p != "."; p = path.Dir(p) {
		if doublestar.MatchUnvalidated(glob, p) {
			return true
		}
	}
	return glob == "."
}

func hidden(p string) bool { return p != "." && (p[0] == '.' || strings.Contains(p, "/.")) }

// picked are the indexes of the globs that take a file, nil when it is left.
func (s globSet) picked(name string) []int {
	for _, g := range s.leave {
		if matches(g, name) {
			return nil
		}
	}
	var out []int
	for i, g := range s.take {
		if matches(g, name) {
			out = append(out, i)
		}
	}
	return out
}

// roots are the folders that a walk has to look into.
func (s globSet) roots() []string {
	var out []string
	for _, g := range s.take {
		base, _ := doublestar.SplitPattern(g)
		out = append(out, base)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// collection is one collecting on its way.
type collection struct {
	h     *Host
	globs globSet
	found map[string]bool // files by name
	hits  []bool          // by glob
	out   engine.Artifacts
	left  int
}

func (h *Host) newCollection(globs []string) *collection {
	s := newGlobSet(globs)
	return &collection{h: h, globs: s, found: map[string]bool{}, hits: make([]bool, len(s.take))}
}

// pick notes a file's globs and says whether it is taken for the first time.
func (c *collection) pick(name string) bool {
	hits := c.globs.picked(name)
	for _, i := range hits {
		c.hits[i] = true
	}
	if len(hits) == 0 || c.found[name] {
		return false
	}
	c.found[name] = true
	return true
}

func (c *collection) leave(name, why string) {
	if c.left++; c.left <= namedLeftOut {
		c.out.LeftOut = append(c.out.LeftOut, c.h.cfg.Redact.String(name+": "+why))
	}
}

func (c *collection) add(name string, hash checkpoint.Hash, size int64, mode fs.FileMode) error {
	if len(c.out.Files) == maxArtifacts {
		return fmt.Errorf("more than %d files match `artifacts`: pack them into one", maxArtifacts)
	}
	c.out.Files = append(c.out.Files, engine.Artifact{Path: name, SHA256: hex.EncodeToString(hash[:]), Size: size, Exec: mode&0o111 != 0})
	return nil
}

// finish checks for secrets and names the globs that matched nothing.
func (c *collection) finish(ctx context.Context) (*engine.Artifacts, error) {
	if c.left > namedLeftOut {
		c.out.LeftOut = append(c.out.LeftOut, fmt.Sprintf("and %d more", c.left-namedLeftOut))
	}
	for i, hit := range c.hits {
		if !hit {
			c.out.Missing = append(c.out.Missing, c.globs.take[i])
		}
	}
	slices.SortFunc(c.out.Files, func(a, b engine.Artifact) int { return strings.Compare(a.Path, b.Path) })
	err := c.secrets(ctx)
	return &c.out, err
}

// secrets takes out the files that hold one: artifacts are handed on.
func (c *collection) secrets(ctx context.Context) error {
	if len(c.h.cfg.Secrets) == 0 {
		return nil
	}
	var bad error
	c.out.Files = slices.DeleteFunc(c.out.Files, func(a engine.Artifact) bool {
		if a.Size == 0 {
			return false
		}
		var hash checkpoint.Hash
		if _, err := hex.Decode(hash[:], []byte(a.SHA256)); err != nil {
			return true
		}
		r, err := c.h.cfg.Checkpoints.Open(ctx, hash)
		if err != nil {
			bad = errors.Join(bad, err)
			return true
		}
		defer r.Close()
		name, found, err := c.h.scan(r)
		switch {
		case err != nil:
			bad = errors.Join(bad, err)
		case found && bad == nil:
			bad = &heldSecret{fmt.Sprintf("artifact %s holds the secret %s; artifacts are handed on: leave the file out (`!%s`) or write it without the secret", a.Path, name, a.Path)}
		}
		return err != nil || found
	})
	return bad
}

// heldSecret is a mistake of the step, not of the place.
type heldSecret struct{ text string }

func (e *heldSecret) Error() string { return e.text }

// collectFrom takes artifacts from a workspace on disk. What runs there is not
// trusted: nothing is read through a link that leads out of it, and nothing blocks.
func (h *Host) collectFrom(ctx context.Context, workspace string, globs []string) (*engine.Artifacts, error) {
	c := h.newCollection(globs)
	root, err := os.OpenRoot(workspace)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	batch, err := h.cfg.Checkpoints.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer batch.Abort() // nothing once it is sealed
	for _, dir := range c.globs.roots() {
		err := fs.WalkDir(root.FS(), dir, func(name string, d fs.DirEntry, err error) error {
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case err != nil && name == dir: // the glob's folder is not there, or no folder
				return nil
			case err != nil:
				c.leave(name, reason(err))
				return nil
			case d.IsDir():
				return nil
			}
			if !c.pick(name) {
				return nil
			}
			return c.take(root, batch, name)
		})
		if err != nil {
			return nil, err
		}
	}
	if err := batch.Seal(); err != nil {
		return nil, err
	}
	return c.finish(ctx)
}

func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return err.Error()
}

// take stores one file. A link within the workspace is taken as the file that it
// leads to.
func (c *collection) take(root *os.Root, batch checkpoint.Batch, name string) error {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		why := reason(err)
		if info, lerr := root.Lstat(name); lerr == nil && info.Mode()&fs.ModeSymlink != 0 {
			why = "the link leads outside of the workspace, or to nothing"
		}
		c.leave(name, why)
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		c.leave(name, reason(err))
		return nil
	case !info.Mode().IsRegular():
		c.leave(name, "it is no regular file")
		return nil
	}
	hash, size, err := batch.PutReader(f)
	if err != nil {
		return err
	}
	return c.add(name, hash, size, info.Mode())
}

// collectStored takes artifacts from a checkpoint's tree, whose contents are stored
// already.
func (h *Host) collectStored(ctx context.Context, m *checkpoint.Manifest, globs []string) (*engine.Artifacts, error) {
	c := h.newCollection(globs)
	ws := m.Subtree(workspaceInTar)
	for i := range ws.Entries {
		e := &ws.Entries[i]
		if e.Kind == checkpoint.KindDir || !c.pick(e.Path) {
			continue
		}
		file := e
		switch {
		case e.Kind == checkpoint.KindSymlink && !path.IsAbs(e.Target):
			file = ws.Lookup(path.Join(path.Dir(e.Path), e.Target))
		case e.HardlinkTo != "":
			file = ws.Lookup(e.HardlinkTo)
		}
		if file == nil || file.Kind != checkpoint.KindFile {
			c.leave(e.Path, "it is no regular file, or a link that leads outside or to another link")
			continue
		}
		if err := c.add(e.Path, file.Hash, file.Size, fs.FileMode(file.Mode)); err != nil {
			return nil, err
		}
	}
	return c.finish(ctx)
}

// keepArtifacts collects what a step names. It follows a failure too: the report of a
// failed test is what people want of it.
func (h *Host) keepArtifacts(ctx context.Context, sb sandbox.Sandbox, a engine.Attempt, out engine.Outcome) engine.Outcome {
	if len(a.Step.Artifacts) == 0 || out.Status != engine.StepSucceeded && out.Status != engine.StepFailed && out.Status != engine.StepTimedOut {
		return out
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), collectWithin, fmt.Errorf("it took longer than %s", collectWithin))
	defer cancel()
	got, err := h.collectFrom(ctx, onHost(sb), a.Step.Artifacts)
	out.Artifacts = got
	if err == nil || out.Status != engine.StepSucceeded {
		return out
	}
	out.Status, out.Class, out.ExitCode = engine.StepFailed, engine.ClassInfrastructure, -1
	if held := (*heldSecret)(nil); errors.As(err, &held) {
		out.Class = engine.ClassInvalid
	}
	out.Error = h.cfg.Redact.String("collect artifacts: " + err.Error())
	return out
}

// Collect takes the run's artifacts; see engine.Collector.
func (h *Host) Collect(ctx context.Context, globs []string) (*engine.Artifacts, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, collectWithin, fmt.Errorf("it took longer than %s", collectWithin))
	defer cancel()
	var got *engine.Artifacts
	var err error
	switch {
	case h.own != nil && !h.stale && !h.own.lost():
		got, err = h.collectFrom(ctx, onHost(h.own), globs)
	case h.ahead != nil:
		got, err = h.collectStored(ctx, h.ahead, globs)
	case h.last != "" || h.base != "":
		at := h.last
		if at == "" {
			at = h.base
		}
		var m *checkpoint.Manifest
		if m, err = h.cfg.Checkpoints.Manifest(ctx, at); err == nil {
			got, err = h.collectStored(ctx, m, globs)
		}
	default: // nothing ever ran
		got, err = h.collectStored(ctx, &checkpoint.Manifest{}, globs)
	}
	if err != nil {
		return got, h.cfg.Redact.Error(fmt.Errorf("collect artifacts: %w", err))
	}
	return got, nil
}
