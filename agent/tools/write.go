package tools

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

const (
	maxWrite = 16 << 20
	maxEdit  = 16 << 20
)

var writeSpec = Spec{
	Name:        "Write",
	Description: "Writes a file, in place of what was there; missing folders are made. The path is relative to the workspace, or absolute.",
	InputSchema: json.RawMessage(`{"type":"object","properties":{` +
		`"file_path":{"type":"string","description":"The file to write"},` +
		`"content":{"type":"string","description":"The whole content"}},` +
		`"required":["file_path","content"],"additionalProperties":false}`),
}

type writeInput struct {
	FilePath string  `json:"file_path"`
	Content  *string `json:"content"`
}

// writeScript replaces a file as one step: whoever reads it, or resumes after a
// crash, sees the old or the new content. Mode and owner stay; a link is followed.
const writeScript = `set -e
p=$1
if [ -L "$p" ]; then p=$(readlink -f -- "$p"); fi
if [ -d "$p" ]; then echo "EISDIR: $1 is a directory" >&2; exit 66; fi
if [ -e "$p" ] && [ ! -f "$p" ]; then echo "$1 is not a regular file" >&2; exit 66; fi
d=$(dirname -- "$p")
mkdir -p -- "$d"
t=$d/.flow-write-$$
rm -f -- "$t"
trap 'rm -f -- "$t"' EXIT
known=created
if [ -f "$p" ]; then known=updated; cp -p -- "$p" "$t"; fi
cat > "$t"
n=$(wc -c < "$t")
[ "$n" -eq "$2" ] || { echo "wrote $n of $2 bytes; is the disk full?" >&2; exit 74; }
mv -f -- "$t" "$p"
trap - EXIT
echo "$known"`

func (s *Set) write(ctx context.Context, in writeInput) (string, error) {
	switch {
	case in.FilePath == "":
		return "", failf("InputValidationError: file_path is missing")
	case in.Content == nil:
		return "", failf("InputValidationError: content is missing")
	case len(*in.Content) > maxWrite:
		return "", failf("InputValidationError: content is larger than %d bytes", maxWrite)
	}
	name, err := s.resolved(ctx, "Write", in.FilePath)
	if err != nil {
		return "", err
	}
	known, err := s.replace(ctx, name, []byte(*in.Content))
	if err != nil {
		return "", err
	}
	if known == "created" {
		return "File created successfully at: " + in.FilePath, nil
	}
	return fmt.Sprintf("The file %s has been updated.", in.FilePath), nil
}

func (s *Set) replace(ctx context.Context, name string, content []byte) (string, error) {
	out, err := s.sh(ctx, writeScript, bytes.NewReader(content), name, fmt.Sprint(len(content)))
	return strings.TrimSpace(string(out)), err
}

var editSpec = Spec{
	Name: "Edit",
	Description: "Replaces old_string by new_string in a file. old_string has to match exactly, with its white space and without line numbers, and to occur once; " +
		"give more of its surroundings, or replace_all, where it occurs more often.",
	InputSchema: json.RawMessage(`{"type":"object","properties":{` +
		`"file_path":{"type":"string","description":"The file to change"},` +
		`"old_string":{"type":"string","description":"The text to replace"},` +
		`"new_string":{"type":"string","description":"The text to put in its place"},` +
		`"replace_all":{"type":"boolean","description":"Replace every occurrence (default false)"}},` +
		`"required":["file_path","old_string","new_string"],"additionalProperties":false}`),
}

type editInput struct {
	FilePath   string  `json:"file_path"`
	OldString  *string `json:"old_string"`
	NewString  *string `json:"new_string"`
	ReplaceAll bool    `json:"replace_all"`
}

func (s *Set) edit(ctx context.Context, in editInput) (string, error) {
	switch {
	case in.FilePath == "":
		return "", failf("InputValidationError: file_path is missing")
	case in.OldString == nil || in.NewString == nil:
		return "", failf("InputValidationError: old_string and new_string are needed")
	case *in.OldString == *in.NewString:
		return "", failf("No changes to make: old_string and new_string are exactly the same.")
	case *in.OldString == "":
		return "", failf("old_string is empty; use Write to make a new file.")
	}
	name, err := s.resolved(ctx, "Edit", in.FilePath)
	if err != nil {
		return "", err
	}
	content, err := s.content(ctx, name)
	if err != nil {
		return "", err
	}
	n := strings.Count(content, *in.OldString)
	switch {
	case n == 0:
		return "", failf("String to replace not found in file.\nString: %s", short(*in.OldString))
	case n > 1 && !in.ReplaceAll:
		return "", failf("Found %d matches of the string to replace, but replace_all is false. Give more of its surroundings, or set replace_all.\nString: %s", n, short(*in.OldString))
	}
	if _, err := s.replace(ctx, name, []byte(strings.ReplaceAll(content, *in.OldString, *in.NewString))); err != nil {
		return "", err
	}
	if n > 1 {
		return fmt.Sprintf("The file %s has been updated: %d occurrences were replaced.", in.FilePath, n), nil
	}
	return fmt.Sprintf("The file %s has been updated.", in.FilePath), nil
}

// content reads a whole file for Edit.
func (s *Set) content(ctx context.Context, name string) (string, error) {
	out := &limited{max: maxEdit}
	res, stderr, err := s.exec(ctx, []string{"sh", "-c", openScript, "sh", name}, nil, out)
	switch {
	case err != nil:
		return "", err
	case out.over:
		return "", failf("The file is larger than %d bytes and is not edited.", maxEdit)
	case res.ExitCode != 0:
		return "", failf("%s", message(stderr, res))
	}
	return out.buf.String(), nil
}

// limited stops the reading at max bytes.
type limited struct {
	max  int
	buf  bytes.Buffer
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	if l.buf.Len()+len(p) > l.max {
		l.over = true
		return 0, errEnough
	}
	return l.buf.Write(p)
}

// short bounds a text in a message.
func short(s string) string {
	if r := []rune(s); len(r) > 500 {
		return string(r[:500]) + "…"
	}
	return s
}
