package engine

import (
	"iter"
	"math/bits"
)

// nodeSet is a set of node indexes, iterated in file order. A bitmap, because
// 10,000 steps (the language's limit) are 157 words: adding, removing and finding
// the lowest cost some nanoseconds and no allocation, where a queue would have to
// be searched when a retry takes a step's end back.
type nodeSet struct {
	words []uint64
	len   int
}

func newNodeSet(n int) nodeSet { return nodeSet{words: make([]uint64, (n+63)/64)} }

// grow makes room for n nodes.
func (s *nodeSet) grow(n int) {
	for len(s.words) < (n+63)/64 {
		s.words = append(s.words, 0)
	}
}

func (s *nodeSet) has(i int) bool { return s.words[i>>6]&(1<<(i&63)) != 0 }

func (s *nodeSet) add(i int) {
	if !s.has(i) {
		s.words[i>>6] |= 1 << (i & 63)
		s.len++
	}
}

func (s *nodeSet) remove(i int) {
	if s.has(i) {
		s.words[i>>6] &^= 1 << (i & 63)
		s.len--
	}
}

func (s *nodeSet) clear() {
	if s.len == 0 {
		return
	}
	clear(s.words)
	s.len = 0
}

// all iterates in ascending order and stops as soon as every member was seen.
func (s *nodeSet) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		left := s.len
		for w := 0; left > 0; w++ {
			for word := s.words[w]; word != 0; word &= word - 1 {
				left--
				if !yield(w<<6 + bits.TrailingZeros64(word)) {
					return
				}
			}
		}
	}
}
