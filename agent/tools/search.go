package tools

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Limits of the searching tools.
const (
	globFiles     = 100
	grepChars     = 30_000
	grepHeadLines = 250
)

var globSpec = Spec{
	Name:        "Glob",
	Description: "Lists files whose path matches a pattern (** is any number of folders, {a,b} alternatives), sorted by name, at most 100. .git is left out.",
	InputSchema: json.RawMessage(`{"type":"object","properties":{` +
		`"pattern":{"type":"string","description":"For example **/*.go"},` +
		`"path":{"type":"string","description":"The folder to look in (default: the workspace)"}},` +
		`"required":["pattern"],"additionalProperties":false}`),
}

type globInput struct {
	Pattern string `json:"pattern"`
	Path    string `json:"path"`
}

func (s *Set) glob(ctx context.Context, in globInput) (string, error) {
	if in.Pattern == "" || !doublestar.ValidatePattern(in.Pattern) {
		return "", failf("InputValidationError: pattern %q is not a glob pattern", in.Pattern)
	}
	base, pattern := doublestar.SplitPattern(in.Pattern)
	if !path.IsAbs(base) {
		base = path.Join(orDot(in.Path), base)
	}
	dir, err := s.resolved(ctx, "Glob", base)
	if err != nil {
		return "", err
	}
	files, err := s.list(ctx, "Glob", dir, strings.Contains(in.Pattern, ".git"))
	if err != nil {
		return "", err
	}
	var found []string
	for _, f := range files {
		if ok := doublestar.MatchUnvalidated(pattern, strings.TrimPrefix(f, dir+"/")); ok {
			found = append(found, strings.TrimPrefix(f, "./"))
		}
	}
	if len(found) == 0 {
		return "No files found", nil
	}
	if len(found) > globFiles {
		return fmt.Sprintf("%s\n(the first %d of %d files; use a narrower pattern)", strings.Join(found[:globFiles], "\n"), globFiles, len(found)), nil
	}
	return strings.Join(found, "\n"), nil
}

func orDot(s string) string {
	if s == "" {
		return "."
	}
	return s
}

// list is every file below a folder (or the file itself), for Glob links as well,
// sorted, less what disallow rules keep from being read.
func (s *Set) list(ctx context.Context, tool, dir string, git bool) ([]string, error) {
	const script = `[ -e "$1" ] || exit 0
if [ "$2" = git ]; then exec find -H "$1" \( -type f -o -type "$3" \) -print0
else exec find -H "$1" -name .git -prune -o \( -type f -o -type "$3" \) -print0; fi`
	mode, links := "", "l"
	if git {
		mode = "git"
	}
	if tool == "Grep" {
		links = "f" // a link's file may be one that must not be read; ripgrep leaves links out, too
	}
	out := &bounded{max: maxInternal}
	res, stderr, err := s.exec(ctx, []string{"sh", "-c", script, "sh", dir, mode, links}, nil, out)
	if err != nil {
		return nil, err
	}
	if out.cut() {
		return nil, failf("There are too many files below %s; name a deeper folder.", dir)
	}
	if res.ExitCode != 0 && out.total == 0 { // otherwise: a folder that cannot be read, beside others
		return nil, failf("%s", message(stderr, res))
	}
	var files []string
	for f := range bytes.SplitSeq(out.bytes(), []byte{0}) {
		if name := string(f); name != "" && s.policy.Readable(tool, name) {
			files = append(files, name)
		}
	}
	slices.Sort(files)
	return files, nil
}

var grepSpec = Spec{
	Name: "Grep",
	Description: "Searches file contents by an extended regular expression (grep -E; [0-9] for digits). Binary files and .git are left out. " +
		"output_mode: files_with_matches (default), content, or count.",
	InputSchema: json.RawMessage(`{"type":"object","properties":{` +
		`"pattern":{"type":"string","description":"The expression"},` +
		`"path":{"type":"string","description":"File or folder (default: the workspace)"},` +
		`"glob":{"type":"string","description":"Only files that match, for example *.go or src/**/*.ts"},` +
		`"output_mode":{"type":"string","enum":["content","files_with_matches","count"]},` +
		`"-i":{"type":"boolean","description":"Ignore case"},` +
		`"-n":{"type":"boolean","description":"Line numbers, in content mode (default true)"},` +
		`"-A":{"type":"integer","minimum":0,"description":"Lines after each match, in content mode"},` +
		`"-B":{"type":"integer","minimum":0,"description":"Lines before each match, in content mode"},` +
		`"-C":{"type":"integer","minimum":0,"description":"Lines around each match, in content mode"},` +
		`"head_limit":{"type":"integer","minimum":0,"description":"At most this many lines (default 250, 0 for all)"}},` +
		`"required":["pattern"],"additionalProperties":false}`),
}

