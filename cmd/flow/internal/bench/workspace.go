package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/local"
	"flowrun.dev/flow/state"
)

// workspaces measures what a large workspace costs: the start of a run over it, a
// checkpoint and a restore after some files were changed, beside what people use
// instead. In one process, with the real driver and the real store, durably.
//
// Two groups for each size, flow's and the others', so that each is short enough for a
// machine to be held quiet.
func workspaces(files, size int, flow bool) func(*runner) ([]row, error) {
	return func(b *runner) (rows []row, err error) {
		dir, err := b.fresh()
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		w := &workspace{dir: dir, src: filepath.Join(dir, "src"), files: files}
		w.name = fmt.Sprintf("%d files, %d MB", files, files*size>>20)
		if err := w.generate(size); err != nil {
			return nil, err
		}
		if flow {
			return w.flow(b)
		}
		return w.others()
	}
}

type workspace struct {
	name, dir, src string
	files          int
}

// changes are how many files are changed.
var changes = [...]int{0, 10, 1000}

func (w *workspace) file(i int) string {
	return fmt.Sprintf("d%02d/e%04d/f%d.go", i/15%60, i/15, i)
}

// generate writes text that compresses as source does, the same every time.
func (w *workspace) generate(size int) error {
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{"func ", "return ", "if err != nil {\n", "}\n", "package ", "import ", "x := ", "\t", "for i := range n {\n"}
	var text bytes.Buffer
	for i := range w.files {
		text.Reset()
		fmt.Fprintf(&text, "// file %d\n", i)
		for text.Len() < size {
			if r.IntN(4) == 0 {
				fmt.Fprint(&text, r.Uint32())
			} else {
				text.WriteString(words[r.IntN(len(words))])
			}
		}
		p := filepath.Join(w.src, w.file(i))
		if i%15 == 0 {
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(p, text.Bytes()[:size], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// edit changes n files spread over a tree.
func (w *workspace) edit(root string, n int, what string) error {
	for j := range n {
		if err := os.WriteFile(filepath.Join(root, w.file(j*(w.files/n))), fmt.Appendf(nil, "%s %d\n", what, j), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func timed(f func() error) (sample, error) {
	t := time.Now()
	err := f()
	return sample{Wall: time.Since(t)}, err
}

func command(dir, name string, args ...string) func() error {
	return func() error {
		c := exec.Command(name, args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	}
}

// others are the ways that are not flow. Each works on a copy, which cp -a makes.
func (w *workspace) others() (rows []row, err error) {
	tree := filepath.Join(w.dir, "copy")
	add := func(what string, f func() error, path string) {
		if err != nil {
			return
		}
		var s sample
		if s, err = timed(f); err == nil {
			if path != "" {
				s.RSS = diskOf(path)
			}
			rows = append(rows, row{What: w.name + ": " + what, Got: s})
		}
	}
	add("cp -a", command(w.dir, "cp", "-a", "src", "copy"), "")
	add(`tar \| zstd -3`, command(w.dir, "sh", "-c", "tar -C src -cf - . | zstd -3 -q -T0 -o t.zst"), filepath.Join(w.dir, "t.zst"))
	add("git add and commit, the first", command(tree, "sh", "-c", gitCommit("git init -q &&")), filepath.Join(tree, ".git"))
	for _, n := range changes[1:] {
		if err == nil {
			err = w.edit(tree, n, "edit")
		}
		add(fmt.Sprintf("git add and commit, %d changed", n), command(tree, "sh", "-c", gitCommit("")), "")
	}
	if err == nil {
		err = w.edit(tree, 10, "again")
	}
	add("git checkout, 10 differ", command(tree, "git", "checkout", "-q", "--", "."), "")
	return rows, errors.Join(err, os.RemoveAll(tree), os.RemoveAll(filepath.Join(w.dir, "t.zst")))
}

func gitCommit(before string) string {
	return before + " git add -A && git -c user.name=x -c user.email=x@example.org -c gc.auto=0 -c maintenance.auto=false commit -q --allow-empty -m x"
}

// diskOf is the bytes of a file, or of all below a directory.
func diskOf(path string) (n int64) {
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if i, err := d.Info(); err == nil {
				n += i.Size()
			}
		}
		return nil
	})
	return n
}

// line is a run at work: a sandbox over the source, and its checkpoints.
type line struct {
	w      *workspace
	driver *local.Driver
	store  *state.Store
	owner  *state.Owner
	sb     sandbox.Sandbox
	last   string
	n      int
}

func (w *workspace) flow(b *runner) (rows []row, err error) {
	ctx := context.Background()
	l := &line{w: w, driver: local.New(local.Options{})}
	caps, err := l.driver.Probe(ctx)
	if err != nil {
		return []row{{What: w.name + ": flow", Note: "does not work on this machine: " + err.Error()}}, nil
	}
	start, err := w.starts(b)
	if err != nil {
		return nil, err
	}
	if !caps.Overlay {
		return append(start, row{What: w.name + ": flow", Note: "no overlay in tier " + string(caps.Tier)}), nil
	}
	dir := filepath.Join(w.dir, state.DirName)
	if l.store, err = state.Open(dir, state.Options{Command: "bench"}); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.store.Close()) }()
	if l.owner, err = l.store.CreateRun(ctx, engine.RunStarted{RunID: state.NewRunID(), Workflow: "bench", Path: "w.yaml", Text: []byte("steps: []")}, state.RunExtra{}); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.owner.Close()) }()
	if err := l.begin(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.sb.Close(ctx)) }()
	more, err := l.measure(ctx, dir)
	return append(start, more...), err
}

