package redact

import "encoding/binary"

const (
	// maxWindow bounds how many bytes of a form feed the filter. More would
	// skip further per probe but fill the filter sooner.
	maxWindow = 16
	// Any letter case and any byte that differs in this bit look the same to
	// the filter: one entry stands for all cases of a form.
	foldBits = 0x20202020
)

// filter tells where an occurrence may start without looking at each byte. Each
// occurrence has at least window bytes, so one of every stride = window-gram+1
// positions starts a gram (gram consecutive bytes) that lies in the first
// window bytes of it. The filter holds all such grams. Probes do not depend on
// each other, so the processor overlaps them.
type filter struct {
	window int
	stride int
	mask   uint32   // cuts 4 loaded bytes down to one gram
	shift  uint32   // from a hash to an index of bits
	bits   []uint64 // one bit per hash: the gram may be known
	views  []uint8  // by a second hash: the views that know the gram
}

// wrapBreaks are all line breaks, and parts of one, that a wrapping view passes
// over (see lineBreak).
var wrapBreaks = [...]string{"\n", "\r", "\r\n", `\`, `\n`, `\r`, `\r\`, `\r\n`}

// newFilter builds the filter of all patterns, of which there is at least one.
func newFilter(p *patterns) filter {
	f := filter{window: maxWindow}
	for _, list := range p.byView {
		for _, form := range list {
			f.window = min(f.window, len(form.text))
		}
	}
	gram := 4
	if f.window < 8 {
		gram = 3
	}
	f.mask = ^uint32(0) >> (32 - 8*gram)
	f.stride = f.window - gram + 1

	grams := make(map[uint32]uint8)
	for kind := range viewCount {
		for _, form := range p.byView[kind] {
			f.collect(grams, gram, kind, form.text)
		}
	}
	// 16 slots per gram let 6 % of unrelated probes through to the second hash.
	size := uint32(12)
	for size < 20 && 1<<size < 16*len(grams) {
		size++
	}
	f.shift = 32 - size
	f.bits = make([]uint64, 1<<size/64)
	f.views = make([]uint8, 1<<min(size, 18))
	for g, views := range grams {
		h := hash(g) >> f.shift
		f.bits[h>>6] |= 1 << (h & 63)
		f.views[f.second(g)] |= views
	}
	return f
}

// collect adds the grams of all byte sequences that the view reads as text.
func (f *filter) collect(grams map[uint32]uint8, gram int, kind viewKind, text string) {
	add := func(raw string) {
		for i := range f.stride {
			f.spell(grams, kind, raw[i:i+gram], 0, 0)
		}
	}
	add(text)
	if !kind.wraps() {
		return
	}
	for at := 1; at < min(f.window, len(text)); at++ {
		for _, br := range wrapBreaks {
			add(text[:at] + br + text[at:])
		}
	}
}

// spell adds all spellings of a gram: the base64 view reads two alphabets. The
// first n bytes are already spelt as g.
func (f *filter) spell(grams map[uint32]uint8, kind viewKind, text string, n int, g uint32) {
	if n == len(text) {
		grams[(g|foldBits)&f.mask] |= 1 << kind
		return
	}
	f.spell(grams, kind, text, n+1, g|uint32(text[n])<<(8*n))
	if kind == viewBase64 && text[n] == '+' {
		f.spell(grams, kind, text, n+1, g|'-'<<(8*n))
	}
	if kind == viewBase64 && text[n] == '/' {
		f.spell(grams, kind, text, n+1, g|'_'<<(8*n))
	}
}

func hash(g uint32) uint32 { return g * 0x9e3779b1 }

// second returns the index of a gram in views.
func (f *filter) second(g uint32) uint32 {
	g ^= g >> 15
	return (g * 0x85ebca6b) >> 14 & uint32(len(f.views)-1)
}

// next returns the first probe position at or after p, in steps of stride,
// whose gram may be known; or the first one with less than 4 bytes left.
func (f *filter) next(b []byte, p int) int {
	mask, shift, stride, bits := f.mask, f.shift&31, f.stride, f.bits
	for p+4 <= len(b) {
		g := (binary.LittleEndian.Uint32(b[p:]) | foldBits) & mask
		h := hash(g) >> shift
		if w := h >> 6; bits[w]>>(h&63)&1 != 0 {
			return p
		}
		p += stride
	}
	return p
}

// viewsAt returns the set of views that may know the gram at p.
func (f *filter) viewsAt(b []byte, p int) uint8 {
	return f.views[f.second((binary.LittleEndian.Uint32(b[p:])|foldBits)&f.mask)]
}
