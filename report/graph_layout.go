package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// This file places a graph: steps with the same neighbours become one block, the
// blocks lie in layers by the longest way to them, the order in a layer is that
// of the neighbours, and a graph of many layers is cut into columns.

// Sizes in pixels.
const (
	boxWide, boxHigh = 184.0, 44.0
	boxSmall         = 30.0  // height in a block of many
	boxNarrow        = 134.0 // width in a large graph
	gapX             = 28.0
	blockPad         = 12.0
	blockGap         = 10.0
	columnGap        = 72.0
)

// block is what is placed: one step, steps with the same neighbours, or a bend of
// an edge that passes a layer.
type block struct {
	nodes      []int
	bend       bool
	layer      int
	x, y, w, h float64 // centre of the top edge, and the size
	up, down   []int   // blocks before and after
	order      float64
	perRow     int
	high       float64 // of each box
}

// point of an edge.
type point struct{ x, y float64 }

// route is an edge as points, from the bottom of a block to the top of another.
type route struct {
	from, to int // blocks
	points   []point
	across   bool // it leads into another column
}

// layout is a placed graph.
type layout struct {
	blocks []block
	routes []route
	w, h   float64
	// A large graph has smaller boxes, nearer to each other.
	small     bool
	boxW      float64
	gapY      float64
	perColumn int       // layers
	lefts     []float64 // of the columns
}

// bundle groups nodes with the same neighbours, and returns the edges of blocks.
func bundle(g Graph, least int) (blocks []block, edges [][2]int) {
	needs, next := make([][]int, len(g.Nodes)), make([][]int, len(g.Nodes))
	for _, e := range g.Edges {
		needs[e[1]] = append(needs[e[1]], e[0])
		next[e[0]] = append(next[e[0]], e[1])
	}
	byKey := map[string][]int{}
	var keys []string
	for i, n := range g.Nodes {
		slices.Sort(needs[i])
		slices.Sort(next[i])
		key := fmt.Sprint(needs[i], next[i], n.Finally)
		if len(needs[i])+len(next[i]) == 0 && n.Finally {
			key = fmt.Sprint("alone", i)
		}
		if len(g.Nodes) <= 12 { // few enough to show each for itself
			key = fmt.Sprint("one of few", i)
		}
		if byKey[key] == nil {
			keys = append(keys, key)
		}
		byKey[key] = append(byKey[key], i)
	}
	at := make([]int, len(g.Nodes))
	for _, key := range keys {
		members := byKey[key]
		if len(members) < least {
			for _, i := range members {
				at[i] = len(blocks)
				blocks = append(blocks, block{nodes: []int{i}})
			}
			continue
		}
		for _, i := range members {
			at[i] = len(blocks)
		}
		blocks = append(blocks, block{nodes: members})
	}
	seen := map[[2]int]bool{}
	for _, e := range g.Edges {
		pair := [2]int{at[e[0]], at[e[1]]}
		if !seen[pair] {
			seen[pair] = true
			edges = append(edges, pair)
		}
	}
	return blocks, edges
}

// place lays a graph out.
func place(g Graph) layout {
	l := layout{boxW: boxWide, gapY: 38, perColumn: 16}
	if len(g.Nodes) > 60 {
		l.small, l.boxW, l.gapY, l.perColumn = true, boxNarrow, 26, 26
	}
	blocks, edges := bundle(g, 3)
	l.blocks = blocks
	l.layer(g, edges)
	routes := l.bends(edges)
	for i := range l.blocks {
		l.size(&l.blocks[i])
	}
	layers := l.layers()
	l.anchor(g, layers)
	l.sort(layers)
	l.columns(layers)
	for _, r := range routes {
		l.routes = append(l.routes, l.route(r))
	}
	return l
}

// layer assigns the layers of the blocks; finally lies below all others.
func (l *layout) layer(g Graph, edges [][2]int) {
	sub := Graph{Nodes: make([]GraphNode, len(l.blocks)), Edges: edges}
	deepest := -1
	levels := sub.levels()
	for i := range l.blocks {
		l.blocks[i].layer = levels[i]
		if !g.Nodes[l.blocks[i].nodes[0]].Finally {
			deepest = max(deepest, levels[i])
		}
	}
	for i := range l.blocks {
		if g.Nodes[l.blocks[i].nodes[0]].Finally {
			l.blocks[i].layer += deepest + 1
		}
	}
}

