package workflow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// SchemaURL names the schema; the file lies at the root of the repository.
const SchemaURL = "https://flowrun.dev/schema.json"

// Patterns of the language, for the parser and the schema alike.
const (
	idPattern       = `^[a-z][a-z0-9_]*$`
	namePattern     = `^[A-Za-z_][A-Za-z0-9_]*$`
	wordPattern     = `^[A-Za-z][A-Za-z0-9_-]*$`
	reservedPattern = `^FLOW(_|$)`
	durationPattern = `^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$`
)

// Schema is schema.json: the JSON Schema (draft 7, which editors know best) of a
// workflow file, from the table of keys. It says what a schema can say: names,
// types and words, not references between steps nor the types of expressions.
func Schema() []byte {
	all := keysets()
	defs := object{}
	for _, in := range maps() {
		if in != inWorkflow {
			defs = append(defs, member{in, mapSchema(all[in])})
		}
	}
	root := object{
		{"$schema", "http://json-schema.org/draft-07/schema#"},
		{"$id", SchemaURL},
		{"title", "flow workflow"},
	}
	root = append(root, mapSchema(all[inWorkflow])...)
	root = append(root, member{"definitions", defs})
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	// Strings, numbers and maps of them cannot fail to encode.
	_ = enc.Encode(root)
	return b.Bytes()
}

// maps lists the maps of the language in the order of the table.
func maps() []string {
	var out []string
	seen := map[string]bool{}
	for _, k := range allKeys() {
		if !seen[k.In] && k.Supported {
			seen[k.In] = true
			out = append(out, k.In)
		}
	}
	return out
}

// object is a JSON object that keeps its order.
type object []member

type member struct {
	name  string
	value any
}

func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		for j, v := range []any{m.name, m.value} {
			if j == 1 {
				b.WriteByte(':')
			}
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(v); err != nil {
				return nil, err
			}
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// mapSchema of one map of the language.
func mapSchema(set *keyset) object {
	props := object{}
	var required, kinds []string
	for _, k := range set.rows {
		if !k.Supported {
			continue
		}
		props = append(props, member{k.Name, keySchema(k)})
		if k.Required {
			required = append(required, k.Name)
		}
		if k.Kind {
			kinds = append(kinds, k.Name)
		}
	}
	o := object{{"type", "object"}, {"additionalProperties", false}}
	if required != nil {
		o = append(o, member{"required", required})
	}
	o = append(o, member{"properties", props})
	if kinds != nil {
		var one []object
		for _, k := range kinds {
			one = append(one, object{{"required", []string{k}}})
		}
		o = append(o, member{"oneOf", one})
	}
	return append(o, exclusive(set.rows[0].In)...)
}

// exclusive are the pairs of keys of a map of which only one may be given.
func exclusive(in string) object {
	not := func(a, b string) object {
		return object{{"not", object{{"required", []string{a, b}}}}}
	}
	switch in {
	case inStep:
		foreach := []string{"foreach"}
		return object{{"dependencies", object{{"max_parallel", foreach}, {"batch", foreach}, {"fail_fast", foreach}, {"with", []string{"workflow"}}}}}
	case inSecret:
		return not("env", "file")
	case inNeeds:
		has := func(names ...string) object { return object{{"required", names}} }
		return object{{"oneOf", []object{
			append(has("any"), member{"not", object{{"anyOf", []object{has("count"), has("of")}}}}),
			append(has("count", "of"), member{"not", has("any")}),
		}}}
	case inAgent:
		return object{{"oneOf", []object{{{"required", []string{"prompt"}}}, {{"required", []string{"prompt_file"}}}}}}
	case inReady: // one thing to wait for
		need := func(name string) object { return object{{"required", []string{name}}} }
		return object{{"oneOf", []object{need("port"), need("run"), need("log")}}}
	case inMCP:
		one := func(key string) object { return object{{"required", []string{key}}} }
		return object{{"oneOf", []object{one("command"), one("url")}}, {"dependencies", object{{"env", []string{"command"}}, {"headers", []string{"url"}}}}}
	case inInput:
		return object{{"not", object{{"required", []string{"required", "default"}}, {"properties", object{{"required", object{{"const", true}}}}}}}}
	}
	return nil
}

// keySchema of one key: its shape, then what an editor shows.
func keySchema(k Key) object {
	o := shape(k)
	text := k.Doc
	if k.Default != "" {
		text += fmt.Sprintf(" Default: `%s`.", k.Default)
	}
	ref := len(o) == 1 && o[0].name == "$ref"
	if ref { // draft 7 ignores what stands beside a $ref
		o = object{{"allOf", []object{o}}}
	}
	o = append(o, member{"description", text})
	if k.Default != "" {
		o = append(o, member{"default", plainValue(k.Default)})
	}
	if k.Example != "" {
		o = append(o, member{"examples", []any{plainValue(k.Example)}})
	}
	return o
}

// plainValue reads a default or an example of the table.
func plainValue(text string) any {
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil || len(n.Content) == 0 {
		return text
	}
	return plain(n.Content[0])
}

// plain is a node's value as YAML 1.2 (and so an editor) reads it.
func plain(n *yaml.Node) any {
	n = real(n)
	switch n.Kind {
	case yaml.MappingNode:
		o := object{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			o = append(o, member{n.Content[i].Value, plain(n.Content[i+1])})
		}
		return o
	case yaml.SequenceNode:
		list := []any{}
		for _, x := range n.Content {
			list = append(list, plain(x))
		}
		return list
	}
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		return n.Value == "true" || n.Value == "True" || n.Value == "TRUE"
	case "!!int":
		if number().MatchString(n.Value) {
			if v, err := strconv.Atoi(n.Value); err == nil {
				return v
			}
		}
		if f, err := strconv.ParseFloat(n.Value, 64); err == nil && !strings.Contains(n.Value, "_") {
			return f
		}
	case "!!float":
		if f, err := strconv.ParseFloat(n.Value, 64); err == nil && !strings.Contains(n.Value, "_") {
			return f
		}
	}
	return n.Value
}

