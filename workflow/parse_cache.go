package workflow

import (
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"gopkg.in/yaml.v3"
)

// Cache of a step: its result is taken again when nothing that it depends on is
// different.
type Cache struct {
	// Key replaces the workspace's files in what the result depends on; nil for all
	// files of the workspace.
	Key []CacheKey
}

// CacheKey is one item: files of the workspace, or a value.
type CacheKey struct {
	Glob  string    // "" for a value
	Value *Template // nil for a glob
}

func (c *Cache) sources() []string {
	var out []string
	for _, k := range c.Key {
		if k.Value != nil {
			out = append(out, sourceOf(k.Value))
			continue
		}
		out = append(out, k.Glob)
	}
	return out
}

// cache reads `cache:`: a boolean, or a map with `key`. nil for false.
func (p *fileParser) cache(n *yaml.Node, sc *scope) *Cache {
	n = real(n)
	if n.Kind != yaml.MappingNode {
		if !p.boolean(n, "cache") {
			return nil
		}
		return &Cache{}
	}
	c := &Cache{}
	p.mapping(n, inCache, func(k, v *yaml.Node) bool {
		if k.Value != "key" {
			return false
		}
		p.list(v, "key", func(x *yaml.Node) {
			if item, ok := p.cacheKey(x, sc); ok {
				c.Key = append(c.Key, item)
			}
		})
		if len(c.Key) == 0 {
			p.at("required", v, "key is an empty list: name globs of files, or values")
		}
		return true
	})
	return c
}

func (p *fileParser) cacheKey(x *yaml.Node, sc *scope) (CacheKey, bool) {
	text, ok := p.str(x, "key")
	if !ok {
		return CacheKey{}, false
	}
	if strings.Contains(text, "${{") {
		t := p.template(x, "key", sc, nil)
		return CacheKey{Value: t}, t != nil
	}
	if text == "" || strings.HasPrefix(text, "/") || strings.HasPrefix(text, "../") || !doublestar.ValidatePattern(text) {
		p.at("glob", real(x), "%q is not a glob of files in the workspace", text)
		return CacheKey{}, false
	}
	return CacheKey{Glob: text}, true
}
