// Package beneath reads files of a tree that somebody hostile may be writing.
//
// Invariants:
//
//  1. Nothing outside the tree is ever opened: the kernel resolves each name
//     beneath a directory descriptor (openat2 RESOLVE_BENEATH on Linux, os.Root
//     elsewhere). A link that stays inside is followed; one that leads outside is
//     an error that satisfies errors.Is(err, fs.ErrPermission).
//  2. Only regular files are read. A fifo or a device is refused and the call
//     never waits for a writer.
//  3. A read is bounded by MaxFile.
//
// The drivers of package sandbox share it; nobody else imports it.
package beneath

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// MaxFile is the most that ReadFile returns, in bytes. Larger files are an
// error, not cut off: half a file is a wrong answer.
const MaxFile = 1 << 20

// ErrTooLarge is the cause of a read beyond MaxFile.
var ErrTooLarge = errors.New("file is larger than 1 MiB")

// ErrNotRegular is the cause of reading something that is no regular file.
var ErrNotRegular = errors.New("not a regular file")

// Dir is the tree below Home/Sub. It is looked up anew at each call, because a
// step may have replaced Sub: it is then opened without following a link.
type Dir struct {
	// Home is a directory that the caller owns; its own path is trusted.
	Home string
	// Sub is one name in Home, not trusted.
	Sub string
}

// Open implements fs.FS.
func (d Dir) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	f, err := d.open(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return f, nil
}

// Stat implements fs.StatFS. Links are followed beneath the tree. Nothing is opened
// for reading: a writer that waits at a fifo keeps waiting.
func (d Dir) Stat(name string) (fs.FileInfo, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrInvalid}
	}
	info, err := d.stat(name)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return info, nil
}

// ReadFile implements fs.ReadFileFS, at most MaxFile bytes.
func (d Dir) ReadFile(name string) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fail := func(err error) ([]byte, error) {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	info, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	if !info.Mode().IsRegular() {
		return fail(fmt.Errorf("%w (%s)", ErrNotRegular, kind(info.Mode())))
	}
	// The size is asked for as a hint only: the file may grow meanwhile.
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return fail(err)
	}
	if len(b) > MaxFile {
		return fail(ErrTooLarge)
	}
	return b, nil
}

// Glob lists the regular files that match a doublestar pattern, sorted, and links
// to such. Links that lead outside or nowhere are left out.
func (d Dir) Glob(pattern string) ([]string, error) {
	clean := path.Clean(pattern)
	if pattern == "" || strings.HasPrefix(clean, "/") || clean == ".." || strings.HasPrefix(clean, "../") {
		return nil, &fs.PathError{Op: "glob", Path: pattern, Err: fs.ErrInvalid}
	}
	if !doublestar.ValidatePattern(clean) {
		return nil, fmt.Errorf("glob %q: %w", pattern, doublestar.ErrBadPattern)
	}
	found, err := doublestar.Glob(d, clean, doublestar.WithFilesOnly(), doublestar.WithNoFollow())
	if err != nil {
		return nil, fmt.Errorf("glob %q: %w", pattern, err)
	}
	files := found[:0]
	for _, name := range found {
		if info, err := d.Stat(name); err == nil && info.Mode().IsRegular() {
			files = append(files, name)
		}
	}
	sort.Strings(files)
	return files, nil
}

func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a fifo"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "special"
}

var (
	_ fs.ReadFileFS = Dir{}
	_ fs.StatFS     = Dir{}
)