// scalar is text as authors write it: env: {PORT: 8080} needs no quotes.
func scalar() object { return object{{"type", []string{"string", "number", "boolean"}}} }

func pattern(p string) object { return object{{"type", "string"}, {"pattern", p}} }

func listOf(item object) object { return object{{"type", "array"}, {"items", item}} }

func ref(in string) object { return object{{"$ref", "#/definitions/" + in}} }

func enum(words []string) object { return object{{"enum", words}} }

func anyOf(list ...object) object { return object{{"anyOf", list}} }

func mapOf(names object, item object) object {
	return object{{"type", "object"}, {"propertyNames", names}, {"additionalProperties", item}}
}

// shape of a key's value.
func shape(k Key) object {
	switch k.Type {
	case typeText, typeTemplate, typePath:
		if k.Required {
			return append(scalar(), member{"minLength", 1})
		}
		return scalar()
	case typeID:
		return pattern(idPattern)
	case typeName:
		return pattern(namePattern)
	case typeBool:
		return object{{"type", "boolean"}}
	case typeInt:
		return object{{"type", "integer"}, {"minimum", k.Min}, {"maximum", k.Max}}
	case typeNumber:
		return object{{"type", "number"}, {"exclusiveMinimum", 0}, {"maximum", k.Max}}
	case typeDuration:
		return object{{"type", "string"}, {"allOf", []object{{{"pattern", durationPattern}}, {{"pattern", "[1-9]"}}}}}
	case typeEnum:
		return enum(k.Enum)
	case typeExpr:
		return object{{"type", []string{"string", "boolean"}}}
	case typeProfile, typeSandbox:
		return pattern(idPattern)
	case typeSchema:
		// No reference to the meta-schema: an editor without a network would fail on it.
		return object{{"type", "object"}, {"required", []string{"type"}}, {"properties", object{{"type", object{{"const", "object"}}}}}}
	case typeFiles:
		return listOf(object{{"type", "string"}, {"pattern", filePattern}})
	case typeAny:
		return object{}
	case typeAnys:
		return object{{"type", "array"}}
	case typeStrings:
		return listOf(scalar())
	case typeWords:
		return listOf(object{{"type", "string"}})
	case typeIDs:
		return append(listOf(pattern(idPattern)), member{"minItems", 1}, member{"uniqueItems", true})
	case typeChoices:
		return append(listOf(pattern(wordPattern)), member{"minItems", 1}, member{"uniqueItems", true})
	case typeNames:
		return listOf(pattern(namePattern))
	case typeTools:
		return listOf(pattern(`^(` + strings.Join(tools, "|") + `)(\(.+\))?$|^` + mcpTool + `$`))
	case typeEnums:
		return listOf(enum(k.Enum))
	case typeEnv:
		return mapOf(append(pattern(namePattern), member{"not", object{{"pattern", reservedPattern}}}), scalar())
	case typeHeaders:
		return mapOf(pattern(headerPattern), scalar())
	case typeOutputs:
		return mapOf(pattern(namePattern), scalar())
	case typeObject:
		return ref(k.Of)
	case typeNamed:
		return mapOf(pattern(idPattern), ref(k.Of))
	case typeSession:
		return pattern(sessionPattern)
	case typeServers:
		return mapOf(pattern(mcpServerPattern), ref(k.Of))
	case typeSteps:
		o := listOf(ref(k.Of))
		if k.Required {
			o = append(o, member{"minItems", 1})
		}
		return o
	case typeInside:
		return append(pattern(insidePattern), member{"not", object{{"pattern", ownPlaces}}})
	case typeMaps:
		return listOf(ref(k.Of))
	case typeSecrets:
		return listOf(anyOf(pattern(namePattern), ref(k.Of)))
	case typeStepSecrets:
		return listOf(anyOf(pattern(namePattern), ref(k.Of)))
	case typeNetwork:
		return anyOf(enum(k.Enum), ref(k.Of))
	case typeHosts:
		return append(listOf(anyOf(object{{"type", "string"}}, ref(k.Of))), member{"minItems", 1})
	case typePorts:
		return listOf(object{{"type", "integer"}, {"minimum", k.Min}, {"maximum", k.Max}})
	case typeRun:
		return anyOf(scalar(), append(listOf(scalar()), member{"minItems", 1}))
	case typeCache:
		return anyOf(object{{"type", "boolean"}}, ref(k.Of))
	case typeSize:
		return pattern(sizePattern)
	case typeAccess:
		// The same as writablePath, but for NUL.
		return anyOf(enum(k.Enum), listOf(pattern(`^(~/)?([^/]+/)*[^/]+/?$`)))
	case typeWith:
		return mapOf(pattern(idPattern), object{})
	case typeNeeds:
		return anyOf(listOf(pattern(idPattern)), ref(k.Of))
	case typeForeach:
		some := func(o object) object { return append(o, member{"minItems", 1}) }
		axis := anyOf(object{{"type", "string"}}, object{{"type", "array"}})
		return anyOf(object{{"type", "string"}}, some(object{{"type", "array"}}), append(mapOf(pattern(idPattern), axis), member{"minProperties", 1}))
	case typeApprove, typeAgent:
		return anyOf(append(scalar(), member{"minLength", 1}), ref(k.Of))
	}
	// TestSchema fails for a type that is missing above.
	return object{{"$comment", "no shape for " + string(k.Type)}}
}
