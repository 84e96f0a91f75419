package workflow

import "strings"

// graph is the order of the steps while a file is parsed: explicit needs, or -
// where they are absent - everything above in the same list.
type graph struct {
	first int // number of `steps`; the rest is `finally`
	on    [][]int
	has   []bool
	at    []Pos
	// explicit are the steps with needs of their own, so that a file where every
	// step waits for all above it costs nothing to walk.
	explicit []int
}

func newGraph(n, first int) *graph {
	return &graph{first: first, on: make([][]int, n), has: make([]bool, n), at: make([]Pos, n)}
}

func (g *graph) set(i int, on []int, at Pos) {
	g.on[i], g.has[i], g.at[i] = on, true, at
	g.explicit = append(g.explicit, i)
}

// before tells which steps have ended when step i starts. A step in `finally`
// sees all steps, and the finally steps above it.
func (g *graph) before(i int) func(j int) bool {
	if i >= g.first {
		return func(j int) bool { return j < i }
	}
	// Follow explicit needs until a step without: it has everything above it.
	var seen map[int]bool
	above := -1
	return func(j int) bool {
		if seen == nil {
			seen = map[int]bool{}
			g.reach(i, seen, &above)
		}
		return j < above || seen[j]
	}
}

func (g *graph) reach(i int, seen map[int]bool, above *int) {
	if !g.has[i] {
		*above = max(*above, i)
		for _, j := range g.explicit {
			if j >= i {
				break
			}
			for _, k := range g.on[j] { // what those above need may stand further down
				if k > i && !seen[k] {
					seen[k] = true
					g.reach(k, seen, above)
				}
			}
		}
		return
	}
	for _, j := range g.on[i] {
		if !seen[j] {
			seen[j] = true
			g.reach(j, seen, above)
		}
	}
}

// edges of a step, absent needs included.
func (g *graph) edges(i int) []int {
	if g.has[i] {
		return g.on[i]
	}
	start := 0
	if i >= g.first {
		start = g.first
	}
	if i > start {
		return []int{i - 1} // and through it everything above, or through cycles' members
	}
	return nil
}

// cycles reports each cycle of needs once, at one of its members.
func (p *fileParser) cycles(g *graph) {
	names := make([]string, len(g.on))
	for id, i := range p.ids {
		names[i] = id
	}
	state := make([]byte, len(g.on)) // 0 new, 1 on the path, 2 done
	var path []int
	var visit func(i int)
	visit = func(i int) {
		state[i] = 1
		path = append(path, i)
		for _, j := range g.edges(i) {
			switch state[j] {
			case 0:
				visit(j)
			case 1:
				var words []string
				from := 0
				for k, x := range path {
					if x == j {
						from = k
					}
				}
				for _, x := range path[from:] {
					words = append(words, names[x])
				}
				p.add("cycle", g.placeOf(path[from:]), 1, "these steps wait for each other: %s → %s", strings.Join(words, " → "), names[j])
			}
		}
		path = path[:len(path)-1]
		state[i] = 2
	}
	for i := range g.on {
		if state[i] == 0 {
			visit(i)
		}
	}
}

func (g *graph) placeOf(members []int) Pos {
	for _, i := range members {
		if g.has[i] {
			return g.at[i]
		}
	}
	return Pos{Line: 1, Col: 1}
}

// scope of the expressions of step i; -1 is a place outside of steps.
func (p *fileParser) scope(i int, self, files bool) *scope {
	sc := &scope{inputs: p.w.Inputs, ids: p.ids, self: self, files: files}
	if sc.ids == nil {
		sc.ids = map[string]int{}
	}
	for _, e := range p.w.Env {
		sc.env = append(sc.env, e.Name)
	}
	if i < 0 {
		sc.visible = func(string) bool { return false }
	}
	return sc
}
