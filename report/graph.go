package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/workflow"
)

// Graph is a plan as a picture needs it; of a run it has the statuses too.
type Graph struct {
	Title string
	Note  string // below the title: how many steps, or what became of the run
	Nodes []GraphNode
	Edges [][2]int // from, to: to waits for from
}

// GraphNode is one step.
type GraphNode struct {
	ID      string
	Note    string // name, or what it runs, in a few words
	Kind    string
	If      string
	Status  engine.StepStatus // "" for a plan
	Finally bool
	// Join is what some of its edges are enough for ("1 of 2"), "" for all of them.
	Join string
	// Inside are the steps of a group or of a called file, nil for none; Loop says how
	// often they run ("each", "repeated").
	Inside *Graph
	Loop   string
}

// GraphOf turns a plan into its graph. statuses are a run's by step id, nil for a
// plan alone.
func GraphOf(p *workflow.Plan, statuses map[string]engine.StepStatus) Graph {
	g := listGraph(p.Nodes, "", statuses)
	g.Title, g.Note = p.Workflow.Name, count(len(p.Nodes), "step")
	return g
}

// listGraph is the graph of a list; prefix stands before the names of its steps in
// records.
func listGraph(nodes []workflow.Node, prefix string, statuses map[string]engine.StepStatus) Graph {
	var g Graph
	for i := range nodes {
		n := &nodes[i]
		s := n.Step
		at := GraphNode{ID: s.ID, Note: nodeNote(s), Kind: string(s.Kind), If: source(s.If), Status: shown(statuses[prefix+s.ID]), Finally: n.Finally}
		if s.Join != nil {
			at.Join = fmt.Sprintf("%d of %d", s.Join.Count, len(s.Needs))
		}
		for ; n.Role == workflow.RoleForeach || n.Role == workflow.RoleRepeat; n = &n.Body[0] {
			at.Loop = map[workflow.Role]string{workflow.RoleForeach: "each", workflow.RoleRepeat: "repeated"}[n.Role]
		}
		if len(n.Body) > 0 {
			below := prefix
			if n.Role == workflow.RoleCall {
				below += s.ID + "."
			}
			inside := statuses
			if at.Loop != "" {
				inside = nil // there are many of each
			}
			sub := listGraph(n.Body, below, inside)
			at.Inside = &sub
		}
		g.Nodes = append(g.Nodes, at)
		for _, j := range nodes[i].Needs {
			g.Edges = append(g.Edges, [2]int{j, i})
		}
	}
	g.reduce()
	return g
}

// caption of a box with steps in it.
func (n *GraphNode) caption() string {
	text := clean(n.ID)
	if n.Loop != "" {
		text += " · " + n.Loop
	}
	return text
}

// shown is the status as a picture has it: what has not begun has none.
func shown(s engine.StepStatus) engine.StepStatus {
	if s == engine.StepPending {
		return ""
	}
	return s
}

// reduce drops edges that a longer way says already. It looks at direct
// detours only where that is cheap: a picture, not a proof, needs it.
func (g *Graph) reduce() {
	if len(g.Edges) > 20000 {
		return
	}
	needs := make([]map[int]bool, len(g.Nodes))
	for i := range needs {
		needs[i] = map[int]bool{}
	}
	for _, e := range g.Edges {
		needs[e[1]][e[0]] = true
	}
	g.Edges = slices.DeleteFunc(g.Edges, func(e [2]int) bool {
		if g.Nodes[e[1]].Join != "" {
			return false // it says of which steps some are enough
		}
		for via := range needs[e[1]] {
			if via != e[0] && needs[via][e[0]] {
				return true
			}
		}
		return false
	})
}

func nodeNote(s *workflow.Step) string {
	text := workWords(s)
	if s.Foreach != nil {
		text = "each · " + text
	}
	if s.Repeat != nil {
		text = "repeated · " + text
	}
	return text
}

// workWords is what a step does, in a few words.
func workWords(s *workflow.Step) string {
	switch {
	case s.Name != "":
		return clean(s.Name)
	case len(s.Steps) > 0:
		return count(len(s.Steps), "step")
	case s.Call != nil:
		return "calls " + clean(s.Call.Path)
	case s.Agent != nil:
		return "agent · " + s.Agent.Provider
	case s.Run != nil && s.Run.Script != nil:
		for line := range strings.Lines(s.Run.Script.Source()) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				return clean(line)
			}
		}
	case s.Run != nil:
		var words []string
		for _, a := range s.Run.Argv {
			words = append(words, a.Source())
		}
		return clean(strings.Join(words, " "))
	}
	if s.Approve != nil {
		return clean(s.Approve.Message.Source())
	}
	return string(s.Kind)
}

