package redact

import "slices"

const (
	// wrapRun is how many characters of the base64 alphabet must precede a line
	// break that a wrapping view passes over. Every tool that wraps fills its
	// lines (60 to 76 columns); without the rule, half of all lines of ordinary
	// output could not be shown before the next line has come.
	wrapRun = 32
	// wrapReach is how far back of a byte lineBreak looks.
	wrapReach = wrapRun + 4
)

// span is a range [start, end) of absolute positions in the stream.
type span struct{ start, end int64 }

// reader is the progress of one view through a stream.
type reader struct {
	node  uint32
	pos   int   // next byte to read, relative to the current chunk
	count int64 // symbols read so far
	// skips holds, for each byte that was passed over, the count at that time; at
	// least for those within the text of node.
	skips  []int64
	spans  []span // occurrences found and not yet released; ordered, disjoint
	popped int    // how many of the spans Stream.pop has taken
}

// start returns where the text of length symbols that ends before end starts.
func (r *reader) start(end int64, symbols uint32) int64 {
	return end - int64(symbols) - int64(len(r.skips)-r.skipsBefore(symbols))
}

// skipsBefore returns how many of the skips lie before the last symbols.
func (r *reader) skipsBefore(symbols uint32) int {
	if len(r.skips) == 0 {
		return 0
	}
	n, _ := slices.BinarySearch(r.skips, r.count-int64(symbols)+1)
	return n
}

// found adds an occurrence. Ends never decrease, so only the last spans can
// overlap it; each span is swallowed once, which keeps the time linear.
func (r *reader) found(start, end int64) {
	for n := len(r.spans); n > 0 && r.spans[n-1].end >= start; n-- {
		start = min(start, r.spans[n-1].start)
		r.spans = r.spans[:n-1]
	}
	r.spans = append(r.spans, span{start, end})
}

// skip notes that the view passes over a byte.
func (r *reader) skip(a *automaton) {
	if len(r.skips) == cap(r.skips) {
		old := r.skipsBefore(a.depth[r.node])
		r.skips = r.skips[:copy(r.skips, r.skips[old:])]
		// Room for as many again keeps the time of these moves linear.
		r.skips = slices.Grow(r.skips, len(r.skips)+1)
	}
	r.skips = append(r.skips, r.count)
}

// scan finds all occurrences that end in chunk.
func (s *Stream) scan(chunk []byte) {
	f, views := &s.set.filter, &s.set.views
	for k := range views {
		r := &s.readers[k]
		if r.pos = 0; views[k] != nil && r.node != 0 {
			s.read(viewKind(k), chunk, -1)
		}
	}
	back := f.stride - 1
	p := back
	for {
		if p = f.next(chunk, p); p+4 > len(chunk) {
			break
		}
		for k, hit := 0, f.viewsAt(chunk, p); hit != 0; k, hit = k+1, hit>>1 {
			if hit&1 != 0 {
				s.readers[k].pos = max(s.readers[k].pos, p-back)
				s.read(viewKind(k), chunk, p)
			}
		}
		p += f.stride
	}
	// What starts here is not covered by a probe: read it, and keep the state.
	for k := range views {
		if views[k] != nil {
			s.readers[k].pos = max(s.readers[k].pos, p-back)
			s.read(viewKind(k), chunk, len(chunk))
		}
	}
}

// read runs one view from its position until all occurrences that start at or
// before probe are found or ruled out, or the chunk ends. What starts after the
// probe is the business of the next one.
func (s *Stream) read(k viewKind, chunk []byte, probe int) {
	r, a, norm := &s.readers[k], s.set.views[k], &s.set.norm[k]
	wraps, node, stride := k.wraps(), r.node, s.set.filter.stride
	i := r.pos
	for ; i < len(chunk); i++ {
		c := chunk[i]
		if node == 0 {
			if i > probe {
				break
			}
			if a.root[norm[c]] == 0 {
				continue
			}
		}
		if wraps && mayBreak(c) && s.lineBreak(chunk, i) {
			if node != 0 {
				r.node = node
				r.skip(a)
			}
			continue
		}
		node = a.step(node, norm[c])
		r.count++
		if node == 0 {
			r.skips = r.skips[:0]
			continue
		}
		if n := a.match[node]; n != 0 {
			end := s.base + int64(i) + 1
			r.found(r.start(end, n), end)
			s.note(a.secret[node])
		}
		// Only later probes are still of interest: leave, to be set back to where
		// the open text starts. Bounded by stride, or a text full of near misses
		// would be read once per probe.
		if depth := int(a.depth[node]); depth <= i-probe && depth <= stride && len(r.skips) == 0 {
			i, node = i+1-depth, 0
			break
		}
	}
	r.pos, r.node = i, node
	if node == 0 {
		r.skips = r.skips[:0]
	}
}

// mayBreak reports whether lineBreak can be true at byte c.
func mayBreak(c byte) bool {
	return c == '\n' || c == '\r' || c == '\\' || c == 'n' || c == 'r'
}

// lineBreak reports whether byte i belongs to a line break, or one escaped by
// JSON, right after wrapRun characters of base64. It depends on the bytes up to
// i alone and not on what a view has read, for the sake of invariant 1.
func (s *Stream) lineBreak(chunk []byte, i int) bool {
	prev := s.at(chunk, i-1)
	switch chunk[i] {
	case '\n':
		return s.full(chunk, i) || prev == '\r' && s.full(chunk, i-1)
	case '\r':
		return s.full(chunk, i)
	case '\\':
		return s.full(chunk, i) || prev == 'r' && s.at(chunk, i-2) == '\\' && s.full(chunk, i-2)
	case 'r':
		return prev == '\\' && s.full(chunk, i-1)
	case 'n':
		return prev == '\\' && (s.full(chunk, i-1) ||
			s.at(chunk, i-2) == 'r' && s.at(chunk, i-3) == '\\' && s.full(chunk, i-3))
	}
	return false
}

// full reports whether the wrapRun bytes before i are of a base64 alphabet.
func (s *Stream) full(chunk []byte, i int) bool {
	for j := i - 1; j >= i-wrapRun; j-- {
		switch c := s.at(chunk, j); {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '+', c == '/', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// at returns byte i of the chunk, or of what preceded it, or 0 before all.
func (s *Stream) at(chunk []byte, i int) byte {
	if i >= 0 {
		return chunk[i]
	}
	if i >= -wrapReach {
		return s.before[wrapReach+i]
	}
	return 0
}

// remember keeps the end of the chunk for at.
func (s *Stream) remember(chunk []byte) {
	if n := len(chunk); n < wrapReach {
		copy(s.before[:], s.before[n:])
		copy(s.before[wrapReach-n:], chunk)
		return
	}
	copy(s.before[:], chunk[len(chunk)-wrapReach:])
}
