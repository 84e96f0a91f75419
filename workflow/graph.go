package workflow

import "strings"

// graph is the order of one list of steps while a file is parsed: explicit needs,
// or - where they are absent - everything above. Nodes 0 … n-1 are
// the steps; node n+i is "all steps above i in its list", an edge to i-1 and to
// node n+i-1, so that 10,000 steps in a row have 20,000 edges and not 50 million.
type graph struct {
	n   int
	on  [][]int
	has []bool
	at  []Pos
	// open: the step starts before all that it names has ended (any, count).
	open []bool

	// Set by close. rank is a topological order; tree and last number a spanning
	// forest of edges, so that most questions are answered by comparing two numbers.
	rank, tree, last []int
	asked            []int // by node: the question that saw it last
	question         int
}

func newGraph(n int) *graph {
	return &graph{n: n, on: make([][]int, n), has: make([]bool, n), at: make([]Pos, n), open: make([]bool, n)}
}

func (g *graph) set(i int, on []int, at Pos) { g.on[i], g.has[i], g.at[i] = on, true, at }

// join sets what a step names of which some are enough. all: it starts once all of
// them have ended nevertheless.
func (g *graph) join(i int, on []int, at Pos, all bool) {
	g.set(i, on, at)
	g.open[i] = !all && len(on) > 1
}

// joins: step i names j among those of which some are enough. It may look at j, which
// has ended or not.
func (g *graph) joins(i, j int) bool {
	if i < 0 || i >= g.n || !g.open[i] {
		return false
	}
	for _, y := range g.on[i] {
		if y == j {
			return true
		}
	}
	return false
}

// firm is edge without what a step need not wait for.
func (g *graph) firm(x, k int) int {
	if x < g.n && g.open[x] {
		return -1
	}
	return g.edge(x, k)
}

// edge returns the k-th node that x waits for, -1 after the last.
func (g *graph) edge(x, k int) int {
	i := x
	if x >= g.n {
		i = x - g.n
	}
	switch {
	case x < g.n && g.has[x]:
		if k < len(g.on[x]) {
			return g.on[x][k]
		}
	case x < g.n:
		if k == 0 && i > 0 {
			return x + g.n
		}
	case i > 0 && k == 0:
		return i - 1
	case i > 1 && k == 1:
		return x - 1
	}
	return -1
}

// walk visits every node after all that it waits for. onCycle is told the path
// of each cycle, its first member at the front.
func (g *graph) walk(done func(x int), onCycle func(path []int)) {
	const onPath, finished = 1, 2
	state := make([]byte, 2*g.n)
	type frame struct{ x, k int }
	var path []frame
	for root := range 2 * g.n {
		if state[root] != 0 {
			continue
		}
		path = append(path[:0], frame{x: root})
		state[root] = onPath
		for len(path) > 0 {
			top := &path[len(path)-1]
			y := g.edge(top.x, top.k)
			top.k++
			switch {
			case y < 0:
				state[top.x] = finished
				done(top.x)
				path = path[:len(path)-1]
			case state[y] == 0:
				state[y] = onPath
				path = append(path, frame{x: y})
			case state[y] == onPath:
				var members []int
				for i := len(path) - 1; i >= 0; i-- {
					members = append(members, path[i].x)
					if path[i].x == y {
						break
					}
				}
				for i, j := 0, len(members)-1; i < j; i, j = i+1, j-1 {
					members[i], members[j] = members[j], members[i]
				}
				onCycle(members)
			}
		}
	}
}

// close prepares the questions of before. Call it once all needs are set.
func (g *graph) close() {
	size := 2 * g.n
	g.rank, g.tree, g.last, g.asked = make([]int, size), make([]int, size), make([]int, size), make([]int, size)
	order := make([]int, 0, size)
	g.walk(func(x int) {
		g.rank[x] = len(order)
		order = append(order, x)
	}, func([]int) {})
	// Each node hangs below one that it waits for (the last to end), so that "is
	// above it in the tree" implies "ends before it".
	child := make([]int, size+1) // first child + 1; index size is the root
	next := make([]int, size)
	for i := size - 1; i >= 0; i-- {
		x, parent := order[i], size
		for k := 0; ; k++ {
			y := g.firm(x, k)
			if y < 0 {
				break
			}
			if g.rank[y] < g.rank[x] && (parent == size || g.rank[y] > g.rank[parent]) {
				parent = y
			}
		}
		next[x], child[parent] = child[parent], x+1
	}
	count := 0
	stack := []int{size}
	for len(stack) > 0 {
		x := stack[len(stack)-1]
		if x < size && g.tree[x] != 0 && child[x] == 0 {
			g.last[x] = count
			stack = stack[:len(stack)-1]
			continue
		}
		if x < size && g.tree[x] == 0 {
			count++
			g.tree[x] = count
		}
		if c := child[x]; c != 0 {
			child[x] = next[c-1]
			stack = append(stack, c-1)
			continue
		}
		if x == size {
			break
		}
	}
}

// before tells whether step j has ended when step i starts.
func (g *graph) before(i, j int) bool {
	if i == j {
		return false
	}
	if !g.has[i] && j < i {
		return true
	}
	g.question++
	stack := []int{i}
	for len(stack) > 0 {
		x := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if x == j || g.tree[j] <= g.tree[x] && g.tree[x] <= g.last[j] {
			return true
		}
		for k := 0; ; k++ {
			y := g.firm(x, k)
			if y < 0 {
				break
			}
			// What ended before j cannot have waited for it.
			if g.rank[y] >= g.rank[j] && g.asked[y] != g.question {
				g.asked[y] = g.question
				stack = append(stack, y)
			}
		}
	}
	return false
}

// cycles reports each cycle of needs within a list once, at one of its members.
func (p *fileParser) cycles(l *stepList) {
	g := l.graph
	names := make([]string, g.n)
	for id, i := range p.ids {
		if i >= l.base && i < l.base+l.n {
			names[i-l.base] = id
		}
	}
	g.walk(func(int) {}, func(path []int) {
		var words []string
		at := Pos{Line: 1, Col: 1}
		for _, x := range path {
			if x >= g.n {
				continue // "all above" is no step
			}
			words = append(words, names[x])
			if g.has[x] && at.Line == 1 {
				at = g.at[x]
			}
		}
		p.add("cycle", at, 1, "these steps wait for each other: %s → %s", strings.Join(words, " → "), words[0])
	})
}
