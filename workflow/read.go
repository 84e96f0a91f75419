package workflow

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// lazily compiles a regular expression when it is first asked for: most commands
// ask for few, and flow starts in a few milliseconds.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// reader turns yaml nodes into values and collects mistakes.
type reader struct {
	bag
	text  []byte
	lines []string // of text; see start
	// walked is where placeIn was last: the mistakes of a long text are asked for in
	// order, and each walk goes on from the one before.
	walked struct {
		n      *yaml.Node
		c      cursor
		offset int
	}
}

// pos is a node's place; yaml.v3 counts columns in characters already.
func pos(n *yaml.Node) Pos { return Pos{Line: n.Line, Col: n.Column} }

// real follows an alias.
func real(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func (r *reader) at(rule string, n *yaml.Node, format string, args ...any) *Diagnostic {
	where, width := r.span(n)
	return r.add(rule, where, width, format, args...)
}

// span is the place of a node's value, and how much of it to underline.
func (r *reader) span(n *yaml.Node) (where Pos, width int) {
	where, width = pos(n), 1
	if n.Kind == yaml.AliasNode {
		width = len(n.Value) + 1
	}
	if n.Anchor != "" || n.Style&yaml.TaggedStyle != 0 {
		where = r.start(n).pos()
	}
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		width = utf8.RuneCountInString(n.Value)
		if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
			width += 2
		}
	}
	return where, width
}

// kindWords names what a node is, for people.
var kindWords = map[yaml.Kind]string{yaml.MappingNode: "a map", yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}

// what a node is, for people.
func (r *reader) kindOf(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return "empty"
	}
	return kindWords[n.Kind]
}

// mapping reads the keys of a context and calls f for each good one; f is a
// switch over the key's name that reports false for a name that it has no case
// for. It reports unknown, repeated and unsupported keys.
func (r *reader) mapping(n *yaml.Node, c Context, f func(k, v *yaml.Node) bool) bool {
	n = real(n)
	if n.Kind != yaml.MappingNode {
		d := r.at("type", n, "%s is %s; expected a map", c, r.kindOf(n))
		d.Expected = supported(c)
		return false
	}
	set := keysets()[c]
	var known uint64 // bits of the rows that were seen
	var unknown map[string]*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if !r.keyIsWord(k) {
			continue
		}
		row := set.byName[k.Value]
		if row == nil {
			if first, dup := unknown[k.Value]; dup {
				r.twice(k, first)
				continue
			}
			if unknown == nil {
				unknown = map[string]*yaml.Node{}
			}
			unknown[k.Value] = k
			r.unknownKey(k, c, set)
			continue
		}
		bit := uint64(1) << set.bit[k.Value]
		switch {
		case known&bit != 0:
			r.twice(k, firstOf(n, k.Value))
		case !row.Supported:
			r.at("not-supported", k, "%s is not supported yet", k.Value)
		case !f(k, v):
			// A row of the table without a case: a mistake of ours, found by TestEveryKeyIsRead.
			r.at("internal", k, "%s has no reader; please report this", k.Value)
		}
		known |= bit
	}
	return true
}

// keyIsWord refuses keys that are maps, lists, aliases or merges.
func (r *reader) keyIsWord(k *yaml.Node) bool {
	switch {
	case k.Kind == yaml.AliasNode:
		r.add("type", pos(k), len(k.Value)+1, "a key cannot be an alias")
	case k.Kind != yaml.ScalarNode:
		r.at("type", k, "a key is %s; expected a word", r.kindOf(k))
	case k.Tag == "!!merge":
		d := r.at("unknown-key", k, "merge keys (<<) are not part of the language")
		d.Hint = "an alias may stand for a whole value: env: *common; what steps share belongs under `defaults`"
	default:
		return true
	}
	return false
}

func (r *reader) unknownKey(k *yaml.Node, c Context, set *keyset) {
	d := r.at("unknown-key", k, "unknown key %q in %s", k.Value, c)
	d.Expected, d.Suggestion = set.names, r.nearest(k.Value, set.names)
}

func (r *reader) twice(k, first *yaml.Node) {
	r.at("duplicate-key", k, "key %q is here a second time; the first is in line %d", k.Value, first.Line)
}

func firstOf(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i]
		}
	}
	return n
}

// pairs walks a map of free names (env, inputs, outputs).
func (r *reader) pairs(n *yaml.Node, what string, f func(k, v *yaml.Node)) {
	n = real(n)
	if n.Kind != yaml.MappingNode {
		r.at("type", n, "%s is %s; expected a map", what, r.kindOf(n))
		return
	}
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if !r.keyIsWord(k) {
			continue
		}
		if first, ok := seen[k.Value]; ok {
			r.twice(k, first)
			continue
		}
		seen[k.Value] = k
		f(k, n.Content[i+1])
	}
}

