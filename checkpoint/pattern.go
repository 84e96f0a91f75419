package checkpoint

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// pattern is one line of an exclude list.
type pattern struct {
	glob    string
	dirOnly bool
	base    bool // matches the last component, at any depth
	literal bool
}

// compile reads gitignore-like patterns: without a slash (but a trailing one) a
// pattern matches at any depth, with one it is anchored at the root; a trailing
// slash matches directories only. All mistakes are reported.
func compile(patterns []string) ([]pattern, error) {
	var out []pattern
	var errs []error
	for _, s := range patterns {
		p, err := compileOne(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("exclude pattern %q: %w", s, err))
			continue
		}
		out = append(out, p)
	}
	return out, errors.Join(errs...)
}

func compileOne(s string) (p pattern, err error) {
	if strings.HasPrefix(s, "!") {
		return p, errors.New("a pattern that takes back (!) is not supported: list what to leave out")
	}
	p.glob, p.dirOnly = strings.CutSuffix(s, "/")
	rest, anchored := strings.CutPrefix(p.glob, "/")
	p.glob = rest
	p.base = !anchored && !strings.Contains(p.glob, "/")
	switch {
	case p.glob == "":
		return p, errors.New("it is empty")
	case !doublestar.ValidatePattern(p.glob):
		return p, errors.New("it is not a valid glob")
	}
	if !strings.ContainsAny(p.glob, `*?[{\`) {
		p.literal = true
		if err := validPath(p.glob); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p *pattern) match(path string, dir bool) bool {
	if p.dirOnly && !dir {
		return false
	}
	if p.base {
		path = path[strings.LastIndexByte(path, '/')+1:]
	}
	if p.literal {
		return path == p.glob
	}
	return doublestar.MatchUnvalidated(p.glob, path)
}

func matchAny(ps []pattern, path string, dir bool) bool {
	for i := range ps {
		if ps[i].match(path, dir) {
			return true
		}
	}
	return false
}

// alwaysOut is never brought in or back (design, sandboxes, "Bringing a tree in"):
// the state of flow itself, and files whose purpose is to hold credentials.
func alwaysOut(path string, dir bool) bool {
	name := path[strings.LastIndexByte(path, '/')+1:]
	if name == ".flow" {
		return true
	}
	rest, ok := strings.CutPrefix(name, ".env")
	if !ok || dir {
		return false
	}
	switch rest {
	case "":
		return true
	case ".example", ".sample", ".template":
		return false
	}
	return rest[0] == '.'
}

// Matcher says what Import and Apply leave out for the given patterns: what
// matches one, what is always left out, and all below a directory that is left
// out. Paths are relative, slash-separated. See compile for the patterns.
func Matcher(patterns []string) (func(path string, dir bool) bool, error) {
	one, err := matcher(patterns)
	if err != nil {
		return nil, err
	}
	return func(path string, dir bool) bool {
		for i := range len(path) {
			if path[i] == '/' && one(path[:i], true) {
				return true
			}
		}
		return one(path, dir)
	}, nil
}

// matcher is Matcher for a walk, which does not enter what is left out.
func matcher(patterns []string) (func(path string, dir bool) bool, error) {
	ps, err := compile(patterns)
	if err != nil {
		return nil, err
	}
	return func(path string, dir bool) bool { return alwaysOut(path, dir) || matchAny(ps, path, dir) }, nil
}