// GraphMermaid writes a flowchart for Markdown pages that draw Mermaid.
func GraphMermaid(w io.Writer, g Graph) error {
	var b strings.Builder
	b.WriteString("flowchart TD\n")
	text := strings.NewReplacer(`"`, "#quot;", "<", "#lt;", ">", "#gt;", "\n", " ")
	mermaidList(&b, &g, "n", "  ", text)
	for _, s := range statusOrder {
		if g.has(s) {
			fmt.Fprintf(&b, "  classDef %s stroke:%s,stroke-width:2px\n", s, statusColor[s])
		}
	}
	return writeAll(w, b.String())
}

// has: a step of the graph, or inside one, has the status.
func (g *Graph) has(s engine.StepStatus) bool {
	return slices.ContainsFunc(g.Nodes, func(n GraphNode) bool { return n.Status == s || n.Inside != nil && n.Inside.has(s) })
}

// mermaidList writes the nodes and edges of a list; a group is a subgraph with its
// steps, and what waits for it has an edge from its box.
func mermaidList(b *strings.Builder, g *Graph, id, indent string, text *strings.Replacer) {
	finally := false
	for i := range g.Nodes {
		n := &g.Nodes[i]
		if n.Finally && !finally {
			finally = true
			b.WriteString(indent + "subgraph finally\n")
		}
		label := text.Replace(n.caption())
		if n.Join != "" {
			label += "<br/><i>when " + n.Join + " succeeded</i>"
		}
		if n.If != "" {
			label += "<br/><i>if " + text.Replace(clean(n.If)) + "</i>"
		}
		name := fmt.Sprint(id, i)
		if n.Inside != nil {
			fmt.Fprintf(b, "%ssubgraph %s[\"%s\"]\n", indent, name, label)
			mermaidList(b, n.Inside, name+"_", indent+"  ", text)
			b.WriteString(indent + "end\n")
			if n.Status != "" {
				fmt.Fprintf(b, "%sclass %s %s\n", indent, name, n.Status)
			}
			continue
		}
		open, end := "[", "]"
		switch workflow.Kind(n.Kind) {
		case workflow.KindAgent:
			open, end = "([", "])"
		case workflow.KindApprove:
			open, end = "{{", "}}"
		}
		fmt.Fprintf(b, "%s%s%s\"%s\"%s", indent, name, open, label, end)
		if n.Status != "" {
			b.WriteString(":::" + string(n.Status))
		}
		b.WriteString("\n")
	}
	if finally {
		b.WriteString(indent + "end\n")
	}
	for _, e := range g.Edges {
		arrow := "-->"
		if g.Nodes[e[1]].Join != "" {
			arrow = "-.->"
		}
		fmt.Fprintf(b, "%s%s%d %s %s%d\n", indent, id, e[0], arrow, id, e[1])
	}
}

// GraphDot writes the graph for Graphviz.
func GraphDot(w io.Writer, g Graph) error {
	var b strings.Builder
	quote := func(s string) string {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
	}
	fmt.Fprintf(&b, "digraph %s {\n  rankdir=TB;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n", quote(clean(g.Title)))
	dotList(&b, &g, "n", "  ", quote)
	b.WriteString("}\n")
	return writeAll(w, b.String())
}

// dotList writes the nodes and edges of a list; a group is a cluster around its own
// node and its steps.
func dotList(b *strings.Builder, g *Graph, id, indent string, quote func(string) string) {
	for i := range g.Nodes {
		n := &g.Nodes[i]
		label := n.caption()
		if n.Join != "" {
			label += "\nwhen " + n.Join + " succeeded"
		}
		if n.If != "" {
			label += "\nif " + clean(n.If)
		}
		name, inner := fmt.Sprint(id, i), indent
		if n.Inside != nil {
			inner += "  "
			fmt.Fprintf(b, "%ssubgraph cluster_%s {\n%sstyle=rounded; color=\"#8b95a3\";\n", indent, name, inner)
		}
		fmt.Fprintf(b, "%s%s [label=%s", inner, name, quote(label))
		if n.Status != "" {
			fmt.Fprintf(b, ", color=%s, penwidth=2", quote(statusColor[n.Status]))
		}
		if n.Finally {
			b.WriteString(", style=\"rounded,dashed\"")
		}
		if n.Inside != nil {
			b.WriteString(", shape=plaintext")
		}
		b.WriteString("];\n")
		if n.Inside != nil {
			dotList(b, n.Inside, name+"_", inner, quote)
			b.WriteString(indent + "}\n")
		}
	}
	for _, e := range g.Edges {
		style := ""
		if g.Nodes[e[1]].Join != "" {
			style = " [style=dashed]"
		}
		fmt.Fprintf(b, "%s%s%d -> %s%d%s;\n", indent, id, e[0], id, e[1], style)
	}
}