// bends puts a block of no size into each layer that an edge passes.
func (l *layout) bends(edges [][2]int) [][]int {
	var routes [][]int
	for _, e := range edges {
		path := []int{e[0]}
		for layer := l.blocks[e[0]].layer + 1; layer < l.blocks[e[1]].layer; layer++ {
			path = append(path, len(l.blocks))
			l.blocks = append(l.blocks, block{bend: true, layer: layer})
		}
		path = append(path, e[1])
		for k := range path[1:] {
			a, b := path[k], path[k+1]
			l.blocks[a].down = append(l.blocks[a].down, b)
			l.blocks[b].up = append(l.blocks[b].up, a)
		}
		routes = append(routes, path)
	}
	return routes
}

// anchor hangs what begins below the first layer (finally) under the middle of
// the layer above it, without an edge.
func (l *layout) anchor(g Graph, layers [][]int) {
	for k, layer := range layers {
		for _, i := range layer {
			b := &l.blocks[i]
			if k > 0 && !b.bend && len(b.up) == 0 && g.Nodes[b.nodes[0]].Finally {
				b.up = append(b.up, layers[k-1]...)
			}
		}
	}
}

func (l *layout) size(b *block) {
	switch n := len(b.nodes); {
	case b.bend:
		b.w = 10
	case n == 1:
		b.w, b.h, b.perRow, b.high = l.boxW, boxHigh, 1, boxHigh
		if l.small {
			b.h, b.high = boxSmall, boxSmall
		}
	default:
		b.perRow = max(1, int(math.Ceil(math.Sqrt(float64(n)*0.22))))
		if n < 4 {
			b.perRow = 1
		}
		b.high = boxHigh
		if l.small || n > 12 {
			b.high = boxSmall
		}
		rows := (n + b.perRow - 1) / b.perRow
		b.w = float64(b.perRow)*(l.boxW+blockGap) - blockGap + 2*blockPad
		b.h = float64(rows)*(b.high+blockGap) - blockGap + 2*blockPad
	}
}

func (l *layout) layers() [][]int {
	var out [][]int
	for i, b := range l.blocks {
		for len(out) <= b.layer {
			out = append(out, nil)
		}
		out[b.layer] = append(out[b.layer], i)
	}
	return out
}

// sort orders each layer by the middle of its neighbours, down and up in turns,
// which takes most crossings out.
func (l *layout) sort(layers [][]int) {
	index := func(layer []int) {
		for k, i := range layer {
			l.blocks[i].order = float64(k)
		}
	}
	for _, layer := range layers {
		index(layer)
	}
	mean := func(list []int, own float64) float64 {
		if len(list) == 0 {
			return own
		}
		sum := 0.0
		for _, i := range list {
			sum += l.blocks[i].order
		}
		return sum / float64(len(list))
	}
	for round := range 12 {
		for k := range layers {
			layer := layers[k]
			side := func(b *block) []int { return b.up }
			if round%2 == 1 {
				layer = layers[len(layers)-1-k]
				side = func(b *block) []int { return b.down }
			}
			want := map[int]float64{}
			for _, i := range layer {
				want[i] = mean(side(&l.blocks[i]), l.blocks[i].order)
			}
			slices.SortStableFunc(layer, func(a, b int) int {
				switch {
				case want[a] < want[b]:
					return -1
				case want[a] > want[b]:
					return 1
				}
				return 0
			})
			index(layer)
		}
	}
}

// columns places the layers below each other, and a graph of many layers in
// columns side by side, cut where the fewest edges cross.
func (l *layout) columns(layers [][]int) {
	if len(layers) == 0 {
		return
	}
	cuts := l.cuts(layers)
	left := 0.0
	for c := range cuts[:len(cuts)-1] {
		part := layers[cuts[c]:cuts[c+1]]
		l.spread(part)
		low, high := 1e18, -1e18
		y := 0.0
		for _, layer := range part {
			tall := 0.0
			for _, i := range layer {
				b := &l.blocks[i]
				tall = max(tall, b.h)
				low, high = min(low, b.x-b.w/2), max(high, b.x+b.w/2)
			}
			for _, i := range layer {
				b := &l.blocks[i]
				if b.bend { // straight through the layer, beside its boxes
					b.h = tall
				}
				b.y = y + (tall-b.h)/2
			}
			y += tall + l.gapY
		}
		for _, layer := range part {
			for _, i := range layer {
				l.blocks[i].x += left - low
			}
		}
		l.lefts = append(l.lefts, left)
		left += high - low + columnGap
		l.h = max(l.h, y-l.gapY)
	}
	l.w = left - columnGap
}

func (l *layout) cuts(layers [][]int) []int {
	n := len(layers)
	columns := (n + l.perColumn - 1) / l.perColumn
	if n <= l.perColumn*3/2 {
		columns = 1
	}
	cuts := []int{0}
	for c := 1; c < columns; c++ {
		ideal := n * c / columns
		best, at, fewest := 1<<30, ideal, 1<<30
		for k := max(cuts[len(cuts)-1]+3, ideal-3); k <= min(n-1, ideal+3); k++ {
			crossing := 0
			for _, i := range layers[k] {
				crossing += len(l.blocks[i].up)
			}
			if d := crossing*4 + max(k-ideal, ideal-k); d < best {
				best, at, fewest = d, k, crossing
			}
		}
		if fewest <= 3 { // a knot is not cut
			cuts = append(cuts, at)
		}
	}
	return append(cuts, n)
}

