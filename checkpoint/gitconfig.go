package checkpoint

import (
	"bytes"
	"regexp"
	"strings"
	"sync"
)

// isGitConfig: the files of a repository that may hold credentials, of nested
// repositories and submodules too.
func isGitConfig(path string) bool {
	dir, name := split(path)
	if name != "config" && name != "config.worktree" {
		return false
	}
	return dir == ".git" || strings.HasSuffix(dir, "/.git") ||
		strings.HasPrefix(dir, ".git/") || strings.Contains(dir, "/.git/")
}

// What git calls scheme://user:password@host. The user of ssh is a name and no
// secret, and is needed; of http it often is a token.
var (
	userinfo = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)([^/\s"']+)@`) })
	section  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\s*\[\s*([A-Za-z0-9.-]+)`) })
	setting  = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^\s*(?:\[[^\]]*\]\s*)?([A-Za-z][A-Za-z0-9-]*)\s*(?:=|$)`)
	})
	secretNames = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)extraheader|pass(word|wd)?$|token|secret|oauth|authorization|cookie`)
	})
)

// cleanGitConfig takes credentials out of a git configuration: the userinfo of
// URLs, credential sections, and settings whose value is a secret by its name
// (http.extraheader, *.token, *.pass). All else stays byte for byte.
func cleanGitConfig(b []byte) []byte {
	var out bytes.Buffer
	drop := false // inside a section that goes
	for len(b) > 0 {
		line := logicalLine(b)
		b = b[len(line):]
		s := string(line)
		header := section().FindStringSubmatch(s)
		if header != nil {
			drop = strings.EqualFold(strings.SplitN(header[1], ".", 2)[0], "credential")
		}
		if drop {
			continue
		}
		if m := setting().FindStringSubmatch(s); m != nil && secretNames().MatchString(m[1]) {
			if header != nil { // "[http] extraheader = …" on one line
				out.WriteString(s[:strings.IndexByte(s, ']')+1] + "\n")
			}
			continue
		}
		out.WriteString(userinfo().ReplaceAllStringFunc(s, cleanURL))
	}
	return out.Bytes()
}

func cleanURL(s string) string {
	m := userinfo().FindStringSubmatch(s)
	scheme := strings.ToLower(m[1])
	if strings.HasPrefix(scheme, "ssh") || strings.HasPrefix(scheme, "git+ssh") {
		user, _, _ := strings.Cut(m[2], ":")
		return m[1] + user + "@"
	}
	return m[1]
}

// logicalLine is the first line with those that a backslash at its end joins to it.
func logicalLine(b []byte) []byte {
	end := 0
	for {
		i := bytes.IndexByte(b[end:], '\n')
		if i < 0 {
			return b
		}
		end += i + 1
		line := bytes.TrimSuffix(b[:end-1], []byte("\r"))
		if slashes := len(line) - len(bytes.TrimRight(line, `\`)); slashes%2 == 0 {
			return b[:end]
		}
	}
}
