package redact

import (
	"encoding/binary"
	"math/bits"
)

const (
	// maxWindow bounds how many bytes of a form feed the filter. More would
	// skip further per probe but fill the filter sooner.
	maxWindow = 16
	// maxFilterBits bounds the filter to 2^20 bits, 128 KB.
	maxFilterBits = 20
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

	// Built at the greatest size and then folded: only then is it known how many
	// different grams there are.
	f.shift = 32 - maxFilterBits
	f.bits = make([]uint64, 1<<maxFilterBits/64)
	f.views = make([]uint8, 1<<18)
	grams := 0
	for kind := range viewCount {
		last := ""
		for _, form := range p.byView[kind] { // sorted by newAutomaton
			if prefix := form.text[:f.window]; prefix != last {
				last = prefix
				grams += f.collect(kind, gram, form.text)
			}
		}
	}
	f.fold(grams)
	return f
}

// fold halves bits as long as there are 16 slots per gram, which let 6 % of
// unrelated probes through to the second hash; small tables stay in the cache.
func (f *filter) fold(grams int) {
	for f.shift < 32-12 && len(f.bits)*64 >= 2*16*grams {
		half := make([]uint64, len(f.bits)/2)
		for i, word := range f.bits {
			for ; word != 0; word &= word - 1 {
				h := (i*64 + bits.TrailingZeros64(word)) / 2
				half[h>>6] |= 1 << (h & 63)
			}
		}
		f.bits = half
		f.shift++
	}
}

// collect adds the grams of all byte sequences that the view reads as text, and
// returns how many were new.
func (f *filter) collect(kind viewKind, gram int, text string) (added int) {
	for i := range f.stride {
		added += f.spell(kind, text[i:i+gram], 0)
	}
	if !kind.wraps() {
		return added
	}
	var buf [maxWindow + 4]byte
	for at := 1; at < min(f.window, len(text)); at++ {
		for _, br := range wrapBreaks {
			n := copy(buf[:], text[:at])
			n += copy(buf[n:], br)
			copy(buf[n:], text[at:])
			// The grams that do not touch the break are known.
			for i := max(0, at-gram+1); i < min(f.stride, n); i++ {
				raw := [4]byte(buf[i:])
				added += f.spell(kind, string(raw[:gram]), 0)
			}
		}
	}
	return added
}

// spell adds all spellings of a gram: the base64 view reads two alphabets. The
// bytes before n are spelt already.
func (f *filter) spell(kind viewKind, raw string, n int) (added int) {
	for ; n < len(raw) && kind == viewBase64; n++ {
		switch raw[n] {
		case '+':
			added += f.spell(kind, raw[:n]+"-"+raw[n+1:], n+1)
		case '/':
			added += f.spell(kind, raw[:n]+"_"+raw[n+1:], n+1)
		}
	}
	var g uint32
	for j := range len(raw) {
		g |= uint32(raw[j]) << (8 * j)
	}
	g = (g | foldBits) & f.mask
	h, views := hash(g)>>f.shift, &f.views[f.second(g)]
	if f.bits[h>>6]>>(h&63)&1 != 0 && *views>>kind&1 != 0 {
		return added
	}
	f.bits[h>>6] |= 1 << (h & 63)
	*views |= 1 << kind
	return added + 1
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
	mask, shift, stride, table := f.mask, f.shift&31, f.stride, f.bits
	for p+4 <= len(b) {
		g := (binary.LittleEndian.Uint32(b[p:]) | foldBits) & mask
		h := hash(g) >> shift
		if w := h >> 6; table[w]>>(h&63)&1 != 0 {
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
