package workflow

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxItems bounds what one foreach may make.
const maxItems = 10000

// maxKey is the longest key of an instance, in characters.
const maxKey = 60

// Items computes the items of a foreach and the key of each: what names an
// instance, and by which a resume finds it again when the order changed.
func (f *Foreach) Items(v Vars) (items []any, keys []string, err error) {
	switch {
	case f.Expr != nil:
		items, err = itemsOf(f.Expr, v)
	case f.List != nil:
		var x any
		if x, err = f.List.Eval(v); err == nil {
			items, _ = x.([]any)
		}
	default:
		items, err = f.matrix(v)
	}
	if err != nil {
		return nil, nil, err
	}
	if len(items) > maxItems {
		return nil, nil, fmt.Errorf("foreach has %d items, the limit is %d", len(items), maxItems)
	}
	return items, f.keys(items), nil
}

func itemsOf(e *Expr, v Vars) ([]any, error) {
	x, err := e.Eval(v)
	if err != nil {
		return nil, err
	}
	rv := reflect.ValueOf(x)
	if !rv.IsValid() || rv.Kind() != reflect.Slice {
		return nil, fmt.Errorf("evaluate `%s`: it is %s, not a list", e.source, kindOf(x))
	}
	out := make([]any, rv.Len())
	for i := range out {
		out[i] = rv.Index(i).Interface()
	}
	return out, nil
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case map[string]any:
		return "a map"
	}
	return fmt.Sprintf("of type %T", v)
}

// matrix is every combination of the axes, without those that Exclude fits, and
// with what Include adds, as GitHub's matrix has it.
func (f *Foreach) matrix(v Vars) ([]any, error) {
	combos := []map[string]any{{}}
	for _, a := range f.Matrix {
		var values []any
		var err error
		if a.Expr != nil {
			values, err = itemsOf(a.Expr, v)
		} else {
			var x any
			x, err = a.Values.Eval(v)
			values, _ = x.([]any)
		}
		if err != nil {
			return nil, fmt.Errorf("foreach.%s: %w", a.Name, err)
		}
		if len(combos)*len(values) > maxItems {
			return nil, fmt.Errorf("foreach has more than %d combinations", maxItems)
		}
		next := make([]map[string]any, 0, len(combos)*len(values))
		for _, c := range combos {
			for _, x := range values {
				m := map[string]any{a.Name: x}
				for k, y := range c {
					m[k] = y
				}
				next = append(next, m)
			}
		}
		combos = next
	}
	if len(f.Matrix) == 0 {
		combos = nil
	}
	exclude, err := entriesOf(f.Exclude, v, "exclude")
	if err != nil {
		return nil, err
	}
	include, err := entriesOf(f.Include, v, "include")
	if err != nil {
		return nil, err
	}
	kept := combos[:0]
	for _, c := range combos {
		if !fitsAny(exclude, c) {
			kept = append(kept, c)
		}
	}
	return f.included(kept, include), nil
}

// included: an entry that contradicts no axis of a combination is added to it;
// one that fits none becomes a combination of its own.
func (f *Foreach) included(combos, include []map[string]any) []any {
	out := make([]any, 0, len(combos)+len(include))
	for _, c := range combos {
		out = append(out, c)
	}
	for _, in := range include {
		fits := false
		for _, c := range combos {
			if f.contradicts(in, c) {
				continue
			}
			fits = true
			for k, x := range in {
				c[k] = x
			}
		}
		if !fits {
			out = append(out, in)
		}
	}
	return out
}

func (f *Foreach) contradicts(in, c map[string]any) bool {
	for _, a := range f.Matrix {
		if x, ok := in[a.Name]; ok && !equal(x, c[a.Name]) {
			return true
		}
	}
	return false
}

func entriesOf(v *Value, vars Vars, what string) ([]map[string]any, error) {
	if v == nil {
		return nil, nil
	}
	x, err := v.Eval(vars)
	if err != nil {
		return nil, fmt.Errorf("foreach.%s: %w", what, err)
	}
	list, _ := x.([]any)
	out := make([]map[string]any, 0, len(list))
	for _, y := range list {
		m, ok := y.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("foreach.%s: an entry is %s, not a map", what, kindOf(y))
		}
		out = append(out, m)
	}
	return out, nil
}

func fitsAny(list []map[string]any, c map[string]any) bool {
	for _, m := range list {
		fits := len(m) > 0
		for k, x := range m {
			fits = fits && equal(x, c[k])
		}
		if fits {
			return true
		}
	}
	return false
}

// equal compares as JSON does: 1 and 1.0 are one number.
func equal(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

// keys names the items. Two of one name are told apart by a number.
func (f *Foreach) keys(items []any) []string {
	keys, seen := make([]string, len(items)), make(map[string]int, len(items))
	for i, item := range items {
		k := f.key(item)
		seen[k]++
		if n := seen[k]; n > 1 {
			k = fmt.Sprintf("%s~%d", k, n)
		}
		keys[i] = k
	}
	return keys
}

func (f *Foreach) key(item any) string {
	var words []string
	if m, ok := item.(map[string]any); ok && f.Matrix != nil {
		for _, a := range f.Matrix {
			if x, ok := m[a.Name]; ok {
				words = append(words, word(x))
			}
		}
		if len(words) == 0 { // an entry of include with names of its own
			for _, k := range keysOf(m) {
				words = append(words, word(m[k]))
			}
		}
	} else {
		words = []string{word(item)}
	}
	return shorten(strings.Join(words, ","))
}

func word(v any) string {
	s, err := text(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return s
}

// shorten makes a key of any text: one line, without the signs that ids use, and
// with a digest where it would be long or is changed.
func shorten(s string) string {
	clean := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || !unicode.IsPrint(r) || strings.ContainsRune("[]#~", r) {
			return '_'
		}
		return r
	}, s)
	if clean == s && s != "" && utf8.RuneCountInString(s) <= maxKey {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	short := []rune(clean)
	return string(short[:min(len(short), maxKey-13)]) + "~" + hex.EncodeToString(sum[:6])
}
