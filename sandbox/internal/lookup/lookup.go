// Package lookup finds a command's program as a POSIX shell does: on the PATH of
// the command's own environment, never of the caller's.
//
// The drivers of package sandbox share it; nobody else imports it.
package lookup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Exit codes of a shell for a program that did not start.
const (
	ExitNotExecutable = 126
	ExitNotFound      = 127
)

// DefaultPath is searched when the environment has no PATH.
const DefaultPath = "/usr/local/bin:/usr/bin:/bin"

// Getenv reads the last value of a name, which is what most programs see.
func Getenv(env []string, name string) (string, bool) {
	for i := len(env) - 1; i >= 0; i-- {
		if k, v, ok := strings.Cut(env[i], "="); ok && k == name {
			return v, true
		}
	}
	return "", false
}

// Path returns the file to execute for program. A program with a slash is
// relative to dir and returned as it is: execve itself then says what is wrong.
// An empty element of PATH is dir. Errors: fs.ErrNotExist, fs.ErrPermission.
func Path(program string, env []string, dir string) (string, error) {
	if strings.Contains(program, "/") {
		return program, nil
	}
	if program == "" {
		return "", fs.ErrNotExist
	}
	list, ok := Getenv(env, "PATH")
	if !ok {
		list = DefaultPath
	}
	failure := fs.ErrNotExist
	for _, d := range filepath.SplitList(list) {
		file := filepath.Join(d, program)
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		info, err := os.Stat(file)
		switch {
		case err != nil || info.IsDir(): // nor in a folder that may not be searched, as bash has it
		case info.Mode()&0o111 == 0:
			failure = fs.ErrPermission
		default:
			return file, nil
		}
	}
	return "", failure
}

// Failure is the exit code and the line on the command's standard error for a
// program that could not be started, in the words of a shell.
func Failure(program string, err error) (code int, message string) {
	why := err.Error()
	code = ExitNotExecutable
	switch {
	case errors.Is(err, fs.ErrNotExist) && strings.Contains(program, "/"):
		code, why = ExitNotFound, "no such file or directory"
	case errors.Is(err, fs.ErrNotExist):
		code, why = ExitNotFound, "command not found"
	case errors.Is(err, fs.ErrPermission):
		why = "permission denied"
	}
	return code, program + ": " + why + "\n"
}
