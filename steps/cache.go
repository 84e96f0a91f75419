package steps

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/checkpoint/cache"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// Cache says where results of steps with `cache` are kept.
type Cache struct {
	Dir *cache.Dir // nil: every step runs
	// ReadOnly takes results and stores none.
	ReadOnly bool
	// Scope is the trust of this run's results: a run takes those of its own scope,
	// and of the scopes in Trusts. "" is a scope like any other.
	Scope  string
	Trusts []string
}

// namedFiles is up to how many files of the workspace are parts of their own, so
// that a miss names the one that changed; above, they are one part.
const namedFiles = 1000

// cachedResult is what an entry holds of an outcome. All of it is redacted.
type cachedResult struct {
	Outputs        map[string]any  `json:"outputs,omitempty"`
	Exports        *engine.Exports `json:"exports,omitempty"`
	Summary        string          `json:"summary,omitempty"`
	Stdout, Stderr []byte          `json:",omitempty"` // the last 64 KiB
}

// pendingResult is a step that runs because of a miss, and whose result is stored
// at its checkpoint.
type pendingResult struct {
	parts  cache.Parts
	base   *checkpoint.Manifest // the tree that it began on
	result *cachedResult        // nil until it has succeeded
}

// consult looks for the result of a step with `cache`. With a hit the tree and the
// output are as after the step, and hit is its outcome; otherwise miss says why.
func (h *Host) consult(ctx context.Context, sb sandbox.Sandbox, a engine.Attempt, c *capture) (hit *engine.Outcome, miss string, err error) {
	if a.Step.Cache == nil {
		return nil, "", nil
	}
	if h.cfg.Cache.Dir == nil {
		return nil, "the cache is switched off", nil
	}
	if h.beside() {
		return nil, "a background step may change the workspace meanwhile", nil
	}
	h.mu.Lock()
	spoiled := h.spoiled[a.Step.ID]
	h.mu.Unlock()
	if spoiled {
		return nil, "an earlier attempt of the step failed and left its traces", nil
	}
	base, err := h.treeOf(ctx, a.Step.ID)
	if err != nil {
		return nil, "", fmt.Errorf("read the workspace for the cache: %w", err)
	}
	parts, err := h.cacheParts(a, base)
	if err != nil {
		return nil, "", err
	}
	for _, scope := range append([]string{h.cfg.Cache.Scope}, h.cfg.Cache.Trusts...) {
		parts[cache.PartScope] = scope
		e, lerr := h.cfg.Cache.Dir.Lookup(parts.Key())
		if lerr != nil {
			miss = lerr.Error()
			continue
		}
		if e == nil {
			continue
		}
		out, rerr := h.takeResult(ctx, sb, c, base, e)
		if rerr != nil {
			if ctx.Err() != nil {
				return nil, "", rerr
			}
			miss = rerr.Error()
			continue
		}
		h.cfg.Cache.Dir.Used(e)
		return out, "", nil
	}
	parts[cache.PartScope] = h.cfg.Cache.Scope
	if miss == "" {
		miss = h.cfg.Cache.Dir.Why(h.cfg.Workflow.Name, a.Step.ID, parts)
	}
	h.mu.Lock()
	if h.pending == nil {
		h.pending = map[string]*pendingResult{}
	}
	h.pending[a.Step.ID] = &pendingResult{parts: parts, base: base}
	h.mu.Unlock()
	return nil, h.cfg.Redact.String(miss), nil
}

// takeResult makes the tree what the stored step made of it.
func (h *Host) takeResult(ctx context.Context, sb sandbox.Sandbox, c *capture, base *checkpoint.Manifest, e *cache.Entry) (*engine.Outcome, error) {
	var r cachedResult
	if err := json.Unmarshal(e.Result, &r); err != nil {
		return nil, fmt.Errorf("the stored result cannot be read: %w", err)
	}
	next, err := e.Onto(base)
	if err != nil {
		return nil, fmt.Errorf("the stored result does not fit the workspace: %w", err)
	}
	if err := h.fetchContents(ctx, next, e); err != nil {
		return nil, err
	}
	if err := sb.Restore(ctx, h.cfg.Checkpoints, next); err != nil {
		return nil, fmt.Errorf("restore the stored result: %w", err)
	}
	// Through the pipes, as the step's own output would come.
	_, _ = c.stdout.w.Write(r.Stdout)
	_, _ = c.stderr.w.Write(r.Stderr)
	return &engine.Outcome{Status: engine.StepSucceeded, Outputs: r.Outputs, Exports: r.Exports, Summary: r.Summary, Cached: e.Run}, nil
}