// spread sets x: each block wants to stand at the middle of its neighbours, and
// those of one layer keep their order and distance.
func (l *layout) spread(part [][]int) {
	in := map[int]bool{}
	for _, layer := range part {
		at := 0.0
		for _, i := range layer {
			in[i] = true
			b := &l.blocks[i]
			b.x = at + b.w/2
			at += b.w + gapX
		}
		for _, i := range layer {
			l.blocks[i].x -= at / 2
		}
	}
	for round := range 16 {
		for k := range part {
			layer := part[k]
			if round%2 == 1 {
				layer = part[len(part)-1-k]
			}
			want := make([]float64, len(layer))
			for j, i := range layer {
				b := &l.blocks[i]
				near := b.up
				if round%2 == 1 {
					near = b.down
				}
				if round >= 12 {
					near = append(slices.Clone(b.up), b.down...)
				}
				sum, n := 0.0, 0.0
				for _, o := range near {
					if in[o] {
						sum += l.blocks[o].x
						n++
					}
				}
				want[j] = b.x
				if n > 0 {
					want[j] = sum / n
				}
			}
			l.fit(layer, want)
		}
	}
}

// fit gives the blocks of a layer the places nearest to the wanted ones that keep
// order and distance (pool adjacent violators, on the places less the widths).
func (l *layout) fit(layer []int, want []float64) {
	type pool struct{ sum, n float64 }
	var pools []pool
	offset := make([]float64, len(layer))
	for j := range layer {
		if j > 0 {
			a, b := &l.blocks[layer[j-1]], &l.blocks[layer[j]]
			offset[j] = offset[j-1] + (a.w+b.w)/2 + gapX
		}
		pools = append(pools, pool{want[j] - offset[j], 1})
		for len(pools) > 1 {
			p, q := pools[len(pools)-2], pools[len(pools)-1]
			if p.sum/p.n <= q.sum/q.n {
				break
			}
			pools = append(pools[:len(pools)-2], pool{p.sum + q.sum, p.n + q.n})
		}
	}
	j := 0
	for _, p := range pools {
		for range int(p.n) {
			l.blocks[layer[j]].x = p.sum/p.n + offset[j]
			j++
		}
	}
}

// route turns a path of blocks into points.
func (l *layout) route(path []int) route {
	r := route{from: path[0], to: path[len(path)-1]}
	for k, i := range path {
		b := &l.blocks[i]
		switch {
		case k == 0:
			r.points = append(r.points, point{l.port(i, path[1], b.down), b.y + b.h})
		case k == len(path)-1:
			r.points = append(r.points, point{l.port(i, path[k-1], b.up), b.y})
		default:
			r.points = append(r.points, point{b.x, b.y}, point{b.x, b.y + b.h})
		}
	}
	for k := range r.points[1:] {
		if r.points[k+1].y < r.points[k].y {
			r.across = true
		}
	}
	return r
}

// port spreads the edges of a block along its middle third, in the order of
// where they lead.
func (l *layout) port(i, to int, all []int) float64 {
	b := &l.blocks[i]
	if len(all) < 2 {
		return b.x
	}
	rank := 0
	for _, o := range all {
		if l.blocks[o].x < l.blocks[to].x || l.blocks[o].x == l.blocks[to].x && o < to {
			rank++
		}
	}
	wide := min(b.w/3, float64(len(all)-1)*14)
	return b.x - wide/2 + wide*float64(rank)/float64(len(all)-1)
}

// textWidth estimates a text in a proportional font of that size.
func textWidth(s string, size float64) float64 {
	w := 0.0
	for _, r := range s {
		switch {
		case strings.ContainsRune("iljtfI.,:;|!'()[]{} ", r):
			w += 0.34
		case strings.ContainsRune("mwMW@%", r):
			w += 0.88
		case r >= 0x1100:
			w += 1
		case r >= 'A' && r <= 'Z':
			w += 0.68
		default:
			w += 0.56
		}
	}
	return w * size
}

// shorten cuts a text that is wider than there is room.
func shorten(s string, size, room float64) string {
	if textWidth(s, size) <= room {
		return s
	}
	runes := []rune(s)
	for len(runes) > 1 && textWidth(string(runes)+"…", size) > room {
		runes = runes[:len(runes)-1]
	}
	return strings.TrimRight(string(runes), " ") + "…"
}
