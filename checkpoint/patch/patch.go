package patch

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1" // git's name of a content, no protection
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"

	"flowrun.dev/flow/checkpoint"
)

// maxText is the size above which a file is not compared line by line.
const maxText = 8 << 20

// sniff is how much of a file is looked at for a NUL byte, as in git.
const sniff = 8000

const contextLines = 3

// Source reads contents; checkpoint.Store is one.
type Source interface {
	Open(ctx context.Context, h checkpoint.Hash) (io.ReadCloser, error)
}

// Note is a change that no patch can say.
type Note struct {
	Path string `json:"path"`
	Text string `json:"text"`
}

// File is one changed path. A side that is not there, or of a kind that git does
// not know, is nil.
type File struct {
	Path     string
	Old, New *checkpoint.Entry
}

// Stat is how much of a path changed.
type Stat struct {
	Path    string `json:"path"`
	Op      string `json:"op"` // added, modified, deleted
	Binary  bool   `json:"binary,omitempty"`
	Added   int    `json:"added"`   // lines; of a binary file 0
	Deleted int    `json:"deleted"` // lines
	OldSize int64  `json:"old_size"`
	NewSize int64  `json:"new_size"`
	OldMode string `json:"old_mode,omitempty"` // as git names it
	NewMode string `json:"new_mode,omitempty"`
}

// Files lists what leads from one tree to the other, in path order, and what a
// patch cannot say of it. Nil stands for the empty tree.
func Files(from, to *checkpoint.Manifest) (files []File, notes []Note) {
	if from == nil {
		from = &checkpoint.Manifest{}
	}
	for _, c := range checkpoint.Diff(from, to) {
		was, now := from.Lookup(c.Path), c.Entry
		f := File{Path: c.Path, Old: known(was), New: known(now)}
		if t := unsaid(was, now, c.Path, to); t != "" {
			notes = append(notes, Note{c.Path, t})
		}
		if f.Old == nil && f.New == nil || f.Old != nil && f.New != nil && gitMode(f.Old) == gitMode(f.New) && sameContent(f.Old, f.New) {
			continue
		}
		files = append(files, f)
	}
	return files, notes
}

func known(e *checkpoint.Entry) *checkpoint.Entry {
	if e == nil || e.Kind != checkpoint.KindFile && e.Kind != checkpoint.KindSymlink {
		return nil
	}
	return e
}

func sameContent(a, b *checkpoint.Entry) bool {
	return a.Kind == b.Kind && a.Hash == b.Hash && a.Target == b.Target
}

// unsaid is what a patch loses of a change, in words, "" for nothing that matters
// to people: times never do.
func unsaid(was, now *checkpoint.Entry, path string, to *checkpoint.Manifest) string {
	switch {
	case now == nil && was.Kind == checkpoint.KindDir:
		return "" // git removes a directory with its last file
	case now == nil:
		if known(was) == nil {
			return kindName(was.Kind) + " was removed"
		}
		return ""
	case now.Kind == checkpoint.KindDir:
		if was == nil && len(to.Subtree(path).Entries) == 0 {
			return "empty directory"
		}
		if was != nil && was.Kind == now.Kind && was.Mode != now.Mode {
			return fmt.Sprintf("mode of the directory: %04o to %04o", was.Mode, now.Mode)
		}
		return ""
	case known(now) == nil:
		return kindName(now.Kind) + " was made"
	case was != nil && was.Kind == now.Kind && now.Kind == checkpoint.KindFile && was.Mode != now.Mode && gitMode(was) == gitMode(now):
		return fmt.Sprintf("mode: %04o to %04o", was.Mode, now.Mode)
	}
	return ""
}

func kindName(k checkpoint.Kind) string {
	switch k {
	case checkpoint.KindDir:
		return "a directory"
	case checkpoint.KindSocket:
		return "a socket"
	case checkpoint.KindFifo:
		return "a fifo"
	}
	return "a file"
}

func gitMode(e *checkpoint.Entry) string {
	switch {
	case e.Kind == checkpoint.KindSymlink:
		return "120000"
	case e.Mode&0o100 != 0:
		return "100755"
	}
	return "100644"
}

