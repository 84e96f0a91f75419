package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"
)

// givenInputs merges --inputs FILE (YAML or JSON) and -i k=v; -i wins. Values of
// -i stay strings, which workflow.ResolveInputs converts by the input's type.
func givenInputs(file string, pairs []string) (map[string]any, error) {
	out := map[string]any{}
	if file != "" {
		b, err := readSmall(file, 4<<20)
		if err != nil {
			return nil, &usageError{msg: fmt.Sprintf("read --inputs: %v", err)}
		}
		decode := yaml.Unmarshal
		if filepath.Ext(file) == ".json" {
			decode = json.Unmarshal
		}
		if err := decode(b, &out); err != nil {
			return nil, &usageError{msg: fmt.Sprintf("read --inputs %s: %v", file, err), hint: "expected a map of input names to values"}
		}
	}
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, &usageError{msg: fmt.Sprintf("-i takes name=value, got %q", p)}
		}
		out[k] = v
	}
	return out, nil
}
