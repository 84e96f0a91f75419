package report

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// scrubState is where a scrubber stands between two writes.
type scrubState uint8

const (
	inText   scrubState = iota
	afterCR             // a CR whose LF may come
	afterEsc            // ESC
	inEsc               // ESC and intermediates
	inCSI               // ESC [
	inString            // OSC, DCS, SOS, PM, APC: until BEL or ST
)

const (
	maxCSI    = 64   // longer ones are no colours
	maxString = 4096 // an OSC that does not end must not swallow a step's output
)

// scrubber makes a stream of foreign bytes safe to show (invariant 3) and puts a
// prefix before each line. Its state goes over from write to write, so the
// result does not depend on how the stream was cut.
type scrubber struct {
	prefix   string
	sgr      bool // colours stay
	state    scrubState
	midLine  bool // a line was begun and not ended
	coloured bool // an SGR other than a reset is in force on this line
	params   []byte
	n        int // bytes of the string sequence
	part     [utf8.UTFMax]byte
	nPart    int // an incomplete character at the end of the last write
}

// special is the index of the first byte of p that is not printable ASCII, or
// len(p). Eight bytes at a time: this is the loop that all output goes through.
func special(p []byte) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	i := 0
	for ; i+8 <= len(p); i += 8 {
		x := binary.LittleEndian.Uint64(p[i:])
		// Below 0x20, at or above 0x80, or 0x7f. Borrows and carries spoil only
		// bytes above the first hit, and only the first one is used.
		if m := ((x - 0x20*ones) | x | (x + ones)) & highs; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(p); i++ {
		if c := p[i]; c < 0x20 || c >= 0x7f {
			return i
		}
	}
	return i
}

// write appends what p becomes to dst.
func (s *scrubber) write(dst, p []byte) []byte {
	for s.nPart > 0 && len(p) > 0 { // what was no character may begin another one
		dst, p = s.finishPart(dst, p)
	}
	for len(p) > 0 {
		if s.state != inText {
			dst, p = s.control(dst, p)
			continue
		}
		if n := special(p); n > 0 {
			dst = append(s.begin(dst), p[:n]...)
			if p = p[n:]; len(p) == 0 {
				break
			}
		}
		switch c := p[0]; {
		case c == '\n':
			dst, p = s.endLine(dst), p[1:]
		case c == '\t':
			dst, p = append(s.begin(dst), '\t'), p[1:]
		case c == '\r':
			s.state, p = afterCR, p[1:]
		case c == 0x1b:
			s.state, p = afterEsc, p[1:]
		case c < 0x80:
			dst, p = s.escaped(dst, c), p[1:]
		default:
			dst, p = s.wide(dst, p)
		}
	}
	return dst
}

func (s *scrubber) begin(dst []byte) []byte {
	if !s.midLine {
		s.midLine = true
		dst = append(dst, s.prefix...)
	}
	return dst
}

// endLine ends the line; colours do not run into the next prefix.
func (s *scrubber) endLine(dst []byte) []byte {
	dst = s.begin(dst)
	if s.coloured {
		dst = append(dst, "\x1b[0m"...)
		s.coloured = false
	}
	s.midLine = false
	return append(dst, '\n')
}

// flush ends what is open: the stream is over, or somebody else wants to write.
func (s *scrubber) flush(dst []byte, over bool) []byte {
	if over {
		for _, c := range s.part[:s.nPart] {
			dst = s.escaped(dst, c)
		}
		s.nPart, s.state = 0, inText
	}
	if s.midLine {
		dst = s.endLine(dst)
	}
	return dst
}

func (s *scrubber) escaped(dst []byte, c byte) []byte {
	const hex = "0123456789abcdef"
	return append(s.begin(dst), '\\', 'x', hex[c>>4], hex[c&15])
}

