package workflow

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// ResolveInputs checks what the call gave against the inputs and fills in
// defaults. Strings are converted by the input's type. All mistakes at once.
func ResolveInputs(w *Workflow, given map[string]any) (map[string]any, error) {
	out := map[string]any{}
	var errs *multierror.Error
	var names []string
	for _, in := range w.Inputs {
		names = append(names, in.Name)
		v, ok := given[in.Name]
		switch {
		case !ok && in.Required:
			errs = multierror.Append(errs, fmt.Errorf("input %s is required: give it with -i %s=…", in.Name, in.Name))
			continue
		case !ok && !in.HasDefault:
			out[in.Name] = zero[in.Type]
			continue
		case !ok:
			out[in.Name] = in.Default
			continue
		}
		v, err := convert(in, v)
		if err != nil {
			errs = multierror.Append(errs, fmt.Errorf("input %s %w", in.Name, err))
			continue
		}
		out[in.Name] = v
	}
	for _, name := range keysOf(given) {
		if _, ok := out[name]; ok || contains(names, name) {
			continue
		}
		msg := fmt.Sprintf("there is no input %q", name)
		if n := nearest(name, names); n != "" {
			msg += fmt.Sprintf("; did you mean %q?", n)
		} else if len(names) > 0 {
			msg += "; the inputs are " + strings.Join(names, ", ")
		}
		errs = multierror.Append(errs, fmt.Errorf("%s", msg))
	}
	if errs != nil {
		errs.ErrorFormat = func(es []error) string {
			var s []string
			for _, e := range es {
				s = append(s, e.Error())
			}
			return strings.Join(s, "\n  ")
		}
	}
	return out, errs.ErrorOrNil()
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// zero is the value of an input that is not required and has no default.
var zero = map[string]any{"string": "", "number": 0.0, "integer": 0, "boolean": false, "array": []any{}, "object": map[string]any{}}

// convert brings a value to the input's type and checks enum and pattern.
func convert(in Input, v any) (any, error) {
	v, err := typed(in.Type, v)
	if err != nil {
		return nil, err
	}
	if len(in.Enum) > 0 {
		ok := false
		var words []string
		for _, e := range in.Enum {
			t, err := typed(in.Type, e)
			ok = ok || err == nil && reflect.DeepEqual(t, v)
			words = append(words, fmt.Sprint(e))
		}
		if !ok {
			s := fmt.Sprintf("must be one of %s, not %v", strings.Join(words, ", "), v)
			if n := nearest(fmt.Sprint(v), words); n != "" {
				s += fmt.Sprintf("; did you mean %q?", n)
			}
			return nil, fmt.Errorf("%s", s)
		}
	}
	if s, isText := v.(string); isText && in.Pattern != "" {
		re, err := regexp.Compile(in.Pattern)
		if err == nil && !re.MatchString(s) {
			return nil, fmt.Errorf("must match %s", in.Pattern)
		}
	}
	return v, nil
}

func typed(want string, v any) (any, error) {
	s, isText := v.(string)
	switch want {
	case "string":
		if isText {
			return s, nil
		}
		switch v.(type) {
		case map[string]any, []any, nil:
			return nil, fmt.Errorf("must be a string")
		}
		return text(v)
	case "integer":
		switch x := v.(type) {
		case int:
			return x, nil
		case float64:
			if x == math.Trunc(x) && math.Abs(x) < 1<<53 {
				return int(x), nil
			}
		case string:
			if n, err := strconv.Atoi(x); err == nil {
				return n, nil
			}
		}
		return nil, fmt.Errorf("must be a whole number")
	case "number":
		switch x := v.(type) {
		case int:
			return float64(x), nil
		case float64:
			return x, nil
		case string:
			if f, err := strconv.ParseFloat(x, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
				return f, nil
			}
		}
		return nil, fmt.Errorf("must be a number")
	case "boolean":
		if b, ok := v.(bool); ok {
			return b, nil
		}
		if s == "true" || s == "false" {
			return s == "true", nil
		}
		return nil, fmt.Errorf("must be true or false")
	case "array", "object":
		if isText {
			if err := json.Unmarshal([]byte(s), &v); err != nil {
				return nil, fmt.Errorf("must be JSON: %v", err)
			}
		}
		_, isList := v.([]any)
		_, isMap := v.(map[string]any)
		if want == "array" && isList || want == "object" && isMap {
			return v, nil
		}
		return nil, fmt.Errorf("must be an %s", want)
	}
	return v, nil
}
