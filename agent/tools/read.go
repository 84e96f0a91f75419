package tools

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of Read, Claude Code's.
const (
	readLines     = 2000
	readLineChars = 2000
)

var readSpec = Spec{
	Name: "Read",
	Description: "Reads a text file. The path is relative to the workspace, or absolute. Returns at most 2,000 lines from offset, each with its number and a tab before it; " +
		"lines longer than 2,000 characters are cut.",
	InputSchema: json.RawMessage(`{"type":"object","properties":{` +
		`"file_path":{"type":"string","description":"The file to read"},` +
		`"offset":{"type":"integer","minimum":1,"description":"The first line, counted from 1"},` +
		`"limit":{"type":"integer","minimum":1,"description":"How many lines (default 2000)"}},` +
		`"required":["file_path"],"additionalProperties":false}`),
}

type readInput struct {
	FilePath string `json:"file_path"`
	Offset   int    `json:"offset"`
	Limit    int    `json:"limit"`
}

// openScript refuses what cannot be read to its end: folders, devices, fifos.
const openScript = `if [ ! -e "$1" ] && [ ! -L "$1" ]; then echo "File does not exist." >&2; exit 66; fi
if [ -d "$1" ]; then echo "EISDIR: illegal operation on a directory, read" >&2; exit 66; fi
if [ ! -f "$1" ]; then echo "Not a regular file." >&2; exit 66; fi
exec cat < "$1"`

func (s *Set) read(ctx context.Context, in readInput) (string, error) {
	if in.FilePath == "" {
		return "", failf("InputValidationError: file_path is missing")
	}
	if in.Offset < 0 || in.Limit < 0 {
		return "", failf("InputValidationError: offset and limit are positive")
	}
	name, err := s.resolved(ctx, "Read", in.FilePath)
	if err != nil {
		return "", err
	}
	limit := readLines
	if in.Limit > 0 {
		limit = min(in.Limit, readLines)
	}
	w := &numberer{first: max(in.Offset, 1), limit: limit}
	res, stderr, err := s.exec(ctx, []string{"sh", "-c", openScript, "sh", name}, nil, w)
	if err != nil {
		return "", err
	}
	if res.ExitCode != 0 {
		return "", failf("%s", message(stderr, res))
	}
	return w.text(in.FilePath)
}

// numberer numbers lines as they come and stops the reading when it has enough.
type numberer struct {
	first, limit int

	out     strings.Builder
	line    []byte // the beginning of the current line
	pending bool   // the current line has begun
	chopped bool
	n       int // lines that ended
	seen    int64
	binary  bool
	more    bool
}

func (w *numberer) Write(p []byte) (int, error) {
	total := len(p)
	if w.seen < 8<<10 && bytes.IndexByte(p, 0) >= 0 {
		w.binary = true
		return 0, errEnough
	}
	w.seen += int64(total)
	for len(p) > 0 {
		if w.n >= w.first-1+w.limit {
			w.more = true
			return 0, errEnough
		}
		i := bytes.IndexByte(p, '\n')
		part := p
		if i >= 0 {
			part = p[:i]
		}
		w.begin(part)
		if i < 0 {
			break
		}
		w.end()
		p = p[i+1:]
	}
	return total, nil
}

func (w *numberer) begin(part []byte) {
	w.pending = true
	const room = 4 * readLineChars
	if k := min(len(part), room-len(w.line)); k > 0 {
		w.line = append(w.line, part[:k]...)
	}
	w.chopped = w.chopped || len(part) > 0 && len(w.line) == room
}

func (w *numberer) end() {
	w.n++
	if w.n >= w.first {
		text := strings.ToValidUTF8(strings.TrimSuffix(string(w.line), "\r"), "\uFFFD")
		if w.chopped || utf8.RuneCountInString(text) > readLineChars {
			if r := []rune(text); len(r) > readLineChars {
				text = string(r[:readLineChars])
			}
			text += "… (line cut)"
		}
		fmt.Fprintf(&w.out, "%6d\t%s\n", w.n, text)
	}
	w.line, w.pending, w.chopped = w.line[:0], false, false
}

func (w *numberer) text(name string) (string, error) {
	if w.pending && !w.more {
		w.end()
	}
	switch {
	case w.binary:
		return "", failf("%s is a binary file and is not shown.", name)
	case w.seen == 0:
		return "(the file exists and is empty)", nil
	case w.n < w.first:
		return "", failf("The file has %d lines; offset %d is behind its end.", w.n, w.first)
	}
	if w.more {
		fmt.Fprintf(&w.out, "… there is more: read on with offset %d\n", w.n+1)
	}
	return strings.TrimSuffix(w.out.String(), "\n"), nil
}