// wide takes the run of non-ASCII bytes at the start of p.
func (s *scrubber) wide(dst, p []byte) ([]byte, []byte) {
	i := 0
	for i < len(p) && p[i] >= utf8.RuneSelf {
		r, n := utf8.DecodeRune(p[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			if !utf8.FullRune(p[i:]) {
				if i > 0 {
					dst = append(s.begin(dst), p[:i]...)
				}
				s.nPart = copy(s.part[:], p[i:])
				return dst, nil
			}
			if i > 0 {
				dst = append(s.begin(dst), p[:i]...)
			}
			return s.escaped(dst, p[i]), p[i+1:]
		case r < 0xa0: // C1: a CSI of one character, and its kind
			if i > 0 {
				dst = append(s.begin(dst), p[:i]...)
			}
			return s.c1(dst, r), p[i+n:]
		}
		i += n
	}
	return append(s.begin(dst), p[:i]...), p[i:]
}

// c1 treats the 8-bit forms like ESC and the letter.
func (s *scrubber) c1(dst []byte, r rune) []byte {
	dst, _ = s.esc(dst, []byte{byte(r - 0x40)})
	return dst
}

func (s *scrubber) finishPart(dst, p []byte) ([]byte, []byte) {
	for s.nPart < utf8.UTFMax && len(p) > 0 && !utf8.FullRune(s.part[:s.nPart]) {
		s.part[s.nPart] = p[0]
		s.nPart++
		p = p[1:]
	}
	if !utf8.FullRune(s.part[:s.nPart]) {
		return dst, p // p is empty
	}
	part := s.part
	whole := part[:s.nPart]
	s.nPart = 0
	// One byte may have turned out to be no continuation: all goes the usual way.
	for len(whole) > 0 {
		if whole[0] < utf8.RuneSelf {
			return s.write(dst, whole), p
		}
		dst, whole = s.wide(dst, whole)
	}
	return dst, p
}

// control takes bytes of a sequence, at least one.
func (s *scrubber) control(dst, p []byte) ([]byte, []byte) {
	c := p[0]
	switch s.state {
	case afterCR:
		// A lone CR is a progress display that overwrites its line: each state of
		// it becomes a line, so that nothing is lost and nothing is overwritten.
		s.state = inText
		if c == '\n' {
			return s.endLine(dst), p[1:]
		}
		if c == '\r' {
			s.state = afterCR
			return dst, p[1:]
		}
		if s.midLine {
			dst = s.endLine(dst)
		}
		return dst, p
	case afterEsc:
		return s.esc(dst, p)
	case inEsc:
		if c >= 0x20 && c < 0x30 {
			return dst, p[1:]
		}
		s.state = inText
		if c >= 0x30 && c < 0x7f {
			return dst, p[1:]
		}
		return dst, p
	case inCSI:
		return s.csi(dst, p)
	}
	return s.str(dst, p)
}

func (s *scrubber) esc(dst, p []byte) ([]byte, []byte) {
	switch c := p[0]; {
	case c == '[':
		s.state, s.params = inCSI, s.params[:0]
	case c == ']' || c == 'P' || c == 'X' || c == '^' || c == '_':
		s.state, s.n = inString, 0
	case c >= 0x20 && c < 0x30:
		s.state = inEsc
	case c >= 0x30 && c < 0x7f:
		s.state = inText
	case c == 0x1b:
		// stays afterEsc
	default: // no sequence: the ESC goes, the byte is looked at again
		s.state = inText
		return dst, p
	}
	return dst, p[1:]
}

func (s *scrubber) csi(dst, p []byte) ([]byte, []byte) {
	switch c := p[0]; {
	case c >= 0x20 && c < 0x40:
		if len(s.params) <= maxCSI {
			s.params = append(s.params, c)
		}
	case c >= 0x40 && c < 0x7f:
		s.state = inText
		if c == 'm' && s.sgr && plainParams(s.params) {
			dst = append(s.begin(dst), "\x1b["...)
			dst = append(append(dst, s.params...), 'm')
			s.coloured = len(s.params) != 0 && string(s.params) != "0"
		}
	default:
		s.state = inText
		return dst, p
	}
	return dst, p[1:]
}

// plainParams: digits and separators only; ESC [ > 4 m is no colour but a
// keyboard mode.
func plainParams(p []byte) bool {
	if len(p) > maxCSI {
		return false
	}
	for _, c := range p {
		if (c < '0' || c > '9') && c != ';' && c != ':' {
			return false
		}
	}
	return true
}

func (s *scrubber) str(dst, p []byte) ([]byte, []byte) {
	for i, c := range p {
		s.n++
		switch {
		case c == 0x07 || c == 0x18 || c == 0x1a:
			s.state = inText
			return dst, p[i+1:]
		case c == 0x1b:
			s.state = afterEsc // ESC \ ends it; another sequence ends it as well
			return dst, p[i+1:]
		case c == '\n' || s.n > maxString:
			s.state = inText
			return dst, p[i:]
		}
	}
	return dst, nil
}

// clean makes one line of foreign text safe to show: no sequences, no line ends.
func clean(s string) string {
	if special([]byte(s)) == len(s) {
		return s
	}
	var sc scrubber
	out := sc.write(make([]byte, 0, len(s)+8), []byte(s))
	for _, c := range sc.part[:sc.nPart] {
		out = sc.escaped(out, c)
	}
	for i, c := range out {
		if c == '\n' || c == '\t' {
			out[i] = ' '
		}
	}
	for len(out) > 0 && out[len(out)-1] == ' ' {
		out = out[:len(out)-1]
	}
	return string(out)
}