// GraphText draws the graph for a terminal: each step below the last of those
// that it waits for, the others named beside it.
func GraphText(w io.Writer, g Graph, s Style) error {
	s = s.withDefaults()
	var b strings.Builder
	fmt.Fprintln(&b, s.paint(toneName, clean(g.Title))+s.glyphs().sep+g.Note)
	g.drawText(&b, s, "")
	return writeAll(w, b.String())
}

// drawText draws a list behind a margin; what is inside a step follows below it.
func (g *Graph) drawText(b *strings.Builder, s Style, margin string) {
	needs := make([][]int, len(g.Nodes))
	for _, e := range g.Edges {
		needs[e[1]] = append(needs[e[1]], e[0])
	}
	branch, last, down, bar := "├─ ", "└─ ", "│  ", "┃ "
	if s.ASCII {
		branch, last, down, bar = "|- ", "`- ", "|  ", ": "
	}
	level := g.levels()
	children := make([][]int, len(g.Nodes))
	var roots []int
	for i := range g.Nodes {
		if len(needs[i]) == 0 {
			roots = append(roots, i)
			continue
		}
		parent := slices.MaxFunc(needs[i], func(a, b int) int { return level[a] - level[b] })
		children[parent] = append(children[parent], i)
	}
	line := func(i, parent int, prefix, below string) {
		n := g.Nodes[i]
		text := margin + prefix + s.paint(toneName, clean(n.ID)) + s.paint(toneDim, "  "+n.Kind)
		if n.Loop != "" {
			text += s.paint(toneDim, " "+n.Loop)
		}
		if n.Status != "" {
			text += "  " + string(n.Status)
		}
		if n.Join != "" {
			text += s.paint(toneDim, "  when "+n.Join+" succeeded")
		}
		if n.If != "" {
			text += s.paint(toneDim, "  if "+clean(n.If))
		}
		var also []string
		for _, j := range needs[i] {
			if j != parent {
				also = append(also, clean(g.Nodes[j].ID))
			}
		}
		if len(also) > 0 {
			text += s.paint(toneDim, "  also after "+list(also, 6))
		}
		fmt.Fprintln(b, s.clip(text, s.Width))
		if n.Inside != nil {
			n.Inside.drawText(b, s, margin+below+bar)
		}
	}
	// A chain stays at its margin, only what lies beside something is indented: a
	// thousand steps in a row are a thousand lines and not a staircase.
	var draw func(i, parent int, prefix, below string)
	draw = func(i, parent int, prefix, below string) {
		line(i, parent, prefix, below)
		for len(children[i]) == 1 {
			parent, i = i, children[i][0]
			line(i, parent, below, below)
		}
		for k, c := range children[i] {
			if k == len(children[i])-1 {
				draw(c, i, below+last, below+"   ")
			} else {
				draw(c, i, below+branch, below+down)
			}
		}
	}
	finally := false
	for _, i := range roots {
		if g.Nodes[i].Finally && !finally {
			finally = true
			fmt.Fprintln(b, margin+s.paint(toneDim, "finally:"))
		}
		draw(i, -1, "", "")
	}
}

// levels is the length of the longest way to each node, from 0.
func (g *Graph) levels() []int {
	level, open := make([]int, len(g.Nodes)), make([]int, len(g.Nodes))
	next := make([][]int, len(g.Nodes))
	for _, e := range g.Edges {
		open[e[1]]++
		next[e[0]] = append(next[e[0]], e[1])
	}
	var ready []int
	for i := range open {
		if open[i] == 0 {
			ready = append(ready, i)
		}
	}
	for len(ready) > 0 {
		i := ready[0]
		ready = ready[1:]
		for _, j := range next[i] {
			level[j] = max(level[j], level[i]+1)
			if open[j]--; open[j] == 0 {
				ready = append(ready, j)
			}
		}
	}
	return level
}

var statusOrder = []engine.StepStatus{engine.StepSucceeded, engine.StepFailed, engine.StepTimedOut, engine.StepIsSkipped, engine.StepIsNotRun, engine.StepCancelled, engine.StepInterrupted, engine.StepRunning, engine.StepRetrying, engine.StepWaiting}

// statusColor of borders and marks; readable on white and on black.
var statusColor = map[engine.StepStatus]string{
	engine.StepSucceeded: "#1a9e5c", engine.StepFailed: "#d3363b", engine.StepTimedOut: "#d3363b", engine.StepIsSkipped: "#8b95a3",
	engine.StepIsNotRun: "#8b95a3", engine.StepCancelled: "#c77d0a", engine.StepRunning: "#2f6fdf",
	engine.StepRetrying: "#2f6fdf", engine.StepInterrupted: "#c77d0a", engine.StepWaiting: "#c77d0a",
}

func writeAll(w io.Writer, s string) error {
	if _, err := io.WriteString(w, s); err != nil {
		return fmt.Errorf("write graph: %w", err)
	}
	return nil
}
