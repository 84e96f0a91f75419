package checkpoint

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// The canonical encoding. One tree has exactly one encoding, so that the hash of
// it names the tree: strings are length-prefixed, numbers are minimal varints,
// extended attributes are sorted. Paths are not prefix-compressed: that would let
// a few hostile bytes expand into kilobytes each, and the store compresses.
//
//	manifest = magic version count entry*
//	entry    = kind path mode mtime (file: size hash) (symlink: target) hardlinkTo n (name value)*n
const (
	manifestMagic   = "flowmf"
	manifestVersion = 1
	minEntry        = 6 // the shortest entry: kind, path of 1, mode, mtime, hardlink, xattrs
)

// ID is the SHA-256 of the canonical encoding. It is computed once.
func (m *Manifest) ID() Hash {
	if h := m.id.Load(); h != nil {
		return *h
	}
	h := Hash(sha256.Sum256(m.encode()))
	m.id.Store(&h)
	return h
}

// MarshalBinary gives the canonical encoding. The error is always nil: it is
// there for encoding.BinaryMarshaler.
func (m *Manifest) MarshalBinary() ([]byte, error) { return m.encode(), nil }

func (m *Manifest) encode() []byte {
	b := make([]byte, 0, 16+len(m.Entries)*112)
	b = append(b, manifestMagic...)
	b = append(b, manifestVersion)
	b = binary.AppendUvarint(b, uint64(len(m.Entries)))
	for i := range m.Entries {
		b = appendEntry(b, &m.Entries[i])
	}
	return b
}

func appendEntry(b []byte, e *Entry) []byte {
	b = append(b, byte(e.Kind))
	b = appendString(b, e.Path)
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendVarint(b, e.MtimeNS)
	switch e.Kind {
	case KindFile:
		b = binary.AppendUvarint(b, uint64(e.Size))
		b = append(b, e.Hash[:]...)
	case KindSymlink:
		b = appendString(b, e.Target)
	}
	b = appendString(b, e.HardlinkTo)
	b = binary.AppendUvarint(b, uint64(len(e.Xattrs)))
	if len(e.Xattrs) == 0 {
		return b
	}
	for _, k := range slices.Sorted(maps.Keys(e.Xattrs)) {
		b = appendString(b, k)
		b = appendString(b, e.Xattrs[k])
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// UnmarshalBinary reads a canonical encoding and validates it. Errors satisfy
// errors.Is(err, ErrInvalidManifest). It allocates in proportion to len(b) only.
func (m *Manifest) UnmarshalBinary(b []byte) error {
	d := decoder{s: string(b)}
	d.magic(manifestMagic, manifestVersion)
	n := d.count(minEntry)
	es := make([]Entry, 0, n)
	for range n {
		if d.err != nil {
			break
		}
		es = append(es, d.entry())
	}
	if err := d.end(); err != nil {
		return err
	}
	read := Manifest{Entries: es}
	if err := read.Validate(); err != nil {
		return err
	}
	m.Entries = es
	h := Hash(sha256.Sum256(b)) // the encoding is canonical: decode accepted it
	m.id.Store(&h)
	return nil
}

// decoder reads an encoding. The first mistake sticks; reads after it give zero.
// Strings share the input's memory.
type decoder struct {
	s   string
	off int
	err error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s at byte %d", ErrInvalidManifest, what, d.off)
	}
}

func (d *decoder) left() int { return len(d.s) - d.off }

func (d *decoder) bytes(n uint64) string {
	if d.err != nil || n > uint64(d.left()) {
		d.fail("it ends too early")
		return ""
	}
	s := d.s[d.off : d.off+int(n)]
	d.off += int(n)
	return s
}

func (d *decoder) byte() byte {
	s := d.bytes(1)
	if s == "" {
		return 0
	}
	return s[0]
}

// uvarint accepts the shortest form only: a canonical encoding has no other.
func (d *decoder) uvarint() uint64 {
	var v uint64
	for shift := uint(0); ; shift += 7 {
		c := d.byte()
		if d.err != nil {
			return 0
		}
		if shift == 63 && c > 1 || c == 0 && shift > 0 {
			d.fail("a number that is not canonical")
			return 0
		}
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	v := int64(u >> 1)
	if u&1 != 0 {
		v = ^v
	}
	return v
}

func (d *decoder) string() string { return d.bytes(d.uvarint()) }

func (d *decoder) hash() (h Hash) {
	copy(h[:], d.bytes(uint64(len(h))))
	return h
}

// count reads a number of things of at least size bytes each, so that the caller
// may allocate for it.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if d.err == nil && n > uint64(d.left()/size) {
		d.fail(fmt.Sprintf("%d entries in %d bytes", n, d.left()))
	}
	if d.err != nil {
		return 0
	}
	return int(n)
}

func (d *decoder) magic(magic string, version byte) {
	if d.bytes(uint64(len(magic))) != magic {
		d.off = 0
		d.fail("it does not start with " + magic)
		return
	}
	if v := d.byte(); d.err == nil && v != version {
		d.fail(fmt.Sprintf("version %d, this program knows %d", v, version))
	}
}

func (d *decoder) end() error {
	if d.err == nil && d.left() > 0 {
		d.fail(fmt.Sprintf("%d bytes too many", d.left()))
	}
	return d.err
}

func (d *decoder) entry() Entry {
	e := Entry{Kind: Kind(d.byte()), Path: d.string()}
	mode := d.uvarint()
	if mode > 0o7777 {
		d.fail("a mode with more than permission bits")
	}
	e.Mode = uint32(mode)
	e.MtimeNS = d.varint()
	switch e.Kind {
	case KindFile:
		size := d.uvarint()
		if size > 1<<62 {
			d.fail("a size that no file has")
		}
		e.Size, e.Hash = int64(size), d.hash()
	case KindSymlink:
		e.Target = d.string()
	}
	e.HardlinkTo = d.string()
	n := d.count(2)
	if n == 0 {
		return e
	}
	e.Xattrs = make(map[string]string, n)
	last := ""
	for range n {
		k := d.string()
		if d.err == nil && k <= last {
			d.fail("extended attributes out of order")
		}
		if d.err != nil {
			return e
		}
		e.Xattrs[k], last = d.string(), k
	}
	return e
}