// Write writes files as one patch.
func Write(ctx context.Context, w io.Writer, src Source, files []File) error {
	b := bufio.NewWriter(w)
	for _, f := range files {
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("write patch: %w", err)
		}
		if err := writeFile(ctx, b, src, f); err != nil {
			return fmt.Errorf("write patch of %q: %w", f.Path, err)
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write patch: %w", err)
	}
	return nil
}

// writeFile writes one file. A file that became a link, or the other way round,
// is deleted and made, as git writes it.
func writeFile(ctx context.Context, w *bufio.Writer, src Source, f File) error {
	if f.Old != nil && f.New != nil && f.Old.Kind != f.New.Kind {
		if err := writeFile(ctx, w, src, File{Path: f.Path, Old: f.Old}); err != nil {
			return err
		}
		f.Old = nil
	}
	a, b, err := bothSides(ctx, src, f)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "diff --git %s %s\n", quote("a/"+f.Path), quote("b/"+f.Path))
	mode := ""
	switch {
	case f.Old == nil:
		fmt.Fprintf(w, "new file mode %s\n", gitMode(f.New))
	case f.New == nil:
		fmt.Fprintf(w, "deleted file mode %s\n", gitMode(f.Old))
	case gitMode(f.Old) != gitMode(f.New):
		fmt.Fprintf(w, "old mode %s\nnew mode %s\n", gitMode(f.Old), gitMode(f.New))
	default:
		mode = " " + gitMode(f.New)
	}
	if a.id == b.id {
		return nil // nothing but the mode
	}
	fmt.Fprintf(w, "index %s..%s%s\n", a.id, b.id, mode)
	if a.binary || b.binary {
		return writeBinary(ctx, w, src, a, b)
	}
	if len(a.text) == 0 && len(b.text) == 0 {
		return nil // an empty file came or went
	}
	from, to := quote("a/"+f.Path), quote("b/"+f.Path)
	if f.Old == nil {
		from = "/dev/null"
	}
	if f.New == nil {
		to = "/dev/null"
	}
	fmt.Fprintf(w, "--- %s\n+++ %s\n", tabbed(from), tabbed(to))
	return writeHunks(w, split(a.text), split(b.text))
}

// tabbed ends a name that holds a space with a tab, which tells GNU patch where it
// ends; git does the same.
func tabbed(name string) string {
	if strings.Contains(name, " ") {
		return name + "\t"
	}
	return name
}

// side is one side's content.
type side struct {
	e      *checkpoint.Entry
	id     string // git's name of the content
	binary bool
	text   []byte // unless binary
}

const noContent = "0000000000000000000000000000000000000000"

func bothSides(ctx context.Context, src Source, f File) (a, b side, err error) {
	if a, err = readSide(ctx, src, f.Old); err == nil {
		b, err = readSide(ctx, src, f.New)
	}
	return a, b, err
}

func readSide(ctx context.Context, src Source, e *checkpoint.Entry) (side, error) {
	s := side{e: e, id: noContent}
	if e == nil {
		return s, nil
	}
	r, size, err := open(ctx, src, e)
	if err != nil {
		return s, err
	}
	defer r.Close()
	sum := sha1.New()
	fmt.Fprintf(sum, "blob %d\x00", size)
	if size > maxText {
		s.binary = true
		_, err = io.Copy(sum, r)
	} else if s.text, err = io.ReadAll(r); err == nil {
		sum.Write(s.text)
		if s.binary = bytes.IndexByte(s.text[:min(len(s.text), sniff)], 0) >= 0; s.binary {
			s.text = nil
		}
	}
	s.id = hex.EncodeToString(sum.Sum(nil))
	return s, err
}

func open(ctx context.Context, src Source, e *checkpoint.Entry) (io.ReadCloser, int64, error) {
	if e.Kind == checkpoint.KindSymlink {
		return io.NopCloser(strings.NewReader(e.Target)), int64(len(e.Target)), nil
	}
	if e.Size == 0 {
		return io.NopCloser(strings.NewReader("")), 0, nil
	}
	r, err := src.Open(ctx, e.Hash)
	return r, e.Size, err
}

