package workflow

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

const schemaFile = "../schema.json"

// TestSchemaIsFresh: schema.json is what the table of keys says.
func TestSchemaIsFresh(t *testing.T) {
	t.Parallel()
	fresh(t, schemaFile, Schema())
}

// fresh compares a generated file, or writes it with -update.
func fresh(t *testing.T, name string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: run `make generate`", name)
	}
}

// validator compiles the schema with an independent implementation.
func validator(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(SchemaURL, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(SchemaURL)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// bySchema is the schema's verdict on a text, which has to be YAML.
func bySchema(t testing.TB, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal(text, &n); err != nil {
		t.Fatalf("not YAML: %v", err)
	}
	return s.Validate(instance(&n))
}

// instance is a node as the validator wants it.
func instance(n *yaml.Node) any {
	if n.Kind == yaml.DocumentNode {
		n = n.Content[0]
	}
	return toMaps(plain(n))
}

func toMaps(v any) any {
	switch x := v.(type) {
	case object:
		m := map[string]any{}
		for _, e := range x {
			m[e.name] = toMaps(e.value)
		}
		return m
	case []any:
		for i := range x {
			x[i] = toMaps(x[i])
		}
	}
	return v
}

func exampleFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("../examples/workflows/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	return files
}

// TestExamplesFollowTheSchema: also those that stand in the table of keys.
func TestExamplesFollowTheSchema(t *testing.T) {
	t.Parallel()
	s := validator(t)
	for _, f := range exampleFiles(t) {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := bySchema(t, s, text); err != nil {
			t.Errorf("%s: %v", f, err)
		}
		if _, err := Load(f); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
	if err := bySchema(t, s, []byte("name: n\nsteps: [{id: a, rnu: x}]\n")); err == nil {
		t.Error("the schema takes a misspelt key")
	}
	if strings.Contains(string(Schema()), "no shape for") {
		t.Error("a type of the table has no shape in the schema")
	}
}

// TestSchemaHasEveryKey with a description and an example, and no key that does
// not work yet.
func TestSchemaHasEveryKey(t *testing.T) {
	t.Parallel()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	root := doc.(map[string]any)
	for _, k := range allKeys() {
		of := root
		if k.In != inWorkflow {
			of, _ = root["definitions"].(map[string]any)[k.In].(map[string]any)
		}
		props, _ := of["properties"].(map[string]any)
		p, there := props[k.Name].(map[string]any)
		switch {
		case there != k.Supported:
			t.Errorf("%s.%s: supported %v, in the schema %v", k.In, k.Name, k.Supported, there)
		case there && (p["description"] == nil || p["examples"] == nil):
			t.Errorf("%s.%s has no description or no example", k.In, k.Name)
		case there && k.Default != "" && p["default"] == nil:
			t.Errorf("%s.%s has no default", k.In, k.Name)
		}
	}
}
