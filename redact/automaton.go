package redact

import (
	"bytes"
	"cmp"
	"slices"
)

// automaton finds all patterns of one view at once (Aho-Corasick). Nodes are
// numbered breadth first, so the children of a node are neighbours: a node
// costs 21 bytes, which matters for keys of several kilobytes in a dozen forms.
// Node 0 is the root.
type automaton struct {
	root   [256]uint32 // child of the root for each byte, 0 if none
	labels []byte      // the byte that leads from the parent to the node
	first  []uint32    // first child; the last child is before first[node+1]
	fail   []uint32    // the longest proper suffix that is a node
	depth  []uint32    // length of the node's text
	match  []uint32    // length of the longest pattern that ends here, 0 if none
	secret []uint32    // whose pattern that is
}

// newAutomaton builds the automaton; patterns must not repeat.
func newAutomaton(patterns []pattern) *automaton {
	slices.SortFunc(patterns, func(x, y pattern) int { return cmp.Compare(x.text, y.text) })
	a := &automaton{}
	// spans[n] is the range of sorted patterns that start with the text of n.
	type span struct{ from, to int }
	spans := []span{{0, len(patterns)}}
	a.grow(0, 0)
	for node := 0; node < len(spans); node++ {
		from, to, depth := spans[node].from, spans[node].to, int(a.depth[node])
		a.first = append(a.first, uint32(len(spans)))
		if node > 0 && len(patterns[from].text) == depth {
			a.match[node], a.secret[node] = uint32(depth), uint32(patterns[from].secret)
			from++
		}
		for from < to {
			label, end := patterns[from].text[depth], from+1
			for end < to && patterns[end].text[depth] == label {
				end++
			}
			child := uint32(len(spans))
			spans = append(spans, span{from, end})
			a.grow(label, uint32(depth+1))
			if node == 0 {
				a.root[label] = child
			}
			from = end
		}
	}
	a.first = append(a.first, uint32(len(spans)))
	a.inherit()
	return a
}

func (a *automaton) grow(label byte, depth uint32) {
	a.labels = append(a.labels, label)
	a.depth = append(a.depth, depth)
	a.fail = append(a.fail, 0)
	a.match = append(a.match, 0)
	a.secret = append(a.secret, 0)
}

// inherit sets the failure links, level by level, and what they imply.
func (a *automaton) inherit() {
	for node := range uint32(len(a.labels)) {
		for child := a.first[node]; child < a.first[node+1]; child++ {
			if node > 0 {
				a.fail[child] = a.step(a.fail[node], a.labels[child])
			}
			if fail := a.fail[child]; a.match[child] == 0 && a.match[fail] != 0 {
				a.match[child], a.secret[child] = a.match[fail], a.secret[fail]
			}
		}
	}
}

// step returns the node after byte c: the longest suffix of the text read so
// far that is the start of a pattern. Amortised over a text it follows at most
// one failure link per byte.
func (a *automaton) step(node uint32, c byte) uint32 {
	for node != 0 {
		from, to := a.first[node], a.first[node+1]
		if to-from == 1 {
			if a.labels[from] == c {
				return from
			}
		} else if i := bytes.IndexByte(a.labels[from:to], c); i >= 0 {
			return from + uint32(i)
		}
		node = a.fail[node]
	}
	return a.root[c]
}