// fetchContents brings the contents that the run's store does not have into it.
func (h *Host) fetchContents(ctx context.Context, next *checkpoint.Manifest, e *cache.Entry) error {
	st := h.cfg.Checkpoints
	var want []checkpoint.Hash
	for i := range e.Changes {
		if x := next.Lookup(string(e.Changes[i].Path)); x != nil && x.Kind == checkpoint.KindFile && x.Size > 0 {
			want = append(want, x.Hash)
		}
	}
	have, err := st.Have(ctx, want)
	if err != nil {
		return fmt.Errorf("look for the stored result's contents: %w", err)
	}
	batch, err := st.Begin(ctx)
	if err != nil {
		return fmt.Errorf("bring the stored result's contents in: %w", err)
	}
	for i, hash := range want {
		if have[i] {
			continue
		}
		if err := fetch(ctx, h.cfg.Cache.Dir, batch, hash); err != nil {
			batch.Abort()
			return err
		}
	}
	if err := batch.Seal(); err != nil {
		return fmt.Errorf("bring the stored result's contents in: %w", err)
	}
	return nil
}

func fetch(ctx context.Context, from *cache.Dir, to checkpoint.Batch, want checkpoint.Hash) error {
	r, err := from.Open(ctx, want)
	if err != nil {
		return err
	}
	defer r.Close()
	got, _, err := to.PutReader(r)
	if err == nil && got != want {
		err = fmt.Errorf("cached content %s is damaged", want)
	}
	return err
}

// cacheParts names what the step's result depends on.
func (h *Host) cacheParts(a engine.Attempt, base *checkpoint.Manifest) (cache.Parts, error) {
	s := a.Step
	parts := cache.Parts{"format": "1", "definition": s.Hash, "isolation": h.isolation(s)}
	var errs []error
	value := func(name string, t *workflow.Template) {
		if t == nil {
			return
		}
		v, err := t.EvalString(a.Vars)
		if err != nil {
			errs = append(errs, fmt.Errorf("compute the cache key: %s: %w", name, err))
			return
		}
		parts[name] = digest(v)
	}
	for _, e := range a.Exports.Env { // of one name the last one stays
		parts["$FLOW_ENV "+e.Name] = digest(e.Value)
	}
	if len(a.Exports.Path) > 0 {
		parts["$FLOW_PATH"] = digest(strings.Join(a.Exports.Path, ":"))
	}
	for _, e := range s.Env {
		value("env "+e.Name, e.Value)
	}
	if s.Run != nil {
		value("script", s.Run.Script)
		for i, t := range s.Run.Argv {
			value("argument "+strconv.Itoa(i), t)
		}
	}
	if ag := s.Agent; ag != nil {
		parts["agent"] = digest(ProviderFor(a) + "\x00" + ag.Model + "\x00" + a.Options.Replay)
		value("prompt", ag.Prompt)
		value("system prompt", ag.SystemPrompt)
		value("appended system prompt", ag.AppendSystemPrompt)
		for _, m := range ag.MCPServers {
			for _, e := range slices.Concat(m.Env, m.Headers) {
				value("MCP server "+m.Name+" "+e.Name, e.Value)
			}
		}
	}
	ws := base.Subtree(workspaceInTar)
	for i, k := range s.Cache.Key {
		if k.Value != nil {
			value("key "+strconv.Itoa(i+1), k.Value)
			continue
		}
		globParts(parts, ws, k.Glob)
	}
	if len(s.Cache.Key) == 0 {
		wholeParts(parts, ws)
	}
	return parts, errors.Join(errs...)
}

