package workflow

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"gopkg.in/yaml.v3"
)

// TestEveryKeyHasItsPair: testdata/keys holds, for each supported key of each map of
// the language, a file that uses it rightly and one with a mistake in it, with what
// is said of that. A new key without its pair fails here.
func TestEveryKeyHasItsPair(t *testing.T) {
	t.Parallel()
	want := map[string]map[string]bool{}
	for _, k := range allKeys() {
		if k.Supported {
			if want[k.In] == nil {
				want[k.In] = map[string]bool{}
			}
			want[k.In][k.Name] = true
		}
	}
	pairs := 0
	for in, keys := range want {
		name := filepath.Join("testdata", "keys", in+".txtar")
		text, err := os.ReadFile(name)
		if err != nil {
			t.Errorf("the keys of %s have no golden pairs: %v", in, err)
			continue
		}
		ar := txtar.Parse(text)
		files := map[string]string{}
		for _, f := range ar.Files {
			files[f.Name] = string(f.Data)
			if key, _, _ := strings.Cut(f.Name, "."); !keys[key] {
				t.Errorf("%s: %s: %s is no key of %s that works", name, f.Name, key, in)
			}
		}
		said := map[string]string{}
		for key := range keys {
			t.Run(in+"/"+key, func(t *testing.T) {
				good, ok := files[key+".yaml"]
				bad, ok2 := files[key+".mistaken.yaml"]
				if !ok || !ok2 {
					t.Fatalf("%s has no pair: add %s.yaml, where it is used rightly, and %s.mistaken.yaml", name, key, key)
				}
				checkGood(t, in, key, good)
				said[key] = complaint(t, key, bad)
				if !*update && said[key] != files[key+".out"] {
					t.Errorf("of the mistaken file is said:\n%s\nwant:\n%s", said[key], files[key+".out"])
				}
				pairs++
			})
		}
		if *update {
			updateSaid(t, name, ar, said)
		}
	}
	t.Logf("%d keys with a golden pair", pairs)
}

// checkGood: the file is right, without a warning, and its key is the one of the map:
// misspelt, it is an unknown key there.
func checkGood(t *testing.T, in, key, text string) {
	t.Helper()
	w, err := pairParse(text)
	if err != nil {
		t.Errorf("the right file is refused:\n%v", err)
		return
	}
	for _, d := range w.Warnings {
		t.Errorf("the right file has a warning: %v", d)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	found := false
	walkKeys(&doc, func(k *yaml.Node) {
		if k.Value != key {
			return
		}
		k.Value = key + "x"
		b, err := yaml.Marshal(&doc)
		if err != nil {
			t.Fatal(err)
		}
		k.Value = key
		_, err = pairParse(string(b))
		var bad *Diagnostics
		if errors.As(err, &bad) {
			for _, d := range bad.List {
				found = found || d.Rule == "unknown-key" && strings.HasSuffix(d.Message, " in "+in)
			}
		}
	})
	if !found {
		t.Errorf("the right file does not use %s in %s:\n%s", key, in, text)
	}
}

func walkKeys(n *yaml.Node, f func(k *yaml.Node)) {
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			f(c)
			continue
		}
		walkKeys(c, f)
	}
}

func complaint(t *testing.T, key, text string) string {
	t.Helper()
	_, err := pairParse(text)
	var bad *Diagnostics
	if !errors.As(err, &bad) {
		t.Errorf("the mistaken file is taken: %v", err)
		return ""
	}
	var b bytes.Buffer
	if err := bad.Render(&b, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func pairParse(text string) (*Workflow, error) {
	return Parse("pair.yaml", []byte(text), ParseOptions{ReadFile: func(name string) ([]byte, error) {
		if name == "called.yaml" {
			return []byte("name: called\ninputs: {word: {type: string, required: true}}\nsteps: [{id: a, env: {W: \"${{ inputs.word }}\"}, run: echo \"$W\"}]\n"), nil
		}
		if name != "prompt.md" {
			return nil, errors.New("the path leads outside of the workflow's folder")
		}
		return []byte("Do it.\n"), nil
	}})
}

// updateSaid puts what is said behind each mistaken file.
func updateSaid(t *testing.T, name string, ar *txtar.Archive, said map[string]string) {
	t.Helper()
	out := &txtar.Archive{Comment: ar.Comment}
	for _, f := range ar.Files {
		if strings.HasSuffix(f.Name, ".out") {
			continue
		}
		out.Files = append(out.Files, f)
		if key, ok := strings.CutSuffix(f.Name, ".mistaken.yaml"); ok && said[key] != "" {
			out.Files = append(out.Files, txtar.File{Name: key + ".out", Data: []byte(said[key])})
		}
	}
	if err := os.WriteFile(name, txtar.Format(out), 0o644); err != nil {
		t.Fatal(err)
	}
}
