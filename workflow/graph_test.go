package workflow

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestBeforeIsReachability compares the answers with a plain search, on random
// graphs with needs that lead up and down, and absent ones.
func TestBeforeIsReachability(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		n := 1 + rng.IntN(12)
		g := newGraph(n)
		order := rng.Perm(n) // needs follow it, so that there is no cycle of explicit ones
		for at, i := range order {
			if rng.IntN(3) == 0 {
				continue
			}
			var on []int
			for _, j := range order[:at] {
				if rng.IntN(3) == 0 {
					on = append(on, j)
				}
			}
			g.set(i, on, Pos{})
		}
		cyclic := false
		g.walk(func(int) {}, func([]int) { cyclic = true })
		if cyclic {
			continue
		}
		g.close()
		for i := range n {
			seen := make([]bool, n)
			var reach func(x int)
			reach = func(x int) {
				on := g.on[x]
				if !g.has[x] {
					on = nil
					for j := range x {
						on = append(on, j)
					}
				}
				for _, j := range on {
					if !seen[j] {
						seen[j] = true
						reach(j)
					}
				}
			}
			reach(i)
			for j := range n {
				want := seen[j]
				if got := g.before(i, j); got != want {
					t.Fatalf("round %d: before(%d,%d) = %v, want %v; needs %v %v", round, i, j, got, want, g.on, g.has)
				}
			}
		}
	}
}

// TestCycleThroughAbsentNeeds: a step without needs waits for all above it, also
// for the one whose needs lead down to it.
func TestCycleThroughAbsentNeeds(t *testing.T) {
	t.Parallel()
	_, err := Parse("c.yaml", []byte("name: c\nsteps:\n- {id: a, needs: [c], run: x}\n- {id: b, needs: [], run: x}\n- {id: c, run: x}\n"), ParseOptions{})
	if err == nil || !strings.Contains(err.Error(), "wait for each other") {
		t.Fatalf("Parse: %v, want a cycle", err)
	}
}

// big is a file of n steps in a chain of explicit needs, each with a condition
// on the step before it and one on the first: the worst case of visibility.
func big(n int) []byte {
	var s strings.Builder
	s.WriteString("name: big\nsteps:\n")
	for i := range n {
		fmt.Fprintf(&s, "  - id: step_%d\n    name: Step %d\n    env: {A: \"${{ run.id }}\"}\n    run: |\n      echo step %d\n      make\n", i, i, i)
		if i > 0 {
			fmt.Fprintf(&s, "    needs: [step_%d]\n    if: steps.step_%d.exit_code == 0 && steps.step_0.attempts < 2\n", i-1, i-1)
		}
	}
	return []byte(s.String())
}

func BenchmarkParseChain10000(b *testing.B) {
	text := big(10000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("big.yaml", text, ParseOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