// isolation is what a result may depend on of where the step ran.
func (h *Host) isolation(s *workflow.Step) string {
	r := h.roomOf(s)
	text := r.Driver.Name() + " network " + r.spec.Network.String()
	if r.spec.Reuse != "" && r.spec.Reuse != workflow.ReuseRun {
		text += " reuse " + r.spec.Reuse // an empty home
	}
	return text
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// contentOf is what a result may depend on of one path: everything but the time,
// which differs on every machine.
func contentOf(e *checkpoint.Entry) string {
	b := fmt.Appendf(nil, "%d %o %d %x %q %q", e.Kind, e.Mode, e.Size, e.Hash, e.Target, e.HardlinkTo)
	keys := make([]string, 0, len(e.Xattrs))
	for k := range e.Xattrs {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		b = fmt.Appendf(b, " %q=%q", k, e.Xattrs[k])
	}
	return string(b)
}

func globParts(parts cache.Parts, ws *checkpoint.Manifest, glob string) {
	found := false
	for i := range ws.Entries {
		e := &ws.Entries[i]
		if e.Kind == checkpoint.KindDir || !doublestar.MatchUnvalidated(glob, e.Path) {
			continue
		}
		found = true
		parts["file "+e.Path] = digest(contentOf(e))
	}
	if !found {
		parts["glob "+glob] = "matches nothing"
	}
}

func wholeParts(parts cache.Parts, ws *checkpoint.Manifest) {
	if len(ws.Entries) <= namedFiles {
		for i := range ws.Entries {
			e := &ws.Entries[i]
			parts["file "+e.Path] = digest(contentOf(e))
		}
		return
	}
	sum := sha256.New()
	for i := range ws.Entries {
		e := &ws.Entries[i]
		fmt.Fprintf(sum, "%q %s\n", e.Path, contentOf(e))
	}
	parts["the workspace"] = hex.EncodeToString(sum.Sum(nil))
}

// keepResult remembers the outcome of a step that missed, or forgets the step when
// it did not succeed: only successes are stored.
func (h *Host) keepResult(ctx context.Context, a engine.Attempt, out engine.Outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.pending[a.Step.ID]
	if p == nil {
		return
	}
	if out.Status != engine.StepSucceeded {
		// What the next attempt changes is no longer all that the step changed.
		delete(h.pending, a.Step.ID)
		if h.spoiled == nil {
			h.spoiled = map[string]bool{}
		}
		h.spoiled[a.Step.ID] = true
		return
	}
	r := &cachedResult{Outputs: out.Outputs, Exports: out.Exports, Summary: out.Summary}
	for s, to := range map[Stream]*[]byte{Stdout: &r.Stdout, Stderr: &r.Stderr} {
		if out.Log == "" {
			break
		}
		b, err := h.cfg.Logs.Tail(ctx, out.Log, s, exprTail)
		if err != nil {
			return // without its output the result is not whole
		}
		*to = b
	}
	p.result = r
}

// storeResult stores the result of the one step that a checkpoint covers. A result
// that cannot be stored is said, and costs nothing else. mu is held.
func (h *Host) storeResult(ctx context.Context, steps []string, m *checkpoint.Manifest) {
	for _, id := range steps {
		p := h.pending[id]
		delete(h.pending, id)
		if p == nil || p.result == nil || len(steps) > 1 || h.cfg.Cache.ReadOnly {
			continue
		}
		if err := h.storeOne(ctx, id, p, m); err != nil {
			h.cfg.Output(id, Stderr, []byte("flow: the result is not in the cache: "+h.cfg.Redact.String(err.Error())+"\n"))
		}
	}
}

func (h *Host) storeOne(ctx context.Context, id string, p *pendingResult, m *checkpoint.Manifest) error {
	changes := slices.DeleteFunc(checkpoint.Diff(p.base, m), func(c checkpoint.Change) bool {
		return c.Path == stepDirName || strings.HasPrefix(c.Path, stepDirName+"/")
	})
	if err := h.secretIn(ctx, changes); err != nil {
		return err
	}
	b, err := json.Marshal(p.result)
	if err != nil {
		return err
	}
	return h.cfg.Cache.Dir.Store(ctx, &cache.Entry{Workflow: h.cfg.Workflow.Name, Step: id, Run: h.cfg.RunID, At: time.Now().UTC(),
		Parts: p.parts, Result: b, Changes: cache.ChangesOf(changes)}, h.cfg.Checkpoints)
}

// secretIn refuses to share a file that holds a secret of the run (design,
// sandboxes): a checkpoint is private, the cache may not be.
func (h *Host) secretIn(ctx context.Context, cs []checkpoint.Change) error {
	if len(h.cfg.Secrets) == 0 {
		return nil
	}
	for _, c := range cs {
		if c.Entry == nil || c.Entry.Kind != checkpoint.KindFile || c.Entry.Size == 0 {
			continue
		}
		r, err := h.cfg.Checkpoints.Open(ctx, c.Entry.Hash)
		if err != nil {
			return err
		}
		name, found, err := h.scan(r)
		r.Close()
		if err != nil {
			return err
		}
		if found {
			return fmt.Errorf("%q holds the secret %s", c.Path, name)
		}
	}
	return nil
}

// scan looks for a secret in pieces that overlap by the longest one there can be.
func (h *Host) scan(r io.Reader) (name string, found bool, err error) {
	const piece, overlap = 1 << 20, 64 << 10
	buf := make([]byte, 0, piece+overlap)
	for {
		n, err := io.ReadFull(r, buf[len(buf):len(buf)+piece])
		buf = buf[:len(buf)+n]
		if name, found := h.cfg.Redact.Contains(buf); found {
			return name, true, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
		buf = append(buf[:0], bytes.Clone(buf[max(0, len(buf)-overlap):])...)
	}
}
