package report

import (
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"flowrun.dev/flow/workflow"
)

// checkedFiles are the golden files of the language, which show every rule.
func checkedFiles(t *testing.T) []Checked {
	t.Helper()
	var out []Checked
	for _, pattern := range []string{"../workflow/testdata/err/*.yaml", "../workflow/testdata/rules/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no files: %v", err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			c := Checked{File: filepath.Base(f)}
			w, err := workflow.Parse(c.File, text, workflow.ParseOptions{})
			var bad *workflow.Diagnostics
			switch {
			case errors.As(err, &bad):
				c.Diagnostics = bad.List
			case err == nil:
				c.Diagnostics = w.Warnings
			}
			out = append(out, c)
		}
	}
	return append(out, Checked{File: "a b/ü%:,.yaml", Diagnostics: []workflow.Diagnostic{{Severity: "error", Rule: "x", Pos: workflow.Pos{Line: 1, Col: 1}, Message: "100%\r\nnext"}}}, Checked{File: "/abs.yaml"})
}

// sarifSchemaOf is the official schema. It is not in this repository: the module
// go-sarif (public domain, used by this test only) has it as a constant, which is
// read from its source, because the module offers it for its own types only.
func sarifSchemaOf(t *testing.T) *jsonschema.Schema {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", reflect.TypeFor[sarif.Report]().PkgPath()).Output()
	if err != nil {
		t.Fatalf("find the module: %v", err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "schema.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var text string
	ast.Inspect(file, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			text, _ = strconv.Unquote(l.Value)
		}
		return true
	})
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(sarifSchema, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(sarifSchema)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSARIF(t *testing.T) {
	t.Parallel()
	schema := sarifSchemaOf(t)
	verdict := func(text []byte) error {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return err
		}
		return schema.Validate(doc)
	}
	var b bytes.Buffer
	files := checkedFiles(t)
	if err := SARIF(&b, "1.2.3", files); err != nil {
		t.Fatal(err)
	}
	if err := verdict(b.Bytes()); err != nil {
		t.Errorf("the official schema refuses it: %v", err)
	}
	if err := verdict(bytes.Replace(b.Bytes(), []byte(`"ruleId"`), []byte(`"ruleID"`), 1)); err == nil {
		t.Error("the schema takes a member that SARIF does not have: it judges nothing")
	}
	log, err := sarif.FromBytes(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, f := range files {
		want += len(f.Diagnostics)
	}
	if got := len(log.Runs[0].Results); got != want || want < 200 {
		t.Errorf("%d results for %d diagnostics", got, want)
	}
	b.Reset()
	if err := SARIF(&b, "", nil); err != nil {
		t.Fatal(err)
	}
	if err := verdict(b.Bytes()); err != nil {
		t.Errorf("an empty log: %v", err)
	}
}

func TestGitHub(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	err := GitHub(&b, []Checked{{File: "a,b:c.yaml", Diagnostics: []workflow.Diagnostic{
		{Severity: "error", Rule: "unknown-key", Pos: workflow.Pos{Line: 3, Col: 5}, EndCol: 8, Message: "100% wrong", Expected: []string{"a", "b"}, Suggestion: "a", Hint: "one\ntwo"},
		{Severity: "warning", Rule: "x", Pos: workflow.Pos{Line: 1, Col: 1}, Message: "m"},
	}}})
	want := "::error file=a%2Cb%3Ac.yaml,line=3,col=5,endColumn=8,title=unknown-key::100%25 wrong%0Aexpected one of: a, b%0Adid you mean \"a\"?%0Aone%0Atwo\n" +
		"::warning file=a%2Cb%3Ac.yaml,line=1,col=1,title=x::m\n"
	if err != nil || b.String() != want {
		t.Errorf("got %v\n%s\nwant\n%s", err, b.String(), want)
	}
}
