package workflow

import (
	"strings"
	"testing"
)

func TestCheckSchema(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ schema, want string }{
		{`{"type": "object", "required": ["a"], "properties": {"a": {"type": ["string", "null"]}, "b": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}`, ""},
		{`{"items": {"enum": [1, 2]}}`, ""},
		{`{"type": "strng"}`, `type "strng" is none of`},
		{`{"properties": {"a": {"anyOf": [{"type": "int"}]}}}`, `type "int" is none of`},
		{`{"required": "a"}`, "required"},
		{`{"properties": {"a": {"minLength": "x"}}}`, "int"},
		{`{"pattern": "("}`, "pattern"},
		{`{"$ref": "https://example.com/s.json"}`, "it refers to https://example.com/s.json, and may refer to itself only"},
		{`{"$ref": "#/$defs/missing"}`, "missing"},
		{`[1]`, "array"},
	} {
		err := CheckSchema([]byte(c.schema))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("CheckSchema(%s) = %v", c.schema, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("CheckSchema(%s) = %v, want %q", c.schema, err, c.want)
		}
	}
}
