package patch

import "slices"

// The cost of comparing two files is bounded: myersBudget steps for each stretch,
// then the lines that occur once on both sides cut it into smaller ones, and what
// has none is replaced as a whole. The result is always a correct difference; only
// on huge rewrites it is not the shortest.
const (
	myersBudget = 4 << 20 // inner steps; some 10 ms
	myersDepth  = 1500    // differing lines; the trace takes the square of it
)

// edit says that a[aLo:aHi] became b[bLo:bHi].
type edit struct{ aLo, aHi, bLo, bHi int }

// compare finds the edits that lead from a to b, in order.
func compare(a, b []string) []edit {
	c := comparer{ids: map[string]int{}, pair: make([]int, len(a))}
	for i := range c.pair {
		c.pair[i] = -1
	}
	c.a, c.b = c.intern(a), c.intern(b)
	c.stretch(0, len(a), 0, len(b))
	return c.edits()
}

// comparer compares numbers, which stand for lines.
type comparer struct {
	ids  map[string]int
	a, b []int
	pair []int // line of a → line of b, -1 for none
}

func (c *comparer) intern(lines []string) []int {
	out := make([]int, len(lines))
	for i, l := range lines {
		id, ok := c.ids[l]
		if !ok {
			id = len(c.ids)
			c.ids[l] = id
		}
		out[i] = id
	}
	return out
}

func (c *comparer) edits() []edit {
	var out []edit
	j := 0
	for i := 0; i <= len(c.a); {
		e := edit{aLo: i, bLo: j}
		for i < len(c.a) && c.pair[i] < 0 {
			i++
		}
		j = len(c.b)
		if i < len(c.a) {
			j = c.pair[i]
		}
		e.aHi, e.bHi = i, j
		if e.aLo < e.aHi || e.bLo < e.bHi {
			out = append(out, e)
		}
		i, j = i+1, j+1
	}
	return out
}

// stretch pairs equal lines of a[aLo:aHi] and b[bLo:bHi].
func (c *comparer) stretch(aLo, aHi, bLo, bHi int) {
	for aLo < aHi && bLo < bHi && c.a[aLo] == c.b[bLo] {
		c.pair[aLo] = bLo
		aLo, bLo = aLo+1, bLo+1
	}
	for aLo < aHi && bLo < bHi && c.a[aHi-1] == c.b[bHi-1] {
		aHi, bHi = aHi-1, bHi-1
		c.pair[aHi] = bHi
	}
	if aLo == aHi || bLo == bHi || c.myers(aLo, aHi, bLo, bHi) {
		return
	}
	anchors := c.anchors(aLo, aHi, bLo, bHi)
	if len(anchors) == 0 {
		return
	}
	for _, an := range anchors {
		c.stretch(aLo, an[0], bLo, an[1])
		c.pair[an[0]] = an[1]
		aLo, bLo = an[0]+1, an[1]+1
	}
	c.stretch(aLo, aHi, bLo, bHi)
}

// myers is the greedy algorithm of Myers (1986); false when the budget is too
// small for the two.
func (c *comparer) myers(aLo, aHi, bLo, bHi int) bool {
	a, b := c.a[aLo:aHi], c.b[bLo:bHi]
	n, m := len(a), len(b)
	limit := min(n+m, myersDepth, max(myersBudget/(n+m), 8))
	v := make([]int, 2*limit+3) // v[limit+1+k] is the furthest x on diagonal k
	off := limit + 1
	var trace [][]int
	for d := 0; d <= limit; d++ {
		trace = append(trace, slices.Clone(v[off-d:off+d+1]))
		for k := -d; k <= d; k += 2 {
			x := 0
			switch {
			case d == 0:
			case k == -d || k != d && v[off+k-1] < v[off+k+1]:
				x = v[off+k+1]
			default:
				x = v[off+k-1] + 1
			}
			y := x - k
			for x < n && y < m && a[x] == b[y] {
				x, y = x+1, y+1
			}
			v[off+k] = x
			if x >= n && y >= m {
				c.walkBack(trace, d, n, m, aLo, bLo)
				return true
			}
		}
	}
	return false
}

// walkBack reads the pairs off the trace, from the end.
func (c *comparer) walkBack(trace [][]int, d, x, y, aLo, bLo int) {
	for ; d > 0; d-- {
		v := trace[d] // as it was before round d: diagonals -d..d, of which -(d-1)..d-1 are set
		at := func(k int) int { return v[k+d] }
		k := x - y
		prev := k - 1
		if k == -d || k != d && at(k-1) < at(k+1) {
			prev = k + 1
		}
		px := at(prev)
		py := px - prev
		for x > px && y > py && c.a[aLo+x-1] == c.b[bLo+y-1] {
			x, y = x-1, y-1
			c.pair[aLo+x] = bLo + y
		}
		x, y = px, py
	}
	for x > 0 && y > 0 {
		x, y = x-1, y-1
		c.pair[aLo+x] = bLo + y
	}
}

// anchors are the lines that occur once on each side, the longest run of them
// that is in the same order on both.
func (c *comparer) anchors(aLo, aHi, bLo, bHi int) [][2]int {
	type seen struct{ inA, inB, at, bt int }
	all := map[int]*seen{}
	get := func(id int) *seen {
		s := all[id]
		if s == nil {
			s = &seen{}
			all[id] = s
		}
		return s
	}
	for i := aLo; i < aHi; i++ {
		s := get(c.a[i])
		s.inA, s.at = s.inA+1, i
	}
	for j := bLo; j < bHi; j++ {
		s := get(c.b[j])
		s.inB, s.bt = s.inB+1, j
	}
	var both [][2]int // in the order of a
	for i := aLo; i < aHi; i++ {
		if s := all[c.a[i]]; s.inA == 1 && s.inB == 1 {
			both = append(both, [2]int{i, s.bt})
		}
	}
	return increasing(both)
}

// increasing is the longest subsequence with growing second numbers (patience).
func increasing(list [][2]int) [][2]int {
	var tails []int // index into list of the smallest end of a run of each length
	before := make([]int, len(list))
	for i, p := range list {
		n, _ := slices.BinarySearchFunc(tails, p[1], func(t, want int) int { return list[t][1] - want })
		before[i] = -1
		if n > 0 {
			before[i] = tails[n-1]
		}
		if n == len(tails) {
			tails = append(tails, i)
		} else {
			tails[n] = i
		}
	}
	if len(tails) == 0 {
		return nil
	}
	out := make([][2]int, len(tails))
	for i, n := tails[len(tails)-1], len(tails)-1; n >= 0; i, n = before[i], n-1 {
		out[n] = list[i]
	}
	return out
}
