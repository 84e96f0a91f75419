package checkpoint

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A delta is what leads from one manifest to the next, in proportion to what
// changed, so that a store keeps one small row a step.
//
//	delta = magic version baseCount nextCount changes (op entry | op path)*
const (
	deltaMagic   = "flowdt"
	deltaVersion = 1
	minDelta     = 3 // op, path of 1
)

const (
	deltaAdded    = 'A'
	deltaModified = 'M'
	deltaDeleted  = 'D'
)

// EncodeDelta encodes what leads from base to next; nil stands for the empty tree.
// ApplyDelta(base, EncodeDelta(base, next)) has the same ID as next.
func EncodeDelta(base, next *Manifest) []byte {
	return encodeDelta(entries(base), entries(next), Diff(base, next))
}

// EncodeDelta encodes s.Changes on top of base, the snapshot before s, without
// comparing the whole trees again.
func (s *Snapshot) EncodeDelta(base *Manifest) []byte {
	return encodeDelta(entries(base), entries(s.Manifest), s.Changes)
}

func entries(m *Manifest) int {
	if m == nil {
		return 0
	}
	return len(m.Entries)
}

func encodeDelta(base, next int, cs []Change) []byte {
	b := make([]byte, 0, 24+len(cs)*112)
	b = append(b, deltaMagic...)
	b = append(b, deltaVersion)
	b = binary.AppendUvarint(b, uint64(base))
	b = binary.AppendUvarint(b, uint64(next))
	b = binary.AppendUvarint(b, uint64(len(cs)))
	for i := range cs {
		switch c := &cs[i]; c.Op {
		case OpDeleted:
			b = append(b, deltaDeleted)
			b = appendString(b, c.Path)
		case OpAdded:
			b = appendEntry(append(b, deltaAdded), c.Entry)
		default:
			b = appendEntry(append(b, deltaModified), c.Entry)
		}
	}
	return b
}

// ApplyDelta gives the manifest that delta leads to from base. It refuses a delta
// that was made for another base as far as that can be seen without hashing (the
// number of entries, the paths); who must be sure compares the result's ID.
func ApplyDelta(base *Manifest, delta []byte) (*Manifest, error) {
	return ApplyDeltas(base, delta)
}

// ApplyDeltas applies a chain of deltas, oldest first, in one pass over the base:
// a chain of n small deltas costs no n copies of a large tree.
func ApplyDeltas(base *Manifest, deltas ...[]byte) (*Manifest, error) {
	if base == nil {
		base = &Manifest{}
	}
	over := map[string]*Entry{} // nil: deleted
	count := len(base.Entries)
	for i, delta := range deltas {
		var err error
		if count, err = overlay(base, over, count, delta); err != nil {
			return nil, fmt.Errorf("apply delta %d of %d: %w", i+1, len(deltas), err)
		}
	}
	var dirty []Entry
	var gone []string
	for _, p := range slices.Sorted(maps.Keys(over)) {
		if e := over[p]; e != nil {
			dirty = append(dirty, *e)
		} else {
			gone = append(gone, p)
		}
	}
	next, _ := merge(base.Entries, dirty, gone)
	m := &Manifest{Entries: next}
	if len(deltas) == 0 {
		return base, nil
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("apply delta: %w", err)
	}
	return m, nil
}

// overlay reads one delta into over and returns the number of entries after it.
func overlay(base *Manifest, over map[string]*Entry, count int, delta []byte) (int, error) {
	d := decoder{s: string(delta)}
	d.magic(deltaMagic, deltaVersion)
	if n := d.uvarint(); d.err == nil && n != uint64(count) {
		d.fail(fmt.Sprintf("made for a base of %d entries, this one has %d", n, count))
	}
	next := d.uvarint()
	exists := func(p string) bool {
		if e, ok := over[p]; ok {
			return e != nil
		}
		return base.Lookup(p) != nil
	}
	last := ""
	for range d.count(minDelta) {
		op := d.byte()
		var e *Entry
		path := ""
		if op == deltaDeleted {
			path = d.string()
		} else {
			read := d.entry()
			e, path = &read, read.Path
		}
		if d.err != nil {
			break
		}
		known := exists(path)
		switch {
		case path <= last:
			d.fail("paths out of order")
		case op != deltaAdded && op != deltaModified && op != deltaDeleted:
			d.fail(fmt.Sprintf("unknown operation %q", op))
		case known == (op == deltaAdded):
			d.fail(fmt.Sprintf("made for another base: %q", path))
		}
		if d.err != nil {
			break
		}
		switch op {
		case deltaAdded:
			count++
		case deltaDeleted:
			count--
		}
		over[path], last = e, path
	}
	if d.err == nil && next != uint64(count) {
		d.fail(fmt.Sprintf("it leads to %d entries instead of %d", count, next))
	}
	return count, d.end()
}

// EachHash calls f for the hash of every regular file that an encoded manifest or
// delta names, without building a tree: for finding which contents are needed.
func EachHash(encoded []byte, f func(Hash)) error {
	each := func(e *Entry) {
		if e.Kind == KindFile {
			f(e.Hash)
		}
	}
	if !strings.HasPrefix(string(encoded[:min(len(encoded), len(deltaMagic))]), deltaMagic) {
		var m Manifest
		if err := m.UnmarshalBinary(encoded); err != nil {
			return err
		}
		for i := range m.Entries {
			each(&m.Entries[i])
		}
		return nil
	}
	d := decoder{s: string(encoded)}
	d.magic(deltaMagic, deltaVersion)
	d.uvarint()
	d.uvarint()
	for range d.count(minDelta) {
		if d.byte() == deltaDeleted {
			d.string()
		} else if e := d.entry(); d.err == nil {
			each(&e)
		}
		if d.err != nil {
			break
		}
	}
	return d.end()
}
