package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ApplyOptions say what may be brought back.
type ApplyOptions struct {
	// Exclude is what Import left out; it is not brought back either.
	Exclude []string
	// AllowExecutable are patterns (see Matcher) of paths that a host executes by
	// itself and that may be written all the same. None: they are left out.
	AllowExecutable []string
	// DryRun: find conflicts and report, change nothing.
	DryRun bool
	// Journal is a directory of the caller's (made when it is not there, never in
	// dst) for the record by which the next Apply to the same dst undoes one that
	// was killed. "": a killed Apply stays half done.
	Journal string

	crash func(name string) bool // for tests: stop dead before a durable step
}

// LeftOut is a change that Apply did not bring back.
type LeftOut struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// ApplyReport is what Apply did, or with DryRun would do. Lists are in path order.
type ApplyReport struct {
	Written []string `json:"written"`
	Deleted []string `json:"deleted"`
	// Already are paths that dst has in the resulting state by itself.
	Already []string  `json:"already,omitempty"`
	LeftOut []LeftOut `json:"left_out,omitempty"`
	// Kept are directories that the result does not have and that could not be
	// removed because they hold something else.
	Kept []string `json:"kept,omitempty"`
	// Recovered says that an earlier apply had been cut by a crash.
	Recovered Recovered `json:"recovered,omitempty"`
}

// Conflict is a path that was changed on both sides.
type Conflict struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// ConflictError lists all conflicts; nothing was changed.
type ConflictError struct{ Conflicts []Conflict }

func (e *ConflictError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d paths were changed on both sides, nothing was written:", len(e.Conflicts))
	for i, c := range e.Conflicts {
		if i == 20 {
			fmt.Fprintf(&b, "\n  and %d more", len(e.Conflicts)-i)
			break
		}
		fmt.Fprintf(&b, "\n  %q: %s", c.Path, c.Reason)
	}
	return b.String()
}

// action is one path to change in dst.
type action struct {
	path string
	want *Entry // nil: delete
	base *Entry // nil: it was not there
	have stat   // what is in dst now; mode 0 for nothing
}

// Apply brings what a run changed into the user's tree dst: for each path the
// result m, the imported base and dst are compared three-way. Where m is base,
// nothing happens; where dst is base still, it is written or deleted; where dst is
// m already, nothing; else it is a conflict. With any conflict nothing is changed
// and the error is a *ConflictError. All new contents are staged on the file
// system of dst first and then renamed; when that fails in the middle, what was
// done is undone.
//
// Contents, kinds and permission bits (0777) count; mtimes, attributes and
// hardlinks do not, and setuid bits never come back.
func Apply(ctx context.Context, m, base *Manifest, st Store, dst string, o ApplyOptions) (ApplyReport, error) {
	var rep ApplyReport
	err := func() error {
		if err := errors.Join(m.Validate(), base.Validate()); err != nil {
			return err
		}
		a := &applier{m: m, base: base, st: st, o: o, rep: &rep}
		var err error
		if a.dst, err = filepath.Abs(dst); err != nil {
			return err
		}
		if a.allow, err = compile(o.AllowExecutable); err != nil {
			return err
		}
		if a.out, err = Matcher(o.Exclude); err != nil {
			return err
		}
		if a.root, err = openRoot(dst); err != nil {
			return err
		}
		defer unix.Close(a.root)
		a.keys = &keys{root: a.root, never: true}
		// The lock ends with the descriptor.
		if err := unix.Flock(a.root, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
			return errors.New("another apply to it is at work")
		} else if err != nil && !errors.Is(err, unix.ENOLCK) && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("lock it: %w", err)
		}
		if rep.Recovered, err = a.recover(); err != nil {
			return err
		}
		acts, err := a.plan(ctx)
		if err != nil || o.DryRun || len(acts) == 0 {
			return err
		}
		return a.do(ctx, acts)
	}()
	if err != nil {
		return rep, fmt.Errorf("apply to %s: %w", dst, err)
	}
	return rep, nil
}

type applier struct {
	m, base *Manifest
	st      Store
	o       ApplyOptions
	allow   []pattern
	out     func(path string, dir bool) bool
	dst     string // absolute
	root    int
	keys    *keys
	rep     *ApplyReport
}

// same: equal in what Apply looks at; nil is "not there".
func same(a, b *Entry) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Kind == b.Kind && a.Hash == b.Hash && a.Size == b.Size && a.Target == b.Target &&
		(a.Kind == KindSymlink || a.Mode&0o777 == b.Mode&0o777)
}

// plan compares and fills in the report; the actions are in path order.
func (a *applier) plan(ctx context.Context) ([]action, error) {
	var acts []action
	var conflicts []Conflict
	rd := &reader{keys: a.keys}
	left := map[string]bool{}
	for _, c := range Diff(a.base, a.m) {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		was, want := a.base.Lookup(c.Path), c.Entry
		if same(was, want) {
			continue
		}
		reason := a.refuse(c.Path, was, want)
		if reason == "" && left[parent(c.Path)] {
			reason = "its directory is left out"
		}
		if reason != "" {
			left[c.Path] = true
			a.rep.LeftOut = append(a.rep.LeftOut, LeftOut{c.Path, reason})
			continue
		}
		have, now, err := a.look(ctx, rd, c.Path)
		if errors.Is(err, errParent) && (want == nil || a.wasNoDir(c.Path)) {
			err = nil // there is nothing, or a conflict shows at the directory
		}
		switch {
		case errors.Is(err, errParent):
			conflicts = append(conflicts, Conflict{c.Path, "its directory is a link, a mount point or a file in the tree"})
			continue
		case err != nil:
			return nil, fmt.Errorf("look at %q: %w", c.Path, err)
		case same(now, want):
			a.rep.Already = append(a.rep.Already, c.Path)
			continue
		case !same(now, was):
			conflicts = append(conflicts, Conflict{c.Path, differs(was, now)})
			continue
		}
		acts = append(acts, action{c.Path, want, was, have})
		if want == nil {
			a.rep.Deleted = append(a.rep.Deleted, c.Path)
		} else {
			a.rep.Written = append(a.rep.Written, c.Path)
		}
	}
	if len(conflicts) > 0 {
		a.rep.Written, a.rep.Deleted = nil, nil
		return nil, &ConflictError{conflicts}
	}
	return acts, nil
}