// starts runs a whole flow over the source: until its first step runs, with a new state
// directory and with one that knows the source.
func (w *workspace) starts(b *runner) (rows []row, err error) {
	text := "name: bench\nworkspace: {from: src}\nsandbox: {driver: local}\ndefaults: {shell: sh}\nsteps:\n  - {id: s, run: \"date +%s%N\"}\n"
	if err := file(w.dir, "w.yaml", text); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(filepath.Join(w.dir, ".flow"))) }()
	for _, what := range [...]string{"the first", "the second"} {
		t := time.Now()
		all, err := run(w.dir, 0, b.flow, "run", "--output", "plain", "w.yaml")
		if err != nil {
			return nil, err
		}
		out, err := output1(w.dir, b.flow, "logs", "latest", "s", "--raw")
		if err != nil {
			return nil, err
		}
		var ns int64
		if _, err := fmt.Sscan(string(out), &ns); err != nil {
			return nil, fmt.Errorf("read when the step ran: %w", err)
		}
		rows = append(rows,
			row{What: w.name + ": flow run, " + what + ", until its first step runs", Got: sample{Wall: time.Unix(0, ns).Sub(t)}, Limit: sample{Wall: 300 * time.Millisecond}},
			row{What: w.name + ": flow run, " + what + ", the whole process of one step", Got: all})
	}
	return rows, nil
}

func output1(dir, name string, args ...string) ([]byte, error) {
	c := exec.Command(name, args...)
	c.Dir = dir
	return c.Output()
}

// begin makes the sandbox and the first checkpoint.
func (l *line) begin(ctx context.Context) error {
	src, err := checkpoint.NewSource(l.w.src, checkpoint.ImportOptions{})
	if err != nil {
		return err
	}
	look, err := src.Look(ctx)
	if err != nil {
		return err
	}
	defer look.Drop()
	dir := filepath.Join(l.w.dir, "sandbox")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	l.sb, err = l.driver.Create(ctx, sandbox.Spec{ID: "bench", Dir: dir,
		Lower: &sandbox.Lower{Dir: l.w.src, UID: look.UID(), GID: look.GID(), Fill: look.FillUpper}})
	if err != nil {
		return err
	}
	m, batch, err := look.Manifest(ctx, nil, l.store)
	if err == nil && batch != nil {
		err = batch.Seal()
	}
	if err != nil {
		return err
	}
	l.sb.(sandbox.Layered).SetLower(m)
	_, err = l.checkpoint(ctx)
	return err
}

// checkpoint is what follows each step: what changed is stored, durably.
func (l *line) checkpoint(ctx context.Context) (*checkpoint.Manifest, error) {
	snap, err := l.sb.Snapshot(ctx, l.store)
	if err != nil {
		return nil, err
	}
	id, err := l.store.StageCheckpoint(ctx, l.owner.RunID(), snap, l.last)
	if err != nil {
		return nil, err
	}
	step := fmt.Sprintf("step_%d", l.n)
	l.n++
	now := time.Now()
	err = l.owner.Append(ctx, []engine.Event{{At: now, Body: engine.StepStarted{Step: step, Attempt: 1}}, {At: now, Body: engine.StepFinished{Step: step, Attempt: 1,
		Checkpoint: id, Outcome: engine.Outcome{Status: engine.StepSucceeded, Started: now}}}})
	l.last = id
	return snap.Manifest, err
}

// rounds of each figure; the median counts.
const rounds = 9

func (l *line) measure(ctx context.Context, dir string) ([]row, error) {
	base, err := l.checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	rows := []row{{What: l.w.name + ": flow, the state directory with the source in it", Got: sample{RSS: diskOf(dir)}}}
	for _, n := range changes {
		var stores, restores []sample
		before := diskOf(dir)
		for round := range rounds {
			if err := l.edit(ctx, n, round); err != nil {
				return nil, err
			}
			s, err := timed(func() error { _, err := l.checkpoint(ctx); return err })
			if err != nil {
				return nil, err
			}
			stores = append(stores, s)
			if s, err = timed(func() error { return l.sb.Restore(ctx, l.store, base) }); err != nil {
				return nil, err
			}
			restores = append(restores, s)
			if _, err := l.checkpoint(ctx); err != nil {
				return nil, err
			}
		}
		a, z := middle(stores), middle(restores)
		a.RSS, z.RSS = (diskOf(dir)-before)/rounds, 0
		limit, most := sample{}, sample{}
		if n == 10 {
			limit.Wall, most.Wall = 5*time.Millisecond, 50*time.Millisecond
		}
		rows = append(rows, row{What: fmt.Sprintf("%s: flow checkpoint, %d changed", l.w.name, n), Got: a, Limit: limit},
			row{What: fmt.Sprintf("%s: flow restore, %d differ", l.w.name, n), Got: z, Limit: most})
	}
	return rows, nil
}

// edit changes files inside the sandbox, as a step does.
func (l *line) edit(ctx context.Context, n, round int) error {
	var s bytes.Buffer
	for j := range n {
		fmt.Fprintf(&s, "echo round %d of %d > %s\n", round, j, l.w.file(j*(l.w.files/n)))
	}
	res, err := l.sb.Exec(ctx, sandbox.Cmd{Argv: []string{"sh", "-c", s.String()}, Env: l.sb.BaseEnv()})
	if err == nil && res.ExitCode != 0 {
		err = fmt.Errorf("the edit ended with exit code %d", res.ExitCode)
	}
	return err
}
