package workflow

import (
	"slices"
	"sync"
)

// keyset are the keys of one map of the language, ready for the parser.
type keyset struct {
	byName map[string]*Key
	bit    map[string]uint // position among the rows, for sets of seen keys
	rows   []Key
	names  []string // of the supported ones, sorted
}

// keysets is computed once from Keys and never changes.
var keysets = sync.OnceValue(func() map[string]*keyset {
	all := allKeys()
	sets := map[string]*keyset{}
	for _, k := range all {
		if sets[k.In] == nil {
			sets[k.In] = &keyset{byName: map[string]*Key{}, bit: map[string]uint{}}
		}
		sets[k.In].rows = append(sets[k.In].rows, k)
	}
	for _, s := range sets {
		for i := range s.rows {
			k := &s.rows[i]
			s.byName[k.Name], s.bit[k.Name] = k, uint(i)
			if k.Supported {
				s.names = append(s.names, k.Name)
			}
		}
		slices.Sort(s.names)
	}
	return sets
})

// allKeys are the rows of the table, and again those of agent under defaults.agent, and those
// of sandbox under sandboxes.
func allKeys() []Key {
	all := Keys()
	for _, k := range all {
		if k.In == inAgent && !slices.Contains([]string{"prompt", "prompt_file", "session"}, k.Name) {
			k.In = inAgentDefaults
			all = append(all, k)
		}
		if k.In == inSandbox && k.Name != "max_sandboxes" {
			k.In = inNamedSandbox
			all = append(all, k)
		}
	}
	return all
}

func keyOf(in, name string) *Key { return keysets()[in].byName[name] }
