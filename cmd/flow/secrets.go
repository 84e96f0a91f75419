package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-multierror"

	"flowrun.dev/flow/redact"
	"flowrun.dev/flow/workflow"
)

// maxSecretFile bounds a secret read from a file; keys and certificates are smaller.
const maxSecretFile = 64 << 10

// providerKeys are secrets of flow itself: never given to a step, always redacted.
var providerKeys = []string{"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"}

// loadSecrets finds the value of every declared secret (environment, --env-file,
// file) and builds the redactor. All that are missing are named at once.
func (a *app) loadSecrets(w *workflow.Workflow, envFile string, fileDir string) (map[string]string, *redact.Set, error) {
	fromFile, err := readEnvFile(envFile)
	if err != nil {
		return nil, nil, err
	}
	values := map[string]string{}
	var list []redact.Secret
	var missing *multierror.Error
	for _, s := range w.Secrets {
		value, err := a.secretValue(s, fromFile, fileDir)
		if err != nil {
			missing = multierror.Append(missing, err)
			continue
		}
		values[s.Name] = value
		list = append(list, redact.Secret{Name: s.Name, Value: value})
	}
	if err := missing.ErrorOrNil(); err != nil {
		missing.ErrorFormat = lines
		return nil, nil, &usageError{msg: err.Error(), hint: "set them in the environment or in a file given with --env-file"}
	}
	for _, name := range providerKeys {
		if v := a.env(name); v != "" {
			list = append(list, redact.Secret{Name: name, Value: v})
		}
	}
	set, err := redact.New(list...)
	if err != nil {
		return nil, nil, &usageError{msg: err.Error()}
	}
	a.secrets = set
	return values, set, nil
}

func lines(errs []error) string {
	var out []string
	for _, e := range errs {
		out = append(out, e.Error())
	}
	return strings.Join(out, "\n  ")
}

func (a *app) secretValue(s workflow.Secret, fromFile map[string]string, fileDir string) (string, error) {
	if s.File != "" {
		name := s.File
		if !filepath.IsAbs(name) {
			name = filepath.Join(fileDir, name)
		}
		b, err := readSmall(name, maxSecretFile)
		if err != nil {
			return "", fmt.Errorf("secret %s (%s:%d): read its file: %w", s.Name, s.Pos.File, s.Pos.Line, err)
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
	name := s.Env
	if name == "" {
		name = s.Name
	}
	if v, ok := fromFile[name]; ok && v != "" {
		return v, nil
	}
	if v := a.env(name); v != "" {
		return v, nil
	}
	return "", fmt.Errorf("secret %s (%s:%d) has no value: %s is not set", s.Name, s.Pos.File, s.Pos.Line, name)
}

// readEnvFile reads KEY=VALUE lines as dotenv files have them: comments, an
// optional `export`, single or double quotes. A mistake names its line, never its text.
func readEnvFile(name string) (map[string]string, error) {
	out := map[string]string{}
	if name == "" {
		return out, nil
	}
	b, err := readSmall(name, 1<<20)
	if err != nil {
		return nil, &usageError{msg: fmt.Sprintf("read --env-file: %v", err)}
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, 1<<20)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" || strings.ContainsAny(key, " \t") {
			return nil, &usageError{msg: fmt.Sprintf("read --env-file: %s:%d: expected NAME=value", name, n)}
		}
		value, err := unquote(strings.TrimSpace(value))
		if err != nil {
			return nil, &usageError{msg: fmt.Sprintf("read --env-file: %s:%d: %v", name, n, err)}
		}
		out[key] = value
	}
	return out, sc.Err()
}

var envEscapes = strings.NewReplacer(`\n`, "\n", `\r`, "\r", `\t`, "\t", `\"`, `"`, `\\`, `\`, `\$`, `$`)

func unquote(v string) (string, error) {
	if v == "" || v[0] != '"' && v[0] != '\'' {
		if i := strings.Index(v, " #"); i >= 0 {
			v = strings.TrimSpace(v[:i])
		}
		return v, nil
	}
	end := closing(v)
	if end < 0 {
		return "", errors.New("the quote is never closed")
	}
	if rest := strings.TrimSpace(v[end+1:]); rest != "" && !strings.HasPrefix(rest, "#") {
		return "", errors.New("text after the closing quote")
	}
	if v[0] == '\'' {
		return v[1:end], nil
	}
	return envEscapes.Replace(v[1:end]), nil
}

// closing finds the quote that ends v, whose first byte opened it.
func closing(v string) int {
	for i := 1; i < len(v); i++ {
		switch {
		case v[i] == '\\' && v[0] == '"':
			i++
		case v[i] == v[0]:
			return i
		}
	}
	return -1
}

// readSmall reads a regular file of at most max bytes; a fifo or device would block.
func readSmall(name string, max int64) ([]byte, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	if st.Size() > max {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("larger than %d bytes", max)}
	}
	return os.ReadFile(name)
}
