package workflow

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// wholeFile is a workflow of the examples or of the docs.
type wholeFile struct{ name, text string }

var fenceForm = regexp.MustCompile("(?ms)^```yaml([^\n]*)\n(.*?)^```$")

// wholeFiles are the examples, and the fenced workflows of the docs that are
// neither a fragment nor wrong on purpose.
func wholeFiles(t testing.TB) []wholeFile {
	t.Helper()
	var out []wholeFile
	for _, f := range exampleFiles(t) {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, wholeFile{f, string(text)})
	}
	docs, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(docs, "../README.md") {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range fenceForm.FindAllStringSubmatch(string(text), -1) {
			if how := strings.Fields(m[1]); !slices.Contains(how, "fragment") && !slices.Contains(how, "bad") && strings.Contains("\n"+m[2], "\nname:") && strings.Contains(m[2], "\nsteps:") {
				out = append(out, wholeFile{fmt.Sprintf("%s, block %d", f, i+1), m[2]})
			}
		}
	}
	return out
}

// verdict is all that a text means: its mistakes, or what it was parsed into.
func verdict(name, text string) (meaning string, refused bool) {
	dir := filepath.Dir(name)
	w, err := Parse("m.yaml", []byte(text), ParseOptions{ReadFile: func(n string) ([]byte, error) { return readBeneath(dir, n) }})
	if err != nil {
		return err.Error(), true
	}
	var b strings.Builder
	dump(&b, reflect.ValueOf(w).Elem())
	for _, d := range w.Warnings {
		b.WriteString(d.Rule)
	}
	return b.String(), false
}

// dump writes a value with all that it holds but the text and places in it.
func dump(b *strings.Builder, v reflect.Value) {
	switch x := v; x.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !x.IsNil() {
			if e, ok := safe(x).(*Expr); ok {
				b.WriteString("expr " + e.source)
				return
			}
			if t, ok := safe(x).(*Template); ok {
				b.WriteString("template " + t.source)
				return
			}
			dump(b, x.Elem())
		}
	case reflect.Struct:
		for i := range x.NumField() {
			f := x.Type().Field(i)
			if !f.IsExported() || f.Name == "Pos" || f.Name == "Text" || f.Name == "Warnings" {
				continue
			}
			b.WriteString(f.Name + "(")
			dump(b, x.Field(i))
			b.WriteString(")")
		}
	case reflect.Slice, reflect.Array:
		fmt.Fprintf(b, "%v[", x.Kind() == reflect.Slice && x.IsNil())
		for i := range x.Len() {
			dump(b, x.Index(i))
			b.WriteString(",")
		}
		b.WriteString("]")
	default:
		fmt.Fprint(b, safe(x))
	}
}

// saysDefault: the key says what holds without it.
func saysDefault(key string, value *yaml.Node) bool {
	return value.Value != "" && slices.ContainsFunc(Keys(), func(k Key) bool { return k.Name == key && k.Default == value.Value })
}

func safe(v reflect.Value) any {
	if v.CanInterface() {
		return v.Interface()
	}
	return v.String()
}

// TestEveryKeyOfEveryExampleCounts deletes and misspells each key of each example
// and of each workflow in the docs: validation refuses the result, warns, or it
// means something else. A key that could go without a trace would be one that is
// accepted and ignored.
func TestEveryKeyOfEveryExampleCounts(t *testing.T) {
	t.Parallel()
	mutations := 0
	for _, f := range wholeFiles(t) {
		if _, refused := verdict(f.name, f.text); refused {
			text, _ := verdict(f.name, f.text)
			t.Errorf("%s is refused: %s", f.name, text)
			continue
		}
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(f.text), &doc); err != nil {
			t.Fatal(err)
		}
		render := func() string {
			b, err := yaml.Marshal(&doc)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		good, _ := verdict(f.name, render())
		var walk func(n *yaml.Node, path string)
		walk = func(n *yaml.Node, path string) {
			if n.Kind == yaml.MappingNode {
				all := n.Content
				for i := 0; i+1 < len(all); i += 2 {
					key := all[i].Value
					where := path + "." + key
					n.Content = append(slices.Clone(all[:i]), all[i+2:]...)
					if got, _ := verdict(f.name, render()); got == good && !saysDefault(key, all[i+1]) {
						t.Errorf("%s: %s can be deleted without a trace", f.name, where)
					}
					n.Content = all
					all[i].Value = key + "x"
					if got, _ := verdict(f.name, render()); got == good {
						t.Errorf("%s: %s can be misspelt without a trace", f.name, where)
					}
					all[i].Value = key
					mutations += 2
				}
			}
			for i, c := range n.Content {
				walk(c, fmt.Sprintf("%s/%d", path, i))
			}
		}
		walk(doc.Content[0], "")
	}
	t.Logf("%d mutations, each noticed", mutations)
	if mutations < 200 {
		t.Errorf("only %d mutations: the examples were not found", mutations)
	}
}
