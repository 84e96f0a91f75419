package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/report"
)

//go:embed all:templates
var templateFiles embed.FS

// startingPoint is one row of the templates of `flow init`: its folder in
// templates/ holds NAME.yaml and what that needs.
type startingPoint struct {
	Name string `json:"name"`
	Text string `json:"text"`
	// ci are the flags with which a machine runs it, where nobody is asked.
	ci string
}

// startingPoints are the templates, the first is the default.
var startingPoints = []startingPoint{
	{"agent", "an agent builds something small, a script tests it", ""},
	{"ci", "checks of a repository, in order and side by side", ""},
	{"batch", "the same work for each item of a list, a few at a time", ""},
	{"review", "a draft that a person accepts, sends back or holds before it is published", " -i wait=false"},
}

func cmdInit(a *app) *cobra.Command {
	list := false
	c := &cobra.Command{
		Use: "init [TEMPLATE]", Short: "Write a first workflow",
		Long:    "Writes a first workflow that runs as it is, a .gitignore and a file for GitHub\nActions into the working directory. A file that exists stays as it is.\n\nTemplates:\n" + templateList() + exitHelp(0, 2, 3),
		Example: "  flow init\n  flow init ci && flow run ci.yaml",
		Args:    atMost(1, "one template"),
		RunE: func(_ *cobra.Command, args []string) error {
			if list {
				return a.listTemplates()
			}
			return a.init(first(append(args, startingPoints[0].Name)...))
		},
	}
	c.Flags().BoolVar(&list, "list", false, "list the templates, and write nothing")
	return c
}

func templateList() string {
	var b strings.Builder
	for _, t := range startingPoints {
		fmt.Fprintf(&b, "  %-8s %s\n", t.Name, t.Text)
	}
	return strings.TrimRight(b.String(), "\n")
}

func (a *app) listTemplates() error {
	if a.json {
		return report.WriteJSON(a.out, startingPoints)
	}
	fmt.Fprintln(a.out, templateList())
	return nil
}

func (a *app) init(name string) error {
	i := slices.IndexFunc(startingPoints, func(t startingPoint) bool { return t.Name == name })
	if i < 0 {
		return &usageError{msg: fmt.Sprintf("there is no template %q", name), hint: "templates:\n" + templateList()}
	}
	var written []string
	put := func(to string, content []byte) error {
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return fmt.Errorf("write %s: %w", to, err)
		}
		f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, fs.ErrExist) {
			fmt.Fprintf(a.err, "%s is there already; it stays as it is\n", to)
			return nil
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", to, err)
		}
		_, err = f.Write(content)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("write %s: %w", to, err)
		}
		written = append(written, to)
		return nil
	}
	file := name + ".yaml"
	if _, err := os.Lstat(file); err == nil {
		return &usageError{msg: file + " is there already", hint: "remove it, or take another template:\n" + templateList()}
	}
	dir := "templates/" + name
	err := fs.WalkDir(templateFiles, dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := templateFiles.ReadFile(p)
		if err != nil {
			return err
		}
		return put(strings.TrimPrefix(p, dir+"/"), content)
	})
	if err != nil {
		return err
	}
	ci, err := templateFiles.ReadFile("templates/shared/github.yml")
	if err != nil {
		return err
	}
	if err := put(".github/workflows/flow.yml", []byte(strings.NewReplacer("WORKFLOW", file, " FLAGS", startingPoints[i].ci).Replace(string(ci)))); err != nil {
		return err
	}
	if added, err := ignoreState(); err != nil {
		return err
	} else if added {
		written = append(written, ".gitignore")
	}
	if a.json {
		return report.WriteJSON(a.out, map[string]any{"template": name, "workflow": file, "written": written})
	}
	for _, f := range written {
		fmt.Fprintln(a.out, "wrote", f)
	}
	fmt.Fprintf(a.out, "\nnext:\n  flow plan %s\n  flow run %s\n", file, file)
	return nil
}

// ignoreState adds .flow/ to .gitignore where it is not there.
func ignoreState() (added bool, err error) {
	old, err := os.ReadFile(".gitignore")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read .gitignore: %w", err)
	}
	for line := range strings.Lines(string(old)) {
		if t := strings.Trim(strings.TrimSpace(line), "/"); t == ".flow" {
			return false, nil
		}
	}
	line := ".flow/\n"
	if len(old) > 0 && !bytes.HasSuffix(old, []byte("\n")) {
		line = "\n" + line
	}
	f, err := os.OpenFile(".gitignore", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return false, fmt.Errorf("write .gitignore: %w", err)
	}
	_, err = f.WriteString(line)
	return err == nil, errors.Join(err, f.Close())
}