// writeBinary writes both directions, so that the patch can be taken back too.
func writeBinary(ctx context.Context, w *bufio.Writer, src Source, a, b side) error {
	if _, err := w.WriteString("GIT binary patch\n"); err != nil {
		return err
	}
	for _, s := range []side{b, a} {
		r, size := io.ReadCloser(io.NopCloser(strings.NewReader(""))), int64(0)
		if s.e != nil {
			var err error
			if r, size, err = open(ctx, src, s.e); err != nil {
				return err
			}
		}
		err := literal(w, size, r)
		r.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// split cuts a text into lines that keep their ends.
func split(text []byte) []string {
	var out []string
	for l := range bytes.Lines(text) {
		out = append(out, string(l))
	}
	return out
}

func writeHunks(w *bufio.Writer, a, b []string) error {
	edits := compare(a, b)
	for len(edits) > 0 {
		n := 1
		for n < len(edits) && edits[n].aLo-edits[n-1].aHi <= 2*contextLines {
			n++
		}
		writeHunk(w, a, b, edits[:n])
		edits = edits[n:]
	}
	return w.Flush()
}

func writeHunk(w *bufio.Writer, a, b []string, edits []edit) {
	head, tail := edits[0], edits[len(edits)-1]
	before := min(head.aLo, contextLines)
	after := min(len(a)-tail.aHi, contextLines)
	aLo, aHi := head.aLo-before, tail.aHi+after
	fmt.Fprintf(w, "@@ -%s +%s @@\n", span(aLo, aHi), span(head.bLo-before, tail.bHi+after))
	at := aLo
	for _, e := range edits {
		lines(w, ' ', a[at:e.aLo])
		lines(w, '-', a[e.aLo:e.aHi])
		lines(w, '+', b[e.bLo:e.bHi])
		at = e.aHi
	}
	lines(w, ' ', a[at:aHi])
}

// span is a range of lines as a hunk's header says it.
func span(lo, hi int) string {
	switch hi - lo {
	case 0:
		return strconv.Itoa(lo) + ",0"
	case 1:
		return strconv.Itoa(lo + 1)
	}
	return strconv.Itoa(lo+1) + "," + strconv.Itoa(hi-lo)
}

// lines writes lines with their sign. Errors of the writer stay in it until Flush.
func lines(w *bufio.Writer, sign byte, list []string) {
	for _, l := range list {
		w.WriteByte(sign)
		w.WriteString(l)
		if !strings.HasSuffix(l, "\n") {
			w.WriteString("\n\\ No newline at end of file\n")
		}
	}
}

// Stats counts the changed lines of files.
func Stats(ctx context.Context, src Source, files []File) ([]Stat, error) {
	out := make([]Stat, 0, len(files))
	for _, f := range files {
		if err := context.Cause(ctx); err != nil {
			return nil, fmt.Errorf("count changes: %w", err)
		}
		s := Stat{Path: f.Path, Op: "modified"}
		if f.Old == nil {
			s.Op = "added"
		} else {
			s.OldMode, s.OldSize = gitMode(f.Old), size(f.Old)
		}
		if f.New == nil {
			s.Op = "deleted"
		} else {
			s.NewMode, s.NewSize = gitMode(f.New), size(f.New)
		}
		a, b, err := bothSides(ctx, src, f)
		if err != nil {
			return nil, fmt.Errorf("count changes of %q: %w", f.Path, err)
		}
		if s.Binary = a.binary || b.binary; !s.Binary {
			for _, e := range compare(split(a.text), split(b.text)) {
				s.Added += e.bHi - e.bLo
				s.Deleted += e.aHi - e.aLo
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func size(e *checkpoint.Entry) int64 {
	if e.Kind == checkpoint.KindSymlink {
		return int64(len(e.Target))
	}
	return e.Size
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// quote writes a path as git does: in C's quotes where it holds anything but
// printable ASCII.
func quote(path string) string {
	plain := true
	for i := range len(path) {
		if c := path[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			plain = false
			break
		}
	}
	if plain {
		return path
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(path) {
		switch c := path[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c < 0x20 || c >= 0x7f:
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