type grepInput struct {
	Pattern    string `json:"pattern"`
	Path       string `json:"path"`
	Glob       string `json:"glob"`
	OutputMode string `json:"output_mode"`
	IgnoreCase bool   `json:"-i"`
	Numbers    *bool  `json:"-n"`
	After      int    `json:"-A"`
	Before     int    `json:"-B"`
	Context    int    `json:"-C"`
	HeadLimit  *int   `json:"head_limit"`
}

// argv is the grep that xargs runs over the list of files.
func (in grepInput) argv() ([]string, error) {
	args := []string{"xargs", "-0", "grep", "-E", "-I", "-H"}
	switch in.OutputMode {
	case "", "files_with_matches":
		args = append(args, "-l")
	case "count":
		args = append(args, "-c")
	case "content":
		if in.Numbers == nil || *in.Numbers {
			args = append(args, "-n")
		}
		for _, c := range []struct {
			flag string
			n    int
		}{{"-A", in.After}, {"-B", in.Before}, {"-C", in.Context}} {
			if c.n < 0 || c.n > 10_000 {
				return nil, failf("InputValidationError: %s is from 0 to 10000", c.flag)
			}
			if c.n > 0 {
				args = append(args, c.flag, strconv.Itoa(c.n))
			}
		}
	default:
		return nil, failf("InputValidationError: output_mode is content, files_with_matches or count")
	}
	if in.IgnoreCase {
		args = append(args, "-i")
	}
	return append(args, "-e", in.Pattern, "--"), nil
}

func (s *Set) grep(ctx context.Context, in grepInput) (string, error) {
	switch {
	case in.Pattern == "" || strings.ContainsRune(in.Pattern, 0):
		return "", failf("InputValidationError: pattern is empty or holds a NUL byte")
	case !doublestar.ValidatePattern(in.Glob):
		return "", failf("InputValidationError: glob %q is not a glob pattern", in.Glob)
	case in.HeadLimit != nil && *in.HeadLimit < 0:
		return "", failf("InputValidationError: head_limit is 0 or more")
	}
	argv, err := in.argv()
	if err != nil {
		return "", err
	}
	dir, err := s.resolved(ctx, "Grep", orDot(in.Path))
	if err != nil {
		return "", err
	}
	files, err := s.list(ctx, "Grep", dir, strings.Contains(in.Path, ".git"))
	if err != nil {
		return "", err
	}
	files = slices.DeleteFunc(files, func(f string) bool { return !globbed(in.Glob, dir, f) })
	if len(files) == 0 {
		return "No files found", nil
	}
	limit := grepHeadLines
	if in.HeadLimit != nil {
		limit = *in.HeadLimit
	}
	w := &matches{limit: limit, zero: in.OutputMode == "count"}
	res, stderr, err := s.exec(ctx, argv, strings.NewReader(strings.Join(files, "\x00")+"\x00"), w)
	if err != nil {
		return "", err
	}
	w.flush()
	if w.n == 0 {
		// xargs hides the difference between 1 (no match) and 2; grep's words do not.
		if text := strings.TrimSpace(stderr); text != "" && res.ExitCode != 0 {
			return "", failf("%s", short(text))
		}
		return "No matches found", nil
	}
	return w.text(), nil
}

// globbed: a glob without a slash is matched with the file's name, as in ripgrep.
func globbed(glob, dir, file string) bool {
	if glob == "" {
		return true
	}
	if !strings.Contains(glob, "/") {
		return doublestar.MatchUnvalidated(glob, path.Base(file))
	}
	return doublestar.MatchUnvalidated(strings.TrimPrefix(glob, "./"), strings.TrimPrefix(file, dir+"/"))
}

// matches keeps grep's first lines.
type matches struct {
	limit int
	zero  bool // leave out files with a count of 0

	out  strings.Builder
	line []byte
	n    int
	cut  string
}

func (m *matches) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		part := p
		if i >= 0 {
			part = p[:i]
		}
		if room := 4*readLineChars - len(m.line); room > 0 {
			m.line = append(m.line, part[:min(room, len(part))]...)
		}
		if i < 0 {
			break
		}
		if !m.flush() {
			return 0, errEnough
		}
		p = p[i+1:]
	}
	return total, nil
}

func (m *matches) flush() bool {
	if len(m.line) == 0 || m.cut != "" {
		return m.cut == ""
	}
	line := strings.TrimPrefix(strings.ToValidUTF8(string(m.line), "\uFFFD"), "./")
	m.line = m.line[:0]
	if m.zero && strings.HasSuffix(line, ":0") {
		return true
	}
	if r := []rune(line); len(r) > readLineChars {
		line = string(r[:readLineChars]) + "… (line cut)"
	}
	switch {
	case m.limit > 0 && m.n == m.limit:
		m.cut = fmt.Sprintf("(the first %d lines; raise head_limit or narrow the search)", m.limit)
		return false
	case m.out.Len()+len(line) > grepChars:
		m.cut = fmt.Sprintf("(cut at %d characters; narrow the search)", grepChars)
		return false
	}
	m.n++
	m.out.WriteString(line)
	m.out.WriteByte('\n')
	return true
}

func (m *matches) text() string { return m.out.String() + m.cut }
