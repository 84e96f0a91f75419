package workflow

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// CheckSchema says whether a text is a JSON Schema (draft 2020-12) that refers to
// nothing outside itself.
func CheckSchema(raw []byte) error {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	if err := c.AddResource("schema.json", doc); err != nil {
		return plainSchemaError(err)
	}
	if _, err = c.Compile("schema.json"); err != nil {
		return plainSchemaError(err)
	}
	return nil
}

// plainSchemaError is one line without the address that the compiler makes up.
func plainSchemaError(err error) error {
	text := err.Error()
	if i := strings.Index(text, "draft/2020-12/schema#'"); i >= 0 {
		text = strings.TrimLeft(text[i+len("draft/2020-12/schema#'"):], " \n-")
	}
	if i := strings.Index(text, "schema.json#"); i >= 0 {
		text = strings.TrimPrefix(text[i+len("schema.json#"):], "' ")
	}
	return errors.New(strings.Join(strings.Fields(text), " "))
}

// noLoader refuses references to other documents: a workflow file judges itself.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("it refers to %s, and may refer to itself only", url)
}