// str reads a string; other scalars are mistakes unless loose (env values are
// text, whatever YAML thinks of 8080 or yes).
func (r *reader) str(n *yaml.Node, what string) (string, bool) {
	n = real(n)
	if n.Kind != yaml.ScalarNode {
		r.at("type", n, "%s is %s; expected a string", what, r.kindOf(n))
		return "", false
	}
	if n.Tag == "!!null" {
		r.at("type", n, "%s is empty; expected a string", what)
		return "", false
	}
	return n.Value, true
}

// name reads what names or grants something: text that YAML reads as text. A
// bare true or 1 there is more often a slip than a name.
func (r *reader) name(n *yaml.Node, what string) (string, bool) {
	s, ok := r.str(n, what)
	if ok && real(n).Tag != "!!str" {
		d := r.at("type", real(n), "%s is %s; expected a string", what, strings.TrimPrefix(real(n).Tag, "!!"))
		d.Hint = fmt.Sprintf("in quotes it is one: %q", s)
		return "", false
	}
	return s, ok
}

// word reads one of a key's words.
func (r *reader) word(c Context, k, n *yaml.Node) string {
	s, ok := r.str(n, k.Value)
	row, _ := key(c, k.Value)
	switch {
	case !ok, slices.Contains(row.Enum, s):
		return s
	case slices.Contains(row.Later, s):
		r.at("not-supported", real(n), "%s: %s is not supported yet", k.Value, s)
	default:
		d := r.at("enum", real(n), "%s: unknown word %q", k.Value, s)
		d.Expected, d.Suggestion = row.Enum, r.nearest(s, row.Enum)
	}
	return s
}

func (r *reader) boolean(n *yaml.Node, what string) bool {
	n = real(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!bool" && (n.Value == "true" || n.Value == "false") {
		return n.Value == "true"
	}
	d := r.at("type", n, "%s is not a boolean", what)
	d.Expected = []string{"true", "false"}
	return false
}

// number is an integer as YAML 1.2 writes it.
var number = lazily(`^-?(0|[1-9][0-9]*)$`)

// integer reads a whole number within the bounds of its row.
func (r *reader) integer(c Context, k, n *yaml.Node) int {
	n = real(n)
	row := keyOf(c, k.Value)
	if n.Kind != yaml.ScalarNode || n.Tag == "!!str" || !number().MatchString(n.Value) {
		d := r.at("type", n, "%s is not a whole number", k.Value)
		d.Hint = "numbers have no quotes, no underscores and no leading zeros"
		return row.Min
	}
	v, err := strconv.Atoi(n.Value)
	if err != nil || v < row.Min || v > row.Max {
		r.at("range", n, "%s must be from %d to %d", k.Value, row.Min, row.Max)
		return row.Min
	}
	return v
}

var durationForm = lazily(durationPattern)

// decimal is a number as YAML 1.2 writes it, above 0 and at most the row's Max.
func (r *reader) decimal(c Context, k, n *yaml.Node) float64 {
	n = real(n)
	row := keyOf(c, k.Value)
	v, err := strconv.ParseFloat(n.Value, 64)
	if n.Kind != yaml.ScalarNode || n.Tag == "!!str" || !decimalForm().MatchString(n.Value) || err != nil {
		d := r.at("type", n, "%s is not a number", k.Value)
		d.Hint = "numbers have no quotes, no underscores and no leading zeros"
		return 0
	}
	if v <= 0 || v > float64(row.Max) {
		r.at("range", n, "%s must be more than 0 and at most %d", k.Value, row.Max)
		return 0
	}
	return v
}

var decimalForm = lazily(`^(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

func (r *reader) duration(n *yaml.Node, what string) time.Duration {
	n = real(n)
	d, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || d <= 0 || !durationForm().MatchString(n.Value) {
		x := r.at("duration", n, "%s is not a duration", what)
		x.Expected = []string{"90s", "5m", "1h30m", "500ms"}
		return 0
	}
	return d
}

// list calls f for each item.
func (r *reader) list(n *yaml.Node, what string, f func(*yaml.Node)) {
	n = real(n)
	if n.Kind != yaml.SequenceNode {
		d := r.at("type", n, "%s is %s; expected a list", what, r.kindOf(n))
		if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
			d.Hint = fmt.Sprintf("write [%s]", n.Value)
		}
		return
	}
	for _, x := range n.Content {
		f(x)
	}
}

// grants reads a list of strings that grant something: literals only.
func (r *reader) grants(n *yaml.Node, what string) []string {
	out := []string{}
	r.list(n, what, func(x *yaml.Node) {
		s, ok := r.name(x, what)
		if !ok {
			return
		}
		if strings.Contains(s, "${{") {
			r.noExpression(x, what)
			return
		}
		out = append(out, s)
	})
	return out
}
