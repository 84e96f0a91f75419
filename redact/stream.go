package redact

// Stream redacts one stream of bytes that comes in chunks. It is not safe for
// concurrent use.
type Stream struct {
	set     *Set
	readers [viewCount]reader
	before  [wrapReach]byte // the last bytes before the current chunk
	base    int64           // position of the current chunk
	out     int64           // position of the next byte to release
	marked  int64           // end of the last mark, -1 if there is none
	held    []byte          // the bytes from out up to base, if any
	buf     []byte          // what Next returns if it cannot return the chunk
	seen    []uint64        // bit set of the secrets found, nil if none
}

// Stream returns a new stream.
func (s *Set) Stream() *Stream { return &Stream{set: s, marked: -1} }

// Next takes the next chunk and returns what can be released. The answer is a
// part of the chunk itself if nothing was found or held; otherwise a buffer of
// the stream. It is valid until the next call. Next never changes the chunk and
// keeps no reference to it.
func (s *Stream) Next(chunk []byte) []byte {
	if s.set.empty() || len(chunk) == 0 {
		return chunk
	}
	s.scan(chunk)
	end := s.base + int64(len(chunk))
	hold := end
	for k := range s.readers {
		if r := &s.readers[k]; r.node != 0 {
			hold = min(hold, r.start(end, s.set.views[k].depth[r.node]))
		}
	}
	out := s.release(chunk, hold)
	s.remember(chunk)
	s.base = end
	return out
}

// Rest ends the stream: it returns what is still held, as it is, except for
// occurrences in it. The answer is valid until the next call of Next, which
// starts a new stream; Seen is kept.
func (s *Stream) Rest() []byte {
	out := s.release(nil, s.base)
	readers, held, buf, seen := s.readers, s.held[:0], s.buf, s.seen
	*s = Stream{set: s.set, marked: -1, held: held, buf: buf, seen: seen}
	for k := range readers {
		s.readers[k].skips, s.readers[k].spans = readers[k].skips[:0], readers[k].spans[:0]
	}
	return out
}

// Append is Next for a caller with a buffer of its own.
func (s *Stream) Append(dst, chunk []byte) []byte { return append(dst, s.Next(chunk)...) }

// AppendRest is Rest for a caller with a buffer of its own.
func (s *Stream) AppendRest(dst []byte) []byte { return append(dst, s.Rest()...) }

// Seen returns the names of the secrets found so far, in the order in which New
// got them, nil if there are none. Each name occurs as often as it was declared.
func (s *Stream) Seen() []string {
	var names []string
	for i, word := range s.seen {
		for bit := range 64 {
			if word>>bit&1 != 0 {
				names = append(names, s.set.names[i*64+bit])
			}
		}
	}
	return names
}

// note records that a secret was found.
func (s *Stream) note(secret uint32) {
	if s.seen == nil {
		s.seen = make([]uint64, (len(s.set.names)+63)/64)
	}
	s.seen[secret/64] |= 1 << (secret % 64)
}

// release returns the output up to position hold, the start of the first text
// that is still open, and moves what remains of the chunk to held.
func (s *Stream) release(chunk []byte, hold int64) []byte {
	if len(s.held) == 0 && !s.pending() {
		// Text that is open may start inside of a mark that is out already.
		n := max(hold-s.base, 0)
		s.held = append(s.held, chunk[n:]...)
		s.out = s.base + n
		return chunk[:n]
	}
	from := s.out // where held starts
	buf := s.buf[:0]
	copyTo := func(end int64) {
		if n := s.base - s.out; n > 0 {
			n = min(n, end-s.out)
			buf = append(buf, s.held[s.out-from:][:n]...)
			s.out += n
		}
		if s.out < end {
			buf = append(buf, chunk[s.out-s.base:end-s.base]...)
			s.out = end
		}
	}
	for {
		next, ok := s.pop(hold)
		if !ok {
			break
		}
		if next.start > s.marked {
			copyTo(next.start)
			buf = append(buf, Mark...)
		}
		s.marked = max(s.marked, next.end)
		s.out = max(s.out, s.marked)
	}
	if s.out < hold {
		copyTo(hold)
	}
	s.buf = buf
	if s.out < s.base {
		s.held = append(s.held[:copy(s.held, s.held[s.out-from:])], chunk...)
	} else {
		s.held = append(s.held[:0], chunk[s.out-s.base:]...)
	}
	return buf
}

// pending reports whether there are spans to release.
func (s *Stream) pending() bool {
	for k := range s.readers {
		if len(s.readers[k].spans) > 0 {
			return true
		}
	}
	return false
}

// pop takes the first span that starts at or before hold.
func (s *Stream) pop(hold int64) (span, bool) {
	best := -1
	for k := range s.readers {
		r := &s.readers[k]
		if r.popped < len(r.spans) && r.spans[r.popped].start <= hold &&
			(best < 0 || r.spans[r.popped].start < s.readers[best].spans[s.readers[best].popped].start) {
			best = k
		}
	}
	if best >= 0 {
		r := &s.readers[best]
		r.popped++
		return r.spans[r.popped-1], true
	}
	for k := range s.readers {
		r := &s.readers[k]
		r.spans = r.spans[:copy(r.spans, r.spans[r.popped:])]
		r.popped = 0
	}
	return span{}, false
}
