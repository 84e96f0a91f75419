package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/report"
)

// exportArtifacts writes what `artifacts` named into a new directory.
func (a *app) exportArtifacts(ctx context.Context, word, dir, step string) error {
	store, id, err := a.found(ctx, word)
	if err != nil {
		return err
	}
	defer store.Close()
	events, err := store.Events(ctx, id, 0)
	if err != nil {
		return err
	}
	all := engine.Collected(events)
	var b treeBuilder
	if step != "" {
		got := all[step]
		if got == nil {
			return &usageError{msg: fmt.Sprintf("step %q of run %s has no artifacts", step, id), hint: "`flow show " + id + "` lists what there is"}
		}
		b.add("", got)
	} else {
		for name, got := range all {
			if name == "" {
				b.add("run", got)
			} else {
				b.add("steps/"+fileSafe(name), got)
			}
		}
	}
	if len(b.files) == 0 {
		return &usageError{msg: fmt.Sprintf("run %s has no artifacts", id), hint: "name files under `artifacts:` in the workflow or in a step"}
	}
	m, err := b.manifest()
	if err != nil {
		return err
	}
	rep, err := checkpoint.Export(ctx, m, store, dir, true)
	if err != nil {
		return err
	}
	if a.json {
		return report.WriteJSON(a.out, map[string]any{"directory": dir, "files": rep.Files, "bytes": rep.Bytes})
	}
	noun := "artifacts"
	if rep.Files == 1 {
		noun = "artifact"
	}
	_, err = fmt.Fprintf(a.out, "%s: %d %s, %d bytes\n", dir, rep.Files, noun, rep.Bytes)
	return err
}

// treeBuilder makes a tree of artifacts.
type treeBuilder struct{ files []checkpoint.Entry }

func (b *treeBuilder) add(under string, got *engine.Artifacts) {
	for _, f := range got.Files {
		e := checkpoint.Entry{Path: path.Join(under, f.Path), Kind: checkpoint.KindFile, Mode: 0o644, Size: f.Size}
		if f.Exec {
			e.Mode = 0o755
		}
		if _, err := hex.Decode(e.Hash[:], []byte(f.SHA256)); err != nil {
			continue // no event of ours: the manifest would not be whole, Restore says so
		}
		b.files = append(b.files, e)
	}
}

// manifest adds the folders.
func (b *treeBuilder) manifest() (*checkpoint.Manifest, error) {
	m := &checkpoint.Manifest{Entries: slices.Clone(b.files)}
	seen := map[string]bool{}
	for _, f := range b.files {
		for dir := path.Dir(f.Path); dir != "." && !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			m.Entries = append(m.Entries, checkpoint.Entry{Path: dir, Kind: checkpoint.KindDir, Mode: 0o755})
		}
	}
	slices.SortFunc(m.Entries, func(x, y checkpoint.Entry) int { return strings.Compare(x.Path, y.Path) })
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("list the artifacts: %w", err)
	}
	return m, nil
}

// fileSafe is a step's id as the name of a folder: an instance's holds its item, which
// may be anything. What is no letter, digit or harmless mark is written as %XX.
func fileSafe(id string) string {
	var b strings.Builder
	for i := range len(id) {
		c := id[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '[', c == ']', c == '#', c == ',', c == '=', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() > 200 {
		sum := sha256.Sum256([]byte(id))
		return b.String()[:180] + "-" + hex.EncodeToString(sum[:8])
	}
	return b.String()
}
