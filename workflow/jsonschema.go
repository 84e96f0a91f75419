package workflow

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/hashicorp/go-multierror"
)

// schemaTypes are the words of `type` in a JSON Schema.
var schemaTypes = []string{"array", "boolean", "integer", "null", "number", "object", "string"}

// CheckSchema says whether a text is a JSON Schema (draft 2020-12 or draft 7) that
// refers to nothing outside itself.
func CheckSchema(raw []byte) error {
	var s jsonschema.Schema
	if err := json.Unmarshal(raw, &s); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return fmt.Errorf("%s is a %s, which a JSON Schema does not have there", wrong.Field, wrong.Value)
		}
		return err
	}
	if _, err := s.Resolve(&jsonschema.ResolveOptions{Loader: noSchema}); err != nil {
		return err
	}
	var errs *multierror.Error
	for sub := range everySchema(&s) {
		for _, t := range append(slices.Clone(sub.Types), sub.Type) {
			if t != "" && !slices.Contains(schemaTypes, t) {
				errs = multierror.Append(errs, fmt.Errorf("type %q is none of %v", t, schemaTypes))
			}
		}
	}
	return errs.ErrorOrNil()
}

// noSchema refuses references to other documents: a workflow file judges itself.
func noSchema(uri *url.URL) (*jsonschema.Schema, error) {
	return nil, fmt.Errorf("it refers to %s, and may refer to itself only", uri)
}

// everySchema is a schema with all that stand in it.
func everySchema(s *jsonschema.Schema) func(yield func(*jsonschema.Schema) bool) {
	return func(yield func(*jsonschema.Schema) bool) {
		todo := []*jsonschema.Schema{s}
		for len(todo) > 0 {
			s := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if s == nil {
				continue
			}
			if !yield(s) {
				return
			}
			todo = append(todo, s.Items, s.AdditionalItems, s.Contains, s.UnevaluatedItems, s.AdditionalProperties,
				s.PropertyNames, s.UnevaluatedProperties, s.Not, s.If, s.Then, s.Else, s.ContentSchema)
			for _, list := range [][]*jsonschema.Schema{s.ItemsArray, s.PrefixItems, s.AllOf, s.AnyOf, s.OneOf} {
				todo = append(todo, list...)
			}
			for _, m := range []map[string]*jsonschema.Schema{s.Defs, s.Definitions, s.Properties, s.PatternProperties, s.DependentSchemas, s.DependencySchemas} {
				for _, x := range m {
					todo = append(todo, x)
				}
			}
		}
	}
}