// wasNoDir: the base has something else in the place of a directory above path,
// which the run replaced.
func (a *applier) wasNoDir(path string) bool {
	for path = parent(path); path != ""; path = parent(path) {
		if e := a.base.Lookup(path); e != nil && e.Kind != KindDir {
			return true
		}
	}
	return false
}

func differs(was, now *Entry) string {
	switch {
	case was == nil:
		return "the run made it, and something else has it in the tree"
	case now == nil:
		return "the run changed it, and it was deleted in the tree"
	}
	return "it was changed by the run and in the tree"
}

// refuse says why a change may not come back, "" when it may.
func (a *applier) refuse(path string, was, want *Entry) string {
	for c := range strings.SplitSeq(path, "/") {
		if strings.EqualFold(c, ".git") || strings.EqualFold(c, ".flow") {
			return c + " is never written"
		}
	}
	e := want
	if e == nil {
		e = was
	}
	switch {
	case a.out(path, e.Kind == KindDir):
		return "it is excluded"
	case hostExecutes(path, e.Kind) && !matchUp(a.allow, path, e.Kind == KindDir):
		return "the host executes it by itself, and it is not allowed"
	case !copies(e.Kind):
		return "it is a socket or fifo"
	case want != nil && want.Kind == KindSymlink && a.leadsOut(want):
		return "it is a link that leads outside"
	}
	return ""
}

// matchUp: the path or a directory above it matches.
func matchUp(ps []pattern, path string, dir bool) bool {
	for i := range len(path) {
		if path[i] == '/' && matchAny(ps, path[:i], true) {
			return true
		}
	}
	return matchAny(ps, path, dir)
}

// leadsOut resolves a link of the result within the result, link by link, so that
// no chain of links and ".." leads out of it. An absolute target is outside.
func (a *applier) leadsOut(link *Entry) bool {
	at := parent(link.Path)
	todo := strings.Split(link.Target, "/")
	if strings.HasPrefix(link.Target, "/") {
		return true
	}
	for links := 0; len(todo) > 0; {
		c := todo[0]
		todo = todo[1:]
		switch c {
		case "", ".":
			continue
		case "..":
			if at == "" {
				return true
			}
			at = parent(at)
			continue
		}
		at = join(at, c)
		e := a.m.Lookup(at)
		if e == nil || e.Kind != KindSymlink {
			continue
		}
		if links++; links > 40 || strings.HasPrefix(e.Target, "/") {
			return true // as deep as the kernel goes
		}
		todo = append(strings.Split(e.Target, "/"), todo...)
		at = parent(at)
	}
	return false
}

// Directories and files that a host, an editor or a code host executes by itself
// (design, sandboxes). Compared without case, as some file systems do.
var (
	executedDirs  = []string{".husky", ".githooks", ".vscode", ".idea", ".claude", ".cursor", ".devcontainer", ".circleci"}
	executedFiles = []string{".envrc", ".gitlab-ci.yml", ".mcp.json", ".pre-commit-config.yaml"}
	executedPaths = []string{".github/workflows", ".github/actions"}
)

func hostExecutes(path string, kind Kind) bool {
	path = strings.ToLower(path)
	cs := strings.Split(path, "/")
	for _, c := range cs {
		if slices.Contains(executedDirs, c) {
			return true
		}
	}
	if slices.Contains(executedFiles, cs[len(cs)-1]) {
		return true
	}
	for _, p := range executedPaths {
		if strings.Contains("/"+path+"/", "/"+p+"/") {
			return true
		}
		// A link in the place of .github would lead to workflows elsewhere.
		if dir := parent(p); kind == KindSymlink && cs[len(cs)-1] == dir {
			return true
		}
	}
	return false
}

// errParent: a directory on the way is none in dst.
var errParent = errors.New("the directory on the way is none")

// look reads the state of one path of dst.
func (a *applier) look(ctx context.Context, rd *reader, path string) (stat, *Entry, error) {
	d, name := split(path)
	dir, err := openBeneath(a.root, d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return stat{}, nil, nil
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EXDEV):
		return stat{}, nil, errParent
	case err != nil:
		return stat{}, nil, err
	}
	defer unix.Close(dir)
	st, err := statAt(dir, name, 0)
	if errors.Is(err, unix.ENOENT) {
		return stat{}, nil, nil
	}
	if err != nil {
		return stat{}, nil, err
	}
	e := &Entry{Path: path, Kind: st.kind(), Mode: st.mode & 0o7777}
	switch e.Kind {
	case KindFile:
		p := &pend{e: *e, st: st}
		w := &walk{}
		if err := rd.read(ctx, w, p, false); err != nil {
			return st, nil, err
		}
		*e, st = p.e, p.st
	case KindSymlink:
		if e.Target, err = readlinkAt(dir, name); err != nil {
			return st, nil, err
		}
	}
	return st, e, nil
}
